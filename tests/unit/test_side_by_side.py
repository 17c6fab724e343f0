"""Work side by side in threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from mmgen.families.in_memory import side_by_side


def test_lanes_run_at_once_and_each_keeps_its_order() -> None:
    meeting = threading.Barrier(3)

    def lane(number: int) -> Iterator[tuple[int, int]]:
        meeting.wait(30)  # all three are under way, or none goes on
        for i in range(20):
            yield number, i

    found = list(side_by_side([lane(number) for number in range(3)]))
    assert len(found) == 60
    for number in range(3):
        assert [i for which, i in found if which == number] == list(range(20))


def test_one_lane_needs_no_thread() -> None:
    assert list(side_by_side([iter([threading.get_ident()])])) == [threading.get_ident()]


def test_an_error_comes_out_after_what_was_made() -> None:
    def fails() -> Iterator[int]:
        yield 1
        raise ValueError("here")

    found: list[int] = []
    with pytest.raises(ValueError, match="here"):
        found.extend(side_by_side([fails(), iter([2, 3])]))
    assert sorted(found) == [1, 2, 3]


def test_whoever_stops_reading_stops_the_lanes() -> None:
    made = []

    def endless() -> Iterator[int]:
        while True:
            made.append(1)
            yield 1
            time.sleep(0.001)

    lanes = side_by_side([endless(), endless()])
    assert next(lanes) == 1
    lanes.close()  # type: ignore[attr-defined]
    n = len(made)
    time.sleep(0.05)
    assert len(made) == n
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mmgen-lane")]

"""What is measured on a processor is measured once, kept, and stands; where it cannot be kept it is not measured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import torch

from mmgen.checkpoints import tuning
from mmgen.checkpoints.tuning import choose, shortest
from mmgen.families.in_memory import in_threads, measure_threads


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("MMGEN_TUNE")
    monkeypatch.setenv("MMGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mmgen"


def ask(answers: Iterator[int], what: str = "threads", about: object = "a shape") -> list[int]:
    """Choose one number, which is 0 if it is fixed; else the next answer, if it is measured."""
    return choose(what, about, [0], lambda: [next(answers)])


def test_it_is_measured_once_for_each_question_and_shape(cache: Path) -> None:
    answers = count(1)
    assert [ask(answers), ask(answers)] == [[1], [1]]
    assert ask(answers, about="another shape") == [2]
    assert ask(answers, what="packing") == [3]
    assert ask(answers) == [1]
    assert len(list(cache.iterdir())) == 3, "and nothing is left beside"


@pytest.mark.parametrize("change", ["limit", "threads", "torch"])
def test_another_machine_is_measured_anew(cache: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    answers = count(1)
    assert ask(answers) == [1]
    with in_threads(torch.get_num_threads() + 1 if change == "threads" else 0), monkeypatch.context() as patched:
        if change == "limit":
            patched.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
        if change == "torch":
            patched.setattr(torch, "__version__", "another")
        assert ask(answers) == [2]
    assert ask(answers) == [1]


def test_with_tuning_off_nothing_is_measured_or_looked_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(count(1)) == [1]
    monkeypatch.setenv("MMGEN_TUNE", "off")
    assert ask(count(2)) == [0]


def test_where_it_cannot_be_kept_it_is_not_measured(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file, where the folder would be")
    answers = count(1)
    assert ask(answers) == [0]
    assert next(answers) == 1


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "[]", '["1"]', "[true]", "[1.5]", "{}", "null", "\xff\xfe[1]"])
def test_what_is_damaged_is_not_believed(cache: Path, content: str) -> None:
    ask(count(1))
    [place] = cache.iterdir()
    place.write_bytes(content.encode("latin-1"))
    assert ask(count(2)) == [0]


def test_of_two_that_measure_at_once_both_take_what_the_first_kept(cache: Path) -> None:
    def while_another_measures() -> list[int]:
        assert ask(iter([5])) == [5]
        return [7]

    assert choose("threads", "a shape", [0], while_another_measures) == [5]


def test_it_is_said_what_was_chosen(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mmgen")
    ask(iter([5]))
    assert caplog.messages == ["threads, as measured on this processor: [5]"]


class Clock:
    """A clock that stands still but for what is said to take long."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(tuning.time, "perf_counter", lambda: self.now)

    def taking(self, *seconds: float) -> Callable[[], None]:
        """Something that takes so long, each time the next; at last always the same."""
        left = list(seconds)

        def way() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return way


def test_of_each_way_the_shortest_time_counts_and_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    found = shortest([clock.taking(0.1, 3, 2, 4), clock.taking(9, 1, 5)], 20)
    assert found == pytest.approx([2, 1])


def test_what_takes_long_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert shortest([clock.taking(9, 50), clock.taking(9, 60)], 1) == pytest.approx([50, 60])


@pytest.mark.parametrize(
    ("most", "seconds", "expected"),
    [
        (2, lambda lanes, threads, rows, tokens: 1.0, (1, 2, 1)),  # no gain by threads, and none to lose by lanes
        (8, lambda lanes, threads, rows, tokens: rows * tokens / threads, (1, 8, 8)),  # as much by lanes as by threads
        (6, lambda lanes, threads, rows, tokens: 1 + abs(threads - 4), (4, 1, 4)),
        (8, lambda lanes, threads, rows, tokens: 1.0 + abs(threads - 2) + lanes, (2, 1, 2)),  # they share the memory
        (2, lambda lanes, threads, rows, tokens: 1.0 - 0.2 * (threads == 2), (1, 2, 1)),  # too little, if threads spin
        (1, lambda lanes, threads, rows, tokens: 1.0, (1, 1, 1)),
    ],
)
def test_threads_and_lanes_are_those_that_take_least(
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    seconds: Callable[[int, int, int, int], float],
    expected: tuple[int, int, int],
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    clock = Clock(monkeypatch)

    def at_once(*how: int) -> None:
        clock.now += seconds(*how)

    assert measure_threads(at_once, most) == expected


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with in_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with in_threads(0):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before

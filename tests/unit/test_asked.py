"""Who of a cluster's workers gets what next: nothing is lost, nothing is given twice, whoever dies."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from mmgen.engines.asked import Asked
from mmgen.request import WORDS, Request

REQUEST = Request(("a",), WORDS)


def stream(pauses: list[bool]) -> Iterator[Request | None]:
    """Give requests, with a pause after some."""
    for pauses_here in pauses:
        yield REQUEST
        if pauses_here:
            yield None


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 4), st.integers(1, 5), st.randoms(use_true_random=False))
def test_each_request_is_answered_once_whatever_dies(
    pauses: list[bool], n_workers: int, size: int, rng: Random
) -> None:
    asked = Asked(stream(pauses), size * n_workers, n_workers)
    workers: list[list[list[int]]] = [[] for _ in range(n_workers)]
    answered: list[int] = []
    requests: dict[int, Request] = {}
    while asked.pull() or any(workers):
        for depth in (0, 1):
            for worker in workers:
                if len(worker) == depth and (group := asked.next_group(depth)):
                    assert len(group) <= 2 * size or group[0][0] in requests
                    requests.update(group)
                    worker.append([number for number, _ in group])
        worker = max(workers, key=lambda each: (bool(each), rng.random()))
        first, *behind = worker
        if rng.random() < 0.2 and len(answered) < 1000:
            for group in behind:
                asked.back += [(number, requests[number]) for number in group]
            asked.alone += [(number, requests[number]) for number in first]
            worker.clear()
        else:
            asked.answered([(number, requests[number]) for number in worker.pop(0)])
            answered += first
    assert sorted(answered) == list(range(len(pauses)))
    assert asked.n_open == 0


def test_the_newest_is_never_far_ahead_of_the_oldest_that_is_not_answered() -> None:
    asked = Asked(iter([REQUEST] * 10_000), 4, 2)
    asked.pull()
    (first, *_) = asked.next_group(0)
    newest = 0
    while group := asked.next_group(0):
        newest = group[-1][0]
        asked.answered([each for each in group if each[0] != first[0]])
        asked.pull()
    assert newest < 100


def test_what_may_have_ended_its_worker_waits_for_one_that_has_nothing_else() -> None:
    asked = Asked(iter([REQUEST] * 4), 4, 1)
    asked.pull()
    group = asked.next_group(0)
    asked.alone += group
    assert asked.next_group(1) == []
    assert [len(asked.next_group(0)) for _ in group] == [1] * len(group)

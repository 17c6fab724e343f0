"""Work done in threads: ahead of who reads it, or side by side. Knows nothing else of the project."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

_WORKERS = 4  # threads; what they do here, reading and decoding pictures, runs side by side

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def ahead(make: Callable[[_Given], _Made], given: Iterable[_Given], n_ahead: int) -> Iterator[_Made]:
    """Apply a function in threads, a bounded number of steps ahead of who reads; results come in order."""
    with ThreadPoolExecutor(_WORKERS, "mmgen-reader") as readers:
        waiting: deque[Future[_Made]] = deque()
        try:
            for each in given:
                waiting.append(readers.submit(make, each))
                if len(waiting) > n_ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def side_by_side(lanes: Sequence[Iterator[_Made]]) -> Iterator[_Made]:
    """Run iterators in a thread each; what they give comes as it is made. One alone needs no thread."""
    if len(lanes) == 1:
        yield from lanes[0]
        return
    made: SimpleQueue[_Made | None] = SimpleQueue()
    stopping = Event()

    def run(lane: Iterator[_Made]) -> None:
        try:
            for each in lane:
                made.put(each)
                if stopping.is_set():
                    return
        finally:
            made.put(None)

    with ThreadPoolExecutor(len(lanes), "mmgen-lane") as runners:
        futures = [runners.submit(run, lane) for lane in lanes]
        try:
            n_running = len(lanes)
            while n_running:
                if (each := made.get()) is None:
                    n_running -= 1
                else:
                    yield each
        finally:
            stopping.set()
        for future in futures:
            future.result()

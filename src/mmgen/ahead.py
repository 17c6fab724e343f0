"""Work done ahead in threads, in order. Knows nothing else of the project."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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

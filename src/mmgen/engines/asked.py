"""What a cluster was asked and has not answered: who gets what next. Knows no engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import TypeAlias

from mmgen.request import Request

_AHEAD = 8  # groups a worker, by which the newest request may be ahead of the oldest that is not answered

Numbered: TypeAlias = tuple[int, Request]


@dataclass
class Asked:
    """The requests that are not answered, but for those that workers have.

    Attributes:
        most: that wait here.
        back: had been given to a worker that died before it began.
        alone: are answered one by one, as their worker may have died of them.
        deaths: of the workers that had a request, by its number.
    """

    requests: Iterator[Request | None]
    most: int
    n_workers: int
    waiting: deque[Numbered] = field(default_factory=deque)
    back: list[Numbered] = field(default_factory=list)
    alone: list[Numbered] = field(default_factory=list)
    deaths: dict[int, int] = field(default_factory=dict)
    _open: dict[int, None] = field(default_factory=dict)  # the numbers of all that are not answered, in order
    _n: int = 0

    @property
    def n_open(self) -> int:
        """How many are not answered."""
        return len(self._open)

    def pull(self) -> bool:
        """Pull requests as far as there is room; say whether any wait."""
        n_pauses = 0
        while len(self.waiting) < self.most and self._n - next(iter(self._open), self._n) < _AHEAD * self.most:
            try:
                request = next(self.requests)
            except StopIteration:
                break
            if request is not None:
                self.waiting.append((self._n, request))
                self._open[self._n] = None
                self._n += 1
                continue
            n_pauses += 1
            if n_pauses >= self.n_workers and self._open:  # one stands after each group
                break
        return bool(self.waiting or self.back or self.alone)

    def next_group(self, depth: int) -> list[Numbered]:
        """Take what a worker with so many groups gets next; smaller ones towards the end, so that all end together."""
        if self.alone:
            return [self.alone.pop(0)] if depth == 0 else []
        if self.back:
            group, self.back = self.back, []
            return group
        n = ceil(len(self.waiting) / self.n_workers)
        return [self.waiting.popleft() for _ in range(n)]

    def answered(self, group: Sequence[Numbered]) -> None:
        for number, _ in group:
            del self._open[number]

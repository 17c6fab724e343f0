"""A model whose weights are in this process: requests in groups, in halves where memory does not suffice.

Knows neither how a reply is computed nor any family.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch

from mmgen.ahead import side_by_side
from mmgen.checkpoints.catalog import Checkpoint
from mmgen.checkpoints.loading import ran_out_of_memory
from mmgen.errors import MmgenError, OutOfMemoryError
from mmgen.model import Abilities, Model
from mmgen.request import BOTH, Done, Piece, Request

_MOST_REQUESTS = 16  # in one group; more gain little, and the first result comes later

Numbered = tuple[int, Request]


class Prompter(Protocol):
    """Writes prompts for one checkpoint."""

    def check(self, request: Request) -> None:
        """Raise MmgenError if a request's prompt cannot be written, without looking at its pictures."""


class InMemoryModel(Model):
    """A loaded checkpoint.

    Args:
        is_small: it computes in one thread, and as many groups at once as there are cores: several threads would wait
            for each other more than they gain.

    Attributes:
        prompter: writes its prompts.
        most_rows: most requests of a batch.
        n_lanes: most batches at once.
    """

    prompter: Prompter
    most_rows = _MOST_REQUESTS

    def __init__(
        self, checkpoint: Checkpoint, abilities: Abilities, prompter: Prompter, *, is_small: bool = False
    ) -> None:
        self.name, self.revision, self.note = checkpoint.name, checkpoint.revision, checkpoint.note
        self.abilities, self.prompter = abilities, prompter
        self._is_small = is_small
        self.n_lanes = torch.get_num_threads() if is_small else 1

    @abstractmethod
    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Piece | Done]]:
        """Answer requests that are decoded alike: of one kind, and with equally many pictures.

        Yields:
            (index among them, its next piece, or the Done that ends it).

        Raises:
            MmgenError: one of them cannot be answered, or memory does not suffice for all.
        """

    def prepare(self, requests: Sequence[Request]) -> None:
        """Load what else these requests need."""

    def replies(self, requests: Iterable[Request | None]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        """Answer a stream of requests in groups; each gets what it would get alone."""
        for group in _groups(requests):
            self.prepare([request for _, request in group])
            n_lanes = min(self.n_lanes, len(group))
            yield from side_by_side([self._lane(group[first::n_lanes]) for first in range(n_lanes)])

    def _lane(self, group: Sequence[Numbered]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        """Answer a group, batch by batch of what is decoded alike."""
        alike: dict[object, list[Numbered]] = {}
        for number, request in group:
            try:
                self.abilities.check(self.name, request.want, [request])
                self.prompter.check(request)
            except MmgenError as error:
                yield number, error
                continue
            # Padding with pictures would not be without effect: where cross-attention finds nothing that it may look
            # at, before the first picture, it looks at all there is.
            kind = (request.want, request.text, request.image, request.completion, len(request.images))
            alike.setdefault(number if request.want == BOTH else kind, []).append((number, request))
        for batch in alike.values():
            for start in range(0, len(batch), self.most_rows):
                yield from self._batch(batch[start : start + self.most_rows])

    def _batch(self, batch: Sequence[Numbered]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        """Answer a batch; if it fails, what is left of it in halves: one bad request must not end the others.

        One request alone is answered piece by piece. The words of several come when a reply is whole, as they may have
        to be made anew.
        """
        left = {number: request for number, request in batch if not request.cancelled.is_set()}
        yield from ((number, Done("cancelled")) for number, _ in batch if number not in left)
        numbers, words = list(left), dict.fromkeys(left, "")
        try:
            for row, piece in self._computed(list(left.values())):
                number = numbers[row]
                if isinstance(piece, str) and len(numbers) > 1:
                    words[number] += piece
                    continue
                if isinstance(piece, Done):
                    del left[number]
                    if words[number]:
                        yield number, words[number]
                yield number, piece
        except MmgenError as error:
            if len(numbers) == 1:
                yield numbers[0], error
                return
        waiting = list(left.items())
        half = len(waiting) // 2
        for part in (waiting[:half], waiting[half:]):
            if part:
                yield from self._batch(part)

    def _computed(self, requests: Sequence[Request]) -> Iterator[tuple[int, Piece | Done]]:
        pieces = self.answer(requests)
        while requests:
            try:
                # For each piece anew: neither must leak to the caller in between.
                with torch.inference_mode(), self._threads():
                    found = next(pieces, None)
            except RuntimeError as error:
                if not ran_out_of_memory(error):
                    raise
                raise OutOfMemoryError(
                    f"{self.name} ran out of memory",
                    "ask for fewer at once, give smaller pictures, or try --quantize 4bit",
                ) from error
            if found is None:
                return
            yield found

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """Compute in one thread meanwhile, if the model is small."""
        if not self._is_small:
            yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _groups(requests: Iterable[Request | None]) -> Iterator[list[Numbered]]:
    """Pull requests, with their numbers, until there are enough for a group, nothing waits, or the stream ends."""
    group: list[Numbered] = []
    n_pulled = 0
    for request in requests:
        if request is not None:
            group.append((n_pulled, request))
            n_pulled += 1
        if group and (request is None or len(group) == _MOST_REQUESTS):
            yield group
            group = []
    if group:
        yield group

"""The contract every family keeps: requests in, pieces out. Knows no family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from mmgen.errors import MmgenError
from mmgen.request import Done, Kind, Piece, Request


class Model(ABC):
    """A loaded checkpoint.

    Attributes:
        name: what the user called it (alias, Hub id or folder).
        revision: the commit it was resolved to, where there is one.
        gives: what can come out of it.
        note: a line about itself that its users should see.
    """

    name: str
    revision: str | None
    gives: frozenset[Kind]
    note: str | None = None

    @abstractmethod
    def reply(self, request: Request) -> Iterator[Piece]:
        """Answer one request, piece by piece.

        Raises:
            MmgenError: the request cannot be answered (too long for the context, a picture from a model of words).
        """

    def replies(self, requests: Sequence[Request]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        """Answer many requests; each gets what it would get alone, and one that fails does not end the others.

        Yields:
            (index of the request, its next piece, or what ended it: Done or an error). The pieces of one request
            come in order; those of different requests may come in turn.
        """
        for index, request in enumerate(requests):
            try:
                for piece in self.reply(request):
                    yield index, piece
                yield index, Done()
            except MmgenError as error:
                yield index, error

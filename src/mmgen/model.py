"""The contract every family keeps: requests in, pieces out. Knows no family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from mmgen.errors import MmgenError, UsageError
from mmgen.request import BOTH, PICTURES, WORDS, Done, Kind, Picture, Piece, Request

_ABLE = "-m demo (built in), or a model of mmgen models that can"


@dataclass(frozen=True)
class Abilities:
    """What a model can be asked for; known before its weights are read.

    Attributes:
        gives: what can come out of it.
        varies: it can draw from a picture.
        mixes: it can answer in words and pictures together.
        negative_prompt, ratio: it has a use for these two of ImageSampling.
        asks: it takes questions, and not pictures alone.
        judge: a question, with {} for a prompt, whose yes or no says whether a picture shows it.
    """

    gives: frozenset[Kind] = BOTH
    varies: bool = True
    mixes: bool = True
    negative_prompt: bool = False
    ratio: bool = False
    asks: bool = True
    judge: str | None = None

    @property
    def tasks(self) -> list[str]:
        """The tasks that it is good for, as mmgen.tasks names them."""
        draws = self.gives >= PICTURES
        able = {"draw": draws, "vary": draws and self.varies, "interleave": draws and self.mixes}
        return ["caption", *["ask"] * self.asks, *(task for task, possible in able.items() if possible)]

    def check(self, name: str, want: frozenset[Kind], requests: Sequence[Request] = ()) -> None:
        """Raise MmgenError if the model of this name cannot do what is wanted."""
        for wanted in (want, *(request.want for request in requests)):
            if not wanted <= self.gives:
                raise MmgenError(
                    f"{name} cannot draw: it describes pictures and has no decoder to make them", f"draw with {_ABLE}"
                )
            if wanted == BOTH and not self.mixes:
                raise MmgenError(
                    f"{name} answers in words or with a picture, not with both in one reply",
                    f"interleave with {_ABLE}",
                )
        for request in requests:
            has_pictures = any(not isinstance(part, str) for part in request.parts)
            if request.want != WORDS and has_pictures and not self.varies:
                message = f"{name} draws from words alone, not from a picture, unless it is edited (--strength)"
                raise MmgenError(message, f"vary with {_ABLE}")
            if request.want >= PICTURES and request.image.negative_prompt is not None and not self.negative_prompt:
                raise UsageError(f"{name} has no use for a negative prompt", "leave --negative-prompt out")
            if request.want >= PICTURES and request.image.ratio is not None and not self.ratio:
                raise UsageError(f"{name} draws pictures of one shape: it has no use for a ratio", "leave --ratio out")


class Model(ABC):
    """A loaded checkpoint.

    Attributes:
        name: what the user called it (alias, Hub id or folder).
        revision: the commit it was resolved to, where there is one.
        abilities: what it can be asked for.
        note: a line about itself that its users should see.
        takes_unread: pictures among the parts of a request may be unread (inputs.images.open_unread).
        takes_turns: several streams of `replies` may be under way at once, a step of each in turn.
    """

    name: str
    revision: str | None
    abilities: Abilities
    note: str | None = None
    takes_unread: bool = False
    takes_turns: bool = False

    def __repr__(self) -> str:
        return f"<Model {self.name}: {', '.join(self.abilities.tasks)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 -- most hold nothing
        """Give memory back; asked again, it is loaded again."""

    @property
    def identity(self) -> str:
        """Say which weights these are, in the keys of journals."""
        return f"{self.name}@{self.revision}"

    def check(self, request: Request) -> None:
        """Refuse, before anything is asked, what cannot be asked of it.

        Raises:
            MmgenError: it cannot.
        """
        self.abilities.check(self.name, request.want, [request])

    def kind(self, request: Request) -> object:
        """Say which requests are answered alike, and better together: those for which this is equal."""
        return request.want

    @abstractmethod
    def replies(self, requests: Iterable[Request | None]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        """Answer a stream of requests; each gets what it would get alone, and one that fails does not end the others.

        Args:
            requests: pulled as the model has room for them. None says that nothing waits just now.

        Yields:
            (number of the request, None not counted; its next piece, or what ends it: one Done or one error). The
            pieces of one request come in order; those of different requests may come in turn.
        """

    def score(self, request: Request, answers: Sequence[str | Picture]) -> list[float]:
        """Say how likely whole answers are: the logarithm of each one's probability, in nats.

        It is that of sampling at temperature 1, nothing cut, without guidance. Words count with the end after them, so
        that a long answer can be compared with its own beginning; a picture counts by its codes.

        Args:
            request: wants what the answers are.
            answers: all words, or all pictures that this model drew.

        Raises:
            MmgenError: the model cannot tell, or the request cannot be answered so.
        """
        raise MmgenError(f"{self.name} cannot say how likely an answer is", "use another model")

    def margin(self, request: Request, codes: Sequence[int], place: int) -> float:
        """Say how far a picture is from having the next of these codes after the first `place` of them, in nats.

        Raises:
            MmgenError: the model cannot tell.
        """
        raise MmgenError(f"{self.name} cannot say how near another picture was", "use another model")

    def reply(self, request: Request) -> Iterator[Piece]:
        """Answer one request, piece by piece.

        Raises:
            MmgenError: the request cannot be answered (too long for the context, a picture from a model of words).
        """
        for _, piece in self.replies([request]):
            if isinstance(piece, MmgenError):
                raise piece
            if not isinstance(piece, Done):
                yield piece

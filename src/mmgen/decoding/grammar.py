"""Which token may follow which: words, or begin-image, exactly N codes, end-of-image. Knows no tensors.

A picture inside a text is `begin-image, N codes, end-of-image` and nothing else; a picture that would not fit into the
context cannot begin. Outside a picture codes and end-of-image never occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from mmgen.request import Reason, Request

_Code = TypeVar("_Code")


@dataclass(frozen=True)
class Canvas:
    """The places of a picture in row-major order: its codes, and what stands between their rows, if anything."""

    rows: int
    columns: int
    row_end: int | None = None

    @property
    def n_codes(self) -> int:
        return self.rows * self.columns

    @property
    def n_places(self) -> int:
        return self.n_codes if self.row_end is None else self.n_codes + self.rows - 1

    def is_row_end(self, place: int) -> bool:
        """Say whether a place is between two rows."""
        return self.row_end is not None and place % (self.columns + 1) == self.columns

    def lay_out(self, codes: Sequence[_Code], row_end: _Code) -> list[_Code]:
        """Put codes, or what stands for them, into their places: `row_end` between their rows, if anything is there."""
        laid_out: list[_Code] = []
        for at, code in enumerate(codes):
            if at and self.row_end is not None and at % self.columns == 0:
                laid_out.append(row_end)
            laid_out.append(code)
        return laid_out


@dataclass(frozen=True)
class Vocabulary:
    """The ids that carry structure.

    Attributes:
        size: number of ids that words are made of, and logits are for.
        bos: begin of text.
        ends: what ends a reply.
        begin_image, end_image, placeholder: around a picture, and the stand-in for one code in a text prompt.
        code_ids: code_ids[c] is the id of VQ code c.
        canvas: of a picture, unless the prompt says another.
    """

    size: int
    bos: int
    ends: frozenset[int]
    begin_image: int
    end_image: int
    placeholder: int
    code_ids: tuple[int, ...]
    canvas: Canvas


@dataclass(frozen=True)
class PromptIds:
    """A prompt as ids.

    Attributes:
        ids: all of it.
        images: the pictures alone, each from begin-image to end-of-image.
        unconditional: ids before a picture in the row that guidance leads away from; if empty, a bos alone.
        canvas: of the picture to draw; None is the vocabulary's.
    """

    ids: tuple[int, ...]
    images: tuple[tuple[int, ...], ...] = ()
    unconditional: tuple[int, ...] = ()
    canvas: Canvas | None = None


Step = Literal["words", "words or a picture", "end"]


@dataclass
class Grammar:
    """Says which tokens may come next in the reply to one request.

    Attributes:
        context: most positions, prompt included.
        n_chosen: tokens that were chosen outside of images.
        n_words: those of them that are words: neither an end nor begin-image.
        reason: why the reply ended, once it has.
    """

    vocabulary: Vocabulary
    request: Request
    context: int
    n_chosen: int = 0
    n_words: int = 0
    reason: Reason | None = None

    def next(self, n_used: int) -> Step:
        """Say what may follow when `n_used` positions are taken."""
        room = self.context - n_used
        if self.reason is None and self.request.cancelled.is_set():
            self.reason = "cancelled"
        if self.reason is None and (room < 1 or self.n_chosen == self.request.text.max_tokens):
            self.reason = "length"
        if self.reason is not None:
            return "end"
        image_fits = "image" in self.request.want and room >= self.vocabulary.canvas.n_codes + 2
        return "words or a picture" if image_fits else "words"

    def saw_word(self, id_: int) -> None:
        """Take note of a token outside images; an end ends the reply."""
        self.n_chosen += 1
        if id_ in self.vocabulary.ends:
            self.reason = "end"
        elif id_ != self.vocabulary.begin_image:
            self.n_words += 1


def forbidden(vocabulary: Vocabulary, step: Step) -> list[int]:
    """List the ids that may not be said where words stand."""
    v = vocabulary
    ids = [*v.code_ids, v.end_image, v.placeholder, *([] if step == "words or a picture" else [v.begin_image])]
    return [id_ for id_ in ids if id_ < v.size]

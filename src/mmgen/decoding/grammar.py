"""Which token may follow which: words, or begin-image, exactly N codes, end-of-image. Knows no tensors.

A picture inside a text is `begin-image, N codes, end-of-image` and nothing else; a picture that would not fit into the
context cannot begin. Outside a picture codes and end-of-image never occur.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmgen.request import Reason, Request

_LETTERS = str.maketrans("ABCDEFGHIJ", "0123456789")


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


@dataclass(frozen=True)
class Vocabulary:
    """The ids that carry structure.

    Attributes:
        size: number of ids.
        bos, eos, end_of_turn: begin of text, end of a reply, end of the user's turn.
        begin_image, end_image, placeholder: around a picture, and the stand-in for one code in a text prompt.
        code_ids: code_ids[c] is the id of VQ code c; empty if codes have none among the words.
        n_codes: codes in one picture.
        side: codes in one row of a picture.
        row_end: what stands between two rows of codes, if anything.
        other_ends: more ids that end a reply.
    """

    size: int
    bos: int
    eos: int
    end_of_turn: int
    begin_image: int
    end_image: int
    placeholder: int
    code_ids: tuple[int, ...]
    n_codes: int
    row_end: int | None = None
    other_ends: frozenset[int] = frozenset()

    @property
    def side(self) -> int:
        return round(self.n_codes**0.5)

    def canvas(self, grid: tuple[int, int] | None = None) -> Canvas:
        """Say where a picture's codes go; by default as many rows as columns."""
        return Canvas(*(grid or (self.side, self.side)), self.row_end)

    @property
    def picture_length(self) -> int:
        """Positions that a picture takes: begin, codes, end."""
        return self.n_codes + 2


def read_code_ids(vocabulary_map: Mapping[str, int], n_embeddings: int) -> tuple[int, ...]:
    """Find the id of each VQ code in a Chameleon vocabulary.

    Code c is named IMGIMG + the decimal digits of c as letters (A=0 ... J=9) + Z
    (transformers, models/chameleon/modeling_chameleon.py, ChameleonImageVocabularyMapping).

    Raises:
        ValueError: the names are not one for each code.
    """
    ids = {
        int(name[len("IMGIMG") : -1].translate(_LETTERS)): id_
        for name, id_ in vocabulary_map.items()
        if name.startswith("IMGIMG")
    }
    if sorted(ids) != list(range(n_embeddings)) or len(set(ids.values())) != n_embeddings:
        raise ValueError(f"{len(ids)} image codes are named, the codebook has {n_embeddings}")
    return tuple(ids[code] for code in range(n_embeddings))


def count_codes(config: Mapping[str, Any]) -> int:
    """Count the codes of a picture by a Chameleon's config: each level of the VQ but the first halves its sides."""
    vq = config.get("vq_config") or {}
    side: int = vq.get("resolution", 512) // 2 ** (len(vq.get("channel_multiplier", (1, 1, 2, 2, 4))) - 1)
    return side * side


@dataclass(frozen=True)
class PromptIds:
    """A prompt as ids.

    Attributes:
        ids: all of it.
        pictures: the pictures alone, each from begin-image to end-of-image.
        unconditional: what stands before a picture in the row that guidance leads away from; if empty, a bos alone.
        grid: rows and columns of the picture to draw; None is the vocabulary's square.
    """

    ids: tuple[int, ...]
    pictures: tuple[tuple[int, ...], ...] = ()
    unconditional: tuple[int, ...] = ()
    grid: tuple[int, int] | None = None


Step = Literal["words", "words or a picture", "end"]


@dataclass
class Grammar:
    """What may come next in the reply to one request.

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
        image_fits = "image" in self.request.want and room >= self.vocabulary.picture_length
        return "words or a picture" if image_fits else "words"

    def saw_word(self, id_: int) -> None:
        """Take note of a token outside images; an eos ends the reply."""
        self.n_chosen += 1
        if id_ == self.vocabulary.eos or id_ in self.vocabulary.other_ends:
            self.reason = "end"
        elif id_ != self.vocabulary.begin_image:
            self.n_words += 1


def forbidden(vocabulary: Vocabulary, step: Step) -> Sequence[int]:
    """List the ids that may not be said where words stand."""
    always = (*vocabulary.code_ids, vocabulary.end_image, vocabulary.placeholder)
    return always if step == "words or a picture" else (*always, vocabulary.begin_image)

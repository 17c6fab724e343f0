"""Which token may follow which: words, or begin-image, exactly N codes, end-of-image. Knows no tensors.

A picture inside a text is `begin-image, N codes, end-of-image` and nothing else; a picture that would not fit into the
context cannot begin. Outside a picture codes and end-of-image never occur.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmgen.request import Kind

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
class Prompt:
    """A prompt as ids.

    Attributes:
        ids: all of it.
        pictures: the pictures alone, each from begin-image to end-of-image.
        away_from: what stands before a picture in the row that guidance leads away from; if empty, a bos alone.
        grid: rows and columns of the picture to draw; None is the vocabulary's square.
    """

    ids: tuple[int, ...]
    pictures: tuple[tuple[int, ...], ...] = ()
    away_from: tuple[int, ...] = ()
    grid: tuple[int, int] | None = None


Step = Literal["words", "words or a picture", "end"]


@dataclass
class Grammar:
    """What may come next in one reply.

    Attributes:
        want: what may come out.
        context: most positions, prompt included.
        words_left: how many more words' tokens may come.
    """

    vocabulary: Vocabulary
    want: frozenset[Kind]
    context: int
    words_left: int
    finished: bool = False

    def next(self, n_used: int) -> Step:
        """Say what may follow when `n_used` positions are taken."""
        room = self.context - n_used
        picture_fits = "image" in self.want and room >= self.vocabulary.picture_length
        if self.finished or room < 1 or self.words_left < 1:
            return "end"
        return "words or a picture" if picture_fits else "words"

    def saw_word(self, id_: int) -> None:
        """Take note of a token outside pictures; an eos ends the reply."""
        self.words_left -= 1
        self.finished = id_ == self.vocabulary.eos or id_ in self.vocabulary.other_ends


def forbidden(vocabulary: Vocabulary, step: Step) -> Sequence[int]:
    """List the ids that may not be said where words stand."""
    always = (*vocabulary.code_ids, vocabulary.end_image, vocabulary.placeholder)
    return always if step == "words or a picture" else (*always, vocabulary.begin_image)

"""Training rows: exchanges of text.py and stories.py as ids, with pictures as codes.

A row is a trunk, often a picture, and branches that share it: a branch sees the trunk and itself, and its positions go
on from the trunk's end, so that each branch looks to the network as if it followed the trunk alone.

In half of the drawings and variations the picture sees of all that was asked only what its begin-image has gathered in
the first layers (as gist tokens do: Mu et al., arXiv 2304.08467), and the last layers alone look at it. So drawing from
that plan is learned from words, where it is easy, and serves variations, whose plans are ready no earlier: they were
right long before the pictures followed them.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from . import stories, text
from .scene import ALL_SCENES, COLOURS, HELD_OUT, PLACES, SUBJECTS, TRAINED, Scene
from .tokenizer import BEGIN_IMAGE, BOS, END_IMAGE, END_TURN, EOS, FIRST_CODE, PAD

IGNORED = -100  # label of a place without loss
FROM_PLAN = 0.5  # share of drawings and variations that see what was asked through their begin-image alone
DISTURBED = 0.5  # share of them that see codes of another picture among their own
MOST_DISTURBED = 0.4  # of a picture's codes


@dataclass
class Row:
    """One row; labels are already shifted: labels[t] is what should follow ids[t]."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    n_trunk: int = 0
    n_branches: int = 0
    shows: list[Scene] = field(default_factory=list)  # of its pictures, in their order
    from_plan: bool = False  # its last picture sees nothing of what is before it but the start

    def trunk(self, ids: Sequence[int], learned: Sequence[bool]) -> "Row":
        """Set the shared beginning."""
        self._add(ids, learned, 0, 0)
        self.n_trunk = len(ids)
        return self

    def branch(self, ids: Sequence[int], learned: Sequence[bool]) -> "Row":
        """Add one continuation of the trunk."""
        self.n_branches += 1
        self._add(ids, learned, self.n_trunk, self.n_branches)
        return self

    def _add(self, ids: Sequence[int], learned: Sequence[bool], position: int, branch: int) -> None:
        following = [id_ if wanted else IGNORED for id_, wanted in zip(ids[1:], learned[1:], strict=True)]
        self.ids += ids
        self.labels += [*following, IGNORED]
        self.positions += range(position, position + len(ids))
        self.branches += [branch] * len(ids)


class Writer:
    """Makes rows of each kind from the tokenizer and the codes of the rendered pictures.

    Args:
        codes: [N, 144] of the training pictures.
        scenes: [N] index into ALL_SCENES.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, codes: np.ndarray, scenes: np.ndarray) -> None:
        self.tokenizer = tokenizer
        self.codes = codes
        self.pictures: dict[Scene, list[int]] = defaultdict(list)
        for index, number in enumerate(scenes.tolist()):
            self.pictures[ALL_SCENES[number]].append(index)
        self._words: dict[str, list[int]] = {}

    def words(self, words: str) -> list[int]:
        """Ids of plain text."""
        if words not in self._words:
            if len(self._words) > 50_000:
                self._words.clear()
            self._words[words] = self.tokenizer(words, add_special_tokens=False).input_ids
        return self._words[words]

    def picture(self, scene: Scene, rng: random.Random) -> list[int]:
        """Ids of some picture of the scene: begin-image, codes, end-image."""
        codes = self.codes[rng.choice(self.pictures[scene])]
        return [BEGIN_IMAGE, *(FIRST_CODE + codes.astype(int)).tolist(), END_IMAGE]

    def draw(self, rng: random.Random) -> Row:
        """Words, then the picture."""
        prompt, scene = pick(lambda: text.draw(rng))
        asked = [BOS, *self.words(prompt), END_TURN]
        reply = [*self.picture(scene, rng), EOS]
        row = Row(shows=[scene], from_plan=rng.random() < FROM_PLAN)
        row.trunk(asked + reply, [False] * len(asked) + [True] * len(reply))
        return self._disturb(row, rng)

    def look(self, rng: random.Random) -> Row:
        """A picture (also learned as drawn from nothing), then as branches a caption and questions, most of yes or no.

        To say yes or no, words and picture have to be compared: the hardest kind, and a branch costs little.
        """
        scene = rng.choice(TRAINED)
        row = self._with_picture(scene, rng, learned=True)
        exchanges = [text.caption(scene, rng), *(text.ask(scene, rng) for _ in range(4))]
        exchanges += [text.yes_or_no(scene, rng) for _ in range(6)]
        for prompt, reply in exchanges:
            self._answer(row, prompt, reply)
        return row

    def vary(self, rng: random.Random) -> Row:
        """A picture and words in either order, then another picture."""
        before = rng.choice(TRAINED)
        prompt, after = pick(lambda: text.change(before, rng))
        if rng.random() < 0.4:
            asked = [BOS, *self.words(prompt), *self.picture(before, rng), END_TURN]
            reply = [*self.picture(after, rng), EOS]
            row = Row(shows=[before, after], from_plan=rng.random() < FROM_PLAN)
            row.trunk(asked + reply, [False] * len(asked) + [True] * len(reply))
            return self._disturb(row, rng)
        row = self._with_picture(before, rng, learned=True)
        row.from_plan = rng.random() < FROM_PLAN
        asked = [] if rng.random() < 0.2 else [*self.words(prompt), END_TURN]  # none: the image row of guidance
        if not asked and rng.random() < 0.5:
            after = before
        reply = [*self.picture(after, rng), EOS]
        row.shows.append(after)
        row.branch(asked + reply, [False] * len(asked) + [bool(asked) or i > 0 for i in range(len(reply))])
        return self._disturb(row, rng)

    def two(self, rng: random.Random) -> Row:
        """Two pictures, and what they have in common."""
        one, other = pick(lambda: two_scenes(rng))
        pictures = [*self.picture(one, rng), *self.picture(other, rng)]
        prompt, reply = text.common(one, other, rng)
        if rng.random() < 0.4:
            asked, answer = [BOS, *self.words(prompt), *pictures, END_TURN], [*self.words(reply), EOS]
            row = Row(shows=[one, other])
            return row.trunk(asked + answer, [False] * len(asked) + [True] * len(answer))
        row = Row(shows=[one, other]).trunk([BOS, *pictures], [False] * (1 + len(pictures)))
        for _ in range(3):
            self._answer(row, *text.common(one, other, rng))
        return row

    def pairs(self, rng: random.Random) -> Row:
        """Ten pairs of captions, and what they share: to compare words is half of comparing pictures."""
        row = Row().trunk([BOS], [False])
        for _ in range(10):
            one, other = pick(lambda: two_scenes(rng))
            asked = self.words(text.both_captions(one, other))
            answer = [*self.words(" " + text.shared_by(one, other)), EOS]
            row.branch(asked + answer, [False] * len(asked) + [True] * len(answer))
        return row

    def story(self, rng: random.Random) -> Row:
        """Words and pictures in turn, with and without end-of-turn; or the pictures alone, for guidance."""
        prompt, reply = pick(lambda: stories.interleave(rng))
        parts = [self.words(part) if isinstance(part, str) else self.picture(part, rng) for part in reply]
        row = Row(shows=[part for part in reply if isinstance(part, Scene)])
        if rng.random() < 0.12:
            shown = [BOS, *(id_ for part in parts if part[0] == BEGIN_IMAGE for id_ in part)]
            return row.trunk(shown, [False, *(id_ not in (BEGIN_IMAGE, END_IMAGE) for id_ in shown[1:])])
        asked = [BOS, *self.words(prompt), *([END_TURN] if rng.random() < 0.4 else [])]
        said = [*(id_ for part in parts for id_ in part), EOS]
        return row.trunk(asked + said, [False] * len(asked) + [True] * len(said))

    def talk(self, rng: random.Random) -> Row:
        """Twelve short exchanges without pictures."""
        row = Row().trunk([BOS], [False])
        for _ in range(12):
            self._answer(row, *text.talk(rng))
        return row

    def _disturb(self, row: Row, rng: random.Random) -> Row:
        """Let the last picture see codes of another among its own, and learn its own all the same.

        What a picture has drawn so far always agrees with its plan in training. So where a code was sampled that did
        not, the model believed what it saw, and went on drawing something else (exposure bias; Bengio et al.,
        "Scheduled sampling", arXiv 1506.03099, feed samples for the same reason). In half of them the other differs
        in its subject alone: that is what went wrong most.
        """
        if rng.random() < DISTURBED:
            own = row.shows[-1]
            alike = [scene for scene in TRAINED if (scene.colour, scene.place) == (own.colour, own.place)]
            other = self.picture(rng.choice(alike if rng.random() < 0.5 else TRAINED), rng)
            begin = len(row.ids) - 1 - row.ids[::-1].index(BEGIN_IMAGE)
            share = rng.uniform(0, MOST_DISTURBED)
            for place in range(1, len(other) - 1):
                if rng.random() < share:
                    row.ids[begin + place] = other[place]
        return row

    def _with_picture(self, scene: Scene, rng: random.Random, learned: bool) -> Row:
        picture = self.picture(scene, rng)
        return Row(shows=[scene]).trunk([BOS, *picture], [False, False, *([learned] * (len(picture) - 2)), False])

    def _answer(self, row: Row, prompt: str, reply: str) -> None:
        asked, answer = [*self.words(prompt), END_TURN], [*self.words(reply), EOS]
        row.branch(asked + answer, [False] * len(asked) + [True] * len(answer))


def pick(make):  # type: ignore[no-untyped-def]
    """Call make until none of its scenes is held out."""
    while True:
        made = make()
        parts = made[1] if isinstance(made[1], list) else made
        if not any(part in HELD_OUT for part in parts if isinstance(part, Scene)):
            return made


def two_scenes(rng: random.Random) -> tuple[Scene, Scene]:
    """A trained scene, and one that may be held out; each attribute is shared in half of the pairs."""
    one = rng.choice(TRAINED)
    other = one
    if rng.random() < 0.5:
        other = replace(other, subject=rng.choice(SUBJECTS))
    if rng.random() < 0.5:
        other = replace(other, colour=rng.choice(COLOURS))
    if rng.random() < 0.5:
        other = replace(other, place=rng.choice(PLACES))
    return one, other


@dataclass(frozen=True)
class Batch:
    """ids, labels, positions [B, T]; visible [B, 1, T, T] bool, or None where plain causal order is all.

    early: the same of the layers before a plan is ready.
    scenes [P, 3]: numbers of subject, colour and place of all pictures, in the order of rows and of pictures in them.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    visible: Tensor | None
    early: Tensor | None
    scenes: Tensor


def collate(rows: Sequence[Row]) -> Batch:
    """Pad rows at the right to one length."""
    length = max(len(row.ids) for row in rows)

    def padded(name: str, fill: int) -> Tensor:
        return torch.tensor([getattr(row, name) + [fill] * (length - len(row.ids)) for row in rows])

    visible = early = None
    if any(row.n_branches or row.from_plan for row in rows):
        branches = padded("branches", 0)  # [B, T]
        own = (branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])
        visible = (own & torch.ones(length, length, dtype=torch.bool).tril())[:, None]
        early = visible.clone() if any(row.from_plan for row in rows) else None
        for number, row in enumerate(rows):
            if row.from_plan:
                begin = len(row.ids) - 1 - row.ids[::-1].index(BEGIN_IMAGE)
                visible[number, 0, begin + 1 :, 1:begin] = False
                early[number, 0, begin + 1 :, 1 : begin + 1] = False
    scenes = torch.tensor([numbers(scene) for row in rows for scene in row.shows], dtype=torch.long).view(-1, 3)
    return Batch(padded("ids", PAD), padded("labels", IGNORED), padded("positions", 0), visible, early, scenes)


def numbers(scene: Scene) -> list[int]:
    """Return subject, colour and place as numbers."""
    return [SUBJECTS.index(scene.subject), COLOURS.index(scene.colour), PLACES.index(scene.place)]

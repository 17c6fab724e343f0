"""The best of several pictures: which come, in which order, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

import mmgen
from mmgen import tasks
from mmgen.errors import MmgenError, UsageError
from mmgen.families.judging import ranked
from mmgen.model import Abilities
from mmgen.request import Done, ImageSampling, Loading, Picture, Request
from tests.support.opening import opened
from tests.support.scripted import Scripted, picture

SCORES = {3: -2.0, 4: -1.0, 5: -3.0, 6: -1.0}


class Judging(Scripted):
    """Scores that are given by seed."""

    def score(self, request: Request, answers: Sequence[str | Picture]) -> list[float]:
        seed = next(seed for seed in SCORES if picture(seed).image.tobytes() == request.images[0].tobytes())
        return [SCORES[seed] if answer == "a boat" else -1e9 for answer in answers]


def best(ranks: Sequence[int], prompt: str = "a boat", best_of: int = 4) -> list[tuple[int, Request]]:
    base = tasks.draw(prompt, seed=3)
    return [(10 + rank, replace(base, best_of=best_of, rank=rank)) for rank in ranks]


def test_the_best_come_in_their_order_and_equal_ones_by_seed() -> None:
    found = [(number, piece) for number, piece in ranked(Judging(), best([0, 1, 2, 3])) if isinstance(piece, Picture)]
    assert [(number, piece.seed, piece.score) for number, piece in found] == [
        (10, 4, -1.0),
        (11, 6, -1.0),
        (12, 3, -2.0),
        (13, 5, -3.0),
    ]


def test_each_rank_is_the_same_asked_for_by_itself() -> None:
    for rank, seed in enumerate((4, 6, 3, 5)):
        pieces = [piece for _, piece in ranked(Judging(), best([rank]))]
        assert [piece.seed for piece in pieces if isinstance(piece, Picture)] == [seed]
        assert isinstance(pieces[-1], Done)


def test_a_model_that_cannot_judge_says_so_of_each() -> None:
    class Mute(Scripted):
        pass

    found = list(ranked(Mute(), best([0, 1])))
    errors = [(number, str(piece)) for number, piece in found if isinstance(piece, MmgenError)]
    assert [number for number, _ in errors] == [10, 11]
    assert all("cannot say how likely" in message for _, message in errors)


def test_a_family_with_a_question_is_asked_it() -> None:
    class Asked(Judging):
        def score(self, request: Request, answers: Sequence[str | Picture]) -> list[float]:
            assert [part for part in request.parts if isinstance(part, str)] == ["Is this a boat?"]
            yes = super().score(request, ["a boat"])[0]
            return [yes if str(answer).lower().startswith("y") else -5.0 for answer in answers]

    model = Asked(abilities=Abilities(judge="Is this {}?"))
    found = [piece.seed for _, piece in ranked(model, best([0, 1, 2, 3])) if isinstance(piece, Picture)]
    assert found == [4, 6, 3, 5]


@pytest.fixture(scope="module")
def model() -> Any:
    return opened("demo", Loading(dtype="float32"))


def test_the_best_are_of_those_that_the_seeds_draw(model: Any) -> None:
    prompt, image = "a pink boat at night", ImageSampling(guidance=1.0, temperature=1.0)
    drawn = mmgen.draw(model, prompt, 5, seed=9, image=image)
    found = mmgen.draw(model, prompt, 3, seed=9, image=image, best_of=5)
    by_seed = {picture.seed: picture.codes for picture in drawn}
    assert len({picture.seed for picture in found}) == 3
    assert all(by_seed[picture.seed] == picture.codes for picture in found)
    scores = [picture.score or 0.0 for picture in found]
    assert scores == sorted(scores, reverse=True)
    caption = "A pink boat at night."  # in the words that this model describes with
    likelier = [model.score(tasks.caption(picture.image), [caption])[0] for picture in drawn]
    best_seed = 9 + likelier.index(max(likelier))
    assert found[0].seed == best_seed


def test_fewer_than_are_to_be_kept_cannot_be_drawn(model: Any) -> None:
    with pytest.raises(UsageError, match="--best-of 2 is fewer"):
        mmgen.draw(model, "a boat", 3, best_of=2)
    with pytest.raises(UsageError, match="at temperature 0"):
        mmgen.draw(model, "a boat", best_of=2, temperature=0)

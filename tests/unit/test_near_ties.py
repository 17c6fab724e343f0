"""What is let pass as a near tie, and what is not; and that choices were made by the scores it goes by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmgen import tasks
from mmgen.request import ImageSampling, Loading, TextSampling
from tests.support.chat_checkpoints import make_gemma3
from tests.support.checkpoints import make_checkpoint
from tests.support.drawing_checkpoints import make_emu3, make_janus
from tests.support.near_ties import Chosen, assert_same, chosen, clear_codes, least_gap, words_alone
from tests.support.opening import opened
from tests.support.replies import gathered, image

SCORES = torch.tensor([[5.0, 4.9995, 1.0], [3.0, 1.0, 3.0005], [1.0, 3.0, 1.0]])  # of three candidates at three places
FREE = TextSampling(temperature=1.0, top_p=1.0, max_tokens=12)


def reply(*ids: int) -> Chosen:
    return Chosen(ids, lambda place: SCORES[[place, place]], ends=[2])


@pytest.mark.parametrize("other", [(0, 2), (1, 2), (1, 0, 0), (0, 0), (0,)])
def test_a_reply_may_part_at_a_near_tie(other: tuple[int, ...]) -> None:
    assert assert_same([reply(0, 2), reply(0, 2)], [other, (0, 2)]) == [other == (0, 2), True]


@pytest.mark.parametrize("other", [(2, 2), (0, 1), (), (0, 2, 0)])
def test_no_other_difference_is_let_pass(other: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError, match="no near tie"):
        assert_same([reply(0, 2)], [other])


def test_a_tie_of_two_that_nobody_would_choose_is_none() -> None:
    with pytest.raises(AssertionError, match="behind the best"):
        assert_same([Chosen((1,), lambda _: torch.tensor([[5.0, 1.0, 1.0]] * 2))], [(2,)])


def test_a_candidate_at_the_edge_of_top_p_may_be_taken_or_left() -> None:
    scores = torch.tensor([[5.0, 3.0, 1.0], [-torch.inf, 3.0, 1.0]])
    for one, other in ((0, 1), (1, 0)):
        assert assert_same([Chosen((one,), lambda _: scores)], [(other,)]) == [False]
        with pytest.raises(AssertionError, match="no near tie"):
            assert_same([Chosen((one,), lambda _: scores)], [(2,)])


def test_not_all_replies_may_part() -> None:
    with pytest.raises(AssertionError, match="2 replies part"):
        assert_same([reply(0, 2), reply(0, 2)], [(1, 2), (0, 0)])


@pytest.mark.parametrize("make", [make_checkpoint, make_emu3, make_janus, make_gemma3])
def test_choices_were_made_by_these_scores(make: Callable[[Path], Path], tmp_path: Path) -> None:
    model: Any = opened(make(tmp_path / "model"), Loading(dtype="float32", device_map="cpu"))
    for sampling in (replace(FREE, temperature=0), FREE, replace(FREE, top_k=5, top_p=0.8, repetition_penalty=1.3)):
        assert least_gap(words_alone(model, tasks.ask("what is it?", [image(1)], text=sampling, seed=5))) > 0
    if make is make_gemma3:
        return
    for drawing in (ImageSampling(), ImageSampling(guidance=1, temperature=0)):
        request = tasks.draw("a cat", image=drawing, seed=5)
        assert least_gap(chosen(model, request, gathered(model, [request])[0].codes)) > 0


def test_codes_that_are_near_ties_are_found(tmp_path: Path) -> None:
    model: Any = opened(make_checkpoint(tmp_path / "model"), Loading(dtype="float32", device_map="cpu"))
    with clear_codes(model.model):
        codes = model.encode([image(1)])[0][0]
    codebook = model.model.get_submodule("model.vqmodel.quantize").embedding.weight
    with torch.inference_mode():
        codebook[(codes[0] + 1) % len(codebook)] = codebook[codes[0]] + 1e-6
    with pytest.raises(AssertionError, match="near tie"), clear_codes(model.model):
        model.encode([image(1)])
    with pytest.raises(AssertionError, match="no picture"), clear_codes(model.model):
        pass

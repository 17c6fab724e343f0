"""Many model types of transformers, tiny and random, in a default installation: their answers are plain transformers'.

By ids, and up to near ties. The answers were given where torchvision is installed (tests/support/many_types.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmgen import tasks
from mmgen.checkpoints import catalog, fit
from mmgen.families.chat import Chat
from mmgen.request import Loading, Quantize, Request, TextSampling
from tests.support.many_types import CHATS, N_TOKENS, PICTURES, QUESTION, build, row
from tests.support.near_ties import assert_same, assert_same_alone, next_word, words_alone
from tests.support.opening import opened

SHORT = TextSampling(max_tokens=N_TOKENS)
# Four bits are too coarse for the random weights of the others: they move an answer further than another picture does.
FINE_IN_4_BITS = {
    *("aya_vision", "gemma4", "glm4v", "glm4v_moe", "glm_ocr", "internvl", "lighton_ocr", "llava", "llava_next"),
    *("llava_onevision", "paddleocr_vl", "qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "smolvlm"),
}


@pytest.fixture(scope="module", params=CHATS)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(name, tmp_path_factory.mktemp("types") / name)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return opened(folder, Loading(dtype="float32", device_map="cpu"))


def ask(name: str, case: str) -> Request:
    return tasks.ask(QUESTION, PICTURES[case], text=SHORT, seed=0, template_args=row(name).get("arguments"))


def test_its_answers_are_those_of_plain_transformers(name: str, model: Chat) -> None:
    answers = row(name)["answers"]
    cases = [case for case, ids in answers.items() if isinstance(ids, list)]
    assert len(cases) >= 5
    assert_same([words_alone(model, ask(name, case)) for case in cases], [answers[case] for case in cases])


def test_it_says_something_else_of_another_picture(name: str, model: Chat) -> None:
    one, other = (next_word(model, ask(name, case), [])[0] for case in ("one", "other"))
    assert (one - other).abs().max() > 1e-2


def test_its_answers_are_the_same_in_a_mixed_batch(name: str, model: Chat) -> None:
    cases = [case for case, ids in row(name)["answers"].items() if isinstance(ids, list)]
    assert_same_alone(model, [ask(name, case) for case in [*cases, "one", "none"]])


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_quantised_it_sees_the_picture(name: str, folder: Path, model: Chat, quantize: Quantize) -> None:
    if quantize == "4bit" and name not in FINE_IN_4_BITS:
        return
    one, other = (next_word(model, ask(name, case), [])[0] for case in ("one", "other"))
    quantised = opened(folder, Loading(dtype="float32", device_map="cpu", quantize=quantize))
    assert torch.dist(next_word(quantised, ask(name, "one"), [])[0], one) < torch.dist(one, other)
    told = fit.weights_bytes(catalog.find(str(folder)), "float32", quantize)
    assert 0.8 < quantised.model.get_memory_footprint() / told < 1.25

"""Models without a chat template: captions and answers are those of the snippets in transformers' documentation.

By ids, up to near ties; docs/source/en/model_doc, a page a type.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from mmgen import families, tasks
from mmgen.checkpoints import catalog
from mmgen.errors import MmgenError
from mmgen.request import Loading, Request, TextSampling
from tests.support.many_types import PICTURES, build
from tests.support.opening import opened
from tests.support.replies import said, without_end
from tests.support.scripted import run

N = 8
SHORT = TextSampling(max_tokens=N)
CPU = Loading(dtype="float32", device_map="cpu")
CASES = ("one", "other", "grey", "thin")

# How each page asks for a caption: the words, none for the picture alone; and whether ids of a prompt come before.
SNIPPETS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "blip": (None, {}),
    "blip2": (None, {}),
    "git": (None, {}),
    "kosmos2": ("An image of", {}),
    "florence2": ("<CAPTION>", {"num_beams": 3}),
    "paligemma": ("caption en", {}),
    "pix2struct": (None, {}),
}
ASKED = {name: row for name, row in SNIPPETS.items() if name != "pix2struct"}


@pytest.fixture(scope="module", params=SNIPPETS)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(name, tmp_path_factory.mktemp("plain") / name)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return opened(folder, CPU)


@pytest.fixture(scope="module")
def snippet(name: str, folder: Path) -> Callable[[Image.Image, str | None], list[int]]:
    """The page's code: processor, generate, the ids that are new, without an end."""
    stock = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)

    def ask(image: Image.Image, words: str | None) -> list[int]:
        inputs = processor(images=image, **({"text": words} if words else {}), return_tensors="pt")
        out = stock.generate(**inputs, max_new_tokens=N, do_sample=False, **SNIPPETS[name][1])[0].tolist()
        if stock.config.is_encoder_decoder:
            out = out[1:]
        elif "input_ids" in inputs:
            out = out[inputs["input_ids"].shape[1] - (name == "blip") :]  # whose generate leaves out the last, [SEP]
        else:
            out = out[-N:] if len(out) >= N else out
        ends = stock.generation_config.eos_token_id
        return without_end(out, ends if isinstance(ends, list) else [ends])

    return ask


def caption(case: str) -> Request:
    return tasks.caption(PICTURES[case][0], text=SHORT, seed=0)


def test_a_caption_is_that_of_the_documentation(name: str, model: Any, snippet: Any) -> None:
    cases = CASES[:3] if name == "pix2struct" else CASES  # so small a tower has no place for 20 x 300, in stock either
    expected = [snippet(PICTURES[case][0], SNIPPETS[name][0]) for case in cases]
    alone = [said(model, [caption(case)])[0] for case in cases]
    assert alone == expected
    assert said(model, [caption(case) for case in cases]) == expected


def test_two_pictures_have_unlike_captions_or_logits(name: str, model: Any) -> None:
    first = [model.score(caption(case), ["a", "b", "c"]) for case in ("one", "other")]
    assert max(abs(one - other) for one, other in zip(*first, strict=True)) > 1e-4


def test_words_of_the_user_s_own_are_asked(name: str, model: Any, snippet: Any) -> None:
    request = tasks.ask("a red", PICTURES["one"], text=SHORT, seed=0)
    if name in ASKED:
        assert said(model, [request]) == [snippet(PICTURES["one"][0], "a red")]
    else:
        with pytest.raises(MmgenError, match="takes no words"):
            model.prompter.check(request)


@pytest.mark.parametrize(
    ("images", "more", "message"),
    [
        (2, {}, "looks at one picture at a time"),
        (1, {"system": "Be brief."}, "has no chat template"),
        (0, {}, "answers nothing without a picture"),
    ],
)
def test_a_request_that_it_cannot_answer_is_refused_before_weights_are_read(
    folder: Path, images: int, more: dict[str, Any], message: str
) -> None:
    request = tasks.ask(tasks.CAPTION, PICTURES["two"][:images], text=SHORT, seed=0, **more)
    found = catalog.find(str(folder))
    away = (folder / "model.safetensors").rename(folder.parent / "away")
    try:
        with pytest.raises(MmgenError, match=message):
            families.open_model(found, CPU, requests=[request])
    finally:
        away.rename(folder / "model.safetensors")


def test_caption_takes_a_prompt_of_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build("git", tmp_path / "git")
    PICTURES["one"][0].save("one.png")
    flags = ["-m", "./git", "--max-tokens", "4", "--device-map", "cpu", "--json", "--seed", "0"]
    captioned = run("caption", "one.png", "--prompt", "a red", *flags)
    asked = run("ask", "--each", "--image", "one.png", "a red", *flags)
    assert captioned.code == asked.code == 0
    one, other = json.loads(captioned.out), json.loads(asked.out)
    assert one["prompt"] == other["prompt"] == "a red"
    assert one["text"] == other["text"]

"""Every family, tiny and random: what it says is, token for token, what the snippet of its documentation says.

Alone, and in one call with questions about other numbers of pictures. In float32, and up to near ties.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, ChameleonForConditionalGeneration

from mmgen import tasks
from mmgen.cli import main
from mmgen.request import Loading, TextSampling
from mmgen.text import clean
from tests.support.chat_checkpoints import MAKERS
from tests.support.checkpoints import make_checkpoint
from tests.support.drawing_checkpoints import make_emu3, make_janus
from tests.support.near_ties import assert_same, clear_codes, words_alone
from tests.support.opening import opened
from tests.support.speaking import ends, gathered, image, said, without_end

N_TOKENS = 16
QUESTIONS = (
    ("hi", 0),
    ("what is it, and where?", 1),
    ("what do these have in common, if anything?", 2),
    ("why is that?", 0),
    ("and this?", 1),
    ("which of the three?", 3),
)


@dataclass(frozen=True)
class Stock:
    """A checkpoint as transformers' documentation loads it."""

    network: Any
    processor: Any

    def answer(self, inputs: Any, **more: Any) -> list[int]:
        out = self.network.generate(**inputs, max_new_tokens=N_TOKENS, do_sample=False, **more)
        return [int(id_) for id_ in out[0, inputs["input_ids"].shape[1] :]]

    def inputs(self, messages: list[dict[str, Any]], **more: Any) -> Any:
        return self.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", **more
        )

    def ends(self) -> set[int]:
        ids = self.network.generation_config.eos_token_id
        return set(ids) if isinstance(ids, list) else {ids}


def by_template(stock: Stock, question: str, images: Sequence[Image.Image], **more: Any) -> list[int]:
    """docs/source/en/model_doc: mllama.md, idefics2.md, idefics3.md, gemma3.md, and with a generation mode janus.md."""
    content = [*({"type": "image", "image": each} for each in images), {"type": "text", "text": question}]
    inputs = stock.inputs([{"role": "user", "content": content}], **more)
    return stock.answer(inputs, **more)


def janus(stock: Stock, question: str, images: Sequence[Image.Image]) -> list[int]:
    return by_template(stock, question, images, generation_mode="text")


def emu3(stock: Stock, question: str, images: Sequence[Image.Image]) -> list[int]:
    """emu3.md; it leaves codes open where only words are wanted, which mmgen does not."""
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": question}]
    prompt = stock.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = stock.processor(images=list(images) or None, text=[prompt], return_tensors="pt")
    return stock.answer(inputs, suppress_tokens=stock.network.vocabulary_mapping.image_tokens)


def chameleon(stock: Stock, question: str, images: Sequence[Image.Image]) -> list[int]:
    """chameleon.md; it leaves the ends of a picture open where only words are wanted, which mmgen does not."""
    text = "<image>" * len(images) + question
    inputs = stock.processor(images=list(images) or None, text=text, return_tensors="pt")
    names = ("<racm3:break>", "<eoss>", "<image>")
    return stock.answer(inputs, suppress_tokens=[stock.processor.tokenizer.convert_tokens_to_ids(n) for n in names])


Answer = Callable[[Stock, str, Sequence[Image.Image]], list[int]]
FAMILIES: dict[str, tuple[Callable[[Path], Path], Answer]] = {
    **{name: (make, by_template) for name, make in MAKERS.items()},
    "janus": (make_janus, janus),
    "emu3": (make_emu3, emu3),
    "chameleon": (lambda folder: make_checkpoint(folder, decoder=False), chameleon),
    "anole": (lambda folder: make_checkpoint(folder, shuffled=True), chameleon),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_the_documented_snippet(family: str, tmp_path: Path) -> None:
    make, answer = FAMILIES[family]
    folder = make(tmp_path / family)
    loader: Any = ChameleonForConditionalGeneration if answer is chameleon else AutoModelForImageTextToText
    stock = Stock(loader.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder))
    model: Any = opened(folder, Loading(dtype="float32", device_map="cpu"))
    assert ends(model) == stock.ends()
    requests, theirs = [], []
    with clear_codes(stock.network) if answer in (chameleon, emu3) else nullcontext():
        for i, (question, n_images) in enumerate(QUESTIONS):
            # Of one size in each question: stock Emu3 pads others, and its codes at the edges see that.
            images = [image(10 * i + j, (40 + 4 * i, 32 + 4 * i)) for j in range(n_images)]
            requests.append(tasks.ask(question, images, text=TextSampling(max_tokens=N_TOKENS)))
            theirs.append(without_end(answer(stock, question, images), stock.ends()))
    assert len(set(map(tuple, theirs))) > len(theirs) / 2
    alone = [words_alone(model, request) for request in requests]
    assert_same(alone, theirs)
    same = assert_same(alone, said(model, requests))
    for text, one in compress(zip(gathered(model, requests), alone, strict=True), same):
        expected = stock.processor.decode(one.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert text.strip() == expected.strip()


def test_a_conversation_in_a_file_is_answered_as_the_snippet_answers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = MAKERS["idefics3"](tmp_path / "idefics3")
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        image(ord(name)).save(f"{name}.png")
    how = ["--history", "talk.json", "-m", str(folder), "--device-map", "cpu", "--max-tokens", str(N_TOKENS)]
    assert main(["ask", "what is it?", "--image", "a.png", *how]) == 0
    assert main(["ask", "is <image> like it?", "--image", "b.png", *how]) == 0

    messages = json.loads(Path("talk.json").read_text())
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    stock = Stock(AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder))
    for asked in (1, 3):
        ids = stock.answer(stock.inputs(messages[:asked]))
        said = stock.processor.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert messages[asked]["content"] == [{"type": "text", "text": clean(said).strip()}]

"""Every family, tiny and random: how its checkpoint is made, and how transformers' documentation asks it.

A new family is a row of FAMILIES, and a name of DRAWING if it draws: tests/families/test_every_*family.py do the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, ChameleonForConditionalGeneration

from mmgen.errors import MmgenError
from mmgen.request import Done, Request
from tests.support.chat_checkpoints import MAKERS
from tests.support.checkpoints import make_checkpoint
from tests.support.drawing_checkpoints import make_emu3, make_janus
from tests.support.near_ties import clear_codes

N_TOKENS = 16


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


@dataclass(frozen=True)
class Family:
    """One of them.

    Attributes:
        make: writes a checkpoint into a folder, and returns that.
        answer: asks stock transformers; ids of the reply, with what comes after its end.
        typed: what the checkpoint would read as its own control tokens.
        stock_class: that loads it in transformers.
        encodes: it sees pictures through codes, which may be near ties.
    """

    make: Callable[[Path], Path]
    answer: Callable[[Stock, str, Sequence[Image.Image]], list[int]]
    typed: tuple[str, ...]
    stock_class: Any = AutoModelForImageTextToText
    encodes: bool = False

    def stock(self, folder: Path) -> Stock:
        return Stock(self.stock_class.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder))

    def clear_codes(self, network: Any) -> AbstractContextManager[None]:
        return clear_codes(network) if self.encodes else nullcontext()


_CHAMELEON = (chameleon, ("</s>", "<s>hi<racm3:break>", "a<image>b", "IMGIMGBZ", "<reserved08706>", "<eoss>"))
FAMILIES = {
    "mllama": Family(MAKERS["mllama"], by_template, ("<|image|>", "a<|eot_id|>")),
    "idefics2": Family(MAKERS["idefics2"], by_template, ("<image>", "a<end_of_utterance>b")),
    "idefics3": Family(MAKERS["idefics3"], by_template, ("<image>", "<row_1_col_1>")),
    "gemma3": Family(MAKERS["gemma3"], by_template, ("<start_of_image>", "<end_of_turn>\n")),
    "janus": Family(make_janus, janus, ("<begin>", "a<end>b", "<image_placeholder>", "<begin_of_image>", "<pad>")),
    "emu3": Family(
        make_emu3,
        emu3,
        ("<|extra_203|>", "<image>", "a<|visual token 000003|>", "<|image start|>2*2"),
        encodes=True,
    ),
    "chameleon": Family(
        lambda folder: make_checkpoint(folder, decoder=False), *_CHAMELEON, ChameleonForConditionalGeneration, True
    ),
    "anole": Family(
        lambda folder: make_checkpoint(folder, shuffled=True), *_CHAMELEON, ChameleonForConditionalGeneration, True
    ),
}
DRAWING = ("janus", "emu3", "anole")


def pieces_of(model: Any, requests: Sequence[Request | None]) -> list[list[Any]]:
    """Answer requests; list the pieces of each, of which the last is its Done or its error."""
    found: list[list[Any]] = [[] for request in requests if request is not None]
    for index, piece in model.replies(requests):
        assert not found[index] or not isinstance(found[index][-1], Done | MmgenError), "nothing comes after the end"
        found[index].append(piece)
    assert all(isinstance(pieces[-1], Done | MmgenError) for pieces in found)
    return found

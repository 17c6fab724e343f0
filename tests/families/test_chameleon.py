"""Chameleon and Anole on tiny random checkpoints: what they have beside other families, and the passes behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, ChameleonForConditionalGeneration

from mmgen import tasks
from mmgen.decoding.stepwise import Cache, extend
from mmgen.errors import MmgenError
from mmgen.families.chameleon import Chameleon
from mmgen.request import BOTH, ImageSampling, Loading, Picture, TextSampling, Turn
from tests.support.checkpoints import make_checkpoint
from tests.support.near_ties import assert_same, clear_codes, words_alone
from tests.support.opening import opened
from tests.support.refusals import refusal
from tests.support.replies import ends, gathered, image, without_end
from tools.demo.render import render
from tools.demo.scene import ALL_SCENES

SHORT = TextSampling(max_tokens=24)
FLAT = TextSampling(temperature=1.0, top_p=1.0, max_tokens=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("anole"), shuffled=True)


@pytest.fixture(scope="module")
def model(folder: Path) -> Chameleon:
    found = opened(folder, Loading(dtype="float32"))
    assert isinstance(found, Chameleon)
    return found


@pytest.fixture(scope="module")
def stock(folder: Path) -> tuple[Any, Any]:
    return ChameleonForConditionalGeneration.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def stock_answer(stock: tuple[Any, Any], text: str, images: list[Image.Image], n: int, completion: bool) -> list[int]:
    network, processor = stock
    inputs = processor(images=images or None, text=text, return_tensors="pt", return_for_text_completion=completion)
    v = {name: processor.tokenizer.convert_tokens_to_ids(name) for name in ("<racm3:break>", "<eoss>", "<image>")}
    # Stock leaves begin- and end-of-image open where only words are wanted; mmgen does not.
    out = network.generate(**inputs, max_new_tokens=n, do_sample=False, suppress_tokens=list(v.values()))
    return out[0, inputs["input_ids"].shape[1] :].tolist()


QUESTIONS = [
    ("same as <image>? no <image>", "same as <image>? no <image>", 2, False),
    ("once upon a time", "once upon a time", 0, True),
]


def test_marks_and_texts_to_continue_are_answered_as_by_stock_transformers(model: Chameleon, stock: Any) -> None:
    alone, expected = [], []
    with clear_codes(model.model), clear_codes(stock[0]):
        for ours, theirs, n_images, completion in QUESTIONS:
            images = [image(i) for i in range(n_images)]
            alone.append(words_alone(model, tasks.ask(ours, images, text=SHORT, complete=completion)))
            expected.append(stock_answer(stock, theirs, images, SHORT.max_tokens, completion))
    assert_same(alone, [without_end(ids, ends(model)) for ids in expected])


def test_a_picture_is_as_likely_as_stock_transformers_say(model: Chameleon, stock: Any) -> None:
    network, processor = stock
    request = tasks.draw("a snowman", seed=5)
    [picture] = gathered(model, [request])
    names = network.model.vocabulary_mapping
    codes = [names.img2bpe[code] for code in picture.codes]
    begin = processor.tokenizer.convert_tokens_to_ids("<racm3:break>")
    ids = [*processor(text="a snowman")["input_ids"][0], begin, *codes]
    with torch.no_grad():  # not by its own head, which leaves codes out
        hidden = network.model(input_ids=torch.tensor([ids[:-1]])).last_hidden_state[0, -len(codes) :]
        logits = network.lm_head(hidden).double()
    p = logits[:, sorted(names.img2bpe.values())].logsumexp(-1)
    expected = float((logits[range(len(codes)), codes] - p).sum())
    assert model.score(request, [picture]) == pytest.approx([expected], abs=1e-3)  # float32, in another order


def test_the_pixel_path_gives_what_inlined_codes_give(model: Chameleon, stock: Any) -> None:
    network, processor = stock
    inputs = processor(images=[image(3)], text="<image>what is it?", return_tensors="pt")
    prompt = model.prompts([tasks.ask("what is it?", [image(3)])])[0]
    with torch.inference_mode():
        theirs = network.model(**inputs).last_hidden_state[0, -1]
        ours = extend(model.language_model.network, Cache(1, 64), range(1), [prompt.ids])[0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_cached_is_uncached(model: Chameleon) -> None:
    ids = model.prompts([tasks.ask("what is it, and where does it stand?", [image(1)])])[0].ids
    network = model.language_model.network
    with torch.inference_mode():
        whole = extend(network, Cache(1, 100), range(1), [ids])
        cache = Cache(1, 100)
        for id_ in ids:
            stepped = extend(network, cache, range(1), [[id_]])
        torch.testing.assert_close(stepped, whole, atol=1e-5, rtol=1e-5)
        # A row can be taken back: what was written beyond its length does not count.
        cache.lengths[0] = 5
        again = extend(network, cache, range(1), [ids[5:]])
    torch.testing.assert_close(again, whole, atol=1e-5, rtol=1e-5)


def test_a_row_of_a_batch_has_the_logits_it_has_alone(model: Chameleon) -> None:
    prompts = [
        model.prompts([tasks.ask(question, [image(i) for i in range(n)])])[0]
        for question, n in (("hi", 0), ("what is it?", 1), ("what do these two have in common, if anything?", 2))
    ]
    network = model.language_model.network
    with torch.inference_mode():
        batch = extend(network, Cache(3, 100), range(3), [prompt.ids for prompt in prompts])
        alone = torch.cat([extend(network, Cache(1, 100), range(1), [prompt.ids]) for prompt in prompts])
        torch.testing.assert_close(network.head(batch), network.head(alone), atol=1e-4, rtol=0)
        torch.testing.assert_close(network.code_head(batch), network.code_head(alone), atol=1e-4, rtol=0)


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_tokens_see_what_came_before_and_nothing_else_wherever_rows_begin(folder: Path, attn: str) -> None:
    network = opened(folder, Loading(dtype="float32", attn=attn)).language_model.network
    first, second, longer = list(range(14, 24)), list(range(30, 40)), list(range(50, 63))
    with torch.inference_mode():
        alone = [extend(network, Cache(1, 30), range(1), [ids]) for ids in (first, second, longer)]
        # In parts of several tokens and of one, while all rows begin alike; then one is ahead.
        cache = Cache(3, 30)
        for part in (slice(0, 4), slice(4, 5), slice(5, 9)):
            extend(network, cache, range(3), [ids[part] for ids in (first, second, longer)])
        extend(network, cache, range(2, 3), [longer[9:11]])
        apart = extend(network, cache, range(3), [first[9:], second[9:], longer[11:]])
    torch.testing.assert_close(apart, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_the_small_head_is_the_heads_rows_in_code_order(model: Chameleon) -> None:
    network, hidden = model.language_model.network, torch.randn(2, 64)
    expected = network.head(hidden)[:, list(model.language_model.vocabulary.code_ids)]
    torch.testing.assert_close(network.code_head(hidden), expected)


def test_pictures_seen_together_have_the_codes_they_have_alone() -> None:
    model = opened("demo", Loading(dtype="float32"))
    assert isinstance(model, Chameleon)
    renders = [render(ALL_SCENES[seed], seed)[0] for seed in range(16, 24)]
    images = [*renders, *map(image, range(8))]
    with clear_codes(model.model):
        assert model.encode(images) == [codes for each in images for codes in model.encode([each])]


def test_interleaved_replies_repeat_under_a_seed(model: Chameleon) -> None:
    def told(seed: int) -> list[object]:
        text = TextSampling(temperature=2.0, top_p=1.0, max_tokens=60)
        pieces = list(model.reply(tasks.interleave("a story", [image(1)], text=text, seed=seed)))
        return [piece.codes if isinstance(piece, Picture) else piece for piece in pieces]

    assert told(3) == told(3)
    assert told(3) != told(4)


def test_earlier_turns_stand_before_the_question(model: Chameleon) -> None:
    request = tasks.ask("and now?", [image(1)], text=SHORT)
    history = (Turn("user", (image(2), "what is it?")), Turn("assistant", ("A cat.",)))
    prompt = model.prompts([replace(request, history=history)])[0]
    assert len(prompt.images) == 2
    assert prompt.ids.count(model.prompter.end_of_turn) == 3


def test_a_checkpoint_without_decoder_refuses_to_draw(tmp_path: Path, model: Chameleon) -> None:
    folder = make_checkpoint(tmp_path / "words", decoder=False)
    with pytest.raises(MmgenError, match="cannot draw"):
        opened(folder, want=BOTH)
    words = opened(folder, Loading(dtype="float32"))
    assert words.abilities.gives == {"text"}
    with pytest.raises(MmgenError, match="cannot draw"):
        next(words.reply(tasks.draw("a cat")))
    assert isinstance(next(words.reply(tasks.ask("hi", text=SHORT))), str)


@pytest.mark.parametrize("what", ["negative prompt", "ratio"])
def test_what_it_has_no_use_for_is_refused_early(folder: Path, model: Chameleon, what: str) -> None:
    code, message, hint = refusal(folder, what)
    assert (code, what in message, hint) == ("2", True, f"leave --{what.replace(' ', '-')} out")
    request = tasks.draw("a cat", image=ImageSampling(**{what.replace(" ", "_"): "16:9"}))
    with pytest.raises(MmgenError, match=what):
        next(model.reply(request))


def test_float16_is_refused(folder: Path) -> None:
    with pytest.raises(MmgenError, match="float16") as caught:
        opened(folder, Loading(dtype="float16"))
    assert "bfloat16" in caught.value.hint

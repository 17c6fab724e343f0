"""Chameleon and Anole on tiny random checkpoints: equal to stock transformers, and to themselves in a batch."""

from __future__ import annotations

from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, ChameleonForConditionalGeneration

import mmgen
from mmgen import tasks
from mmgen.decoding.cache import Cache
from mmgen.decoding.stepwise import extend
from mmgen.errors import MmgenError, TooLongError
from mmgen.families.chameleon import Chameleon
from mmgen.request import BOTH, ImageSampling, Loading, Picture, TextSampling, Turn
from tests.support.checkpoints import make_checkpoint
from tests.support.near_ties import assert_same, assert_same_alone, chosen, clear_codes, words_alone
from tests.support.opening import opened
from tests.support.refusals import refusal
from tests.support.speaking import ends, gathered, image, without_end
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
    ("what is it?", "<image>what is it?", 1, False),
    ("same as <image>? no <image>", "same as <image>? no <image>", 2, False),
    ("once upon a time", "once upon a time", 0, True),
    ("hello", "hello", 0, False),
]


def test_greedy_text_is_that_of_stock_transformers(model: Chameleon, stock: Any) -> None:
    alone, expected = [], []
    with clear_codes(model.model), clear_codes(stock[0]):
        for ours, theirs, n_images, completion in QUESTIONS:
            images = [image(i) for i in range(n_images)]
            alone.append(words_alone(model, tasks.ask(ours, images, text=SHORT, complete=completion)))
            expected.append(stock_answer(stock, theirs, images, SHORT.max_tokens, completion))
    assert_same(alone, [without_end(ids, ends(model)) for ids in expected])


def test_the_pixel_path_gives_what_inlined_codes_give(model: Chameleon, stock: Any) -> None:
    network, processor = stock
    inputs = processor(images=[image(3)], text="<image>what is it?", return_tensors="pt")
    prompt = model.prompt(tasks.ask("what is it?", [image(3)]))
    with torch.inference_mode():
        theirs = network.model(**inputs).last_hidden_state[0, -1]
        ours = extend(model.language_model.network, Cache(1, 64), range(1), [prompt.ids])[0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_cached_is_uncached(model: Chameleon) -> None:
    ids = model.prompt(tasks.ask("what is it, and where does it stand?", [image(1)])).ids
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
        model.prompt(tasks.ask(question, [image(i) for i in range(n)]))
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


def test_words_of_a_batch_are_those_of_each_alone(model: Chameleon) -> None:
    requests = [
        tasks.ask(question, [image(i)] * n, text=sampling, seed=40 + i)
        for i, (question, n) in enumerate((("hi", 0), ("what is it?", 1), ("and these?", 2), ("why?", 0)))
        for sampling in (SHORT, FLAT, TextSampling(temperature=1, repetition_penalty=1.3, max_tokens=9))
    ]
    with clear_codes(model.model):
        assert_same_alone(model, requests)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_picture_i_of_n_is_the_picture_of_seed_plus_i(model: Chameleon, guidance: float) -> None:
    sampling = ImageSampling(guidance=guidance)
    four = mmgen.draw(model, "a snowman", n=4, image=sampling, seed=7)
    assert [picture.seed for picture in four] == [7, 8, 9, 10]
    assert len({picture.codes for picture in four}) == 4
    ones = [mmgen.draw(model, "a snowman", image=sampling, seed=seed)[0] for seed in range(7, 11)]
    requests = [tasks.draw("a snowman", image=sampling, seed=seed) for seed in range(7, 11)]
    alone = [chosen(model, request, one.codes or ()) for request, one in zip(requests, ones, strict=True)]
    same = assert_same(alone, [picture.codes or () for picture in four])
    for one, picture in compress(zip(ones, four, strict=True), same):
        assert one.image.tobytes() == picture.image.tobytes()


def test_pictures_of_a_batch_are_those_of_each_alone(model: Chameleon) -> None:
    requests = [
        tasks.draw("a cat", seed=1),
        tasks.vary(image(5), seed=2),
        tasks.draw("a snowman in the snow at night", seed=3),
        tasks.vary(image(6), "make it blue", seed=4),
        tasks.vary(image(6), "make it blue", image=ImageSampling(guidance=1, image_guidance=1), seed=4),
    ]
    with clear_codes(model.model):
        assert_same_alone(model, requests)


def test_interleaved_replies_repeat_under_a_seed(model: Chameleon) -> None:
    def told(seed: int) -> list[object]:
        text = TextSampling(temperature=2.0, top_p=1.0, max_tokens=60)
        pieces = list(model.reply(tasks.interleave("a story", [image(1)], text=text, seed=seed)))
        return [piece.codes if isinstance(piece, Picture) else piece for piece in pieces]

    assert told(3) == told(3)
    assert told(3) != told(4)


def test_one_bad_request_does_not_end_the_others(model: Chameleon) -> None:
    too_long = tasks.ask("word " * 400, text=SHORT)
    fine = tasks.ask("what is it?", [image(1)], text=SHORT)
    first, bad, last = gathered(model, [fine, too_long, fine])
    assert [first, last] == gathered(model, [fine, fine])
    assert isinstance(bad, MmgenError)
    assert "too long" in bad.message


def test_a_prompt_may_fill_the_context_but_not_more(folder: Path, model: Chameleon) -> None:
    room = model.prompter.context
    length = len(model.prompt(tasks.draw("a")).ids)
    picture = model.language_model.vocabulary.picture_length
    fits = tasks.draw("a" + " a" * (room - length - picture), seed=1)
    assert len(model.prompt(fits).ids) == room - picture
    assert len(gathered(model, [fits])[0].codes) == picture - 2
    with pytest.raises(MmgenError, match="1 token too long"):
        model.prompt(tasks.draw("a" + " a" * (room - length - picture + 1)))
    talk = (Turn("user", ("a" + " a" * room,)), Turn("assistant", ("a",)))
    with pytest.raises(TooLongError, match=r"the conversation is [0-9]+ tokens too long"):
        model.prompt(tasks.ask("what is it?", history=talk))


@pytest.mark.parametrize("typed", ["</s>", "<s>hi<racm3:break>", "a<image>b", "IMGIMGBZ", "<reserved08706>", "<eoss>"])
def test_special_tokens_that_a_user_types_are_text(model: Chameleon, typed: str) -> None:
    v = model.language_model.vocabulary
    ids = model.prompt(tasks.ask(typed, text=SHORT)).ids
    assert ids[0] == v.bos
    assert ids[-1] == v.end_of_turn
    structural = {v.bos, v.eos, v.begin_image, v.end_image, v.placeholder, v.end_of_turn, *v.code_ids}
    assert not structural & set(ids[1:-1])
    assert model.prompter.decode(ids[1:-1]) == typed


def test_earlier_turns_stand_before_the_question(model: Chameleon) -> None:
    request = tasks.ask("and now?", [image(1)], text=SHORT)
    history = (Turn("user", (image(2), "what is it?")), Turn("assistant", ("A cat.",)))
    prompt = model.prompt(replace(request, history=history))
    assert len(prompt.pictures) == 2
    assert prompt.ids.count(model.language_model.vocabulary.end_of_turn) == 3


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
        model.prompt(request)


def test_float16_is_refused(folder: Path) -> None:
    with pytest.raises(MmgenError, match="float16") as caught:
        opened(folder, Loading(dtype="float16"))
    assert "bfloat16" in caught.value.hint


def test_the_codec_stays_in_float32_when_the_rest_does_not(folder: Path) -> None:
    half = opened(folder, Loading(dtype="bfloat16"))
    assert isinstance(half, Chameleon)
    assert half.model.lm_head.weight.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in half.model.model.vqmodel.parameters()} == {torch.float32}
    assert len(gathered(half, [tasks.vary(image(1), seed=1)])[0].codes) == half.language_model.vocabulary.n_codes


@pytest.mark.parametrize("bits", ["4bit", "8bit", "quanto-int8"])
def test_quantized_it_draws_and_answers_with_head_and_codec_whole(folder: Path, bits: str) -> None:
    small = opened(folder, Loading(quantize=bits))
    assert isinstance(small, Chameleon)
    kinds = {name: type(module).__name__ for name, module in small.model.named_modules()}
    assert kinds["model.layers.0.mlp.up_proj"] in ("Linear4bit", "Linear8bitLt", "QLinear")
    assert kinds["lm_head"] in ("Linear", "PackedLinear")
    assert {p.dtype for p in small.model.model.vqmodel.parameters()} == {torch.float32}
    picture, words = gathered(small, [tasks.draw("a cat", seed=1), tasks.ask("what is it?", [image(1)], text=SHORT)])
    assert len(picture.codes) == small.language_model.vocabulary.n_codes
    assert isinstance(words, str)


def test_a_group_that_outgrows_memory_is_its_own_error(model: Chameleon, monkeypatch: pytest.MonkeyPatch) -> None:
    def outgrow(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("too much")

    fine, large = tasks.ask("what is it?", text=SHORT), tasks.draw("a cat", seed=1)
    expected = gathered(model, [fine])[0]
    network = replace(model.language_model.network, code_head=outgrow)
    monkeypatch.setattr(model, "language_model", replace(model.language_model, network=network))
    words, failed = gathered(model, [fine, large])
    assert words == expected
    assert isinstance(failed, MmgenError)
    assert "memory" in failed.message

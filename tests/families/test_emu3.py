"""Emu3 on tiny random checkpoints: equal to stock transformers, and to itself in a batch."""

from __future__ import annotations

from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import mmgen
from mmgen import tasks
from mmgen.errors import MmgenError
from mmgen.families.emu3 import Emu3
from mmgen.request import ImageSampling, Loading, Progress, TextSampling, Turn
from tests.support.drawing_checkpoints import EMU3_AREA, make_emu3
from tests.support.near_ties import assert_same, assert_same_alone, chosen, clear_codes, words_alone
from tests.support.opening import opened
from tests.support.refusals import refusal
from tests.support.scripted import run
from tests.support.speaking import RowSampler, ends, gathered, image, without_end

SHORT = TextSampling(max_tokens=24)
FREE = TextSampling(temperature=1.0, top_p=1.0, max_tokens=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_emu3(tmp_path_factory.mktemp("emu3"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Emu3:
    found = opened(folder, Loading(dtype="float32"))
    assert isinstance(found, Emu3)
    return found


@pytest.fixture(scope="module")
def stock(folder: Path) -> tuple[Any, Any]:
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def test_greedy_words_are_those_of_stock_transformers(model: Emu3, stock: Any) -> None:
    network, processor = stock
    # Stock leaves codes open where only words are wanted; mmgen does not.
    codes = network.vocabulary_mapping.image_tokens
    requests, theirs = [], []
    with clear_codes(network):
        for n_images in range(3):
            images = [image(number) for number in range(n_images)]  # of one size: stock pads others, and codes see it
            content = [*({"type": "image"} for _ in images), {"type": "text", "text": "what is it, and where?"}]
            prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            inputs = processor(images=images or None, text=[prompt], return_tensors="pt")
            out = network.generate(**inputs, max_new_tokens=24, do_sample=False, suppress_tokens=codes)
            theirs.append(without_end(out[0, inputs["input_ids"].shape[1] :].tolist(), ends(model)))
            requests.append(tasks.ask("what is it, and where?", images, text=SHORT))
    same = assert_same([words_alone(model, request) for request in requests], theirs)
    batch = gathered(model, [tasks.ask("and these two?", [image(7), image(8)], text=SHORT), *requests])[1:]
    for text, ids in compress(zip(batch, theirs, strict=True), same):
        assert text.strip() == processor.decode(ids, skip_special_tokens=True).strip()


def test_prompts_are_those_of_the_processor(model: Emu3, stock: Any) -> None:
    network, processor = stock
    drawn = model.prompt(tasks.draw("a cat", image=ImageSampling(ratio="2:1")))
    theirs = processor(text="a cat", return_for_image_generation=True, ratio="2:1", image_area=EMU3_AREA)
    assert [*drawn.ids, model.prompter.vocabulary.begin_image] == theirs["input_ids"][0]
    assert drawn.grid == tuple(theirs["image_sizes"][0])
    request = tasks.ask("and now?", text=SHORT)
    turns = (Turn("user", (image(2), "what is it?")), Turn("assistant", ("A cat.",)))
    ids = model.prompt(replace(request, history=turns)).ids
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        {"role": "user", "content": [{"type": "text", "text": "and now?"}]},
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(text=[text], images=[image(2)], return_tensors="pt")
    tokens = network.model.get_image_tokens(inputs["pixel_values"], inputs["image_sizes"])
    expected = inputs["input_ids"][0]
    expected[expected == model.prompter.image_id] = tokens.to(expected.dtype)
    assert list(ids) == expected.tolist()


def stock_codes(stock: Any, prompt: str, sampling: ImageSampling, seed: int) -> tuple[list[int], Image.Image]:
    """Draw as transformers documents it, with our sampling as the last logits processor; codes and picture."""
    network, processor = stock
    settings = {"return_for_image_generation": True, "ratio": sampling.ratio or "1:1", "image_area": EMU3_AREA}
    inputs = processor(text=[prompt], return_tensors="pt", **settings)
    ((height, width),) = inputs.pop("image_sizes")
    named = processor.tokenizer
    last = [named.eof_token_id, named.eoi_token_id, named.eos_token_id]
    visual = network.vocabulary_mapping.image_tokens

    def allowed(batch_id: int, ids: torch.Tensor) -> list[int]:
        offset = len(ids) - int((ids == named.image_wrapper_token_id).nonzero()[0, 0])
        if offset <= height * (width + 1):
            return visual if offset % (width + 1) else [network.vocabulary_mapping.eol_token_id]
        return [last[offset - height * (width + 1) - 1]]

    extra = {}
    if sampling.guidance != 1:
        negative = processor(text=[sampling.negative_prompt or ""], return_tensors="pt", **settings)
        extra = {
            "guidance_scale": sampling.guidance,
            "negative_prompt_ids": negative["input_ids"],
            "negative_prompt_attention_mask": negative["attention_mask"],
        }
    code_ids = torch.tensor([network.vocabulary_mapping.img2bpe[code] for code in range(len(visual))])
    out = network.generate(
        **inputs,
        **extra,
        max_new_tokens=height * (width + 1) + 3,
        do_sample=False,
        prefix_allowed_tokens_fn=allowed,
        logits_processor=[RowSampler(sampling, [seed], code_ids)],
    )[:, inputs["input_ids"].shape[1] :]
    lines = network.vocabulary_mapping.convert_bpe2img(out[:, :-3].view(-1, height, width + 1))
    pixels = network.decode_image_tokens(image_tokens=out, height=height, width=width)
    pictures = processor.postprocess(list(pixels.float()), return_tensors="PIL.Image.Image")["pixel_values"]
    return lines.flatten().tolist(), pictures[0]


def test_pictures_are_those_of_stock_generate_with_our_sampling(model: Emu3, stock: Any) -> None:
    samplings = (
        ImageSampling(guidance=1.0, temperature=0),
        ImageSampling(guidance=3.0, temperature=0),
        ImageSampling(guidance=3.0, temperature=0, negative_prompt="blur, a bad drawing", ratio="2:1"),
        ImageSampling(guidance=1.0, temperature=1.0, ratio="1:3"),
        ImageSampling(guidance=3.0, temperature=1.0, top_k=9),
    )
    requests = [tasks.draw("a snowman", image=sampling, seed=5) for sampling in samplings]
    ours = [gathered(model, [request])[0] for request in requests]
    theirs = [stock_codes(stock, "a snowman", sampling, seed=5) for sampling in samplings]
    alone = [chosen(model, request, picture.codes) for request, picture in zip(requests, ours, strict=True)]
    same = assert_same(alone, [codes for codes, _ in theirs])
    for one, (_, other) in compress(zip(ours, theirs, strict=True), same):
        difference = torch.tensor(list(other.tobytes())) - torch.tensor(list(one.image.tobytes()))
        assert other.size == one.image.size
        assert difference.abs().max() <= 1  # rounding: ours goes by way of [-1, 1]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_picture_is_the_same_alone_and_in_any_batch(model: Emu3, guidance: float) -> None:
    sampling = ImageSampling(guidance=guidance, temperature=1.0, top_p=1.0)
    wide = replace(sampling, ratio="2:1", negative_prompt="a very bad drawing")
    requests = [
        tasks.draw("a cat", image=sampling, seed=7),
        tasks.draw("a snowman in the snow at night", image=sampling, seed=8),
        tasks.draw("a boat", image=wide, seed=9),
        tasks.draw("a cat", image=sampling, seed=9),
        tasks.draw("a blue boat at sunset", image=wide, seed=9),
    ]
    batch = assert_same_alone(model, requests)
    assert len({picture.codes for picture in batch}) == 5
    three = mmgen.draw(model, "a cat", n=3, image=sampling, seed=7)
    assert_same([chosen(model, requests[i], batch[i].codes) for i in (0, 3)], [three[i].codes for i in (0, 2)])


def test_words_of_a_batch_are_those_of_each_alone(model: Emu3) -> None:
    requests = [
        tasks.ask(question, [image(i)] * n, text=sampling, seed=40 + i)
        for i, (question, n) in enumerate((("hi", 0), ("what is it?", 1), ("and these?", 2), ("why?", 0)))
        for sampling in (SHORT, FREE, replace(FREE, repetition_penalty=1.3))
    ]
    with clear_codes(model.model):
        assert len(set(map(tuple, assert_same_alone(model, requests)))) > 4


@pytest.mark.parametrize(
    ("ratio", "size"), [(None, (48, 48)), ("1:1", (48, 48)), ("2:1", (64, 32)), ("1:3", (24, 80)), ("16:9", (64, 32))]
)
def test_the_ratio_makes_the_size(model: Emu3, ratio: str | None, size: tuple[int, int]) -> None:
    *progress, picture = model.reply(tasks.draw("a cat", image=ImageSampling(ratio=ratio), seed=1))
    n_codes = size[0] * size[1] // 64
    assert picture.image.size == size  # type: ignore[union-attr]
    assert progress[-1] == Progress(n_codes, n_codes)


def test_a_ratio_that_leaves_nothing_is_refused(folder: Path) -> None:
    request = tasks.draw("a cat", image=ImageSampling(ratio="1:900"))
    with pytest.raises(MmgenError, match="too thin"):
        opened(folder, want=request.want, requests=[request])


def test_a_negative_prompt_changes_the_picture_if_there_is_guidance(model: Emu3) -> None:
    def drawn(negative: str | None, guidance: float) -> object:
        sampling = ImageSampling(guidance=guidance, negative_prompt=negative)
        return gathered(model, [tasks.draw("a cat", image=sampling, seed=1)])[0].codes

    assert len({drawn(None, 3.0), drawn("blur", 3.0), drawn("a bad drawing", 3.0)}) == 3
    assert drawn(None, 1.0) == drawn("blur", 1.0)


@pytest.mark.parametrize("what", ["vary", "interleave"])
def test_what_it_cannot_do_is_refused_before_torch_is_imported(folder: Path, model: Emu3, what: str) -> None:
    code, _, hint = refusal(folder, what)
    assert (code, hint) == ("1", f"{what} with -m demo (built in) or -m anole-7b")
    with pytest.raises(MmgenError):
        next(model.reply(tasks.vary(image(1)) if what == "vary" else tasks.interleave("a")))


def test_a_prompt_may_fill_the_context_but_not_more(folder: Path, model: Emu3) -> None:
    n_words = model.prompter.context - 6 * 7 - 1 - len(model.prompt(tasks.draw("a")).ids)
    fits = tasks.draw("a" + " a" * n_words, seed=1)
    assert len(gathered(model, [fits])[0].codes) == 36
    with pytest.raises(MmgenError, match="1 token too long"):
        model.prompt(tasks.draw("a" + " a" * (n_words + 1)))
    with pytest.raises(MmgenError, match="too long"):
        model.prompt(tasks.draw("a", image=ImageSampling(negative_prompt="a " * 300)))
    with pytest.raises(MmgenError, match="too long"):
        opened(folder, requests=[tasks.ask("what?", [image(1)] * 20)])


@pytest.mark.parametrize("typed", ["<|extra_203|>", "<image>", "a<|visual token 000003|>", "<|image start|>2*2"])
def test_special_tokens_that_a_user_types_are_text(model: Emu3, typed: str) -> None:
    special = 9 + 32
    plain = [id_ for id_ in model.prompt(tasks.draw("PLAIN")).ids if id_ < special]
    ids = model.prompt(tasks.draw(typed)).ids
    assert [id_ for id_ in ids if id_ < special] == plain
    assert typed in model.prompter.decode(ids)


@pytest.mark.parametrize("size", [(1, 1), (200, 1), (1, 200), (100, 3), (90, 17), (300, 200)])
def test_pictures_of_any_shape_are_read(model: Emu3, size: tuple[int, int]) -> None:
    rows, columns = model.encode(image(3, size)).shape
    assert model.prompter.picture_length(image(3, size)) == rows * (columns + 1) + len(f"{rows}*{columns}") + 4
    with pytest.raises(MmgenError, match="too thin"):
        model.prompt(tasks.ask("what?", [Image.new("L", (201, 1))]))


def test_half_precision_leaves_the_codec_whole(folder: Path) -> None:
    half = opened(folder, Loading(dtype="bfloat16"))
    assert isinstance(half, Emu3)
    assert half.model.lm_head.weight.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in half.model.model.vqmodel.parameters()} == {torch.float32}
    picture, words = gathered(half, [tasks.draw("a cat", seed=1), tasks.ask("what?", [image(1)], text=SHORT)])
    assert len(picture.codes) == 36
    assert isinstance(words, str)


@pytest.mark.parametrize("bits", ["4bit", "8bit", "quanto-int8"])
def test_quantized_it_draws_and_answers_with_head_and_codec_whole(folder: Path, bits: str) -> None:
    small = opened(folder, Loading(quantize=bits))
    assert isinstance(small, Emu3)
    kinds = {name: type(module).__name__ for name, module in small.model.named_modules()}
    assert kinds["model.text_model.layers.0.mlp.up_proj"] in ("Linear4bit", "Linear8bitLt", "QLinear")
    assert {kind for name, kind in kinds.items() if "vqmodel" in name} & {
        "Linear4bit",
        "Linear8bitLt",
        "QLinear",
    } == set()
    assert kinds["lm_head"] in ("Linear", "PackedLinear")
    picture, words = gathered(small, [tasks.draw("a cat", seed=1), tasks.ask("what?", [image(1)], text=SHORT)])
    assert len(picture.codes) == 36
    assert isinstance(words, str)


def test_the_command_line_draws_and_captions(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--ratio", "2:1", "--negative-prompt", "blur", "--seed", "7"]
    drawn = run("draw", "a cat", "-m", str(folder), "-o", "cat.png", "-n", "2", *flags)
    assert (drawn.code, drawn.out) == (0, "cat-1.png\ncat-2.png\n")
    assert Image.open("cat-2.png").size == (64, 32)
    told = run("caption", "cat-1.png", "cat-2.png", "-m", str(folder), "--max-tokens", "8")
    assert (told.code, told.out.count("\t")) == (0, 2)

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

from mmgen import tasks
from mmgen.errors import MmgenError
from mmgen.families.emu3 import Emu3
from mmgen.request import ImageSampling, Loading, Progress, TextSampling, Turn
from tests.support.drawing_checkpoints import EMU3_AREA, make_emu3
from tests.support.near_ties import assert_same, chosen
from tests.support.opening import opened
from tests.support.refusals import refusal
from tests.support.replies import RowSampler, gathered, image

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


def test_prompts_are_those_of_the_processor(model: Emu3, stock: Any) -> None:
    network, processor = stock
    drawn = model.prompts([tasks.draw("a cat", image=ImageSampling(ratio="2:1"))])[0]
    theirs = processor(text="a cat", return_for_image_generation=True, ratio="2:1", image_area=EMU3_AREA)
    assert [*drawn.ids, model.prompter.vocabulary.begin_image] == theirs["input_ids"][0]
    assert (drawn.canvas.rows, drawn.canvas.columns) == tuple(theirs["image_sizes"][0])
    request = tasks.ask("and now?", text=SHORT)
    turns = (Turn("user", (image(2), "what is it?")), Turn("assistant", ("A cat.",)))
    ids = model.prompts([replace(request, history=turns)])[0].ids
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


@pytest.mark.parametrize("ratio", ["1:1", "2:1"])
def test_a_picture_is_as_likely_as_stock_transformers_say(model: Emu3, stock: Any, ratio: str) -> None:
    network, processor = stock
    request = tasks.draw("a snowman", image=ImageSampling(ratio=ratio), seed=5)
    [picture] = gathered(model, [request])
    settings = {"return_for_image_generation": True, "ratio": ratio, "image_area": EMU3_AREA}
    inputs = processor(text=["a snowman"], return_tensors="pt", **settings)
    ((_, width),) = inputs["image_sizes"]
    prompt, names = inputs["input_ids"][0].tolist(), network.vocabulary_mapping
    ids, places = prompt.copy(), []
    for start in range(0, len(picture.codes), width):  # rows, each with an id for its end
        places += range(len(ids), len(ids) + width)
        ids += [*(names.img2bpe[code] for code in picture.codes[start : start + width]), names.eol_token_id]
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([ids])).logits[0].double()
    visual = logits[:, names.image_tokens].logsumexp(-1)
    expected = sum(float(logits[place - 1, ids[place]] - visual[place - 1]) for place in places)
    assert model.score(request, [picture]) == pytest.approx([expected], abs=1e-3)  # float32, in another order
    with pytest.raises(MmgenError, match="draws no picture of such codes"):
        model.score(tasks.draw("a snowman", image=ImageSampling(ratio="1:3")), [picture])


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
    assert (code, hint) == ("1", f"{what} with -m demo (built in), or a model of mmgen models that can")
    with pytest.raises(MmgenError):
        next(model.reply(tasks.vary(image(1)) if what == "vary" else tasks.interleave("a")))


def test_a_negative_prompt_that_is_too_long_is_refused(model: Emu3) -> None:
    with pytest.raises(MmgenError, match="too long"):
        next(model.reply(tasks.draw("a", image=ImageSampling(negative_prompt="a " * 300))))


@pytest.mark.parametrize("size", [(1, 1), (200, 1), (1, 200), (100, 3), (90, 17), (300, 200)])
def test_pictures_of_any_shape_are_read(model: Emu3, size: tuple[int, int]) -> None:
    [codes] = model.encode([image(3, size)])
    rows, columns = len(codes), len(codes[0])
    assert model.prompter.image_length(image(3, size)) == rows * (columns + 1) + len(f"{rows}*{columns}") + 4
    with pytest.raises(MmgenError, match="aspect ratio"):
        next(model.reply(tasks.ask("what?", [Image.new("L", (201, 1))])))

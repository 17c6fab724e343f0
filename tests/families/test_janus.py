"""Janus on tiny random checkpoints: equal to stock transformers, and to itself in a batch."""

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
from mmgen.families.janus import Janus
from mmgen.request import ImageSampling, Loading, TextSampling, Turn
from tests.support.drawing_checkpoints import JANUS_SIDE, make_janus
from tests.support.near_ties import assert_same, chosen
from tests.support.opening import opened
from tests.support.refusals import refusal
from tests.support.replies import RowSampler, gathered, image

SHORT = TextSampling(max_tokens=24)
FREE = TextSampling(temperature=1.0, top_p=1.0, max_tokens=16)
N_CODES = JANUS_SIDE**2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_janus(tmp_path_factory.mktemp("janus"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Janus:
    found = opened(folder, Loading(dtype="float32"))
    assert isinstance(found, Janus)
    return found


@pytest.fixture(scope="module")
def stock(folder: Path) -> tuple[Any, Any]:
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def stock_inputs(processor: Any, text: str, images: list[Image.Image]) -> Any:
    content = [*({"type": "image", "image": each} for each in images), {"type": "text", "text": text}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        generation_mode="text",
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


@pytest.mark.parametrize("with_system_prompt", [False, True])
def test_prompts_are_those_of_the_processor(tmp_path: Path, with_system_prompt: bool) -> None:
    folder = make_janus(tmp_path / "janus", system_prompt=with_system_prompt, positions=512)
    processor = AutoProcessor.from_pretrained(folder)
    words = opened(folder, Loading(dtype="float32"))
    assert isinstance(words, Janus)
    v = words.prompter.vocabulary
    ours = words.prompts([tasks.ask("  what is it? \n", [image(1)])])[0].ids  # the template trims, as the real one does
    theirs = stock_inputs(processor, "  what is it? \n", [image(1)])["input_ids"][0].tolist()
    assert [min(id_, v.size) for id_ in ours] == [v.size if id_ == v.placeholder else id_ for id_ in theirs]
    drawn = words.prompts([tasks.draw("a cat")])[0].ids
    messages = [{"role": "user", "content": [{"type": "text", "text": "a cat"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert [*drawn, v.begin_image] == processor(text=text, generation_mode="image")["input_ids"][0].tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_codes_are_those_of_stock_generate_with_our_sampling(
    model: Janus, stock: Any, guidance: float, temperature: float
) -> None:
    network, processor = stock
    sampling = ImageSampling(guidance=guidance, temperature=temperature)
    prompts = ["a snowman", "a red cat on the grass at night", "a boat"]
    texts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "text", "text": prompt}]}], add_generation_prompt=True
        )
        for prompt in prompts
    ]
    inputs = processor(text=texts, generation_mode="image", padding=True, return_tensors="pt")

    def guide(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        told, nothing = scores.chunk(2)
        return nothing + guidance * (told - nothing)

    chain = [guide, RowSampler(sampling, [5, 6, 7])]
    out = network.generate(
        **inputs, generation_mode="image", do_sample=False, guidance_scale=1.0, logits_processor=chain
    )
    requests = [tasks.draw(prompt, image=sampling, seed=5 + i) for i, prompt in enumerate(prompts)]
    ours = [gathered(model, [request])[0] for request in requests]
    alone = [chosen(model, request, picture.codes) for request, picture in zip(requests, ours, strict=True)]
    same = assert_same(alone, out.tolist())
    pixels = network.decode_image_tokens(out).detach().permute(0, 3, 1, 2)
    theirs = processor.postprocess(list(pixels), return_tensors="PIL.Image.Image")["pixel_values"]
    for one, other in compress(zip(ours, theirs, strict=True), same):
        difference = torch.tensor(list(other.tobytes())) - torch.tensor(list(one.image.tobytes()))
        assert other.size == one.image.size == (4 * JANUS_SIDE, 4 * JANUS_SIDE)
        assert difference.abs().max() <= 1  # rounding: ours goes by way of [-1, 1]


def test_greedy_codes_are_those_of_stock_guidance(model: Janus, stock: Any) -> None:
    network, processor = stock
    alone, theirs = [], []
    for prompt in ("a snowman", "a cat"):
        messages = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = processor(text=text, generation_mode="image", return_tensors="pt")
        out = network.generate(**inputs, generation_mode="image", do_sample=False, guidance_scale=3.0)
        theirs += out.tolist()
        request = tasks.draw(prompt, image=ImageSampling(temperature=0))
        alone.append(chosen(model, request, gathered(model, [request])[0].codes))
    assert_same(alone, theirs)


def test_a_picture_is_as_likely_as_stock_transformers_say(model: Janus, stock: Any) -> None:
    network, processor = stock
    request = tasks.draw("a snowman", seed=5)
    [picture] = gathered(model, [request])
    codes = torch.tensor([picture.codes])
    messages = [{"role": "user", "content": [{"type": "text", "text": "a snowman"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    prompt = processor(text=text, generation_mode="image", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        before = network.prepare_embeddings_for_image_generation(codes[:, :-1])
        vectors = torch.cat([network.get_input_embeddings()(prompt), before], dim=1)
        hidden = network.model.language_model(inputs_embeds=vectors).last_hidden_state[0, -N_CODES:]
        log_p = network.model.generation_head(hidden).double().log_softmax(-1)
    expected = float(log_p[range(N_CODES), codes[0]].sum())
    assert model.score(request, [picture]) == pytest.approx([expected], abs=1e-3)  # float32, in another order


@pytest.mark.parametrize("what", ["vary", "interleave", "negative prompt", "ratio"])
def test_what_it_cannot_do_is_refused_before_torch_is_imported(folder: Path, what: str) -> None:
    code, message, hint = refusal(folder, what)
    if what in ("vary", "interleave"):
        assert code == "1"
        assert hint == f"{what} with -m demo (built in), or a model of mmgen models that can"
    else:
        assert code == "2"
        assert what in message


def test_text_is_continued_without_a_template(model: Janus) -> None:
    prompt = model.prompts([tasks.ask("a <image> b", [image(1)], complete=True)])[0]
    words = [id_ for id_ in prompt.ids if id_ < model.prompter.vocabulary.size]
    assert model.prompter.decode(words) == "a  b"
    assert words[0] == model.prompter.vocabulary.bos


def test_earlier_turns_stand_before_the_question(model: Janus, stock: Any) -> None:
    _, processor = stock
    request = tasks.ask("and now?", text=SHORT)
    turns = (Turn("user", (image(2), "what is it?")), Turn("assistant", ("A cat.",)))
    ids = model.prompts([replace(request, history=turns)])[0].ids
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        {"role": "user", "content": [{"type": "text", "text": "and now?"}]},
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    theirs = processor(text=text, images=[image(2)])["input_ids"][0].tolist()
    size = model.prompter.vocabulary.size
    assert [id_ if id_ < size else 3 for id_ in ids] == theirs


def test_a_picture_is_let_go_with_its_request(model: Janus) -> None:
    request = tasks.ask("what is it?", [image(1)], text=SHORT)
    before = len(model.prompter.images)
    prompt = model.prompts([request])[0]
    assert len(model.prompter.images) == before + 1
    del request, prompt
    assert len(model.prompter.images) == before


def test_a_checkpoint_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = make_janus(tmp_path / "janus")
    request = tasks.draw("a")

    def refused() -> str:
        with pytest.raises(MmgenError) as caught:
            opened(folder, want=request.want, requests=[request])
        return caught.value.message

    (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    assert "cannot take this prompt: no" in refused()
    (folder / "chat_template.jinja").unlink()
    assert "no chat template" in refused()
    (folder / "processor_config.json").rename(folder / "away.json")
    assert "nothing to prepare pictures with" in refused()
    (folder / "generation_config.json").write_text("{")
    assert "not valid JSON" in refused()
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"num_image_tokens": 16', '"num_image_tokens": "many"'))
    assert "config.json" in refused()

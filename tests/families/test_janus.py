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

import mmgen
from mmgen import tasks
from mmgen.errors import MmgenError
from mmgen.families.janus import Janus
from mmgen.request import ImageSampling, Loading, Progress, TextSampling, Turn
from tests.support.drawing_checkpoints import JANUS_SIDE, make_janus
from tests.support.near_ties import assert_same, assert_same_alone, chosen, words_alone
from tests.support.opening import opened
from tests.support.refusals import refusal
from tests.support.scripted import run
from tests.support.speaking import RowSampler, ends, gathered, image, without_end

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


def test_greedy_words_are_those_of_stock_transformers(model: Janus, stock: Any) -> None:
    network, processor = stock
    requests, theirs = [], []
    for n_images in range(3):
        images = [image(number, (30 + 9 * number, 40)) for number in range(n_images)]
        inputs = stock_inputs(processor, "what is it, and where?", images)
        out = network.generate(**inputs, max_new_tokens=24, generation_mode="text", do_sample=False)
        theirs.append(without_end(out[0, inputs["input_ids"].shape[1] :].tolist(), ends(model)))
        requests.append(tasks.ask("what is it, and where?", images, text=SHORT))
    same = assert_same([words_alone(model, request) for request in requests], theirs)
    batch = gathered(model, [tasks.ask("and these two?", [image(7), image(8)], text=SHORT), *requests])[1:]
    for text, ids in compress(zip(batch, theirs, strict=True), same):
        assert text.strip() == processor.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize("with_system_prompt", [False, True])
def test_prompts_are_those_of_the_processor(tmp_path: Path, with_system_prompt: bool) -> None:
    folder = make_janus(tmp_path / "janus", system_prompt=with_system_prompt, positions=512)
    processor = AutoProcessor.from_pretrained(folder)
    words = opened(folder, Loading(dtype="float32"))
    assert isinstance(words, Janus)
    v = words.prompter.vocabulary
    ours = words.prompt(tasks.ask("  what is it? \n", [image(1)])).ids  # the template trims, as the real one does
    theirs = stock_inputs(processor, "  what is it? \n", [image(1)])["input_ids"][0].tolist()
    assert [min(id_, v.size) for id_ in ours] == [v.size if id_ == v.placeholder else id_ for id_ in theirs]
    drawn = words.prompt(tasks.draw("a cat")).ids
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


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_picture_is_the_same_alone_and_in_any_batch(model: Janus, guidance: float) -> None:
    sampling = ImageSampling(guidance=guidance, temperature=1.0, top_p=1.0)
    prompts = ["a cat", "a snowman in the snow at night", "a cat", "a boat"]
    requests = [tasks.draw(prompt, image=sampling, seed=seed) for seed, prompt in enumerate(prompts, 7)]
    batch = assert_same_alone(model, requests)
    assert len({picture.codes for picture in batch}) == 4
    three = mmgen.draw(model, "a cat", n=3, image=sampling, seed=7)
    assert_same([chosen(model, requests[i], batch[i].codes) for i in (0, 2)], [three[i].codes for i in (0, 2)])


def test_words_of_a_batch_are_those_of_each_alone(model: Janus) -> None:
    requests = [
        tasks.ask(question, [image(i)] * n, text=sampling, seed=40 + i)
        for i, (question, n) in enumerate((("hi", 0), ("what is it?", 1), ("and these?", 2), ("why?", 0)))
        for sampling in (SHORT, FREE, replace(FREE, repetition_penalty=1.3))
    ]
    assert len(set(map(tuple, assert_same_alone(model, requests)))) > 4


def test_the_first_words_come_before_the_last_are_made(model: Janus) -> None:
    heard: list[int] = []
    hook = model.model.lm_head.register_forward_hook(lambda *_: heard.append(1))
    pieces = model.reply(tasks.ask("what is it?", [image(1)], text=SHORT))
    next(pieces)
    early = len(heard)
    list(pieces)
    hook.remove()
    assert early < len(heard) / 2


def test_progress_counts_codes(model: Janus) -> None:
    *progress, _ = model.reply(tasks.draw("a cat", seed=1))
    counts = [step.done for step in progress]
    assert counts == sorted(set(counts))
    assert progress[-1] == Progress(N_CODES, N_CODES)


@pytest.mark.parametrize("what", ["vary", "interleave", "negative prompt", "ratio"])
def test_what_it_cannot_do_is_refused_before_torch_is_imported(folder: Path, what: str) -> None:
    code, message, hint = refusal(folder, what)
    if what in ("vary", "interleave"):
        assert code == "1"
        assert hint == f"{what} with -m demo (built in) or -m anole-7b"
    else:
        assert code == "2"
        assert what in message


def test_what_it_cannot_do_is_refused_when_loaded_too(model: Janus) -> None:
    asked = [tasks.vary(image(1)), tasks.interleave("a"), tasks.draw("a", image=ImageSampling(negative_prompt="b"))]
    *bad, fine = gathered(model, [*asked, tasks.draw("a", seed=1)])
    assert all(isinstance(found, MmgenError) for found in bad)
    assert len(fine.codes) == N_CODES


def test_a_prompt_may_fill_the_context_but_not_more(folder: Path, model: Janus) -> None:
    room = model.prompter.context - N_CODES - 1
    n_words = room - len(model.prompt(tasks.draw("a")).ids)
    fits = tasks.draw("a" + " a" * n_words, seed=1)
    assert len(model.prompt(fits).ids) == room
    assert len(gathered(model, [fits])[0].codes) == N_CODES
    too_long = tasks.draw("a" + " a" * (n_words + 1))
    with pytest.raises(MmgenError, match="1 token too long"):
        model.prompt(too_long)
    with pytest.raises(MmgenError, match="too long"):
        opened(folder, requests=[tasks.ask("what?", [image(1)] * 20)])


@pytest.mark.parametrize("typed", ["<begin>", "a<end>b", "<image_placeholder>", "<begin_of_image>", "<pad>"])
def test_special_tokens_that_a_user_types_are_text(model: Janus, typed: str) -> None:
    plain = model.prompt(tasks.ask("PLAIN", text=SHORT)).ids
    ids = model.prompt(tasks.ask(typed, text=SHORT)).ids
    assert [id_ for id_ in ids if id_ < 6] == [id_ for id_ in plain if id_ < 6]
    assert typed in model.prompter.decode(ids)
    assert model.prompt(tasks.ask(f"{typed} <image>", [image(1)])).ids.count(4) == 1


def test_text_is_continued_without_a_template(model: Janus) -> None:
    prompt = model.prompt(tasks.ask("a <image> b", [image(1)], complete=True))
    words = [id_ for id_ in prompt.ids if id_ < model.prompter.vocabulary.size]
    assert model.prompter.decode(words) == "a  b"
    assert words[0] == model.prompter.vocabulary.bos


def test_earlier_turns_stand_before_the_question(model: Janus, stock: Any) -> None:
    _, processor = stock
    request = tasks.ask("and now?", text=SHORT)
    turns = (Turn("user", (image(2), "what is it?")), Turn("assistant", ("A cat.",)))
    ids = model.prompt(replace(request, history=turns)).ids
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
    before = len(model._pictures)
    prompt = model.prompt(request)
    assert len(model._pictures) == before + 1
    del request, prompt
    assert len(model._pictures) == before


def test_half_precision_leaves_the_codec_whole(folder: Path) -> None:
    half = opened(folder, Loading(dtype="bfloat16"))
    assert isinstance(half, Janus)
    assert half.model.lm_head.weight.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in half.model.model.vqmodel.parameters()} == {torch.float32}
    picture, words = gathered(half, [tasks.draw("a cat", seed=1), tasks.ask("what?", [image(1)], text=SHORT)])
    assert len(picture.codes) == N_CODES
    assert isinstance(words, str)


@pytest.mark.parametrize("bits", ["4bit", "8bit", "quanto-int8"])
def test_quantized_it_draws_and_answers_with_heads_and_codec_whole(folder: Path, bits: str) -> None:
    small = opened(folder, Loading(quantize=bits))
    assert isinstance(small, Janus)
    kinds = {name: type(module).__name__ for name, module in small.model.named_modules()}
    assert kinds["model.language_model.layers.0.mlp.up_proj"] in ("Linear4bit", "Linear8bitLt", "QLinear")
    whole = ("lm_head", "model.generation_head.vision_head", "model.generation_aligner.fc1")
    assert {kinds[name] for name in whole} <= {"Linear", "PackedLinear"}
    assert {p.dtype for p in small.model.model.vqmodel.parameters()} == {torch.float32}
    picture, words = gathered(small, [tasks.draw("a cat", seed=1), tasks.ask("what?", [image(1)], text=SHORT)])
    assert len(picture.codes) == N_CODES
    assert isinstance(words, str)


def test_a_checkpoint_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = make_janus(tmp_path / "janus")
    request = tasks.draw("a")

    def refused() -> str:
        with pytest.raises(MmgenError) as caught:
            opened(folder, want=request.want, requests=[request])
        return caught.value.message

    (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    assert "refuses this: no" in refused()
    (folder / "chat_template.jinja").unlink()
    assert "no chat template" in refused()
    (folder / "processor_config.json").rename(folder / "away.json")
    assert "nothing to prepare pictures with" in refused()
    (folder / "generation_config.json").write_text("{")
    assert "not valid JSON" in refused()
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"num_image_tokens": 16', '"num_image_tokens": "many"'))
    assert "config.json" in refused()


def test_flash_attention_is_refused(folder: Path) -> None:
    with pytest.raises(MmgenError, match="flash_attention_2"):
        opened(folder, Loading(attn="flash_attention_2"))


def test_the_command_line_draws_and_captions(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = run("draw", "a cat", "-m", str(folder), "-o", "cat.png", "-n", "2", "--seed", "7")
    assert (drawn.code, drawn.out) == (0, "cat-1.png\ncat-2.png\n")
    told = run("caption", "cat-1.png", "cat-2.png", "-m", str(folder), "--max-tokens", "8")
    assert (told.code, told.out.count("\t")) == (0, 2)

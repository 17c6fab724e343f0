"""Checkpoints with a chat template, tiny and random: equal to the documented snippet, and to themselves in a batch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from mmgen import cli, tasks
from mmgen.checkpoints import catalog, hub
from mmgen.checkpoints.x86 import PackedLinear
from mmgen.errors import MmgenError
from mmgen.families import chat
from mmgen.families.chat import Chat
from mmgen.request import Turn
from mmgen.text import clean
from tests.support.chat_checkpoints import MAKERS
from tests.support.chat_replies import FLAT, N_TOKENS, SHORT, copied, gathered, image, opened
from tests.support.near_ties import assert_same, words_alone
from tests.support.replies import ends, said, without_end
from tests.support.shell import run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


@pytest.fixture(scope="module", params=list(MAKERS))
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


@pytest.fixture(scope="module")
def model(folder: Path) -> Chat:
    return opened(folder)


@pytest.fixture(scope="module")
def stock(folder: Path) -> tuple[Any, Any]:
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def stock_answer(stock: tuple[Any, Any], messages: list[dict[str, Any]], **settings: Any) -> list[int]:
    """The snippet of the families' documentation: what is said, without an end."""
    network, processor = stock
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    out = network.generate(**inputs, max_new_tokens=N_TOKENS, do_sample=False, **settings)
    return without_end(out[0, inputs["input_ids"].shape[1] :].tolist(), network.generation_config.eos_token_id)


def message(role: str, *parts: str | Image.Image) -> dict[str, Any]:
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part} for part in parts
    ]
    return {"role": role, "content": content}


# --- the same as stock, alone and in a batch ----------------------------------------------------------------------


def test_pictures_and_earlier_turns_stand_where_they_were_put(model: Chat, stock: Any) -> None:
    alone, theirs = [], []
    for answer in ("A cat.", "A red boat on the grass."):
        request = replace(
            tasks.ask("is <image> like <image> or not?", [image(1), image(2)], text=SHORT),
            history=(Turn("user", (image(3), "what is it?")), Turn("assistant", (answer,))),
        )
        alone.append(words_alone(model, request))
        messages = [
            message("user", image(3), "what is it?"),
            message("assistant", answer),
            message("user", "is ", image(1), " like ", image(2), " or not?"),
        ]
        theirs.append(stock_answer(stock, messages))
    assert_same(alone, theirs)


MIXED = (
    ("hi", 0),
    ("what is it?", 1),
    ("and these two here?", 2),
    ("why is that?", 0),
    ("and these?", 3),
    ("this?", 1),
)


def test_the_checkpoints_own_way_of_sampling_is_not_taken(folder: Path, model: Chat, tmp_path: Path) -> None:
    new = copied(folder, tmp_path / "new")
    settings = json.loads((new / "generation_config.json").read_text())
    settings |= {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 3, "num_beams": 2}
    (new / "generation_config.json").write_text(json.dumps(settings))
    requests = [tasks.ask("what is it?", [image(1)], text=sampling, seed=1) for sampling in (SHORT, FLAT)]
    assert gathered(opened(new), requests) == gathered(model, requests)


def test_without_ends_of_its_own_a_reply_ends_as_its_tokenizer_says(folder: Path, tmp_path: Path) -> None:
    new = copied(folder, tmp_path / "new", without="generation_config.json")
    config = json.loads((new / "config.json").read_text())
    config["text_config"]["eos_token_id"] = None
    (new / "config.json").write_text(json.dumps(config))
    stops: list[int] = []
    model = opened(new)

    def ended(*arguments: Any) -> Iterator[list[int]]:
        stops.extend(arguments[5])
        yield [stops[0]]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(chat, "stream", lambda *arguments: (step for step in ended(*arguments)))
        assert gathered(model, [tasks.ask("hi")]) == [""]
    assert stops == [model.prompter.tokenizer.eos_token_id]


def test_a_greedy_penalty_is_that_of_generate(model: Chat, stock: Any) -> None:
    questions = ("hi", "what is it?", "why is that?")
    theirs = [stock_answer(stock, [message("user", question)], repetition_penalty=3.0) for question in questions]
    requests = [tasks.ask(question, text=replace(SHORT, repetition_penalty=3.0)) for question in questions]
    assert_same([words_alone(model, request) for request in requests], theirs)


def test_a_text_is_continued_with_pictures_where_they_stand(folder: Path, stock: Any, tmp_path: Path) -> None:
    base = copied(folder, tmp_path / "base", without="chat_template.jinja")
    network, processor = stock
    mark = processor.image_token
    model = opened(base)
    alone, expected = [], []
    for ours, theirs, images in (
        ("once upon a time", "once upon a time", None),
        ("so <image> is like <image> but", f"so {mark} is like {mark} but", [image(1), image(2)]),
    ):
        inputs = processor(text=[theirs], images=[images] if images else None, return_tensors="pt")
        out = network.generate(**inputs, max_new_tokens=N_TOKENS, do_sample=False)
        expected.append(without_end(out[0, inputs["input_ids"].shape[1] :].tolist(), ends(model)))
        alone.append(words_alone(model, tasks.ask(ours, images or (), text=SHORT, complete=True)))
    assert_same(alone, expected)
    with pytest.raises(MmgenError, match="no chat template") as caught:
        opened(base, tasks.ask("what is it?"))
    assert "--complete" in caught.value.hint


def test_a_continued_text_keeps_the_space_before_its_first_word(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(folders["idefics2"])
    words = model.prompter.tokenizer(" in common", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(chat, "stream", lambda *_: (step for step in [*([id_] for id_ in words), [1]]))
    # Tokenizers made by SentencePiece drop the space of the first token they decode.
    decode = model.prompter.decode
    monkeypatch.setattr(model.prompter, "decode", lambda ids: decode(ids).removeprefix(" "))
    assert "".join(map(str, model.reply(tasks.ask("what", complete=True)))) == " in common"
    assert "".join(map(str, model.reply(tasks.ask("what")))) == "in common"


# --- what is loaded -----------------------------------------------------------------------------------------------


def test_without_pictures_the_vision_tower_is_not_loaded_until_one_comes(folders: dict[str, Path]) -> None:
    whole = opened(folders["mllama"])
    question = tasks.ask("what is it?", text=SHORT)
    words = opened(folders["mllama"], question)
    names = [name for name, _ in words.model.named_parameters()]
    assert names
    assert not [name for name in names if "vision" in name or "projector" in name]
    n_parameters = [sum(p.numel() for p in each.model.parameters()) for each in (words, whole)]
    expected = sum(
        p.numel() for name, p in whole.model.named_parameters() if "language_model" in name or "head" in name
    )
    assert n_parameters[0] == expected < n_parameters[1]

    inputs = words.prompter.write([question])
    with torch.inference_mode():
        # The head lies in another order, and is multiplied by another kernel.
        torch.testing.assert_close(words.model(**inputs).logits, whole.model(**inputs).logits, atol=1e-5, rtol=0)
    assert_same([words_alone(whole, question)], said(words, [question]))
    seen = tasks.ask("what is it?", [image(1)], text=SHORT)
    assert_same([words_alone(whole, request) for request in (question, seen)], said(words, [question, seen]))
    assert sum(p.numel() for p in words.model.parameters()) == n_parameters[1]


def test_weights_are_fetched_once_though_two_models_are_made_of_them(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Any] = []
    on_the_hub = replace(
        catalog.find(str(folders["mllama"])), repo="org/tiny", revision="0" * 40, missing=("model.safetensors",)
    )
    monkeypatch.setattr(catalog, "find", lambda *_, **__: on_the_hub)
    monkeypatch.setattr(hub, "fetch", lambda *arguments: fetched.append(arguments))
    model = opened(folders["mllama"], tasks.ask("what is it?", text=SHORT))
    assert isinstance(gathered(model, [tasks.ask("what is it?", [image(1)], text=SHORT)])[0], str)
    assert len(fetched) == 1


def test_a_device_map_names_the_modules_of_the_model(folders: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text('{"model.vision_model": "cpu", "model.multi_modal_projector": "cpu", "lm_head": "cpu"}')
    with pytest.raises(MmgenError, match=r"no device to 33 tensor\(s\), model\.language_model"):
        opened(folders["mllama"], device_map=str(path))
    path.write_text('{"model": "cpu", "lm_head": "cpu"}')
    placed = opened(folders["mllama"], device_map=str(path))
    assert isinstance(gathered(placed, [tasks.ask("what is it?", [image(1)], text=SHORT)])[0], str)


def test_a_picture_that_cannot_be_loaded_for_does_not_end_the_words(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MmgenError("does not fit")

    question, seen = tasks.ask("what is it?", text=SHORT), tasks.ask("what is it?", [image(1)], text=SHORT)
    words = opened(folders["mllama"], question)
    expected = gathered(words, [question])
    with monkeypatch.context() as patched:
        patched.setattr(chat, "load_model", fail)
        with pytest.raises(MmgenError, match="does not fit"):
            list(words.replies([question, seen]))
    assert gathered(words, [question]) == expected


@pytest.mark.parametrize("quantize", ["8bit", "4bit", "quanto-int8"])
@pytest.mark.parametrize("family", ["mllama", "idefics2"])
def test_quantized_are_all_linear_layers_but_head_and_projector(
    folders: dict[str, Path], family: str, quantize: str, capfd: pytest.CaptureFixture[str]
) -> None:
    small, whole = opened(folders[family], quantize=quantize), opened(folders[family])
    layer = {"8bit": "Linear8bitLt", "4bit": "Linear4bit", "quanto-int8": "QLinear"}[quantize]
    linear = {name for name, module in whole.model.named_modules() if type(module) in (torch.nn.Linear, PackedLinear)}
    quantized = {name for name, module in small.model.named_modules() if type(module).__name__ == layer}
    assert linear - quantized == {name for name in ("lm_head", "model.multi_modal_projector") if name in linear}
    assert quantized < linear
    answers = gathered(small, [tasks.ask(q, [image(1)] * n, text=SHORT) for q, n in MIXED])
    assert all(isinstance(answer, str) for answer in answers)
    assert capfd.readouterr() == ("", "")


def test_layers_that_4_bits_do_not_fit_stay_whole_on_a_cpu(tmp_path: Path) -> None:
    odd = MAKERS["idefics3"](tmp_path / "odd", vision_intermediate=96)
    small = opened(odd, quantize="4bit")
    kinds = {name: type(module).__name__ for name, module in small.model.named_modules()}
    whole = {name for name, kind in kinds.items() if kind == "Linear"}
    assert whole == {"lm_head", *(f"model.vision_model.encoder.layers.{i}.mlp.fc2" for i in (0, 1))}
    assert isinstance(gathered(small, [tasks.ask("what is it?", [image(1)], text=SHORT)])[0], str)


def test_the_command_line_asks_any_of_them(
    folder: Path, model: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image(1).save(tmp_path / "a.png")
    where = ["-m", str(folder), "--max-tokens", str(N_TOKENS), "--json", "--device-map", "cpu"]
    assert cli.main(["ask", *where, "--image", str(tmp_path / "a.png"), "what is it?"]) == 0
    (answer,) = gathered(model, [tasks.ask("what is it?", [image(1)], text=SHORT)])
    assert json.loads(capsys.readouterr().out)["text"] == clean(answer).strip()


def test_nothing_but_the_answer_is_said(folders: dict[str, Path], tmp_path: Path) -> None:
    image(1).save(tmp_path / "a.png")
    where = ["-m", str(folders["idefics3"]), "--max-tokens", "3"]
    done = run([sys.executable, "-m", "mmgen", "caption", "a.png", *where], tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_conversation_in_a_file_is_answered_as_the_snippet_answers_it(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folders["idefics3"]
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        image(ord(name)).save(f"{name}.png")
    how = ["--history", "talk.json", "-m", str(folder), "--device-map", "cpu", "--max-tokens", str(N_TOKENS)]
    assert cli.main(["ask", "what is it?", "--image", "a.png", *how]) == 0
    assert cli.main(["ask", "is <image> like it?", "--image", "b.png", *how]) == 0

    messages = json.loads(Path("talk.json").read_text())
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    stock = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    for asked in (1, 3):
        ids = stock_answer(stock, messages[:asked])
        said = stock[1].decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert messages[asked]["content"] == [{"type": "text", "text": clean(said).strip()}]


@pytest.mark.parametrize("family", ["idefics2", "idefics3", "gemma3"])
def test_an_image_that_is_asked_about_again_is_not_looked_at_again(family: str, folders: dict[str, Path]) -> None:
    model = opened(folders[family])
    questions = ["what is it?", "and what color?", "where?"]
    asked = [tasks.ask(question, [image(1)], text=SHORT) for question in questions]
    fresh = [gathered(opened(folders[family]), [request])[0] for request in asked]
    other = gathered(opened(folders[family]), [tasks.ask("what is it?", [image(2)], text=SHORT)])[0]
    inner = model.model.model
    towers = [module for name, module in inner.named_children() if "vision" in name]
    calls: list[int] = []
    for tower in towers:
        tower.register_forward_pre_hook(lambda *_: calls.append(1))
    assert [gathered(model, [request])[0] for request in asked] == fresh
    assert len(calls) == 1
    assert gathered(model, [tasks.ask("what is it?", [image(2)], text=SHORT)])[0] == other
    assert len(calls) == 2

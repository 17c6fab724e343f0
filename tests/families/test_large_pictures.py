"""Pictures by their tokens: counted before they are looked at, batched by memory, scaled down if that is asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmgen import tasks
from mmgen.checkpoints import fit
from mmgen.errors import MmgenError, TooLongError
from mmgen.families import chat
from mmgen.request import Done, Loading, TextSampling
from tests.support.chat_replies import copied
from tests.support.every_family import FAMILIES, pieces_of
from tests.support.many_types import CHATS, PICTURES, QUESTION, build
from tests.support.opening import opened
from tests.support.replies import image, said
from tests.support.scripted import run

SHORT = TextSampling(max_tokens=4)
CPU = Loading(dtype="float32", device_map="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose pictures are as many tokens as they have pixels, up to 4096 of those for each."""
    folder = build("qwen2_5_vl", tmp_path_factory.mktemp("large") / "qwen2_5_vl")
    processor = folder / "processor_config.json"
    about = json.loads(processor.read_text())
    about["image_processor"] |= {"size": {"shortest_edge": 28 * 28, "longest_edge": 560 * 560}}
    processor.write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return opened(folder, CPU)


@pytest.mark.parametrize("name", ["qwen2_vl", "internvl", "llava_next", "gemma4", "smolvlm"])
def test_tokens_are_counted_before_the_model_runs(name: str, tmp_path: Path) -> None:
    assert name in CHATS
    prompter = opened(build(name, tmp_path / name), CPU).prompter
    for size in ((64, 48), (128, 64), (240, 104)):  # sizes that rounding leaves as they are
        request = tasks.ask("a", [image(3, size)], text=SHORT, seed=0)
        inputs = prompter.write([request])
        n_tokens, n_bytes = prompter.measure(request)
        assert 0 <= n_tokens - inputs["input_ids"].shape[1] <= 2  # the words are counted with and without a bos
        assert n_bytes >= inputs["pixel_values"].nbytes


def test_a_batch_is_as_large_as_memory_allows(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [tasks.ask(QUESTION, [image(seed, (560, 560))], text=SHORT, seed=0) for seed in range(5)]
    alone = [said(model, [request])[0] for request in requests]
    batches: list[int] = []
    answer = model.answer
    monkeypatch.setattr(model, "answer", lambda some: batches.append(len(some)) or answer(some))
    per_token = fit.cache_per_token(model.checkpoint, "float32")
    for n_rows, expected in ((5, [5]), (2, [2, 2, 1]), (1, [1, 1, 1, 1, 1])):
        takes = model.memory(requests[:n_rows])
        room = takes.decoding + takes.tokens * per_token
        monkeypatch.setattr(chat, "free_bytes", lambda device, room=room: 2 * room + 1)
        batches.clear()
        assert said(model, requests) == alone
        assert batches == expected


def test_a_picture_that_is_too_long_does_not_end_the_others(folder: Path, tmp_path: Path) -> None:
    small = copied(folder, tmp_path / "small")
    config = json.loads((small / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 300
    (small / "config.json").write_text(json.dumps(config))
    model = opened(small, CPU)
    sizes = [(56, 56), (560, 560), (64, 48)]
    requests = [tasks.ask(QUESTION, [image(1, size)], text=SHORT, seed=0) for size in sizes]
    first, second, third = pieces_of(model, requests)
    assert isinstance(second[-1], TooLongError)
    assert [type(first[-1]), type(third[-1])] == [Done, Done]


def test_words_alone_are_not_measured(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "free_bytes", lambda device: 0)
    assert model.count_fitting([tasks.ask("hi", seed=0)] * 16) == 16


def test_a_picture_that_does_not_fit_beside_the_weights_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = tasks.ask(QUESTION, [image(1, (560, 560))], text=SHORT, seed=0)
    usual = fit.plan(opened(folder, CPU).checkpoint, CPU, fit.look())
    monkeypatch.setattr(fit, "SMALL", 0)
    monkeypatch.setattr(fit, "ram", lambda: (usual.n_bytes + 1_000_000, 10**12))
    opened(folder, CPU, requests=[tasks.ask("hi", seed=0)])
    with pytest.raises(MmgenError, match="of memory are free"):
        opened(folder, CPU, requests=[request])


def test_a_picture_that_takes_much_of_the_context_is_said(folder: Path) -> None:
    large, small = (tasks.ask(QUESTION, [image(1, size)] * 2, seed=0) for size in ((560, 560), (56, 56)))
    told = json.loads((folder / "config.json").read_text())["text_config"]["max_position_embeddings"]
    assert f"of {told} tokens go to the pictures" in (opened(folder, CPU, requests=[large]).note or "")
    assert opened(folder, CPU, requests=[small]).note is None


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_sees_a_picture_scaled_down(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    folder = family.make(tmp_path)
    large = tasks.ask("what?", [image(1, (90, 60))], text=SHORT, seed=0)
    small = replace(large, parts=tasks.scaled(large, 600).parts)
    assert small.images[0].size == (30, 20)
    loading = replace(CPU, max_pixels=600)
    model = opened(folder, loading)
    with family.clear_codes(model.model):
        assert said(model, [large]) == said(opened(folder, CPU), [small])


def test_a_picture_is_scaled_in_proportion_and_never_up() -> None:
    request = tasks.ask("what?", [Image.new("RGB", size) for size in ((400, 100), (10, 10), (1, 5000))], seed=0)
    assert [each.size for each in tasks.scaled(request, 1000).images] == [(63, 15), (10, 10), (1, 2236)]
    assert tasks.scaled(request, None) is request


def test_other_pixels_make_a_journal_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PICTURES["one"][0].save("one.png")
    flags = ["caption", "one.png", "--jsonl", "j.jsonl"]
    assert run(*flags).code == 0
    assert run(*flags, "--plan").out.startswith("new 0, done 1")
    assert run(*flags, "--plan", "--max-pixels", "100").out.startswith("new 0, done 0, stale 1")

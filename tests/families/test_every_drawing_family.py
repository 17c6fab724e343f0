"""Every family that draws, tiny and random: its pictures alone and beside others, how they end, and what is whole."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import mmgen
from mmgen import tasks
from mmgen.decoding.stepwise import Cache, extend, forward
from mmgen.errors import MmgenError, TooLongError
from mmgen.request import Done, ImageSampling, Loading, Picture, Progress, Request, TextSampling
from tests.support.every_family import DRAWING, FAMILIES, Family, pieces_of
from tests.support.near_ties import assert_same, assert_same_alone, chosen
from tests.support.opening import opened
from tests.support.replies import gathered, image
from tests.support.scripted import run

FREE = ImageSampling(temperature=1.0, top_p=1.0)


@pytest.fixture(scope="module", params=DRAWING)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family.make(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return opened(folder, Loading(dtype="float32", device_map="cpu"))


def drawings(model: Any, image_sampling: ImageSampling) -> list[Request]:
    prompts = ("a cat", "a snowman in the snow at night", "a cat", "a boat")
    requests = [tasks.draw(prompt, image=image_sampling, seed=seed) for seed, prompt in enumerate(prompts, 7)]
    if model.abilities.varies:
        requests += [tasks.vary(image(6), "make it blue", image=image_sampling, seed=4), tasks.vary(image(5), seed=2)]
    if model.abilities.ratio:
        wide = replace(image_sampling, ratio="2:1", negative_prompt="a very bad drawing")
        requests += [tasks.draw("a boat", image=wide, seed=9), tasks.draw("a blue boat", image=wide, seed=9)]
    return requests


@pytest.mark.parametrize("attn", ["auto", "eager"])  # our own pass, and transformers'
@torch.inference_mode()
def test_logits_and_greedy_ids_are_those_of_transformers(family: Family, folder: Path, attn: str) -> None:
    network = opened(folder, Loading(dtype="float32", device_map="cpu", attn=attn)).language_model.network
    stock = family.stock(folder).network

    def expected(ids: list[int]) -> torch.Tensor:
        logits: torch.Tensor = stock.lm_head(stock.get_decoder()(torch.tensor([ids])).last_hidden_state)[0]
        return logits

    rows = [torch.randint(3, stock.lm_head.out_features, (length,)).tolist() for length in (30, 21, 30)]
    cache = Cache(3, 48)
    hidden = extend(network, cache, range(3), rows)
    for _ in range(12):
        logits = network.head(hidden)
        for row, found in zip(rows, logits, strict=True):
            torch.testing.assert_close(found, expected(row)[-1], rtol=0, atol=1e-4)
            row.append(int(found.argmax()))
            assert row[-1] == int(expected(row[:-1])[-1].argmax())
        hidden = extend(network, cache, range(3), [row[-1:] for row in rows])
    cache.lengths[:] = [20, 20, 20]  # a window, as over guesses
    found = network.head(forward(network, cache, range(3), torch.tensor([row[20:32] for row in rows])))
    for row, each in zip(rows, found, strict=True):
        torch.testing.assert_close(each, expected(row)[20:32], rtol=0, atol=1e-4)


def test_a_picture_is_as_likely_as_the_choices_that_made_it(model: Any) -> None:
    sampling = replace(FREE, guidance=1.0)
    requests = [tasks.draw("a cat", image=sampling, seed=seed) for seed in (7, 8)]
    chances: list[torch.Tensor] = []  # of all codes, at each step of drawing one code at a time

    def seen(hidden: torch.Tensor) -> torch.Tensor:
        logits = plain.network.code_head(hidden)
        chances.append(logits[0].double().log_softmax(-1))
        return logits

    plain = model.language_model
    for request in requests:
        [drawn] = mmgen.draw(model, "a cat", image=sampling, seed=request.seed)
        chances.clear()
        model.language_model = replace(plain, network=replace(plain.network, code_head=seen), window=1)
        try:
            [slowly] = mmgen.draw(model, "a cat", image=sampling, seed=request.seed)
        finally:
            model.language_model = plain
        assert slowly.codes == drawn.codes
        likely = sum(float(chance[code]) for chance, code in zip(chances, drawn.codes or (), strict=True))
        assert model.score(request, [drawn, drawn]) == pytest.approx([likely, likely], abs=1e-3)


def test_words_and_pictures_are_not_scored_together(model: Any) -> None:
    [picture] = mmgen.draw(model, "a cat", seed=7)
    with pytest.raises(MmgenError, match="neither words nor codes"):
        model.score(tasks.draw("a cat"), ["a cat", picture])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_picture_is_the_same_alone_and_in_any_batch(family: Family, model: Any, guidance: float) -> None:
    sampling = replace(FREE, guidance=guidance)
    requests = drawings(model, sampling)
    with family.clear_codes(model.model) if model.abilities.varies else nullcontext():
        batch = assert_same_alone(model, requests)
    assert len({picture.codes for picture in batch}) == len(batch)
    three = mmgen.draw(model, "a cat", n=3, image=sampling, seed=7)
    assert [picture.seed for picture in three] == [7, 8, 9]
    assert_same([chosen(model, requests[i], batch[i].codes) for i in (0, 2)], [three[i].codes for i in (0, 2)])


def test_progress_counts_codes_to_the_end(model: Any) -> None:
    [[*progress, picture, done]] = pieces_of(model, [tasks.draw("a cat", seed=1)])
    n_codes = len(picture.codes)
    counts = [step.done for step in progress]
    assert counts == sorted(set(counts))
    assert progress[-1] == Progress(n_codes, n_codes)
    assert done == Done("end", n_codes)


def test_a_cancelled_picture_is_dropped_and_the_others_are_drawn(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tasks.draw("a cat", image=FREE, seed=1), tasks.draw("a boat", image=FREE, seed=2)
    expected = gathered(model, [second])[0]
    monkeypatch.setattr(model, "language_model", replace(model.language_model, window=1))
    monkeypatch.setattr(model, "n_lanes", 1)  # both in one batch
    found: list[list[Any]] = [[], []]
    for index, piece in model.replies([first, second]):
        found[index].append(piece)
        if index == 0 and isinstance(piece, Progress) and piece.done == 3:
            first.cancelled.set()
    assert found[0][-1] == Done("cancelled", 3)
    assert not any(isinstance(piece, Picture) for piece in found[0])
    assert found[1][-2].codes == expected.codes


def test_a_drawing_prompt_may_fill_the_context_but_not_more(model: Any) -> None:
    canvas = model.prompter.vocabulary.canvas
    n_image = 1 + canvas.n_codes + (canvas.rows if canvas.row_end is not None else 0)
    n_words = model.prompter.context - n_image - len(model.prompts([tasks.draw("a")])[0].ids)
    assert len(gathered(model, [tasks.draw("a" + " a" * n_words, seed=1)])[0].codes) == canvas.n_codes
    with pytest.raises(TooLongError, match="1 token too long"):
        next(model.reply(tasks.draw("a" + " a" * (n_words + 1))))


@pytest.mark.parametrize("bits", ["4bit", "8bit", "quanto-int8"])
def test_quantized_it_draws_and_answers_with_heads_and_codec_whole(model: Any, folder: Path, bits: str) -> None:
    small = opened(folder, Loading(quantize=bits, device_map="cpu"))
    kinds = {name: type(module).__name__ for name, module in small.model.named_modules()}
    changed = {name for name, kind in kinds.items() if kind in ("Linear4bit", "Linear8bitLt", "QLinear")}
    assert any(name.endswith("layers.0.mlp.up_proj") for name in changed)
    assert not [name for name in changed if "vqmodel" in name or "generation" in name or name == "lm_head"]
    assert {p.dtype for p in small.model.model.vqmodel.parameters()} == {torch.float32}
    picture, words = gathered(
        small, [tasks.draw("a cat", seed=1), tasks.ask("what?", [image(1)], text=TextSampling(max_tokens=8))]
    )
    assert len(picture.codes) == small.prompter.vocabulary.canvas.n_codes
    assert isinstance(words, str)


def test_the_command_line_draws_and_captions(
    model: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = run("draw", "a cat", "-m", str(folder), "-o", "cat.png", "-n", "2", "--seed", "7")
    assert (drawn.code, drawn.out) == (0, "cat-1.png\ncat-2.png\n")
    told = run("caption", "cat-1.png", "cat-2.png", "-m", str(folder), "--max-tokens", "8")
    assert (told.code, told.out.count("\t")) == (0, 2)

"""Jacobi decoding: the same codes as one by one, whatever the window, the batch, the rows and the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import compress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mmgen
from benchmarks.windows import PROMPTS, scores
from mmgen import tasks
from mmgen.codes import Maker
from mmgen.decoding.grammar import Canvas, PromptIds, Vocabulary
from mmgen.decoding.jacobi import choose_window
from mmgen.decoding.replies import LanguageModel, draw
from mmgen.decoding.stepwise import Cache, Network
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.request import PICTURES, Done, ImageSampling, Loading, Picture, Progress, Request
from tests.support.near_ties import Chosen, assert_same, at_edge, chosen, score_word
from tests.support.replies import ends, said
from tools.demo.judge import fresh_renders

CODES = (9, 4, 7, 6, 5, 3, 8)
N_IDS, MOST = 20, 120


MAKER = partial(Maker, "c", "d", 6, "float32")


class Reader:
    """A network whose answer depends on every id a row holds, and on its place, in whole numbers: without rounding."""

    def __init__(self, seed: int, plain: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randint(-50, 51, (N_IDS, MOST, 6), generator=generator).double()
        self.weight = torch.randint(-3, 4, (6, len(CODES)), generator=generator).double() / 50
        self.plain = plain  # how much more a code is likely that stands to the left
        self.n_passes = 0

    def body(self, ids: Tensor, positions: Tensor, cache: Cache, visible: Tensor | None) -> Tensor:
        self.n_passes += 1
        keys, _ = cache.update(ids[:, None, :, None].double(), ids[:, None, :, None].double(), 0)  # [r, 1, extent, 1]
        held = keys[:, 0, :, 0].long()  # [r, extent]
        slots = torch.arange(held.shape[1])
        if visible is None:  # plain causal order
            visible = (slots <= positions[:, :, None])[:, None]
        mixed = visible[:, 0].double() @ self.table[held, slots]  # [r, T, 6]
        return torch.cat([mixed, torch.nn.functional.one_hot(ids, N_IDS).double()], -1)

    def code_head(self, hidden: Tensor) -> Tensor:
        return hidden[..., :6] @ self.weight + self.plain * hidden[..., 6:][..., list(CODES)]

    def language_model(self, window: int | None, row_end: int | None = None) -> LanguageModel:
        v = Vocabulary(N_IDS, 0, frozenset([2]), 11, 10, 13, CODES, Canvas(4, 4, row_end))
        network = Network(self.body, self.code_head, self.code_head, torch.tensor(CODES))
        return LanguageModel(network, v, MOST, str, lambda codes: torch.zeros(1, 3, 2, 2), MAKER, window)


def pictures(
    language_model: LanguageModel, seeds: list[int], prompts: list[PromptIds], sampling: ImageSampling
) -> list[Picture]:
    requests = [Request(("x",), PICTURES, image=sampling, seed=seed) for seed in seeds]
    found: dict[int, Picture] = {}
    done = [0] * len(seeds)
    for index, piece in draw(language_model, requests, prompts):
        assert index not in found or isinstance(piece, Done), "nothing else comes after a picture"
        if isinstance(piece, Progress):
            assert piece.done >= done[index]
            done[index] = piece.done
        elif isinstance(piece, Picture):
            assert done[index] == len(piece.codes)
            found[index] = piece
    return [found[i] for i in range(len(seeds))]


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    window=st.integers(2, 40),
    n_pictures=st.integers(1, 4),
    guidance=st.sampled_from([1.0, 3.0]),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    row_end=st.sampled_from([None, 15]),
    grid=st.sampled_from([(4, 4), (2, 7), (5, 1), (1, 5)]),
    plain=st.sampled_from([0.0, 4.0]),
)
def test_a_picture_is_the_same_for_every_window_and_in_every_batch(
    seed: int,
    window: int,
    n_pictures: int,
    guidance: float,
    temperature: float,
    row_end: int | None,
    grid: tuple[int, int],
    plain: float,
) -> None:
    network = Reader(seed, plain)
    sampling = ImageSampling(temperature=temperature, top_p=0.95, guidance=guidance)
    prompts = [
        PromptIds((0, *[14] * (i % 3)), unconditional=(0, 16), canvas=Canvas(*grid, row_end)) for i in range(n_pictures)
    ]
    seeds = [seed + i for i in range(n_pictures)]
    alone = [
        pictures(network.language_model(1, row_end), [s], [prompt], sampling)[0]
        for s, prompt in zip(seeds, prompts, strict=True)
    ]
    together = pictures(network.language_model(window, row_end), seeds, prompts, sampling)
    assert [picture.codes for picture in together] == [picture.codes for picture in alone]
    n_codes = grid[0] * grid[1]
    for picture in together:
        assert len(picture.codes) == n_codes
        n_places = n_codes + (grid[0] - 1 if row_end is not None else 0)
        assert -(-(n_places - 1) // window) + 1 <= picture.passes <= n_places


def test_right_guesses_save_passes_and_passes_are_counted() -> None:
    network = Reader(1, plain=100.0)  # the code to the left, again and again
    sampling = ImageSampling(temperature=0, guidance=1)
    [slow] = pictures(network.language_model(1), [1], [PromptIds((0,))], sampling)
    assert (slow.passes, network.n_passes) == (16, 16)
    network.n_passes = 0
    [fast] = pictures(network.language_model(8), [1], [PromptIds((0,))], sampling)
    assert fast.codes == slow.codes
    assert (fast.passes, network.n_passes) == (3, 3)  # the first code, then 8, then 7


def test_a_batch_does_not_wait_for_its_slowest() -> None:
    network = Reader(5, plain=3.0)
    sampling = ImageSampling(temperature=1, guidance=3)
    seeds = list(range(6))
    prompts = [PromptIds((0, 14))] * len(seeds)
    found = pictures(network.language_model(4), seeds, prompts, sampling)
    alone = [pictures(network.language_model(4), [seed], [prompts[0]], sampling)[0] for seed in seeds]
    assert [picture.passes for picture in found] == [picture.passes for picture in alone]
    assert len({picture.passes for picture in found}) > 1, "these take differently many"


def test_equal_prompts_are_fed_once() -> None:
    network = Reader(2, plain=0.0)
    widths: list[int] = []
    body = network.body

    def noting(ids: Tensor, positions: Tensor, cache: Cache, visible: Tensor | None) -> Tensor:
        widths.append(len(ids))
        return body(ids, positions, cache, visible)

    network.body = noting  # type: ignore[method-assign]
    pictures(network.language_model(1), [1, 2, 3], [PromptIds((0, 14))] * 3, ImageSampling(guidance=3))
    assert widths[0] == 2, "one full row and one that guidance leads away from"
    assert widths[1:] == [6] * 15


@pytest.mark.parametrize(
    ("device", "pass_tokens", "by_rows"),
    [
        ("cpu", 16, {1: 16, 2: 8, 3: 5, 16: 1, 1000: 1}),
        ("cpu", 64, {1: 16, 2: 16, 4: 16, 8: 8, 16: 4, 1000: 1}),
        ("cuda", 128, {1: 64, 2: 64, 3: 42, 32: 4, 1000: 1}),
    ],
)
def test_a_window_is_chosen_for_any_number_of_rows(device: str, pass_tokens: int, by_rows: dict[int, int]) -> None:
    found = {n_rows: choose_window(torch.device(device), n_rows, pass_tokens) for n_rows in by_rows}
    assert found == by_rows


@pytest.mark.parametrize(
    ("times", "by_rows"),
    [
        ((1, 1, 1, 1), {1: 16, 2: 16, 16: 16, 100: 16}),  # as where setting off a pass is all it takes
        ((1, 16, 16, 256), {1: 1, 2: 1, 16: 1, 100: 1}),  # as where tokens are all that counts
        ((1.2, 2.0, 4.5, 18.0), {1: 16, 16: 4, 100: 4}),
    ],
)
def test_a_window_is_chosen_by_what_passes_were_measured_to_take(
    times: tuple[float, ...], by_rows: dict[int, int]
) -> None:
    cpu = torch.device("cpu")
    assert {n_rows: choose_window(cpu, n_rows, 16, times) for n_rows in by_rows} == by_rows
    windows = [choose_window(cpu, n_rows, 16, times) for n_rows in range(1, 40)]
    assert windows == sorted(windows, reverse=True)


# The built-in model. benchmarks/windows.py does the same with more prompts, seeds and windows.


@pytest.fixture(scope="module")
def demo() -> AutoregressiveModel:
    model = mmgen.load("demo", loading=Loading(dtype="float32"))
    assert isinstance(model, AutoregressiveModel)
    return model


def gathered(model: AutoregressiveModel, window: int, requests: list[Request]) -> list[Picture]:
    model.language_model = replace(model.language_model, window=window)
    found = [[] for _ in requests]
    for index, piece in model.replies(requests):
        if isinstance(piece, Picture):
            found[index].append(piece)
    return [picture for pictures in found for picture in pictures]


def compare(model: AutoregressiveModel, requests: list[Request], one: list[Picture], two: list[Picture]) -> None:
    alone = [chosen(model, request, picture.codes or ()) for request, picture in zip(requests, one, strict=True)]
    same = assert_same(alone, [picture.codes or () for picture in two])
    for a, b in compress(zip(one, two, strict=True), same):
        assert a.image.tobytes() == b.image.tobytes()


def next_of_story(model: AutoregressiveModel, request: Request, so_far: Sequence[int]) -> Tensor:
    """Score what may follow these ids of a reply of words and pictures: [2, V], see Chosen."""
    v, prompt = model.language_model.vocabulary, model.prompts([request])[0]
    ids, pictures, n_words, codes = list(prompt.ids), list(prompt.images), 0, None
    for id_ in so_far:
        if codes is None:
            n_words += 1
            codes = [] if id_ == v.begin_image else None
        else:
            codes.append(v.code_ids.index(id_))
        ids.append(id_)
        if codes is not None and len(codes) == v.canvas.n_codes:
            pictures.append((v.begin_image, *ids[-v.canvas.n_codes :], v.end_image))
            ids.append(v.end_image)
            codes = None
    if codes is not None:
        before = PromptIds(tuple(ids[: len(ids) - len(codes) - 1]), tuple(pictures))
        seed = request.seed + len(pictures) - len(prompt.images)
        rows = [scores(model, before, image, seed, codes)[-1] for image in at_edge(request.image)]
        return torch.full((2, v.size), -torch.inf).index_copy(1, torch.tensor(v.code_ids), torch.stack(rows))
    return score_word(model.language_model, "words or a picture", request, ids, n_words)


@pytest.mark.slow
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_built_in_model_draws_the_same_with_every_window_in_fewer_passes(
    demo: AutoregressiveModel, guidance: float
) -> None:
    image = ImageSampling(guidance=guidance)
    requests = [tasks.draw(PROMPTS[i], seed=100 + i, image=image) for i in range(4)]
    alone = [gathered(demo, 1, [request])[0] for request in requests]
    assert [picture.passes for picture in alone] == [144] * 4
    for window in (2, 32):
        found = [gathered(demo, window, [request])[0] for request in requests]
        compare(demo, requests, alone, found)
    assert sum(picture.passes for picture in found) <= 0.30 * 144 * 4
    compare(demo, requests, alone, gathered(demo, 8, requests))


@pytest.mark.slow
def test_the_built_in_model_varies_and_tells_the_same_with_every_window(demo: AutoregressiveModel) -> None:
    image = fresh_renders(1, seed=5)[1][0]
    requests = [tasks.vary(image, "make it blue", seed=3), tasks.vary(image, seed=4)]
    compare(demo, requests, gathered(demo, 1, requests), gathered(demo, 16, requests))
    story = tasks.interleave("Tell a story about a red cat", seed=2)
    demo.language_model = replace(demo.language_model, window=1)
    (one,) = said(demo, [story])
    demo.language_model = replace(demo.language_model, window=16)
    assert demo.language_model.vocabulary.begin_image in one
    assert_same([Chosen(one, lambda place: next_of_story(demo, story, one[:place]), ends(demo))], said(demo, [story]))

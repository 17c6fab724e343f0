"""Editing through codes, over a network in whole numbers: the rule, its distribution, the same in every window."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmgen.decoding import coupling
from mmgen.decoding.coupling import Source
from mmgen.decoding.grammar import Canvas, PromptIds
from mmgen.decoding.replies import LanguageModel, edit, place_ids
from mmgen.decoding.sampling import EDITS_STREAM, Noise, guidance_weights, log_probabilities, mix
from mmgen.decoding.stepwise import Cache, forward
from mmgen.request import PICTURES, ImageSampling, Picture, Request
from tests.unit.test_jacobi import CODES, Reader

K = len(CODES)


def source(codes: Sequence[int], canvas: Canvas, forced: Sequence[bool] = (), *, is_own: bool = True) -> Source:
    return Source(
        torch.tensor(canvas.lay_out(codes, -1)),
        torch.tensor(canvas.lay_out(forced or [False] * len(codes), True)),
        is_own=is_own,
    )


def edited(
    language_model: LanguageModel,
    seeds: Sequence[int],
    prompts: Sequence[PromptIds],
    sampling: ImageSampling,
    sources: Sequence[Source],
    described: Sequence[PromptIds] = (),
    strength: float = 1.0,
) -> list[Picture]:
    requests = [Request(("x",), PICTURES, image=sampling, seed=seed) for seed in seeds]
    found = {}
    for index, piece in edit(language_model, requests, prompts, sources, described, strength):
        if isinstance(piece, Picture):
            assert index not in found
            found[index] = piece
    return [found[index] for index in range(len(seeds))]


def random_codes(seed: int, n: int) -> list[int]:
    return torch.randint(K, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    window=st.integers(2, 40),
    n_pictures=st.integers(1, 3),
    guidance=st.sampled_from([1.0, 3.0]),
    row_end=st.sampled_from([None, 15]),
    grid=st.sampled_from([(4, 4), (2, 7), (5, 1), (1, 5)]),
    strength=st.sampled_from([None, 0.0, 0.4, 1.0]),
    share_forced=st.sampled_from([0.0, 0.5]),
    is_own=st.booleans(),
)
def test_an_edited_picture_is_the_same_for_every_window_and_in_every_batch(
    seed: int,
    window: int,
    n_pictures: int,
    guidance: float,
    row_end: int | None,
    grid: tuple[int, int],
    strength: float | None,
    share_forced: float,
    is_own: bool,
) -> None:
    network, canvas = Reader(seed, 1.0), Canvas(*grid, row_end)
    sampling = ImageSampling(temperature=0.8, top_p=0.95, guidance=guidance)
    seeds = [seed + i for i in range(n_pictures)]
    generator = torch.Generator().manual_seed(seed)
    forced = (torch.rand(n_pictures, canvas.n_codes, generator=generator) < share_forced).tolist()
    sources = [
        source(random_codes(s, canvas.n_codes), canvas, each, is_own=is_own)
        for s, each in zip(seeds, forced, strict=True)
    ]
    prompts = [PromptIds((0, *[14] * (i % 3)), unconditional=(0, 16), canvas=canvas) for i in range(n_pictures)]
    described = [PromptIds((0, 17), unconditional=(0, 16), canvas=canvas)] * n_pictures if strength is not None else []
    given = (sampling, sources, described, strength or 0.0)
    alone = [
        edited(network.language_model(1, row_end), [s], [prompt], sampling, [each], described[:1], strength or 0.0)[0]
        for s, prompt, each in zip(seeds, prompts, sources, strict=True)
    ]
    together = edited(network.language_model(window, row_end), seeds, prompts, *given)
    assert [(picture.codes, picture.kept) for picture in together] == [(each.codes, each.kept) for each in alone]
    for picture, each, kept in zip(together, sources, forced, strict=True):
        codes = [code for code in each.codes.tolist() if code >= 0]
        assert all(a == b for a, b, is_kept in zip(picture.codes or (), codes, kept, strict=True) if is_kept)
        assert picture.kept == sum(a == b for a, b in zip(picture.codes or (), codes, strict=True))
        assert strength != 0 or list(picture.codes or ()) == codes


@pytest.mark.parametrize("row_end", [None, 15])
@pytest.mark.parametrize("is_own", [True, False])
def test_each_code_is_chosen_by_the_rule(row_end: int | None, is_own: bool) -> None:
    """The rule in plain numbers, each place by a pass of its own over all before it."""
    network, canvas = Reader(3, 1.0), Canvas(4, 4, row_end)
    model = network.language_model(1, row_end)
    sampling = ImageSampling(temperature=0.9, top_p=0.8, guidance=2.0)
    uncut = ImageSampling(temperature=0.9, top_p=1.0, guidance=2.0)
    weights = guidance_weights(2.0, 1.2, has_pictures=False)

    def logits(prompt: Sequence[int], codes: Sequence[int]) -> Tensor:
        so_far = place_ids(model.vocabulary, canvas, [*codes, 0])[:-1]
        rows = []
        for kind in weights:
            ids = [*(prompt if kind == "full" else (0, 16)), 11, *so_far]
            hidden = forward(model.network, Cache(1, len(ids)), range(1), torch.tensor([ids]))
            rows.append(model.network.code_head(hidden[:, -1])[0])
        return mix(torch.stack(rows)[None], list(weights.values()))[0]

    kept = []
    for seed in range(6):
        codes, noise, made = random_codes(seed, 16), Noise(seed, EDITS_STREAM), []
        for place, code in enumerate(codes):
            of_a, of_b = logits((0, 17), codes[:place]), logits((0, 14), made)
            p_a = log_probabilities(of_a, sampling if is_own else uncut).exp()
            ratio_p = log_probabilities(of_b, sampling if is_own else uncut).exp()
            p_b = log_probabilities(of_b, sampling).exp()
            *gumbel, to_keep = noise.row(K + 1).tolist()
            if ratio_p[code] == 0 == p_a[code]:  # neither gives it
                ratio = float((log_probabilities(of_b, uncut) - log_probabilities(of_a, uncut))[code].exp())
            else:
                ratio = math.inf if p_a[code] == 0 else float(ratio_p[code] / p_a[code])
            if math.exp(-math.exp(-to_keep)) < ratio:
                made.append(code)
            else:
                beyond = (p_b - p_a).clamp(min=0)
                beyond = beyond if beyond.sum() > 0 else p_b
                made.append(int((beyond.log() + torch.tensor(gumbel)).argmax()))
        prompts = [PromptIds((0, 14), unconditional=(0, 16), canvas=canvas)]
        described = [PromptIds((0, 17), unconditional=(0, 16), canvas=canvas)]
        [found] = edited(model, [seed], prompts, sampling, [source(codes, canvas, is_own=is_own)], described)
        assert list(found.codes or ()) == made
        kept.append(found.kept or 0)
    assert 0 < sum(kept) < 6 * 16, "else nothing was tried"


@pytest.mark.parametrize("cut", [{}, {"top_p": 0.8}, {"top_k": 3}, {"min_p": 0.2}])
def test_a_sample_of_the_old_words_becomes_one_of_the_new(cut: dict[str, float]) -> None:
    sampling = ImageSampling(**{"temperature": 0.8, "top_p": 1.0, **cut})  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(2)
    of_a, of_b = torch.randn(2, 6, generator=generator)
    p_a, p_b = (log_probabilities(each, sampling).exp() for each in (of_a, of_b))
    n = 20_000
    codes = p_a.multinomial(n, replacement=True, generator=generator)
    sources = [Source(code[None], torch.tensor([False])) for code in codes]
    noise = torch.stack([Noise(seed, EDITS_STREAM).row(7) for seed in range(n)])[:, None]
    places = torch.zeros(n, 1, dtype=torch.int64)

    def wide(each: Tensor) -> Tensor:
        return each.expand(n, 1, 6)

    chosen = coupling.choose(wide(of_b), wide(of_a), sampling, noise, sources, places)[:, 0]
    for code, p in enumerate(p_b.tolist()):
        share = float((chosen == code).double().mean())
        assert abs(share - p) <= 4 * math.sqrt(p * (1 - p) / n), f"code {code}: {share} instead of {p}"
    overlap = float(torch.minimum(p_a, p_b).sum())  # what no coupling can exceed (Lindvall, 2002, theorem 5.2)
    assert abs(float((chosen == codes).double().mean()) - overlap) < 0.02


def test_the_stronger_the_fewer_codes_are_kept() -> None:
    network, canvas, seeds = Reader(8, 2.0), Canvas(4, 4), list(range(12))
    prompts = [PromptIds((0, 14), canvas=canvas)] * len(seeds)
    described = [PromptIds((0, 17), canvas=canvas)] * len(seeds)
    sources = [source(random_codes(seed, 16), canvas) for seed in seeds]
    kept = []
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        found = edited(network.language_model(4), seeds, prompts, ImageSampling(), sources, described, strength)
        kept.append(sum(picture.kept or 0 for picture in found) / (16 * len(seeds)))
    assert kept[0] == 1
    assert kept == sorted(kept, reverse=True)
    for strength, share in zip((0.25, 0.5, 0.75), kept[1:], strict=False):
        assert abs(share - (1 - strength * (1 - kept[-1]))) < 0.1


def test_an_edit_that_changes_nothing_takes_one_pass() -> None:
    network, canvas = Reader(8, 2.0), Canvas(4, 4)
    prompts, codes = [PromptIds((0, 14), canvas=canvas)], random_codes(1, 16)
    [found] = edited(network.language_model(4), [1], prompts, ImageSampling(), [source(codes, canvas)], prompts, 0.5)
    assert (list(found.codes or ()), found.kept, found.passes) == (codes, 16, 1)


def test_a_picture_is_tried_as_often_in_a_batch_as_alone() -> None:
    network, canvas, seeds = Reader(8, 2.0), Canvas(10, 10), list(range(5))
    prompts = [PromptIds((0, 14), canvas=canvas)] * len(seeds)
    described = [PromptIds((0, 17), canvas=canvas)] * len(seeds)
    sources = [source(random_codes(seed, 100), canvas) for seed in seeds]
    model, given = network.language_model(4), (ImageSampling(), sources, described, 0.5)
    together = edited(model, seeds, prompts, *given)
    alone = [
        edited(model, [seed], prompts[:1], ImageSampling(), [each], described[:1], 0.5)[0]
        for seed, each in zip(seeds, sources, strict=True)
    ]
    assert [(a.codes, a.kept, a.passes) for a in together] == [(b.codes, b.kept, b.passes) for b in alone]
    assert len({picture.passes for picture in together}) > 1, "else they took equally many attempts"

"""Sampling against transformers' own processors and against the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mmgen.decoding.sampling import (
    WORDS_STREAM,
    Noise,
    guidance_weights,
    log_probabilities,
    mix,
    penalise_repetition,
    pick,
)
from mmgen.request import ImageSampling


def random_logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


@settings(deadline=None)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.2, 2),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.05, 1),
)
def test_cuts_keep_what_transformers_keeps(seed: int, temperature: float, top_k: int, top_p: float) -> None:
    logits = random_logits(seed, 2, 50)
    ours = log_probabilities(logits, ImageSampling(temperature, top_p, top_k))
    theirs = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        theirs = TopKLogitsWarper(top_k)(None, theirs)
    if top_p < 1:
        theirs = TopPLogitsWarper(top_p)(None, theirs)
    # The two add probabilities up from other ends: in float32 what weighs less than 1e-5 may fall on either side.
    torch.testing.assert_close(ours.exp(), theirs.softmax(-1), atol=1e-5, rtol=1e-4)


def test_the_likeliest_always_stays() -> None:
    kept = log_probabilities(random_logits(0, 4, 100), ImageSampling(1.0, 1e-9))
    assert (kept > -torch.inf).sum(-1).tolist() == [1, 1, 1, 1]


def test_what_is_as_likely_as_the_last_that_stays_stays_too() -> None:
    logits = torch.tensor([[1.0, 0, 2, 1, 1], [0, 0, 0, 0, 0]])
    kept = log_probabilities(logits, ImageSampling(1.0, 0.6))  # e² / (e² + 3e + 1) = 0.446: one more is needed
    assert (kept > -torch.inf).tolist() == [[True, False, True, True, True], [True] * 5]


def test_repetition_penalty_is_that_of_transformers() -> None:
    logits, seen = random_logits(1, 50), torch.tensor([3, 3, 7, 49])
    theirs = RepetitionPenaltyLogitsProcessor(1.3)(seen[None], logits[None].clone())[0]
    torch.testing.assert_close(penalise_repetition(logits, seen, 1.3), theirs)


@pytest.mark.parametrize(("guidance", "image_guidance"), [(3.0, 1.2), (1.0, 1.2), (5.0, 5.0), (3.0, 1.0), (3, 2)])
def test_mix_is_the_published_formula(guidance: float, image_guidance: float) -> None:
    rows = {kind: random_logits(i, 2, 9) for i, kind in enumerate(("full", "pictures", "nothing"))}
    f, i, u = rows.values()
    weights = guidance_weights(guidance, image_guidance, has_pictures=True)
    mixed = mix(torch.stack([rows[kind] for kind in weights], dim=1), list(weights.values()))
    torch.testing.assert_close(mixed, u + image_guidance * (i - u) + guidance * (f - i), atol=1e-5, rtol=1e-5)


def test_only_rows_that_count_are_computed() -> None:
    assert list(guidance_weights(1, 1.2, has_pictures=False)) == ["full"]
    assert list(guidance_weights(3, 1.2, has_pictures=False)) == ["full", "nothing"]
    assert list(guidance_weights(3, 1.2, has_pictures=True)) == ["full", "pictures", "nothing"]
    assert list(guidance_weights(1, 1, has_pictures=True)) == ["full"]


def test_a_pick_under_gumbel_noise_is_a_sample() -> None:
    log_p = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    noise, n = Noise(5), 20_000
    picks = pick(log_p.expand(n, 4), torch.stack([noise.row(4) for _ in range(n)]))
    for choice, p in enumerate(log_p.exp().tolist()):
        share = (picks == choice).float().mean().item()
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / n), f"choice {choice}: {share} instead of {p}"


def test_noise_depends_on_seed_and_position_only() -> None:
    one, two = Noise(7), Noise(7)
    rows = [one.row(10) for _ in range(3)]
    assert all(torch.equal(row, two.row(10)) for row in rows)
    assert not torch.equal(rows[0], Noise(8).row(10))
    assert not torch.equal(rows[0], Noise(7, WORDS_STREAM).row(10))


@pytest.mark.parametrize("temperature", [1e-39, 1e-6, 1e9])
def test_no_temperature_breaks_the_choice(temperature: float) -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0, -torch.inf]])
    p = log_probabilities(logits, ImageSampling(temperature, 1.0)).exp()
    expected = [0, 1, 0, 0] if temperature < 1 else [1 / 3, 1 / 3, 1 / 3, 0]
    torch.testing.assert_close(p[0], torch.tensor(expected, dtype=torch.float32))

"""Near ties: where two candidates are within a hair of each other, another order of additions may take the other.

Batches of other sizes, other processors and stock transformers add in other orders. So what is compared across them is
the same up to near ties that are shown (CLI.md: two candidates within 1e-3 after the noise): the scores of what may
follow are computed anew, both choices are within the bound of the best, and the rest of that reply is not compared. So
it is with a candidate at the edge of top-p, which rounding lets in or leaves out. VQ codes have nothing after them:
pictures for tests are chosen such that none of their codes is a near tie, which `clear_codes` checks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchmarks.windows import scores
from mmgen.decoding.grammar import Step, forbidden
from mmgen.decoding.replies import LanguageModel
from mmgen.decoding.sampling import WORDS_STREAM, Noise, log_probabilities, penalise_repetition
from mmgen.decoding.stepwise import Cache, extend
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.families.chat import Chat
from mmgen.request import WORDS, ImageSampling, Request, TextSampling
from tests.support.replies import ends, gathered, said

Sampling = TypeVar("Sampling", TextSampling, ImageSampling)

BOUND = 1e-3
EDGE = 1e-4  # of probabilities, as in benchmarks/subject.py
CODES_BOUND = 1e-5  # of two squared distances, as a share of what they are computed from; 4e-6 was seen to be rounding


@dataclass(frozen=True)
class Chosen:
    """What was chosen for one reply, alone.

    Attributes:
        ids: in order, without an end.
        scores_at: place -> scores [2, V] of what may stand there after the ids before it, noise included: with what is
            at the edge of top-p, and without. What is cut is minus infinity.
        ends: ids that end the reply.
    """

    ids: Sequence[int]
    scores_at: Callable[[int], Tensor]
    ends: Collection[int] = ()


def assert_same(alone: Sequence[Chosen], others: Sequence[Sequence[int]], most: int = 1) -> list[bool]:
    """Check that replies were chosen as they were alone, up to near ties; say which are the same to the end.

    Args:
        others: the ids of each, without an end.
        most: how many may part from what they are alone.
    """
    same = []
    for one, other in zip(alone, others, strict=True):
        same.append(list(one.ids) == list(other))
        if not same[-1]:
            pairs = zip(one.ids, other, strict=False)
            place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one.ids), len(other)))
            row, sure = one.scores_at(place)
            for ids in (one.ids, other):
                score = row[ids[place]] if place < len(ids) else row[list(one.ends)].amax()
                gap = float(sure.amax() - score)
                assert gap <= BOUND, f"no near tie at place {place} of {one.ids} and {other}: {gap:.1e} behind the best"
    assert same.count(False) <= most, f"{same.count(False)} replies part at near ties"
    return same


def least_gap(one: Chosen) -> float:
    """Say by how much the closest of all choices of a reply was ahead of the next."""
    gaps = []
    for place, id_ in enumerate(one.ids):
        row, sure = one.scores_at(place)
        assert sure.argmax() == id_
        gaps.append(float(sure[id_] - row.topk(2).values[1]) if row.argmax() == id_ else 0.0)
    return min(gaps)


def assert_same_alone(model: AutoregressiveModel | Chat, requests: Sequence[Request], most: int = 1) -> list[Any]:
    """Check that each request gets in the batch what it gets alone; return the ids or the picture of each."""
    if requests[0].want == WORDS:
        found: list[Any] = said(model, requests)
        assert_same([words_alone(model, request) for request in requests], found, most)
        return found
    assert isinstance(model, AutoregressiveModel)
    found = gathered(model, requests)
    pictures = [gathered(model, [request])[0] for request in requests]
    alone = [chosen(model, request, picture.codes) for request, picture in zip(requests, pictures, strict=True)]
    same = assert_same(alone, [picture.codes for picture in found], most)
    for one, other, is_same in zip(pictures, found, same, strict=True):
        assert one.seed == other.seed
        assert not is_same or one.image.tobytes() == other.image.tobytes()
    return found


def chosen(model: AutoregressiveModel, request: Request, codes: Sequence[int]) -> Chosen:
    """Tell the codes of a request's picture as what was chosen."""

    @cache
    def rows() -> Tensor:
        prompt = model.prompts([request])[0]
        return torch.stack([scores(model, prompt, image, request.seed, codes) for image in at_edge(request.image)])

    return Chosen(codes, lambda place: rows()[:, place])


def words_alone(model: AutoregressiveModel | Chat, request: Request) -> Chosen:
    """Answer a request in words, alone."""
    (ids,) = said(model, [request])
    return Chosen(ids, lambda place: next_word(model, request, ids[:place]), ends(model))


@torch.inference_mode()
def next_word(model: AutoregressiveModel | Chat, request: Request, so_far: Sequence[int]) -> Tensor:
    """Score what may follow these words of a reply: log P + noise [2, V], see Chosen; the logits at temperature 0."""
    if not isinstance(model, Chat):
        return score_word(
            model.language_model, "words", request, [*model.prompts([request])[0].ids, *so_far], len(so_far)
        )
    inputs = model.prompter.write([request])
    prompt = inputs["input_ids"][0].tolist()
    out: Any = model.model.generate(  # type: ignore[operator]
        **inputs,
        max_new_tokens=len(so_far) + 1,
        do_sample=False,
        logits_processor=[_Told(len(prompt), so_far)],
        output_logits=True,
        return_dict_in_generate=True,
    )
    return _with_noise(out.logits[-1][0].float(), request, [*prompt, *so_far], len(so_far))


@torch.inference_mode()
def score_word(language_model: LanguageModel, step: Step, request: Request, ids: Sequence[int], n_words: int) -> Tensor:
    """Score the word after these ids, prompt included, of which so many are words of the reply: [2, V]."""
    row = language_model.network.head(extend(language_model.network, Cache(1, len(ids)), range(1), [ids]))[0].float()
    row[list(forbidden(language_model.vocabulary, step))] = -torch.inf
    return _with_noise(row, request, ids, n_words)


def _with_noise(row: Tensor, request: Request, ids: Sequence[int], n_words: int) -> Tensor:
    sampling = request.text
    if sampling.repetition_penalty != 1:
        seen = torch.tensor([id_ for id_ in ids if id_ < len(row)])
        row = penalise_repetition(row, seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return torch.stack([row, row])
    noise = Noise(request.seed, WORDS_STREAM)
    gumbel = [noise.row(len(row)) for _ in range(n_words + 1)][-1]
    log_p = [log_probabilities(row, each) for each in at_edge(sampling)]
    return torch.stack(log_p) + gumbel


def at_edge(sampling: Sampling) -> list[Sampling]:
    """Give sampling a top-p a little larger, and a little smaller, unless it keeps all."""
    if sampling.top_p == 1:
        return [sampling] * 2
    return [replace(sampling, top_p=min(1.0, sampling.top_p + EDGE)), replace(sampling, top_p=sampling.top_p - EDGE)]


class _Told:
    """Makes `generate` say what it is told, and then what it likes."""

    def __init__(self, n_prompt: int, ids: Sequence[int]) -> None:
        self._n_prompt, self._ids = n_prompt, ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        n_said = input_ids.shape[1] - self._n_prompt
        if n_said == len(self._ids):
            return scores
        told = torch.full_like(scores, -torch.inf)
        told[:, self._ids[n_said]] = 0
        return told


@contextmanager
def clear_codes(network: nn.Module) -> Iterator[None]:
    """Check that no code of the pictures seen meanwhile is a near tie, so that each has its codes wherever it is seen.

    Args:
        network: of transformers, with a VQ.
    """
    quantizer = network.get_submodule("model.vqmodel.quantize")
    gaps: list[float] = []

    def note(_: nn.Module, arguments: tuple[Tensor, ...], __: Any) -> None:
        latents = arguments[0].detach().movedim(-3, -1).flatten(0, -2).double()  # [n, z]
        codebook = quantizer.embedding.weight.detach().double()  # [K, z]
        nearest, codes = torch.cdist(latents, codebook).square().topk(2, largest=False)
        size = latents.square().sum(1) + codebook[codes[:, 0]].square().sum(1)
        gaps.append(float(((nearest[:, 1] - nearest[:, 0]) / size).min()))

    handle = quantizer.register_forward_hook(note)
    try:
        yield
    finally:
        handle.remove()
    assert gaps, "no picture was seen"
    assert min(gaps) > CODES_BOUND, f"a code is a near tie, by {min(gaps):.1e}: choose other pictures"

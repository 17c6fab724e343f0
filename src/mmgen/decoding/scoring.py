"""How likely whole answers are, in one pass over prompt and answer. Torch only; knows no files.

Probabilities are those of sampling at temperature 1 with nothing cut and no guidance: among the ids that the grammar
allows at each place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmgen.decoding.grammar import PromptIds, forbidden
from mmgen.decoding.replies import LanguageModel, guidance_row, place_ids
from mmgen.decoding.sampling import Noise, guidance_weights, log_probabilities, mix
from mmgen.decoding.stepwise import Cache, extend, read
from mmgen.request import Request


def score_words(model: LanguageModel, prompt: PromptIds, answers: Sequence[Sequence[int]]) -> list[float]:
    """Give the log-probability of each answer, in nats: of its ids, and of any end after them."""
    ends, never = sorted(model.vocabulary.ends), forbidden(model.vocabulary, "words")
    scores = []
    for ids, hidden in zip(answers, _read(model, prompt.ids, answers), strict=True):
        logits = model.network.head(hidden[: len(ids) + 1]).float()  # [T + 1, V]
        logits[:, never] = -torch.inf
        log_p = logits.log_softmax(-1).double()
        scores.append(float(log_p[range(len(ids)), list(ids)].sum() + log_p[-1, ends].logsumexp(0)))
    return scores


def score_pictures(model: LanguageModel, prompt: PromptIds, pictures: Sequence[Sequence[int]]) -> list[float]:
    """Give the log-probability of the codes of each picture, in nats; all are of one size."""
    canvas = prompt.canvas or model.vocabulary.canvas
    places = [place for place in range(canvas.n_places) if not canvas.is_row_end(place)]
    ids = [place_ids(model.vocabulary, canvas, codes)[:-1] for codes in pictures]
    scores = []
    seen = _read(model, (*prompt.ids, model.vocabulary.begin_image), ids)[:, places]
    for codes, hidden in zip(pictures, seen, strict=True):  # one at a time, as logits take much memory
        log_p = model.network.code_head(hidden).float().log_softmax(-1)  # [N, K]
        scores.append(float(log_p[range(len(codes)), list(codes)].double().sum()))
    return scores


def margin(model: LanguageModel, request: Request, prompt: PromptIds, codes: Sequence[int], place: int) -> float:
    """Say by how much the code that is chosen after the first `place` of these beats the next of them, in nats.

    Compared is what `pick` compares: log-probability and noise together; at temperature 0 the logits alone. It is
    infinite where that code cannot be chosen at all.
    """
    v, sampling, canvas = model.vocabulary, request.image, prompt.canvas or model.vocabulary.canvas
    weights = guidance_weights(sampling.guidance, sampling.image_guidance, has_pictures=bool(prompt.images))
    so_far = place_ids(v, canvas, codes[: place + 1])[:-1]
    rows = [(*guidance_row(v, kind, prompt), *so_far) for kind in weights]
    hidden = extend(model.network, Cache(len(rows), max(map(len, rows))), range(len(rows)), rows)
    scores = mix(model.network.code_head(hidden)[None], list(weights.values()))[0]
    if sampling.temperature > 0:
        noise = Noise(request.seed)
        gumbel = [noise.row(len(scores)) for _ in range(place + 1)][-1]
        scores = log_probabilities(scores, sampling) + gumbel.to(scores.device)
    return float(scores.max() - scores[codes[place]])


def _read(model: LanguageModel, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> Tensor:
    """Look at answers after a prompt: hidden [R, T + 1, D] from the prompt's last id on."""
    cache = Cache(len(answers), len(prompt) + max(map(len, answers)))
    return read(model.network, cache, [prompt] * len(answers), answers)

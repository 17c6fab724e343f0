"""How likely whole answers are, in one pass over prompt and answer. Torch only; knows no files.

Probabilities are those of sampling at temperature 1 with nothing cut and no guidance: among the ids that the grammar
allows at each place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmgen.decoding.grammar import PromptIds, forbidden
from mmgen.decoding.replies import LanguageModel
from mmgen.decoding.stepwise import Cache, forward


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
    rows = torch.full((len(pictures), canvas.n_places), canvas.row_end or 0)
    code_ids = model.network.code_ids.cpu()
    rows[:, places] = code_ids[torch.tensor(pictures)]
    scores = []
    read = _read(model, (*prompt.ids, model.vocabulary.begin_image), rows[:, :-1].tolist())
    for codes, hidden in zip(pictures, read[:, places], strict=True):  # one at a time, as logits take much memory
        log_p = model.network.code_head(hidden).float().log_softmax(-1)  # [N, K]
        scores.append(float(log_p[range(len(codes)), list(codes)].double().sum()))
    return scores


def _read(model: LanguageModel, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> Tensor:
    """Look at answers after a prompt, filled up on the right: hidden [R, T + 1, D] from the prompt's last id on."""
    longest = max(map(len, answers))
    rows = [[*prompt, *answer, *[0] * (longest - len(answer))] for answer in answers]
    ids = torch.tensor(rows, device=model.network.code_ids.device)
    return forward(model.network, Cache(len(rows), ids.shape[1]), range(len(rows)), ids)[:, len(prompt) - 1 :]

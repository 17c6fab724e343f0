"""transformers' `generate` as a stream: ids as they are made, each row under its own noise. Knows no family.

`generate` has one random generator for a whole batch and gives its ids all at once. Here every row has a generator of
its own, so that it says in any batch what it says alone, and the ids come while the next are being made.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mmgen.decoding.constraint import Constraint, next_ids_allowed
from mmgen.decoding.sampling import WORDS_STREAM, Noise, choose, penalise_repetition
from mmgen.request import TextSampling


def stream(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    sampling: TextSampling,
    seeds: Sequence[int],
    n_tokens: int,
    stops: Sequence[int],
    constraints: Sequence[Constraint | None] = (),
) -> Generator[list[int]]:
    """Generate in another thread and yield the ids of each step, one for each row, as they come.

    A row that has ended goes on with padding. An exception in the thread is raised here; closing the stream ends it.

    Args:
        inputs: what the model takes: `input_ids` [B, T] int64, padded on the left, `attention_mask` [B, T], pictures.
        seeds: of each row.
        n_tokens: most steps.
        stops: ids that end a row.
        constraints: of each row, if it has one.
    """
    steps: SimpleQueue[list[int] | None] = SimpleQueue()
    closed = Event()
    noises = [Noise(seed, WORDS_STREAM) for seed in seeds]
    starts = [0] * len(seeds)  # of each row's own ids, after the padding
    if "attention_mask" in inputs and not model.config.is_encoder_decoder:
        starts = (inputs["attention_mask"] == 0).sum(1).tolist()
    penalty = sampling.repetition_penalty
    if penalty == 1 and model.generation_config is not None:
        penalty = model.generation_config.repetition_penalty or 1.0  # the checkpoint's own, as `generate` would take it

    def choice(ids: Tensor, scores: Tensor) -> Tensor:
        """Ids [B, T], scores [B, V] -> scores [B, V]: zero for the token chosen, minus infinity for all others."""
        if penalty != 1:  # not by `generate`, which counts the padding of a batch among what was said
            said = [row[start:] for row, start in zip(ids, starts, strict=True)]
            rows = zip(scores, said, strict=True)
            # Some heads have no row for the id that stands for an image in the prompt.
            scores = torch.stack([penalise_repetition(row, own[own < len(row)], penalty) for row, own in rows])
        if any(constraints):
            scores = next_ids_allowed(scores, constraints)
        chosen = choose(scores, sampling, noises)
        for constraint, id_ in zip(constraints, chosen.tolist(), strict=False):
            if constraint is not None:
                constraint.push(id_)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)

    def pass_on(ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        """Pass the last of ids [B, T] on, and say of each row whether it stops: all do once nobody reads on."""
        steps.put(ids[:, -1].tolist())
        return torch.full((len(ids),), closed.is_set(), device=ids.device)

    def run() -> None:
        _generate(model, inputs, n_tokens, stops, choice, pass_on)

    with ThreadPoolExecutor(1, "generate") as executor:
        running = executor.submit(run)
        running.add_done_callback(lambda _: steps.put(None))
        try:
            while (ids := steps.get()) is not None:
                yield ids
            running.result()  # raises what broke it
        finally:
            closed.set()


def log_likelihoods(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], answers: Sequence[Sequence[int]], stops: Sequence[int]
) -> list[float]:
    """Add up the log-probabilities of each row's answer and of any stop after it, in nats.

    `generate` is made to say the answers, so that every model is asked in its own way.

    Args:
        inputs: as for `stream`, a row for each answer.
        stops: ids that end a row.
    """
    totals = [0.0] * len(answers)
    places = iter(range(1 + max(map(len, answers))))

    def choice(_: Tensor, scores: Tensor) -> Tensor:
        """Take note of scores [B, V], and let nothing but the answers' next ids come."""
        place, log_p = next(places), scores.double().log_softmax(-1)
        said = [answer[place] if place < len(answer) else 0 for answer in answers]
        for row, answer in enumerate(answers):
            if place <= len(answer):
                counted = [said[row]] if place < len(answer) else list(stops)
                totals[row] += float(log_p[row, counted].logsumexp(0))
        chosen = torch.tensor(said, device=scores.device)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)

    _generate(model, inputs, 1 + max(map(len, answers)), (), choice)
    return totals


def _generate(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    n_tokens: int,
    stops: Sequence[int],
    choice: Callable[[Tensor, Tensor], Tensor],
    *criteria: Callable[..., Tensor],
) -> None:
    """Run `generate` with every choice made by `choice`: ids [B, T], scores [B, V] -> zero for the one, else -inf."""
    with torch.inference_mode():  # it holds for one thread alone
        cast(Any, model).generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            num_return_sequences=1,
            max_new_tokens=n_tokens,
            **({"eos_token_id": list(stops)} if stops else {}),
            repetition_penalty=1.0,
            logits_processor=[choice],
            stopping_criteria=list(criteria),
        )

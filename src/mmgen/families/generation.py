"""transformers' `generate` as a stream: ids as they are made, each row under its own noise. Knows no family.

`generate` has one random generator for a whole batch and gives its ids all at once. Here every row has a generator of
its own, so that it says in any batch what it says alone, and the ids come while the next are being made.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import Any, cast

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedModel, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from mmgen.decoding.sampling import Noise, choose, penalise_repetition
from mmgen.request import TextSampling


def stream(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    sampling: TextSampling,
    seeds: Sequence[int],
    n_tokens: int,
    stops: Sequence[int],
) -> Generator[list[int]]:
    """Generate in another thread and yield the ids of each step, one for each row, as they come.

    A row that has ended goes on with padding. What breaks the thread is raised here; closing the stream ends it.

    Args:
        inputs: `input_ids` [B, T] int64, padded on the left, `attention_mask` [B, T], and what else the model takes.
        seeds: of each row.
        n_tokens: most steps.
        stops: ids that end a row.
    """
    steps: SimpleQueue[list[int] | None] = SimpleQueue()
    closed = Event()
    arguments: dict[str, Any] = {
        "do_sample": False,  # sampling, if any, is _Choice's
        "num_beams": 1,
        "num_return_sequences": 1,
        "max_new_tokens": n_tokens,
        "eos_token_id": list(stops) or None,
        "repetition_penalty": 1.0,  # _Choice's: the stock one counts the padding of a batch among what was said
        "streamer": _Steps(steps),
        "stopping_criteria": [_Closed(closed)],
    }
    penalty = sampling.repetition_penalty
    if penalty == 1 and model.generation_config is not None:
        penalty = model.generation_config.repetition_penalty or 1.0  # the checkpoint's own, as `generate` would take it
    if sampling.temperature > 0 or penalty != 1:
        n_padding = (inputs["attention_mask"] == 0).sum(1).tolist()
        arguments["logits_processor"] = [_Choice(sampling, penalty, seeds, n_padding)]

    def run() -> None:
        with torch.inference_mode():  # it holds for one thread alone
            cast(Any, model).generate(**inputs, **arguments)

    with ThreadPoolExecutor(1, "generate") as executor:
        running = executor.submit(run)
        running.add_done_callback(lambda _: steps.put(None))
        try:
            while (ids := steps.get()) is not None:
                yield ids
            running.result()  # raises what broke it
        finally:
            closed.set()


class _Steps(BaseStreamer):
    """Passes on the ids of each step; `generate` shows it the prompt first."""

    def __init__(self, steps: SimpleQueue[list[int] | None]) -> None:
        self._steps = steps
        self._has_prompt = False

    def put(self, value: Tensor) -> None:
        if self._has_prompt:
            self._steps.put(value.tolist())
        self._has_prompt = True

    def end(self) -> None:
        pass


class _Closed(StoppingCriteria):
    """Stops all rows once nobody reads on."""

    def __init__(self, closed: Event) -> None:
        self._closed = closed

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return torch.full((len(input_ids),), self._closed.is_set(), device=input_ids.device)


class _Choice(LogitsProcessor):
    """Chooses a token in each row by that row's noise, and leaves `generate` nothing else to take.

    Args:
        penalty: for what was said, the prompt included.
        seeds: of each row.
        n_padding: ids on the left of each row that are none of its own.
    """

    def __init__(self, sampling: TextSampling, penalty: float, seeds: Sequence[int], n_padding: Sequence[int]) -> None:
        self._sampling = sampling
        self._penalty = penalty
        self._noises = [Noise(seed, words=True) for seed in seeds]
        self._n_padding = n_padding

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Ids [B, T], scores [B, V] -> scores [B, V]: zero for the token chosen, minus infinity for all others."""
        if self._penalty != 1:
            rows = zip(input_ids, scores, self._n_padding, strict=True)
            scores = torch.stack([self._penalise(ids[padding:], row) for ids, row, padding in rows])
        s = self._sampling
        chosen = choose(scores, s.temperature, s.top_k, s.top_p, self._noises)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)

    def _penalise(self, said: Tensor, row: Tensor) -> Tensor:
        # Some heads have no row for the id that stands for a picture in the prompt.
        return penalise_repetition(row, said[said < len(row)], self._penalty)

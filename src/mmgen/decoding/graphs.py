"""Passes of one shape that come again and again, replayed as one: a GPU takes longer to be told of a step than to make
it (CUDA graphs: docs.pytorch.org/docs/stable/notes/cuda.html). Knows no layers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from mmgen.decoding.stepwise import Cache

_TIMES = 10  # that a shape has to come before it is recorded, which takes a while: how long was not measured
_log = logging.getLogger("mmgen")

Pass = Callable[[Tensor, Tensor, Cache, Tensor | None], Tensor]


class Replayed:
    """A pass as `decoding.body.Body` makes it, on a GPU; what comes of it is the same."""

    def __init__(self, body: Pass) -> None:
        self._body, self._can_record = body, True

    def __call__(self, x: Tensor, positions: Tensor, cache: Cache, visible: Tensor | None) -> Tensor:
        """Make a pass: vectors [r, T, D], positions [r, T], and what Cache.aim said of them -> hidden [r, T, D]."""
        key = (*x.shape, cache.rows.start, cache.extent)
        known = cache.graphs.get(key, 0)
        if visible is None or not self._can_record:  # a prompt comes once
            return self._body(x, positions, cache, visible)
        given = [x, positions, cache.slots, visible]
        if isinstance(known, int) and known < _TIMES:
            cache.graphs[key] = known + 1
            return self._body(x, positions, cache, visible)
        if isinstance(known, int):
            try:
                cache.graphs[key] = known = self._record([each.clone() for each in given], cache)
            except RuntimeError as failure:  # of torch: a layer does what cannot be recorded, or memory is short for it
                _log.info("passes are not recorded: %s", failure)
                self._can_record = False
                return self._body(x, positions, cache, visible)
        graph, kept, hidden = known
        for place, each in zip(kept, given, strict=True):
            place.copy_(each)
        graph.replay()
        return hidden.clone()  # the next replay writes over it

    def _record(self, kept: list[Tensor], cache: Cache) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        """Record a pass that reads its arguments where they are kept: vectors, positions, slots, visible slots."""
        x, positions, slots, visible = kept
        own, cache.slots = cache.slots, slots
        graph = torch.cuda.CUDAGraph()
        try:
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no types there
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):  # what is chosen at the first call, as cuBLAS does, is not to be recorded
                self._body(x, positions, cache, visible)
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                hidden = self._body(x, positions, cache, visible)
        finally:
            cache.slots = own
        return graph, kept, hidden

"""Key-value cache of fixed size, with a write position for every row. Knows nothing of what the tokens mean.

Slot p of a row holds position p. So a query at position p may look at slots 0..p and nowhere else: the mask follows
from the positions alone, rows of different lengths need no padding rules, and to go back is to set a length. Where all
rows begin alike it is plain causal order, which attention kernels keep without a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Cache:
    """Keys and values of R rows of at most `capacity` positions; it fits the `update` call of transformers' layers.

    Attributes:
        lengths: positions taken in each row.
    """

    is_compileable = False

    def __init__(self, n_rows: int, capacity: int) -> None:
        self.capacity = capacity
        self.lengths = [0] * n_rows
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}  # keys and values, each [R, heads, capacity, D]
        self._rows = range(0)
        self._positions = torch.empty(0)
        self._start = self._extent = 0
        self._is_level = False  # all rows begin at one position, with room for all of the pass

    def aim(self, rows: range, positions: Tensor) -> Tensor | None:
        """Say where the next pass writes: `rows` (neighbours), positions [r, T] int64 from each row's length on.

        Returns:
            Which slots each token may look at: [r, 1, T, extent] bool; None if all rows begin at one position.
        """
        lengths = [self.lengths[row] for row in rows]
        self._rows, self._positions = rows, positions
        self._start = max(lengths)
        self._extent = min(self.capacity, self._start + positions.shape[1])
        begin_alike = min(lengths) == self._start
        self._is_level = begin_alike and self._extent == self._start + positions.shape[1]
        if begin_alike:
            return None
        slots = torch.arange(self._extent, device=positions.device)
        return (slots <= positions[:, :, None])[:, None]

    def copy(self, source: int, target: int) -> None:
        """Give one row what another holds."""
        n = self.lengths[source]  # beyond it nothing counts
        for keys, values in self._layers.values():
            keys[target, :, :n], values[target, :, :n] = keys[source, :, :n], values[source, :, :n]
        self.lengths[target] = self.lengths[source]

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write keys and values [r, heads, T, D] of one layer; return all that is cached: [r, heads, extent, D]."""
        if layer_idx not in self._layers:
            shape = (len(self.lengths), key.shape[1], self.capacity, key.shape[3])
            self._layers[layer_idx] = (key.new_zeros(shape), value.new_zeros(shape))
        found = []
        for stored, new in zip(self._layers[layer_idx], (key, value), strict=True):
            mine = stored[self._rows.start : self._rows.stop]
            if self._is_level:
                mine[:, :, self._start : self._extent] = new
            else:
                each = torch.arange(len(self._rows), device=key.device)[:, None]
                mine.transpose(1, 2)[each, self._positions.to(key.device)] = new.transpose(1, 2)
            found.append(mine[:, :, : self._extent])
        return found[0], found[1]

    def get_query_offset(self, layer_idx: int) -> int:
        """Tell transformers, which sees to plain causal order itself, where the pass begins."""
        return self._start

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Tell it how many slots there are to look at, and which is the first."""
        return self._extent, 0

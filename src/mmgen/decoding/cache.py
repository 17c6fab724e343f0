"""Key-value cache of fixed size, with a write position for every row. Knows nothing of what the tokens mean.

Slot p of a row holds position p. So a query at position p may look at slots 0..p and nowhere else: the mask follows
from the positions alone, rows of different lengths need no padding rules, and to go back is to set a length.
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
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}  # keys and values, each [R, capacity, heads, D]
        self._rows = range(0)
        self._positions = torch.empty(0)
        self._extent = 0

    def aim(self, rows: range, positions: Tensor) -> Tensor:
        """Say where the next pass writes: `rows` (neighbours), positions [r, T] int64.

        Returns:
            Which slots each token may look at: [r, 1, T, extent] bool.
        """
        self._rows, self._positions = rows, positions
        self._extent = min(self.capacity, max(self.lengths[row] for row in rows) + positions.shape[1])
        slots = torch.arange(self._extent, device=positions.device)
        return (slots <= positions[:, :, None])[:, None]

    def copy(self, source: int, target: int) -> None:
        """Give one row what another holds."""
        for keys, values in self._layers.values():
            keys[target], values[target] = keys[source], values[source]
        self.lengths[target] = self.lengths[source]

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write keys and values [r, heads, T, D] of one layer; return all that is cached: [r, heads, extent, D]."""
        if layer_idx not in self._layers:
            shape = (len(self.lengths), self.capacity, key.shape[1], key.shape[3])
            self._layers[layer_idx] = (key.new_zeros(shape), value.new_zeros(shape))
        rows = torch.arange(len(self._rows), device=key.device)[:, None]
        positions = self._positions.to(key.device)
        found = []
        for stored, new in zip(self._layers[layer_idx], (key, value), strict=True):
            mine = stored[self._rows.start : self._rows.stop]
            mine[rows, positions] = new.transpose(1, 2)
            found.append(mine[:, : self._extent].transpose(1, 2))
        return found[0], found[1]

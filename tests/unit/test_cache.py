"""The cache holds what was written, where each row is, whether the rows are level or not."""

from __future__ import annotations

import pytest
import torch

from mmgen.decoding.stepwise import Cache

HEADS, WIDTH, CAPACITY = 2, 3, 6


@pytest.mark.parametrize("lengths", [[0, 0], [2, 2], [3, 1], [4, 4]], ids=["empty", "level", "apart", "to the end"])
@pytest.mark.parametrize("n_tokens", [1, 2])
def test_each_row_is_written_from_its_length_on(lengths: list[int], n_tokens: int) -> None:
    generator = torch.Generator().manual_seed(0)
    cache = Cache(2, CAPACITY)
    before = torch.randn(2, HEADS, CAPACITY, WIDTH, generator=generator)
    cache.aim(range(2), torch.arange(CAPACITY).expand(2, -1))
    cache.update(before, -before, 0)
    cache.lengths[:] = lengths

    new = torch.randn(2, HEADS, n_tokens, WIDTH, generator=generator)
    positions = torch.tensor(lengths)[:, None] + torch.arange(n_tokens)
    cache.aim(range(2), positions)
    keys, values = cache.update(new, -new, 0)

    expected = before.clone()
    for row, length in enumerate(lengths):
        expected[row, :, length : length + n_tokens] = new[row]
    extent = max(lengths) + n_tokens
    assert torch.equal(keys, expected[:, :, :extent])
    assert torch.equal(values, -keys)

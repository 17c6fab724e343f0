"""A single query asked twice: the same answers, in bfloat16 on a CPU and nowhere else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from mmgen.checkpoints import x86
from mmgen.checkpoints.x86 import attend
from mmgen.families.chameleon import Chameleon
from mmgen.request import Loading
from tests.support.checkpoints import make_checkpoint
from tests.support.opening import opened

LAYER = cast(torch.nn.Module, SimpleNamespace(is_causal=True, num_key_value_groups=1))
GROUPED = cast(torch.nn.Module, SimpleNamespace(is_causal=True, num_key_value_groups=3))


@pytest.mark.parametrize("n_keys", [1, 31, 32, 200])
@pytest.mark.parametrize("layer", [LAYER, GROUPED])
@pytest.mark.parametrize("masked", [False, True])
def test_a_single_query_gets_the_attention_it_is_due(n_keys: int, layer: Any, masked: bool) -> None:
    torch.manual_seed(0)
    n_heads = 2 * layer.num_key_value_groups
    query = torch.randn(3, n_heads, 1, 8).bfloat16()
    keys, values = torch.randn(2, 3, 2, n_keys, 8).bfloat16()
    lengths = torch.tensor([n_keys, (n_keys + 1) // 2, 1]) if masked else torch.tensor([n_keys] * 3)
    is_seen = (torch.arange(n_keys) < lengths[:, None])[:, None, None]  # [3, 1, 1, n_keys]
    mask = torch.zeros(is_seen.shape).masked_fill(~is_seen, torch.finfo(torch.bfloat16).min).bfloat16()
    found, _ = attend(layer, query, keys, values, mask if masked else None, scaling=8**-0.5)

    each = [one.double().repeat_interleave(layer.num_key_value_groups, dim=1) for one in (keys, values)]
    scores = (query.double() @ each[0].transpose(2, 3) / 8**0.5).masked_fill(~is_seen, -torch.inf)
    expected = (scores.softmax(-1) @ each[1]).transpose(1, 2)  # [3, 1, heads, 8]
    torch.testing.assert_close(found.double(), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("n_queries", "n_keys", "layer", "masked", "n_asked"),
    [
        (1, 31, LAYER, False, 1),
        (1, 32, LAYER, False, 2),
        (1, 32, LAYER, True, 2),
        (3, 32, LAYER, True, 3),
        (1, 32, GROUPED, False, 2),
        (1, 32, GROUPED, True, 1),
    ],
)
def test_it_is_asked_twice_where_that_gains(
    monkeypatch: pytest.MonkeyPatch, n_queries: int, n_keys: int, layer: Any, masked: bool, n_asked: int
) -> None:
    asked: list[int] = []
    stock = x86.sdpa_attention_forward

    def record(module: Any, query: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        asked.append(query.shape[2])
        return stock(module, query, *arguments, **named)

    monkeypatch.setattr(x86, "sdpa_attention_forward", record)
    query = torch.randn(1, 2 * layer.num_key_value_groups, n_queries, 8).bfloat16()
    keys, values = torch.randn(2, 1, 2, n_keys, 8).bfloat16()
    mask = torch.zeros(1, 1, n_queries, n_keys).bfloat16() if masked else None
    assert attend(layer, query, keys, values, mask)[0].shape == (1, n_queries, query.shape[1], 8)
    assert asked == [n_asked]


@pytest.mark.parametrize(
    ("dtype", "attn", "asks_twice"),
    [("bfloat16", "auto", True), ("bfloat16", "eager", False), ("float32", "auto", False)],
)
def test_a_model_asks_twice_in_bfloat16_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, attn: str, asks_twice: bool
) -> None:
    monkeypatch.setattr(x86, "is_x86", lambda: True)
    model = opened(make_checkpoint(tmp_path), Loading(dtype=dtype, attn=attn, device_map="cpu"))
    assert isinstance(model, Chameleon)
    chosen = {layer.self_attn.config._attn_implementation for layer in model.model.get_decoder().layers}
    assert chosen == {x86.ASKED_TWICE if asks_twice else "eager" if attn == "eager" else "sdpa"}


def test_other_processors_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(x86, "is_x86", lambda: False)
    model = cast(Chameleon, opened(make_checkpoint(tmp_path), Loading(dtype="bfloat16", device_map="cpu")))
    assert model.model.config._attn_implementation == "sdpa"

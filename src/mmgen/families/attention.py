"""Attention of one token in bfloat16 on an x86-64 processor, in two thirds of the time. Knows no model.

PyTorch's kernel takes longer for a single query than for two (`benchmarks.attention`): so a single one is asked twice,
and one of the two equal answers is let go.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mmgen.checkpoints import machine

_NAME = "sdpa_asked_twice"  # in transformers' tables
_LEAST_KEYS = 32  # from which it gains (`benchmarks.attention`)


def ask_twice(model: PreTrainedModel) -> None:
    """Let a model that uses PyTorch's attention do so in this way, where it gains by it."""
    is_slow = machine.is_x86() and model.device.type == "cpu" and model.dtype == torch.bfloat16
    if is_slow and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(_NAME, _attend)
        AttentionMaskInterface.register(_NAME, sdpa_mask)
        model.set_attn_implementation(_NAME)


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attend as transformers' function for sdpa, whose signature this is.

    Args:
        query: [B, heads, T, D].
        key, value: [B, groups of heads, N, D].
        attention_mask: [B, 1, T, N], added to the scores; None for causal order.

    Returns:
        [B, T, heads, D].
    """
    # With a mask, transformers takes heads that share their keys for several queries already.
    is_grouped = attention_mask is not None and key.shape[1] != query.shape[1]
    if query.shape[2] != 1 or is_grouped or key.shape[2] < _LEAST_KEYS:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    query = query.expand(-1, -1, 2, -1)
    answers, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs | {"is_causal": False})
    return answers[:, :1], None

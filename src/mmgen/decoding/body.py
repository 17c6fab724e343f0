"""A pass over a language model's layers as plain functions, which are set off sooner than transformers' modules.

Llama's layers (arXiv 2302.13971): RMS norm (1910.07467), rotary positions (2104.09864), SwiGLU (2002.05202); with a
norm on queries and keys Chameleon's (2405.09818, section 2.2). They compute what transformers' modeling_llama.py and
modeling_chameleon.py do, with their weights, in the manner of gpt-fast (github.com/meta-pytorch/gpt-fast, model.py).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.decoding.stepwise import Cache

JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}  # by the layer made
_LEAST_KEYS = 32  # from which a single query gains by being asked twice (`benchmarks.attention`)


def fits(decoder: Any) -> bool:
    """Say whether `Body` computes what a decoder of such a kind does: by its options, and by where it is."""
    config, devices = decoder.config, {parameter.device for parameter in decoder.parameters()}
    return (
        config._attn_implementation in ("sdpa", "flash_attention_2")
        and config.hidden_act == "silu"
        and not getattr(config, "swin_norm", False)
        and decoder.rotary_emb.rope_type not in ("dynamic", "longrope")  # which look at how long the text has become
        and len(devices - {torch.device("meta")}) == len(devices) == 1
    )


def join(decoder: Any) -> bool:
    """Put one linear layer in place of those that read the same vector; the decoder is for `Body` alone from then on.

    Those that are quantised, or brought to their device by accelerate, stay as they are. Returns whether any was not.
    """
    done = False
    for layer in decoder.layers:
        for module, joined in ((layer.self_attn, "qkv_proj"), (layer.mlp, "gate_up_proj")):
            parts = [module.get_submodule(name) for name in JOINED[joined]]
            if any(type(part) is not nn.Linear or hasattr(part, "_hf_hook") for part in parts):
                continue
            one = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts), bias=False, device="meta")
            one.weight = nn.Parameter(torch.cat([part.weight.detach() for part in parts]), requires_grad=False)
            if parts[0].bias is not None:
                one.bias = nn.Parameter(torch.cat([part.bias.detach() for part in parts]), requires_grad=False)
            for name in JOINED[joined]:
                delattr(module, name)
            module.add_module(joined, one)
            done = True
    return done


class Body:
    """The layers of a decoder that `fits`, with PyTorch's attention or, if its config says so, with flash-attn's.

    Args:
        n_layers: only so many of the first, to be timed.
        asks_twice: in bfloat16 PyTorch's kernel for x86-64 processors takes longer for one query than for two.
    """

    def __init__(self, decoder: Any, *, n_layers: int | None = None, asks_twice: bool = False) -> None:
        self._heads: int = decoder.config.num_attention_heads
        self._groups: int = decoder.config.num_key_value_heads  # of heads that share keys and values
        self._width: int = decoder.layers[0].self_attn.head_dim
        self._layers = [_read(layer) for layer in decoder.layers[:n_layers]]
        self._norm: Tensor = decoder.norm.weight
        self._epsilon: float = decoder.config.rms_norm_eps
        self._rotary, self._asks_twice = decoder.rotary_emb, asks_twice
        self._flash: Callable[..., Tensor] | None = None
        if decoder.config._attn_implementation == "flash_attention_2":
            self._flash = import_module("flash_attn").flash_attn_with_kvcache
        self._turns = [torch.empty(0)]  # the last one counts; a graph may have recorded those before

    def __call__(self, x: Tensor, positions: Tensor, cache: Cache, visible: Tensor | None) -> Tensor:
        """Make a pass: vectors [r, T, D], positions [r, T], and what Cache.aim said of them -> hidden [r, T, D]."""
        heads, groups, width = self._heads, self._groups, self._width
        cos, sin = F.embedding(positions, self._turned(cache.capacity, x))[:, :, None].chunk(2, dim=-1)
        mask = None
        if visible is not None and self._flash is None:  # once for each head of a group: see _attend
            mask = torch.zeros(visible.shape, dtype=x.dtype, device=x.device).masked_fill_(~visible, -torch.inf)
            mask = mask.repeat(1, 1, heads // groups, 1)
        for index, layer in enumerate(self._layers):
            qkv = layer.qkv(self._normed(x, layer.attention_norm)).view(*x.shape[:2], heads + 2 * groups, width)
            qk, value = qkv.split_with_sizes((heads + groups, groups), dim=2)
            if layer.qk_norm is not None:
                weight, bias = layer.qk_norm
                qk = torch.addcmul(bias, F.layer_norm(qk, (width,), eps=1e-5), weight)
            qk = torch.addcmul(qk * cos, qk.roll(width // 2, dims=-1), sin)
            query, key = qk.transpose(1, 2).split_with_sizes((heads, groups), dim=1)
            keys, values = cache.update(key, value.transpose(1, 2), index)
            if self._flash is None:
                seen = self._attend(query, keys, values, mask)
            else:  # [r, T, heads, width]: each query looks at its own place, and at what its row has before
                asked, *cached = (each.transpose(1, 2) for each in (query, keys, values))
                n_cached = (positions[:, -1] + 1).int()
                seen = self._flash(asked, *cached, cache_seqlens=n_cached, causal=True).flatten(2)
            x = x + layer.out(seen)
            gate, up = layer.gate_up(self._normed(x, layer.mlp_norm)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate) * up)
        return self._normed(x, self._norm)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Look at what is cached: queries [r, heads, T, width], keys and values [r, groups, N, width] -> [r, T, D].

        Args:
            mask: [1 or r, 1, heads / groups * T, N], added to the scores: heads of a group are further queries of one.
        """
        if mask is None and query.shape[2] > 1:
            shared = self._heads != self._groups
            seen = F.scaled_dot_product_attention(query, keys, values, is_causal=True, enable_gqa=shared)
        else:
            asked = query.reshape(len(query), self._groups, -1, self._width)
            n = asked.shape[2]
            if self._asks_twice and n == 1 and keys.shape[2] >= _LEAST_KEYS:
                asked = asked.expand(-1, -1, 2, -1)
            seen = F.scaled_dot_product_attention(asked, keys, values, attn_mask=mask)[:, :, :n].reshape(query.shape)
        return seen.transpose(1, 2).flatten(2)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self._epsilon)

    def _turned(self, n: int, like: Tensor) -> Tensor:
        """Give cosines and signed sines of at least n positions, [positions, 2 * width]; made once for all passes."""
        if len(self._turns[-1]) < n:
            cos, sin = self._rotary(like, torch.arange(n, device=like.device)[None])  # each [1, n, width]
            low, high = sin[0].chunk(2, dim=-1)
            self._turns.append(torch.cat([cos[0], -low, high], dim=-1))
        return self._turns[-1]


class _Layer(NamedTuple):
    """One layer. Norms are [D]; that of queries and keys is weight and bias, each [heads + groups, width]."""

    attention_norm: Tensor
    qkv: Callable[[Tensor], Tensor]
    qk_norm: tuple[Tensor, Tensor] | None
    out: Callable[[Tensor], Tensor]
    mlp_norm: Tensor
    gate_up: Callable[[Tensor], Tensor]
    down: Callable[[Tensor], Tensor]


def _read(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    qk_norm = None
    if hasattr(attention, "q_norm"):
        norms = attention.q_norm, attention.k_norm
        qk_norm = torch.cat([norm.weight for norm in norms]), torch.cat([norm.bias for norm in norms])
    return _Layer(
        layer.input_layernorm.weight,
        _reader(attention, "qkv_proj"),
        qk_norm,
        attention.o_proj,
        layer.post_attention_layernorm.weight,
        _reader(mlp, "gate_up_proj"),
        mlp.down_proj,
    )


def _reader(module: nn.Module, joined: str) -> Callable[[Tensor], Tensor]:
    """Give what multiplies with several layers at once: the one that was put in their place, or each in turn."""
    if hasattr(module, joined):
        return module.get_submodule(joined)
    parts = [module.get_submodule(name) for name in JOINED[joined]]
    return lambda x: torch.cat([part(x) for part in parts], dim=-1)

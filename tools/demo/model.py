"""The shape of the built-in model, and the forward pass that training uses (the same as stock Chameleon's)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import ChameleonConfig, ChameleonForConditionalGeneration, PreTrainedTokenizerFast

from .tokenizer import BOS, EOS, PAD
from .tokenizer import vocabulary_map as names_of
from .vq_model import vq_config

CONTEXT = 1024
LATE_LAYERS = 2  # that alone look at a picture's plan, in rows that are trained so


def model_config(tokenizer: PreTrainedTokenizerFast) -> ChameleonConfig:
    """Return the config; every linear layer's width is a multiple of 64, as 4-bit blocks need."""
    return ChameleonConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=512, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=CONTEXT, vq_config=vq_config().to_dict(), swin_norm=False,
        vocabulary_map=names_of(tokenizer), bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD,
        tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al., arXiv 2104.09864), halves as in Llama; x [B, heads, T, d], angles [B, 1, T, d]."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def added_where(unseen: Tensor) -> Tensor:
    """What is added to attention's scores: very negative where a place is not to be seen."""
    return torch.zeros(unseen.shape).masked_fill_(unseen, -1e4)


def attend(q: Tensor, k: Tensor, v: Tensor, unseen: Tensor) -> Tensor:
    """Plain attention in float32, several times faster to train at these sizes than the fused one on a CPU.

    q, k, v [B, heads, T, d]; unseen [T, T] or [B, 1, T, T], 0 or very negative.
    """
    with torch.autocast("cpu", enabled=False):
        weights = torch.softmax(torch.matmul(q.float() * q.shape[-1] ** -0.5, k.float().transpose(-1, -2)) + unseen, -1)
        return torch.matmul(weights, v.float())


def hidden_states(
    model: ChameleonForConditionalGeneration,
    ids: Tensor,
    positions: Tensor,
    visible: Tensor | None,
    early: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Ids, positions [B, T] -> hidden [B, T, D], as `model.model` would, and what is there after each layer.

    In fewer and larger operations than stock's. visible [B, 1, T, T] bool, or None for causal order; early, of
    all layers but the LATE_LAYERS, if it is another.
    """
    body, config = model.model, model.config
    rows, length = ids.shape
    n_heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    x = body.embed_tokens(ids)
    frequencies = body.rotary_emb.inv_freq.float()
    angles = positions[:, None, :, None].float() * frequencies
    angles = torch.cat((angles, angles), dim=-1)  # [B, 1, T, d]
    cos, sin = angles.cos(), angles.sin()
    if visible is None:
        visible = torch.ones(length, length, dtype=torch.bool).tril()
    late = added_where(~visible)
    first = late if early is None else added_where(~early)
    between = []
    for number, layer in enumerate(body.layers):
        unseen = first if number < len(body.layers) - LATE_LAYERS else late
        attention, mlp = layer.self_attn, layer.mlp
        y = F.rms_norm(x, (x.shape[-1],), layer.input_layernorm.weight, config.rms_norm_eps)
        three = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        q, k, v = F.linear(y, three).chunk(3, -1)
        q = attention.q_norm(q.reshape(-1, n_heads, width)).view(rows, length, n_heads, width).transpose(1, 2)
        k = attention.k_norm(k.reshape(-1, n_heads, width)).view(rows, length, n_heads, width).transpose(1, 2)
        v = v.reshape(rows, length, n_heads, width).transpose(1, 2)
        q, k = turn(q, cos, sin), turn(k, cos, sin)
        mixed = attend(q, k, v, unseen)
        x = x + attention.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))
        y = F.rms_norm(x, (x.shape[-1],), layer.post_attention_layernorm.weight, config.rms_norm_eps)
        x = x + mlp.down_proj(F.silu(mlp.gate_proj(y)) * mlp.up_proj(y))
        between.append(x)
    return F.rms_norm(x, (x.shape[-1],), body.norm.weight, config.rms_norm_eps), between

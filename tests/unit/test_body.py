"""A pass of our own gives what transformers' decoders do, however the rows lie and however their weights are kept."""

from __future__ import annotations

import sys
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import ChameleonConfig, Emu3TextConfig, LlamaConfig, PreTrainedModel
from transformers.models.chameleon.modeling_chameleon import ChameleonModel
from transformers.models.emu3.modeling_emu3 import Emu3TextModel
from transformers.models.llama.modeling_llama import LlamaModel

from mmgen.decoding import jacobi, stepwise
from mmgen.decoding.body import Body, fits, join
from mmgen.decoding.grammar import Canvas
from mmgen.decoding.sampling import Noise
from mmgen.decoding.stepwise import Cache, Network, extend, forward
from mmgen.request import ImageSampling

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
}
VQ = {"num_embeddings": 8, "base_channels": 32, "channel_multiplier": [1], "num_res_blocks": 1, "resolution": 16}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 2.0, "original_max_position_embeddings": 48}
KINDS: dict[str, dict[str, Any]] = {
    "chameleon": {},
    "chameleon, biases": {"attention_bias": True, "mlp_bias": True},
    "llama": {"num_key_value_heads": 4},
    "llama, shared keys": {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
    "llama, wide heads": {"num_key_value_heads": 1, "head_dim": 32},
    "llama, yarn": {"num_key_value_heads": 4, "rope_parameters": YARN},
    "emu3": {"num_key_value_heads": 2},
}


def make(kind: str, **more: Any) -> PreTrainedModel:
    """Make a decoder with random weights, none of them as it would begin: biases and norms count too."""
    sizes, name = SIZES | KINDS[kind] | more, kind.partition(",")[0]
    torch.manual_seed(0)
    decoder: PreTrainedModel
    if name == "chameleon":
        names = {"vocabulary_map": {"<image>": 1, "<s>": 0}}
        config = ChameleonConfig(**{"num_key_value_heads": 4, "rms_norm_eps": 1e-5} | names | sizes, vq_config=VQ)
        decoder = ChameleonModel(config)
    elif name == "emu3":
        decoder = Emu3TextModel(Emu3TextConfig(**sizes))
    else:
        decoder = LlamaModel(LlamaConfig(**sizes))
    with torch.no_grad():
        for each in (*decoder.layers.parameters(), *decoder.norm.parameters()):  # type: ignore[operator, union-attr]  # a module list
            each.normal_(mean=float(each.dim() < 2), std=0.3)
    return decoder.eval()


def network_of(decoder: Any, body: Body) -> Network:
    embedding = decoder.get_input_embeddings()

    def pass_(ids: Tensor, positions: Tensor, cache: Cache, visible: Tensor | None) -> Tensor:
        return body(embedding(ids), positions, cache, visible)

    return Network(pass_, lambda hidden: hidden, lambda hidden: hidden, torch.arange(64))


def whole(decoder: Any, ids: list[int]) -> Tensor:
    """What transformers gives for a row by itself: hidden [T, D]."""
    vectors = decoder.get_input_embeddings()(torch.tensor([ids]))
    hidden: Tensor = decoder(inputs_embeds=vectors, use_cache=False).last_hidden_state[0]
    return hidden


@torch.inference_mode()
def hidden_of(network: Network, rows: list[list[int]], cuts: tuple[int, ...], *, capacity: int = 96) -> list[Tensor]:
    """Feed the rows piece by piece, each up to the next cut; hidden of the last piece: of each row [T, D]."""
    cache = Cache(len(rows), capacity)
    for start, stop in pairwise((0, *cuts)):
        extend(network, cache, range(len(rows)), [row[start:stop] for row in rows])
    n = len(rows[0]) - sum(cuts[-1:])
    last = forward(network, cache, range(len(rows)), torch.tensor([row[-n:] for row in rows]))
    return list(last)


@pytest.mark.parametrize("is_joined", [True, False], ids=["joined", "as stored"])
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_are_those_of_transformers(kind: str, is_joined: bool) -> None:
    decoder = make(kind)
    rows = torch.randint(2, 64, (3, 24)).tolist()
    with torch.inference_mode():
        expected = [whole(decoder, row) for row in rows]
    assert fits(decoder)
    assert not is_joined or join(decoder)
    network = network_of(decoder, Body(decoder))
    for cuts in ((), (23,), (8,), (5, 6, 20)):
        for found, row in zip(hidden_of(network, rows, cuts), expected, strict=True):
            torch.testing.assert_close(found, row[sum(cuts[-1:]) :], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["chameleon", "llama, shared keys"])
@pytest.mark.parametrize("n_tokens", [1, 4])
@torch.inference_mode()
def test_rows_of_unlike_lengths_do_not_see_each_other(kind: str, n_tokens: int) -> None:
    decoder = make(kind)
    rows = [torch.randint(2, 64, (length,)).tolist() for length in (20, 9, 14)]
    expected = [whole(decoder, row)[-n_tokens:] for row in rows]
    join(decoder)
    network, cache = network_of(decoder, Body(decoder)), Cache(4, 20)
    extend(network, cache, range(1, 4), [row[:-n_tokens] for row in rows])
    found = forward(network, cache, range(1, 4), torch.tensor([row[-n_tokens:] for row in rows]))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_longer_cache_turns_positions_as_a_shorter_one_did() -> None:
    decoder = make("chameleon")
    row = torch.randint(2, 64, (60,)).tolist()
    network = network_of(decoder, Body(decoder))
    [short], [long] = (hidden_of(network, [row[:20]], (12,), capacity=n) for n in (20, 90))
    assert torch.equal(short, long)
    [found] = hidden_of(network, [row], (50,))
    torch.testing.assert_close(found, whole(decoder, row)[50:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_keys", [1, 31, 32, 60])
@pytest.mark.parametrize("kind", ["chameleon", "llama, shared keys"])
@torch.inference_mode()
def test_a_single_query_asked_twice_is_answered_as_one(kind: str, n_keys: int) -> None:
    decoder = make(kind).bfloat16()
    row = torch.randint(2, 64, (n_keys,)).tolist()
    once, twice = (network_of(decoder, Body(decoder, asks_twice=asks)) for asks in (False, True))
    [one], [other] = (hidden_of(network, [row], (n_keys - 1,) if n_keys > 1 else ()) for network in (once, twice))
    torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)  # bfloat16 has 8 bits


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("chameleon", {"swin_norm": True}),
        ("chameleon", {"hidden_act": "gelu"}),
        ("chameleon", {"attn_implementation": "eager"}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.0}}),
    ],
)
def test_other_ways_to_compute_are_left_to_transformers(kind: str, option: dict[str, Any]) -> None:
    assert not fits(make(kind, **option))


def test_weights_that_are_elsewhere_are_left_to_transformers() -> None:
    decoder = make("llama")
    assert fits(decoder)
    decoder.layers[1].to("meta")  # type: ignore[index, union-attr]  # a module list
    assert not fits(decoder)


@torch.inference_mode()
def test_layers_of_another_kind_are_called_as_they_are() -> None:
    class Own(torch.nn.Linear):  # as quantised layers are
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).round(decimals=2)

    decoder: Any = make("llama, shared keys")
    row = torch.randint(2, 64, (12,)).tolist()
    for layer in decoder.layers:
        for name in ("k_proj", "o_proj"):
            getattr(layer.self_attn, name).__class__ = Own
    expected = whole(decoder, row)
    assert join(decoder)  # of the layers between
    assert [hasattr(layer.self_attn, "k_proj") for layer in decoder.layers] == [True, True]
    [found] = hidden_of(network_of(decoder, Body(decoder)), [row], (4,))
    torch.testing.assert_close(found, expected[4:], rtol=1e-2, atol=1e-2)  # a rounding may fall to the other side


def standing_in(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, cache_seqlens: Tensor | None = None, causal: bool = False
) -> Tensor:
    """flash_attn.flash_attn_with_kvcache as its docstring has it, for what is cached already, computed by PyTorch.

    q [B, T, heads, D], k_cache and v_cache [B, N, groups, D], cache_seqlens [B] int32: of each row that many count, and
    the last query is aligned with the last of them.
    """
    assert causal
    assert cache_seqlens is not None
    assert cache_seqlens.dtype == torch.int32
    n_queries, n_slots = q.shape[1], k_cache.shape[1]
    own = cache_seqlens[:, None] - n_queries + torch.arange(n_queries)  # the place of each query
    visible = torch.arange(n_slots) <= own[..., None]
    q, k, v = (each.transpose(1, 2) for each in (q, k_cache, v_cache))
    seen = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None], enable_gqa=True)
    return seen.transpose(1, 2)


@torch.inference_mode()
def codes_of(network: Network, seeds: list[int], window: int, guidance: float) -> list[list[int]]:
    canvas = Canvas(4, 5)
    weights = [1.0] if guidance == 1 else [guidance, 1 - guidance]
    prompts = [[2 + seed % 5] * (3 + seed + row) for seed in seeds for row in range(len(weights))]
    cache = Cache(len(prompts), max(map(len, prompts)) + canvas.n_places + window)
    hidden = extend(network, cache, range(len(prompts)), prompts)
    loop = stepwise.picture if window == 1 else partial(jacobi.picture, window=window)
    found: list[list[int]] = [[] for _ in seeds]
    sampling = ImageSampling(temperature=0.8, top_p=1.0, guidance=guidance)
    for made in loop(network, cache, hidden, weights, sampling, [Noise(seed) for seed in seeds], canvas):
        for index, new in made:
            found[index] += new
    return found


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("kind", ["chameleon", "llama, shared keys", "emu3"])
def test_flash_attention_draws_the_same_codes_alone_in_batches_and_in_windows(
    kind: str, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_with_kvcache=standing_in))
    decoder: Any = make(kind)
    expected = codes_of(network_of(decoder, Body(decoder)), [1, 2, 3], 1, guidance)
    assert len({tuple(each) for each in expected}) == 3
    decoder.config._attn_implementation = "flash_attention_2"
    assert fits(decoder)
    flash = network_of(decoder, Body(decoder))
    for window in (1, 2, 6, 16):
        assert codes_of(flash, [1, 2, 3], window, guidance) == expected
        assert codes_of(flash, [2], window, guidance) == expected[1:2]

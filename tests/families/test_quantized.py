"""Weights that are quantised on a CPU: which layers, in which form, and what becomes of the answers."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch

from benchmarks.quantized_captions import BARS, compare
from mmgen import families
from mmgen.checkpoints import catalog
from mmgen.checkpoints.x86 import PackedLinear
from mmgen.families.chameleon import Chameleon
from mmgen.request import Loading, Quantize
from tests.support.checkpoints import make_checkpoint

LAYERS = {"4bit": "Linear4bit", "8bit": "Linear8bitLt", "quanto-int8": "QLinear"}


def opened(folder: Path, quantize: str | None) -> torch.nn.Module:
    model = families.open_model(catalog.find(str(folder)), Loading(quantize=quantize, device_map="cpu"))
    assert isinstance(model, Chameleon)
    return model.model


@pytest.mark.parametrize("decoder", [True, False], ids=["anole", "chameleon"])
@pytest.mark.parametrize("quantize", get_args(Quantize))
def test_quantized_are_all_linear_layers_but_the_head_and_nothing_of_the_codec(
    tmp_path: Path, quantize: str, decoder: bool
) -> None:
    folder = make_checkpoint(tmp_path / "model", decoder=decoder)
    small = opened(folder, quantize)
    whole = type(small)(small.config)
    linear = {name for name, module in whole.named_modules() if type(module) is torch.nn.Linear}
    changed = {
        name: type(module).__name__
        for name, module in small.named_modules()
        if type(module) not in (type(whole.get_submodule(name)), PackedLinear)
    }
    assert changed == dict.fromkeys(linear - {"lm_head"}, LAYERS[quantize])
    assert len(changed) == 14  # seven in each of two layers
    codec = small.get_submodule("model.vqmodel")
    assert {parameter.dtype for parameter in codec.parameters()} == {torch.float32}


def test_4_bits_are_normal_floats_and_are_computed_with_in_bfloat16(tmp_path: Path) -> None:
    small = opened(make_checkpoint(tmp_path / "model"), "4bit")
    layer = small.get_submodule("model.layers.0.mlp.up_proj")
    assert layer.weight.quant_state.quant_type == "nf4"  # type: ignore[union-attr]
    assert layer.compute_dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_greedy_captions_of_the_builtin_model_stay_mostly_the_same() -> None:
    """As benchmarks/quantized_captions.py, whose bars are for 200 pictures: three misses more are let pass in 30."""
    for way, pairs in compare(30, ["8bit", "4bit"]).items():
        bar = BARS[way]
        assert bar is not None
        assert sum(ours == whole for ours, whole in pairs) >= 30 * bar - 3

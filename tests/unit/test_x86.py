"""Weights in oneDNN's order: the same layers, no others, and no trace of the old weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmgen.checkpoints import x86
from mmgen.checkpoints.loading import leave_files
from mmgen.checkpoints.x86 import PackedLinear, least_tokens, pack, packed
from mmgen.families.chameleon import Chameleon
from mmgen.request import Loading
from tests.support.checkpoints import make_checkpoint
from tests.support.opening import opened

pytestmark = pytest.mark.skipif(
    not isinstance(packed(torch.nn.Linear(2, 2)), PackedLinear),
    reason="weights are put in order on x86-64 processors only",
)


@pytest.mark.parametrize("shape", [(5,), (1, 5), (3, 7, 5), (2, 33, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_computes_what_the_layer_did(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(5, 9, bias=bias), torch.randn(shape)
    with torch.inference_mode():
        expected = x.double() @ linear.weight.double().T + (linear.bias.double() if bias else 0)
        found = packed(linear)(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_single_token_can_be_computed_as_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = torch.nn.Linear(5, 9)
    layer = packed(linear, 2)
    one, two = torch.randn(1, 1, 5), torch.randn(2, 1, 5)
    with torch.inference_mode():
        assert torch.equal(layer(one), linear(one))
        torch.testing.assert_close(layer(two), linear(two))
    assert set(layer.state_dict()) == {"weight", "bias"}, "the weight is in there once"
    assert packed(linear, 0) is linear


def test_a_torch_without_these_operators_has_its_layers_as_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert least_tokens(model) == 0
    assert not pack(model)
    assert type(model[0]) is torch.nn.Linear


def test_it_is_measured_from_how_many_tokens_layers_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(40, 40), torch.nn.Linear(40, 40))
    assert least_tokens(model) == 1, "if it is not measured"
    monkeypatch.delenv("MMGEN_TUNE")
    least = least_tokens(model)
    assert least in (0, 1, 2)
    assert pack(model, least) == (least > 0)
    assert least_tokens(model) == least, "a head is packed as the layers are"


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((1.0, 5.0, 3.0, 2.0), 2),  # as on some processors with AVX2 alone
        ((1.0, 0.9, 3.0, 2.0), 1),
        ((1.0, 1.05, 3.0, 2.0), 1),  # as good as equal
        ((1.0, 2.0, 2.0, 3.0), 0),
        ((3.0, 1.0, 2.0, 3.0), 1),
    ],
)
def test_the_quicker_way_is_taken(monkeypatch: pytest.MonkeyPatch, times: tuple[float, ...], expected: int) -> None:
    monkeypatch.delenv("MMGEN_TUNE")
    monkeypatch.setattr(x86, "shortest", lambda ways, seconds: list(times))
    assert least_tokens(torch.nn.Sequential(torch.nn.Linear(8, 8))) == expected


def test_both_ways_are_not_kept_of_a_large_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMGEN_TUNE")
    monkeypatch.setattr(x86, "SMALL", 100)
    monkeypatch.setattr(x86, "shortest", lambda ways, seconds: [1.0, 5.0, 3.0, 2.0])
    assert least_tokens(torch.nn.Sequential(torch.nn.Linear(8, 8))) == 0


def test_bfloat16_is_rounded_once() -> None:
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(300, 70, bias=False, dtype=torch.bfloat16), torch.randn(4, 300).bfloat16()
    layer = packed(linear)
    if not isinstance(layer, PackedLinear):
        pytest.skip("this processor does not compute in bfloat16")
    with torch.inference_mode():
        expected = (x.double() @ linear.weight.double().T).float()
        found = layer(x).float()
    assert ((found - expected).abs() <= expected.abs() * 2**-8 + 1e-6).all()  # half a unit in the last of 8 digits


def test_the_weight_can_be_had_back() -> None:
    linear = torch.nn.Linear(37, 21)
    assert torch.equal(packed(linear).weight.to_dense(), linear.weight)


def test_all_linear_layers_are_packed_in_place_and_nothing_else_is() -> None:
    class Own(torch.nn.Linear):  # as quantised layers are
        pass

    inner = torch.nn.ModuleDict({"plain": torch.nn.Linear(4, 4), "own": Own(4, 4), "norm": torch.nn.LayerNorm(4)})
    half = torch.nn.Linear(4, 4, dtype=torch.float16)
    empty = torch.nn.Linear(4, 4, device="meta")
    hooked = torch.nn.Linear(4, 4)
    hooked._hf_hook = "accelerate brings its weight"
    model = torch.nn.ModuleDict({"inner": inner, "fp16": half, "empty": empty, "hooked": hooked})
    before = dict(model.named_modules())
    pack(model)
    after = dict(model.named_modules())
    assert {name for name in after if after[name] is not before[name]} == {"inner.plain"}
    assert isinstance(after["inner.plain"], PackedLinear)
    layers = ("inner.plain", "inner.own", "inner.norm", "fp16", "empty", "hooked")
    assert set(dict(model.named_parameters())) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_what_is_shared_stays_as_it_is() -> None:
    embedding, head, twice = torch.nn.Embedding(6, 4), torch.nn.Linear(4, 6, bias=False), torch.nn.Linear(4, 4)
    head.weight = embedding.weight
    model = torch.nn.ModuleDict({"embedding": embedding, "head": head, "one": twice, "two": twice})
    assert not pack(model)
    assert model["head"] is head
    assert model["one"] is model["two"] is twice


@pytest.mark.parametrize("draws", [True, False])
def test_a_model_is_opened_packed(tmp_path: Path, draws: bool) -> None:
    model = opened(make_checkpoint(tmp_path / "model", decoder=draws), Loading(dtype="float32"))
    assert isinstance(model, Chameleon)
    layers = [each for each in model.model.get_decoder().modules() if isinstance(each, torch.nn.Linear)]
    assert len(layers) == 8  # four in each of two layers: those that read the same vector are one
    assert {type(each) for each in (*layers, model.model.lm_head)} == {PackedLinear}
    assert not any(isinstance(each, PackedLinear) for each in model.model.get_submodule("model.vqmodel").modules())


@pytest.mark.parametrize("name", ["model.safetensors", "0123456789abcdef"])  # the Hub's cache links to such names
def test_a_mapped_file_is_let_go(tmp_path: Path, name: str) -> None:
    def is_mapped() -> bool:
        return str(path) in Path("/proc/self/maps").read_text()

    path = tmp_path / name
    stored = {"0.weight": torch.randn(64, 64), "1.weight": torch.randn(64), "1.bias": torch.zeros(64)}
    save_file(stored, path)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64, bias=False), torch.nn.LayerNorm(64))
    model.load_state_dict(load_file(path), assign=True)
    if not is_mapped():
        pytest.skip("safetensors reads files here, and maps none")
    pack(model)
    leave_files(model)
    assert not is_mapped()
    found = {name: value.to_dense() if value.is_mkldnn else value for name, value in model.state_dict().items()}
    assert all(torch.equal(found[name], value) for name, value in stored.items())

"""Loading on a CPU: every tensor or an error, and nothing on the terminal."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import TensorInfo
from transformers import ChameleonForConditionalGeneration as Chameleon
from transformers.quantizers import quantizer_bnb_4bit

from mmgen.checkpoints import catalog, loading
from mmgen.checkpoints.catalog import Checkpoint
from mmgen.errors import MmgenError, UsageError
from mmgen.request import Loading
from tests.support.checkpoints import make_checkpoint
from tests.support.shell import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "words", decoder=False)


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    return catalog.find(str(folder))


def load(checkpoint: Checkpoint, **options: Any) -> Chameleon:
    model = loading.load_model(Chameleon, checkpoint, Loading(**options))
    with torch.inference_mode():
        hidden = model.model(torch.tensor([[0, 80, 90]])).last_hidden_state
    assert torch.isfinite(hidden).all()
    return model


def refusal(checkpoint: Checkpoint, **options: Any) -> MmgenError:
    with pytest.raises(MmgenError) as caught:
        loading.load_model(Chameleon, checkpoint, Loading(**options))
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


def changed(folder: Path, new: Path, **changes: Any) -> Checkpoint:
    """Copy a checkpoint, change its config, and find the copy."""
    shutil.copytree(folder, new)
    config = json.loads((new / "config.json").read_text()) | changes
    (new / "config.json").write_text(json.dumps(config))
    return catalog.find(str(new))


def test_by_default_a_small_model_is_whole_on_the_cpu_in_float32(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = load(checkpoint)
    assert (model.dtype, model.device, model.training) == (torch.float32, torch.device("cpu"), False)
    assert not hasattr(model, "_hf_hook")


@pytest.mark.parametrize("options", ["", "--quantize 4bit", "--quantize quanto-int8", "--device-map balanced"])
def test_a_command_says_nothing_of_loading(folder: Path, tmp_path: Path, options: str) -> None:
    done = run(f"mmgen ask hello -m '{folder}' --max-tokens 2 {options}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


# --- type ---------------------------------------------------------------------------------------------------------


def sized(checkpoint: Checkpoint, n_bytes: int) -> Checkpoint:
    return replace(checkpoint, tensors={"w": TensorInfo("BF16", [n_bytes // 2], (0, n_bytes))})


@pytest.mark.parametrize(
    ("dtype", "device_map", "gpu", "n_bytes", "chosen"),
    [
        ("auto", "auto", False, 1_999_999_998, "float32"),
        ("auto", "auto", False, 2_000_000_000, "bfloat16"),
        ("auto", "auto", True, 10, "bfloat16"),
        ("auto", "cpu", True, 10, "float32"),
        ("float32", "auto", True, 10**11, "float32"),
        ("float16", "cpu", False, 10, "float16"),
    ],
)
def test_dtype_follows_device_and_size(
    checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    dtype: Any,
    device_map: str,
    gpu: bool,
    n_bytes: int,
    chosen: str,
) -> None:
    def stop(*_: object, **arguments: object) -> None:
        raise InterruptedError(arguments["dtype"])

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(Chameleon, "from_pretrained", stop)
    with pytest.raises(InterruptedError, match=f"^{chosen}$"):
        loading.load_model(Chameleon, sized(checkpoint, n_bytes), Loading(dtype=dtype, device_map=device_map))


@pytest.mark.parametrize(
    "options",
    [{"dtype": "int3"}, {"device_map": "gpu"}, {"quantize": "2bit"}, {"attn": "fast"}, {"device_map": "cuda:x"}],
)
def test_unknown_words_are_usage_errors(checkpoint: Checkpoint, options: dict[str, str]) -> None:
    error = refusal(checkpoint, **options)
    assert isinstance(error, UsageError)
    assert next(iter(options.values())) in error.message


# --- device -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_cuda_is_refused(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert f"no CUDA device {device}" in refusal(checkpoint, device_map=device).message


def test_devices_go_through_as_one_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def choose(device_map: str) -> object:
        return loading.choose_device_map(Loading(device_map=device_map))

    assert [choose(name) for name in ("cpu", "cuda", "cuda:1")] == [None, {"": "cuda:0"}, {"": "cuda:1"}]
    assert [choose(name) for name in ("auto", "balanced", "sequential")] == ["auto", "balanced", "sequential"]
    with pytest.raises(MmgenError, match="no CUDA device cuda:2: this machine has 2"):
        choose("cuda:2")


def test_a_device_map_comes_from_a_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text('{"model": "cpu", "lm_head": "cpu"}')
    assert load(checkpoint, device_map=str(path)).device == torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "no JSON object"),
        ("{}", "no device to 96 tensor(s)"),
        ('{"model": "cpu"}', "no device to 1 tensor(s), lm_head.weight first"),
        ('{"": "tpu"}', "no CUDA device tpu"),
        ('{"": true}', "no CUDA device True"),
        ('{"": 0.5}', "no CUDA device 0.5"),
    ],
)
def test_a_device_map_that_is_none_is_refused(checkpoint: Checkpoint, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    assert said in refusal(checkpoint, device_map=str(path)).message


def test_a_device_map_that_is_not_there_is_refused(checkpoint: Checkpoint) -> None:
    assert "cannot read /no/map.json" in refusal(checkpoint, device_map="/no/map.json").message


# --- quantisation and attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantize", "layer"), [("4bit", "Linear4bit"), ("8bit", "Linear8bitLt"), ("quanto-int8", "QLinear")]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_quantised_on_a_cpu_with_the_head_whole(checkpoint: Checkpoint, quantize: str, layer: str, dtype: str) -> None:
    model = load(checkpoint, quantize=quantize, dtype=dtype, device_map="cpu")
    quantised = {name for name, module in model.named_modules() if type(module).__name__ == layer}
    assert len(quantised) == 14  # seven in each of two layers
    assert all(name.startswith("model.layers.") for name in quantised)
    assert type(model.lm_head) is torch.nn.Linear
    assert model.lm_head.weight.dtype == getattr(torch, dtype)


def test_modules_to_keep_whole_are_kept(checkpoint: Checkpoint) -> None:
    model = loading.load_model(Chameleon, checkpoint, Loading(quantize="8bit"), keep_whole=["model.layers.0"])
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert type(model.lm_head) is torch.nn.Linear
    assert type(model.model.layers[1].mlp.up_proj).__name__ == "Linear8bitLt"


def test_a_missing_package_is_named(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizer_bnb_4bit, "is_bitsandbytes_available", lambda: False)
    assert "pip install -U bitsandbytes" in refusal(checkpoint, quantize="4bit").message
    monkeypatch.setattr(loading, "is_optimum_quanto_available", lambda: False)
    assert refusal(checkpoint, quantize="quanto-int8").hint == "pip install --no-deps optimum-quanto ninja"


def test_a_checkpoint_that_is_quantised_already_is_not_quantised_again(folder: Path, tmp_path: Path) -> None:
    stored = changed(folder, tmp_path / "new", quantization_config={"quant_method": "gptq", "bits": 4})
    assert "stored quantised already" in refusal(stored, quantize="4bit").message


def test_flash_attention_that_is_not_installed_is_explained(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "is_flash_attn_2_available", lambda: False)
    error = refusal(checkpoint, attn="flash_attention_2")
    assert "flash-attn" in error.message
    assert "pip install flash-attn" in error.hint


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_flash_attention_that_is_installed_says_what_it_takes(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(loading, "is_flash_attn_2_available", lambda: True)
    error = refusal(checkpoint, attn="flash_attention_2", device_map="cpu", dtype=dtype)
    assert "takes a CUDA device, and bfloat16 or float16" in error.message
    assert error.hint == "leave --attn out"


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_attention_is_the_one_asked_for(checkpoint: Checkpoint, attn: str) -> None:
    assert load(checkpoint, attn=attn).config._attn_implementation == attn


def test_attention_that_a_model_does_not_have_is_refused(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Chameleon, "_supports_sdpa", False)
    assert "cannot use --attn sdpa" in refusal(checkpoint, attn="sdpa").message


# --- weights that do not fit --------------------------------------------------------------------------------------


def test_a_tensor_the_checkpoint_lacks_is_never_random(folder: Path, tmp_path: Path) -> None:
    error = refusal(changed(folder, tmp_path / "new", num_hidden_layers=3))
    assert "lacks 13 tensor(s), model.layers.2" in error.message


def test_a_tensor_of_another_shape_is_refused(folder: Path, tmp_path: Path) -> None:
    error = refusal(changed(folder, tmp_path / "new", vocab_size=500))
    assert "lm_head.weight" in error.message
    assert "(500, 64)" in error.message


def test_tensors_without_a_place_are_refused_unless_allowed(tmp_path: Path) -> None:
    anole = catalog.find(str(make_checkpoint(tmp_path / "anole")))
    assert "no place in the model, model.vqmodel.decoder." in refusal(anole).message
    loading.load_model(Chameleon, anole, Loading(), may_ignore=["model.vqmodel.decoder."])


def test_a_config_value_of_the_wrong_type_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "rms_norm_eps" in refusal(changed(folder, tmp_path / "new", rms_norm_eps="tiny")).message


@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 3},
        {"num_attention_heads": 0},
        {"hidden_size": 0},
        {"vocab_size": -5},
        {"hidden_act": "nonesuch"},
        {"rope_scaling": {"rope_type": "nonesuch"}},
    ],
)
@pytest.mark.parametrize("options", [{}, {"quantize": "4bit", "device_map": "cpu"}])
def test_a_config_of_no_possible_model_is_refused(
    folder: Path, tmp_path: Path, changes: dict[str, Any], options: dict[str, Any]
) -> None:
    error = refusal(changed(folder, tmp_path / "new", **changes), **options)
    assert error.message.startswith(f"config.json of {tmp_path / 'new'} does not fit: ")


def test_a_package_that_the_checkpoint_needs_is_named(folder: Path, tmp_path: Path) -> None:
    stored = changed(folder, tmp_path / "new", quantization_config={"quant_method": "gptq", "bits": 4})
    assert "needs a package" in refusal(stored).message


def test_no_code_of_a_checkpoint_is_run(folder: Path, tmp_path: Path) -> None:
    evil = changed(folder, tmp_path / "new", auto_map={"AutoModel": "evil.Model"})
    (evil.folder / "evil.py").write_text("raise SystemExit('ran')")
    load(evil)

"""From `Loading` to a transformers model in memory: type, device, quantisation, attention. Knows no family.

Nothing is ever left random: a tensor that the checkpoint lacks is an error, not a warning.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel, QuantoConfig
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.utils.import_utils import is_flash_attn_2_available, is_optimum_quanto_available

from mmgen.checkpoints import catalog
from mmgen.checkpoints.catalog import Checkpoint
from mmgen.checkpoints.fit import dtype_name
from mmgen.checkpoints.packing import leave_files, pack
from mmgen.errors import MmgenError, UsageError
from mmgen.request import Loading

ModelT = TypeVar("ModelT", bound=PreTrainedModel)
ConfigT = TypeVar("ConfigT", bound=PreTrainedConfig)
DeviceMap = str | dict[str, int | str] | None

_SPREADS = ("auto", "balanced", "sequential")  # accelerate's own ways of filling several GPUs
# What transformers and torch raise of a config that no model can be built from.
_IMPOSSIBLE = (StrictDataclassError, ValueError, ArithmeticError, LookupError, RuntimeError, AssertionError)
_QUANTO = "pip install --no-deps optimum-quanto ninja"  # the rest that it asks for is here: torch is not replaced
_SMALLER = "try --quantize 4bit, a second GPU, or --device-map cpu"


def load_model(
    model_class: type[ModelT],
    checkpoint: Checkpoint,
    loading: Loading,
    *,
    keep_whole: Sequence[str] = (),
    may_ignore: Sequence[str] = (),
) -> ModelT:
    """Load a checkpoint's weights, every one of them, and return the model ready to run; fetch them if need be.

    Args:
        keep_whole: full names of modules that are never quantised; `lm_head` always is one of them.
        may_ignore: prefixes of stored tensors that the class may have no use for.

    Raises:
        MmgenError: the machine lacks what was asked for, or weights and model do not fit together.
    """
    device_map = choose_device_map(loading)
    if loading.device_map.endswith(".json") and isinstance(device_map, dict):
        _check_homes(device_map, loading.device_map, _without_weights(model_class, checkpoint))
    quantization = _choose_quantization(loading, checkpoint, device_map, model_class, keep_whole)
    if quantization is not None and device_map is None:
        device_map = {"": "cpu"}  # left open, the quantiser would take a GPU if there is one
    if loading.attn == "flash_attention_2" and not is_flash_attn_2_available():
        raise MmgenError(
            "--attn flash_attention_2 needs the package flash-attn and a CUDA device",
            "pip install flash-attn, or leave --attn out: sdpa is nearly as fast",
        )
    arguments: dict[str, Any] = {
        "dtype": choose_dtype(loading, checkpoint),
        "device_map": device_map,
        "attn_implementation": None if loading.attn == "auto" else loading.attn,
        "quantization_config": quantization,
    }
    present = {name: value for name, value in arguments.items() if value is not None}
    checkpoint = catalog.fetch(checkpoint)  # all that can be refused without the weights has been by now
    model, report = _from_pretrained(model_class, checkpoint, loading, present)
    _check(checkpoint, report, may_ignore)
    is_whole = quantization is None and "quantization_config" not in checkpoint.config
    if is_whole and pack(cast(Any, model).get_decoder()):
        leave_files(model)
    return model


def _from_pretrained(
    model_class: type[ModelT], checkpoint: Checkpoint, loading: Loading, arguments: dict[str, Any]
) -> tuple[ModelT, dict[str, Any]]:
    """Call transformers, with its failures told apart; return the model and its loading report."""
    try:
        loaded: Any = model_class.from_pretrained(
            checkpoint.folder,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, and refused by _check
            **arguments,
        )
    except SafetensorError as error:
        raise MmgenError(f"the weights of {checkpoint.name} cannot be read: {error}", "fetch them again") from error
    except ImportError as error:  # a checkpoint that is stored quantised in some other way names its own package
        raise MmgenError(f"{checkpoint.name} needs a package: {one_line(error)}", "install it") from error
    except torch.OutOfMemoryError as error:
        raise MmgenError(f"{checkpoint.name} does not fit into the GPU's memory", _SMALLER) from error
    except _IMPOSSIBLE as error:  # transformers has no types of its own for any of these cases
        if loading.quantize is not None and "dispatched on the CPU or the disk" in str(error):
            raise MmgenError(f"{checkpoint.name} does not fit into the GPU's memory", _SMALLER) from error
        if loading.attn != "auto" and "does not support" in str(error):
            raise MmgenError(f"{checkpoint.name} cannot use --attn {loading.attn}", "leave --attn out") from error
        _without_weights(model_class, checkpoint)  # refuses, if the config is at fault
        raise
    model, report = loaded
    return model, report


def read_config(config_class: type[ConfigT], checkpoint: Checkpoint) -> ConfigT:
    """Read config.json as a class of transformers', which fills in what the file leaves out."""
    try:
        config: ConfigT = config_class.from_dict(dict(checkpoint.config))
    except (StrictDataclassError, ArithmeticError) as error:
        raise _bad_config(checkpoint, error) from error
    return config


def read_image_processor(checkpoint: Checkpoint) -> Any:
    """Read what prepares pictures, the kind that needs PIL alone."""
    try:
        return AutoImageProcessor.from_pretrained(
            checkpoint.folder, backend="pil", local_files_only=True, trust_remote_code=False
        )
    except OSError as error:
        raise MmgenError(
            f"{checkpoint.name} has nothing to prepare pictures with: {one_line(error)}",
            "copy processor_config.json or preprocessor_config.json beside the weights",
        ) from error


def choose_dtype(loading: Loading, checkpoint: Checkpoint) -> torch.dtype:
    """Choose the type of the weights, by fit.dtype_name."""
    on_gpu = loading.dtype == "auto" and _uses_gpu(choose_device_map(loading))
    dtype: torch.dtype = getattr(torch, dtype_name(loading, checkpoint.n_bytes, on_gpu))
    return dtype


# --- where --------------------------------------------------------------------------------------------------------


def choose_device_map(loading: Loading) -> DeviceMap:
    """Choose what transformers gets as `device_map`; None is plain loading on the CPU, without any hooks.

    Raises:
        MmgenError: it asks for a device that is not here, or its file is not a map of this checkpoint.
    """
    wanted = loading.device_map
    if wanted == "cpu":
        return None
    if wanted in _SPREADS:
        return wanted if torch.cuda.is_available() else None
    if wanted == "cuda" or wanted.startswith("cuda:"):
        _check_device(wanted)
        return {"": wanted if ":" in wanted else "cuda:0"}
    if wanted.endswith(".json"):
        return _read_device_map(Path(wanted))
    raise UsageError(f"unknown device map: {wanted}", f"one of {', '.join(_SPREADS)}, cpu, cuda, cuda:N, FILE.json")


def _read_device_map(path: Path) -> dict[str, int | str]:
    """Read a map from module names to devices."""
    try:
        placed = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MmgenError(f"{path} is not valid JSON: {error}", _MAP_HINT) from error
    except OSError as error:
        raise MmgenError(f"cannot read the device map {path}: {error.strerror}", "check the path") from error
    if not isinstance(placed, dict) or not placed:
        raise MmgenError(f"{path} holds no JSON object of modules and devices", _MAP_HINT)
    for device in placed.values():
        _check_device(device)
    return {str(module): device for module, device in placed.items()}


def _check_homes(device_map: Mapping[str, int | str], path: str, model: PreTrainedModel) -> None:
    """Refuse a map that leaves a tensor of the model without a device; the names that a file gives it may be older."""
    homeless = [name for name, _ in model.named_parameters() if not _within(name, device_map)]
    if homeless:
        raise MmgenError(f"{path} gives no device to {len(homeless)} tensor(s), {homeless[0]} first", _MAP_HINT)


_MAP_HINT = 'it maps module names to devices, such as {"model": 0, "lm_head": "cpu"}'


def _within(name: str, modules: Iterable[str]) -> bool:
    return any(module == "" or name == module or name.startswith(f"{module}.") for module in modules)


def _check_device(device: object) -> None:
    """Refuse a device that is not on this machine: a GPU by number or as `cuda:N`, `cpu` and `disk` are known."""
    number: object = device
    if isinstance(device, str):
        if device in ("cpu", "disk"):
            return
        kind, _, digits = device.partition(":")
        number = int(digits or 0) if kind == "cuda" and (digits or "0").isdecimal() else None
    if not isinstance(number, int) or isinstance(number, bool):
        raise UsageError(f"unknown device: {device}", "one of cpu, cuda, cuda:N")
    if not torch.cuda.is_available():
        raise MmgenError(f"no CUDA device on this machine for {device}", "use --device-map cpu, or auto")
    if number >= torch.cuda.device_count():
        raise MmgenError(f"no device {device}: this machine has {torch.cuda.device_count()}", "GPUs count from 0")


def _uses_gpu(device_map: DeviceMap) -> bool:
    if isinstance(device_map, dict):
        return any(device not in ("cpu", "disk") for device in device_map.values())
    return device_map is not None


# --- how ----------------------------------------------------------------------------------------------------------


def _choose_quantization(
    loading: Loading,
    checkpoint: Checkpoint,
    device_map: DeviceMap,
    model_class: type[PreTrainedModel],
    keep_whole: Sequence[str],
) -> BitsAndBytesConfig | QuantoConfig | None:
    if loading.quantize is None:
        return None
    if "quantization_config" in checkpoint.config:
        raise MmgenError(f"{checkpoint.name} is stored quantised already", "leave --quantize out")
    _check_packages(loading.quantize)
    devices = set(device_map.values()) if isinstance(device_map, dict) else set()
    if devices & {"cpu", "disk"} and devices != {"cpu"}:
        raise MmgenError("a quantised model cannot be spread over GPU and CPU or disk", "use one kind of device")
    # A list here replaces transformers' own, which would have kept the head whole.
    whole = {"lm_head", *keep_whole}
    if loading.quantize == "quanto-int8":
        return QuantoConfig(weights="int8", modules_to_not_convert=sorted(whole))
    if loading.quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=sorted(whole))
    if not _uses_gpu(device_map):
        whole |= _unfit_for_4bit(model_class, checkpoint)
    has_bfloat16 = not _uses_gpu(device_map) or torch.cuda.is_bf16_supported()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",  # Dettmers et al., QLoRA (arXiv 2305.14314), section 3
        bnb_4bit_compute_dtype=torch.bfloat16 if has_bfloat16 else torch.float32,
        llm_int8_skip_modules=sorted(whole),
    )


def _check_packages(quantize: str) -> None:
    if quantize == "quanto-int8":
        if not is_optimum_quanto_available():
            raise MmgenError(f"--quantize {quantize} needs the package optimum-quanto", _QUANTO)
        return
    for package in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MmgenError(f"--quantize {quantize} needs the package {package}", f"pip install {package}")


def _unfit_for_4bit(model_class: type[PreTrainedModel], checkpoint: Checkpoint) -> set[str]:
    """Name the linear layers that bitsandbytes cannot run in 4 bits on a CPU: it packs their inputs by 64."""
    modules = _without_weights(model_class, checkpoint).named_modules()
    return {name for name, layer in modules if isinstance(layer, torch.nn.Linear) and layer.in_features % 64}


def _without_weights(model_class: type[PreTrainedModel], checkpoint: Checkpoint) -> PreTrainedModel:
    """Build a model as its config says, with nothing in it.

    Raises:
        MmgenError: there is no such model, as of a width that its heads do not divide.
    """
    try:
        config = cast(type[PreTrainedConfig], model_class.config_class).from_pretrained(checkpoint.folder)
        with torch.device("meta"):
            return model_class(config)
    except _IMPOSSIBLE as error:  # nothing but the config was read
        raise _bad_config(checkpoint, error) from error


def _check(checkpoint: Checkpoint, report: Mapping[str, Any], may_ignore: Sequence[str]) -> None:
    """Refuse a model of which something was left random, left over or misshapen."""
    hint = "the weights and config.json belong to different models, or the checkpoint is not whole: fetch it again"
    missing, mismatched = sorted(report["missing_keys"]), sorted(report["mismatched_keys"])
    unexpected = sorted(name for name in report["unexpected_keys"] if not name.startswith(tuple(may_ignore)))
    if missing:
        raise MmgenError(f"{checkpoint.name} lacks {len(missing)} tensor(s), {missing[0]} first", hint)
    if mismatched:
        name, stored, built = mismatched[0]
        sizes = f"{tuple(stored)} where the config says {tuple(built)}"
        raise MmgenError(f"{checkpoint.name} has {len(mismatched)} tensor(s) of another shape: {name}, {sizes}", hint)
    if unexpected:
        raise MmgenError(
            f"{checkpoint.name} has {len(unexpected)} tensor(s) with no place in the model, {unexpected[0]} first", hint
        )
    if report["error_msgs"]:
        raise MmgenError(f"{checkpoint.name} cannot be loaded: {report['error_msgs'][0].splitlines()[0]}", hint)


def _bad_config(checkpoint: Checkpoint, error: Exception) -> MmgenError:
    return MmgenError(f"config.json of {checkpoint.name} does not fit: {one_line(error)}", "fetch it again")


def one_line(error: BaseException) -> str:
    """Write what an error says on one line."""
    return " ".join(str(error).split())


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Say whether torch failed for want of memory. On a CPU it has no exception of its own for that."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)

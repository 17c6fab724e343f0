"""From `Loading` to a transformers model in memory: type, device, quantisation, attention. Knows no family.

Nothing is ever left random: a tensor that the checkpoint lacks is an error, not a warning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel, QuantoConfig
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.utils.import_utils import is_flash_attn_2_available, is_optimum_quanto_available

from mmgen.checkpoints import catalog
from mmgen.checkpoints.catalog import Checkpoint
from mmgen.checkpoints.fit import dtype_name, install_command, needed_package
from mmgen.checkpoints.x86 import least_tokens, pack
from mmgen.errors import MmgenError, UsageError, refused
from mmgen.request import Loading

ModelT = TypeVar("ModelT", bound=PreTrainedModel)
ConfigT = TypeVar("ConfigT", bound=PreTrainedConfig)

_MAPS = Path("/proc/self/maps")
_SPREADS = ("auto", "balanced", "sequential")  # accelerate's own ways of filling several GPUs
# What transformers and torch raise of a config that no model can be built from.
_IMPOSSIBLE = (StrictDataclassError, ArithmeticError, ValueError, LookupError, RuntimeError, AssertionError)


def load_model(
    model_class: type[ModelT],
    checkpoint: Checkpoint,
    loading: Loading,
    *,
    keep_whole: Sequence[str] = (),
    may_ignore: Sequence[str] = (),
    join: Callable[[torch.nn.Module], bool] = lambda _: False,
) -> ModelT:
    """Load a checkpoint's weights, every one of them, and return the model ready to run; fetch them if need be.

    Args:
        keep_whole: full names of modules that are never quantised; `lm_head` always is one of them.
        may_ignore: prefixes of stored tensors that the class may have no use for.
        join: makes one layer of several in a decoder that is not quantised, and says whether there were any.

    Raises:
        MmgenError: the machine lacks what was asked for, or weights and model do not fit together.
    """
    # 1) Refuse what can be refused without the weights
    device_map = choose_device_map(loading)
    attention = None if loading.attn == "auto" else loading.attn
    devices = device_map.values() if isinstance(device_map, dict) else [device_map or "cpu"]
    on_gpu = not {"cpu", "disk"}.issuperset(devices)
    dtype = dtype_name(loading, checkpoint.n_bytes, on_gpu)
    if attention == "flash_attention_2":
        _check_flash_attention(on_gpu, dtype)
    empty = _build_empty(model_class, checkpoint, attention)
    if isinstance(device_map, dict):
        _check_homes(device_map, loading.device_map, empty)
    quantization = _choose_quantization(loading, checkpoint, on_gpu, empty, keep_whole)
    if quantization is not None and on_gpu and {"cpu", "disk"} & set(devices):
        raise MmgenError("a quantised model cannot be spread over GPU and CPU or disk", "use one kind of device")
    if quantization is not None and device_map is None:
        device_map = {"": "cpu"}  # left open, the quantiser would take a GPU if there is one

    # 2) Load them
    checkpoint = catalog.fetch(checkpoint)
    try:
        loaded: Any = model_class.from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            device_map=device_map,
            attn_implementation=attention,
            quantization_config=quantization,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, and refused by _check
        )
    except ImportError as error:  # a checkpoint that is stored quantised in some other way names its own package
        raise MmgenError(f"{checkpoint.name} needs a package: {one_line(error)}", "install it") from error
    except (torch.OutOfMemoryError, ValueError) as error:  # the second of a quantiser, and of other bugs
        if isinstance(error, ValueError) and "device_map" not in str(error):
            raise
        raise MmgenError(
            f"{checkpoint.name} cannot be placed on these devices: {one_line(error)}",
            "try --quantize 4bit, a second GPU, or --device-map cpu",
        ) from error

    # 3) Check that nothing is left random, and put them in the order that is quick
    model, report = loaded
    _check(checkpoint, report, may_ignore)
    is_whole = quantization is None and "quantization_config" not in checkpoint.config
    if is_whole:
        decoder = model.get_decoder()
        if join(decoder) | pack(decoder, least_tokens(decoder)):
            leave_files(model)
    return cast(ModelT, model)


def read_config(config_class: type[ConfigT], checkpoint: Checkpoint) -> ConfigT:
    """Read config.json as a class of transformers', which fills in what the file leaves out."""
    with refused(
        f"config.json of {checkpoint.name} does not fit", "fetch it again", StrictDataclassError, ArithmeticError
    ):
        return config_class.from_dict(dict(checkpoint.config))


def read_image_processor(checkpoint: Checkpoint) -> Any:
    """Read what prepares pictures, the kind that needs PIL alone."""
    return AutoImageProcessor.from_pretrained(
        checkpoint.folder, backend="pil", local_files_only=True, trust_remote_code=False
    )


def one_line(error: BaseException) -> str:
    """Write what an error says on one line."""
    return " ".join(str(error).split())


def ran_out_of_memory(error: RuntimeError) -> bool:
    """Say whether torch failed for want of memory. On a CPU it has no exception of its own for that."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


# --- where --------------------------------------------------------------------------------------------------------


def choose_device_map(loading: Loading) -> str | dict[str, Any] | None:
    """Choose what transformers gets as `device_map`; None is plain loading on the CPU, without any hooks.

    Raises:
        MmgenError: it asks for a device that is not here, or its file holds no map of modules to devices.
    """
    wanted = loading.device_map
    if wanted in ("cpu", *_SPREADS):
        return wanted if wanted != "cpu" and torch.cuda.is_available() else None
    if wanted.endswith(".json"):
        device_map = catalog.read_json(Path(wanted))
    elif re.fullmatch(r"cuda(:\d+)?", wanted):
        device_map = {"": wanted if ":" in wanted else "cuda:0"}
    else:
        raise UsageError(f"unknown device map: {wanted}", f"one of {', '.join(_SPREADS)}, cpu, cuda, cuda:N, FILE.json")
    numbers = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    known = ["cpu", *numbers, *(f"cuda:{number}" for number in numbers)]
    for device in device_map.values():
        if device not in known:
            raise MmgenError(
                f"no CUDA device {device}: this machine has {len(numbers)}", f"one of {', '.join(map(str, known))}"
            )
    return device_map


def _check_homes(device_map: dict[str, Any], path: str, model: PreTrainedModel) -> None:
    """Refuse a map that leaves a tensor of the model without a device; the names that a file gives it may be older."""
    modules = tuple(f"{module}." if module else "" for module in device_map)
    homeless = [name for name, _ in model.named_parameters() if not f"{name}.".startswith(modules)]
    if homeless:
        raise MmgenError(
            f"{path} gives no device to {len(homeless)} tensor(s), {homeless[0]} first",
            'it maps module names to devices, such as {"model": 0, "lm_head": "cpu"}',
        )


# --- how ----------------------------------------------------------------------------------------------------------


def _check_flash_attention(on_gpu: bool, dtype: str) -> None:
    if not is_flash_attn_2_available():  # else it would come from the Hub, as code
        raise MmgenError(
            "--attn flash_attention_2 needs the package flash-attn and a CUDA device",
            "pip install flash-attn, or leave --attn out: sdpa is nearly as fast",
        )
    if not on_gpu or dtype == "float32":
        raise MmgenError("--attn flash_attention_2 takes a CUDA device, and bfloat16 or float16", "leave --attn out")


def _build_empty(model_class: type[PreTrainedModel], checkpoint: Checkpoint, attention: str | None) -> PreTrainedModel:
    """Build a model as its config says, with no weights in it.

    Raises:
        MmgenError: there is no such model, as of a width that its heads do not divide, or not with this attention.
    """
    said = f"config.json of {checkpoint.name} does not fit", "fetch it again"
    if attention is not None:
        said = f"{checkpoint.name} cannot use --attn {attention}", "leave --attn out"
    try:
        with refused(*said, *_IMPOSSIBLE), torch.device("meta"):
            config_class = cast(type[PreTrainedConfig], model_class.config_class)
            return model_class(config_class.from_pretrained(checkpoint.folder, attn_implementation=attention))
    except ImportError as error:
        package = needed_package(error)
        hint = install_command(package) if package else "install it"
        raise MmgenError(f"{checkpoint.name} needs a package: {one_line(error)}", hint) from error


def _choose_quantization(
    loading: Loading, checkpoint: Checkpoint, on_gpu: bool, model: PreTrainedModel, keep_whole: Sequence[str]
) -> BitsAndBytesConfig | QuantoConfig | None:
    """Choose how linear layers are quantised, if they are; `model` may be empty."""
    if loading.quantize is None:
        return None
    if "quantization_config" in checkpoint.config:
        raise MmgenError(f"{checkpoint.name} is stored quantised already", "leave --quantize out")
    # Vision towers cast pixels to the type of these weights, which is bytes once they are quantised.
    patches = [name for name, _ in model.named_modules() if "patch_embed" in name]
    whole = [
        "lm_head",
        *keep_whole,
        *patches,
    ]  # a list here replaces transformers' own, which would have kept the head whole
    if loading.quantize == "quanto-int8":
        if not is_optimum_quanto_available():  # all else that it asks for is here: torch is not to be replaced
            raise MmgenError("quanto-int8 needs a package", "pip install --no-deps optimum-quanto ninja")
        return QuantoConfig(weights="int8", modules_to_not_convert=whole)
    is_4bit = loading.quantize == "4bit"
    if is_4bit and not on_gpu:  # there bitsandbytes packs the inputs of a layer by 64, and its outputs by 32
        layers = [(name, each) for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)]
        whole += [name for name, each in layers if each.in_features % 64 or each.out_features % 32]
    return BitsAndBytesConfig(
        load_in_4bit=is_4bit,
        load_in_8bit=not is_4bit,
        bnb_4bit_quant_type="nf4",  # Dettmers et al., QLoRA (arXiv 2305.14314), section 3
        bnb_4bit_compute_dtype="float32" if on_gpu and not torch.cuda.is_bf16_supported() else "bfloat16",
        llm_int8_skip_modules=whole,
    )


def _check(checkpoint: Checkpoint, report: dict[str, Any], may_ignore: Sequence[str]) -> None:
    """Refuse a model of which something was left random, left over or misshapen."""
    shapes = [f"{name}, {(*stored,)} not {(*built,)}" for name, stored, built in report["mismatched_keys"]]
    unexpected = [name for name in report["unexpected_keys"] if not name.startswith(tuple(may_ignore))]
    errors = [message.splitlines()[0] for message in report["error_msgs"]]
    for wrong, what in (
        (report["missing_keys"], "lacks {} tensor(s), {} first"),
        (shapes, "has {} tensor(s) of another shape: {} as the config says"),
        (unexpected, "has {} tensor(s) with no place in the model, {} first"),
        (errors, "cannot be loaded, for {} reason(s): {}"),
    ):
        if wrong:
            raise MmgenError(
                f"{checkpoint.name} {what.format(len(wrong), min(wrong))}",
                "weights and config.json belong to different models, or the checkpoint is not whole: fetch it again",
            )


def leave_files(model: torch.nn.Module) -> None:
    """Give what still lies in a mapped file memory of its own: till then, all pages of the file stay (on Linux)."""
    try:
        lines = [line.split(maxsplit=5) for line in _MAPS.read_text().splitlines()]  # address range, mode, …, file
    except OSError:  # no Linux
        return
    mapped = [fields[0].split("-") for fields in lines if fields[1] == "rw-p" and fields[5:] and ".so" not in fields[5]]
    ranges = [range(int(start, 16), int(end, 16)) for start, end in mapped]
    for tensor in (*model.parameters(), *model.buffers()):
        is_plain = tensor.device.type == "cpu" and not tensor.is_mkldnn
        if is_plain and any(tensor.data_ptr() in addresses for addresses in ranges):
            tensor.data = tensor.data.clone()

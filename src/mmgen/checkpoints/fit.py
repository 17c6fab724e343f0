"""The memory that a checkpoint takes, from the shapes of its tensors, and what this machine has. Without torch.

Refuses to know families; what a picture takes in tokens is told to it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmgen.checkpoints.aliases import gigabytes
from mmgen.checkpoints.catalog import Checkpoint, stored_bytes
from mmgen.errors import MmgenError, refused
from mmgen.request import Loading

LARGE = 2_000_000_000  # bytes of tensors from which a CPU holds them in bfloat16
SMALL = 250_000_000  # bytes of tensors up to which nobody need ask
TOKENS = 2000  # of a usual prompt and its answer

# Bytes of a weight. Of a quantised one with the scales: 4 bits and a float32 for each 64 weights (QLoRA, arXiv
# 2305.14314, without its double quantisation); 8 bits and a number for each row, which is next to nothing.
_SIZES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "4bit": 0.5 + 4 / 64, "8bit": 1.0, "quanto-int8": 1.0}
_WORKSPACE = 700_000_000  # torch and transformers themselves (400 MB), and what is in passing
# Is quantised if it has two dimensions; those of experts become one of three dimensions, which is not.
_LINEAR = re.compile(r"(?!.*(embed|lm_head|\.experts\.\d+\.)).*\.weight")
_KEYS_AND_VALUES = (".k_proj.weight", ".v_proj.weight")
_CGROUP = Path("/sys/fs/cgroup")
_OTHER_PARTS = re.compile(r"vision|visual|image|audio|encoder|resampler|vq")  # with attention, and without a cache


@dataclass(frozen=True)
class Gpu:
    """A CUDA device."""

    name: str
    free: int  # bytes
    total: int


@dataclass(frozen=True)
class Machine:
    """Memory, in bytes."""

    free: int
    total: int
    gpus: tuple[Gpu, ...] = ()  # those that torch sees, in its order


@dataclass(frozen=True)
class Reply:
    """The memory that a reply takes beside the weights."""

    tokens: int = TOKENS  # cached at once
    decoding: int = 0  # bytes that a picture's decoder takes in passing
    codec: str | None = None  # in the names of tensors that stay in float32: in fewer bits codes would flip


USUAL = Reply()


@dataclass(frozen=True)
class Plan:
    """One way of loading a checkpoint."""

    dtype: str  # of the weights, where they are not quantised
    weights: int  # their bytes
    n_bytes: int  # in all, with what a reply takes
    fits: bool  # as far as is known
    flags: str = ""  # to say on the command line for it
    default: bool = False  # it is what comes without any flags


def check(checkpoint: Checkpoint, loading: Loading, machine: Machine, reply: Reply = USUAL) -> None:
    """Refuse what cannot fit into memory, and say what would.

    Raises:
        MmgenError: it does not fit.
    """
    asked = plan(checkpoint, loading, machine, reply)
    if asked.fits:
        return
    others = plans(checkpoint, loading, machine, reply)
    fitting = ", or ".join(f"{other.flags} ({gigabytes(other.n_bytes)})" for other in others if other.fits)
    least = min(others, key=lambda other: other.n_bytes)
    hint = (
        f"here fits: {fitting}"
        if fitting
        else f"nothing makes it fit: {least.flags} takes {gigabytes(least.n_bytes)}; see mmgen models for smaller ones"
    )
    kind = "as stored" if "quantization_config" in checkpoint.config else loading.quantize or f"in {asked.dtype}"
    where = "the GPU" if _on_gpu(loading, machine) else "memory"
    raise MmgenError(
        f"{checkpoint.name} takes {gigabytes(asked.n_bytes)} ({kind}), "
        f"and {gigabytes(_room(loading, machine) or 0)} of {where} are free",
        f"{hint}. --no-fit-check tries all the same",
    )


def plans(checkpoint: Checkpoint, loading: Loading, machine: Machine, reply: Reply = USUAL) -> list[Plan]:
    """List ways of loading a checkpoint, the most exact first; devices stay as they were asked for, or go to the CPU.

    A checkpoint that is stored quantised has one way only.
    """
    ways: list[dict[str, Any]] = [
        {"dtype": "float32"},
        {"dtype": "bfloat16"},
        {"quantize": "8bit"},
        {"quantize": "4bit"},
    ]
    if "quantization_config" in checkpoint.config:
        ways = [{}]
    on_gpu = _on_gpu(loading, machine)
    if on_gpu:
        ways += [{"device_map": "cpu"} | way for way in ways]
    plain = replace(loading, dtype="auto", quantize=None)
    usual = dtype_name(plain, checkpoint.n_bytes, on_gpu)
    found = []
    for way in ways:
        flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in way.items())
        planned = plan(checkpoint, replace(plain, **way), machine, reply)
        default = way in ({}, {"dtype": usual})
        found.append(replace(planned, flags=flags or "as stored", default=default))
    return found


def plan(checkpoint: Checkpoint, loading: Loading, machine: Machine, reply: Reply = USUAL) -> Plan:
    """Work out the memory that it takes to load a checkpoint as it is asked for."""
    dtype = dtype_name(loading, checkpoint.n_bytes, _on_gpu(loading, machine))
    weights = weights_bytes(checkpoint, dtype, loading.quantize, reply.codec)
    cached = reply.tokens * cache_per_token(checkpoint, dtype) + cache_per_look(checkpoint, dtype)
    n_bytes = weights + cached + reply.decoding + _WORKSPACE
    room = _room(loading, machine)
    return Plan(dtype, weights, n_bytes, fits=room is None or n_bytes <= room)


def dtype_name(loading: Loading, n_bytes: int, on_gpu: bool) -> str:
    """Name the type of the weights; `auto` is bfloat16 on a GPU, and on a CPU float32 unless they are large."""
    if loading.dtype != "auto":
        return loading.dtype
    return "bfloat16" if on_gpu or n_bytes >= LARGE else "float32"


def weights_bytes(checkpoint: Checkpoint, dtype: str, quantize: str | None = None, codec: str | None = None) -> int:
    """Say how many bytes the weights take: as stored if they are quantised already, else by type or quantisation."""
    if "quantization_config" in checkpoint.config:
        return checkpoint.n_bytes
    n_bytes = 0.0
    for name, tensor in checkpoint.tensors.items():
        kind = quantize if quantize and len(tensor.shape) == 2 and _LINEAR.fullmatch(name) else dtype
        if codec is not None and codec in name:
            kind = "float32"
        is_float = tensor.dtype in ("F64", "F32", "F16", "BF16")  # whole numbers stay as they are
        n_bytes += tensor.parameter_count * _SIZES[kind] if is_float else stored_bytes(tensor)
    return round(n_bytes)


def cache_per_token(checkpoint: Checkpoint, dtype: str) -> int:
    """Say how many bytes of keys and values a token leaves in the language model's layers."""
    widths = _widths(checkpoint, across=False)
    if not widths:  # fused with the queries, or compressed: by the config, rather too much
        text = checkpoint.config.get("text_config") or checkpoint.config
        n_heads = text.get("num_attention_heads") or 0
        head_size = text.get("head_dim") or text.get("hidden_size", 0) // max(1, n_heads)
        widths = 2 * text.get("num_hidden_layers", 0) * (text.get("num_key_value_heads") or n_heads) * head_size
    return round(_SIZES[dtype] * widths)


def cache_per_look(checkpoint: Checkpoint, dtype: str) -> int:
    """Say how many bytes a picture leaves in layers that look across at it, where a model has such."""
    vision = checkpoint.config.get("vision_config") or {}
    size, patch, tiles = vision.get("image_size", 560), vision.get("patch_size", 14), vision.get("max_num_tiles", 4)
    widths = _widths(checkpoint, across=True)
    return round(_SIZES[dtype] * widths * tiles * ((size // patch) ** 2 + 1)) if widths else 0


def looking_bytes(checkpoint: Checkpoint, dtype: str, n_tokens: int, n_bytes: int) -> int:
    """Say how many bytes it takes in passing to read a prompt with pictures: once the most of two moments.

    As the processor prepares them, pictures are there in two and a half copies, as measured. As the model looks, each
    patch and then each token is there with its hidden state in some copies, and the insides of a layer.

    Args:
        n_tokens: of the whole batch, padding included.
        n_bytes: of its pictures in float32, as the processor gives them.
    """
    config = checkpoint.config
    vision, text = config.get("vision_config") or {}, config.get("text_config") or config
    patch = vision.get("patch_size") or 14
    patch_area = patch * patch if isinstance(patch, int) else patch[0] * patch[1]
    n_patches = n_bytes / 4 / (3 * patch_area * (vision.get("temporal_patch_size") or 1))
    widths = [[part.get(name) for name in ("hidden_size", "intermediate_size")] for part in (vision, text)]
    per_patch, per_token = (  # a tower of several widths says them in a list, and is left to the workspace
        sum(n * width for n, width in zip((8, 3), each, strict=True) if isinstance(width, int)) for each in widths
    )
    at_once = n_bytes + _SIZES[dtype] * max(n_patches * per_patch, n_tokens * per_token)
    return round(max(2.5 * n_bytes, at_once))


def _widths(checkpoint: Checkpoint, *, across: bool) -> int:
    """Add up the widths of keys and values in the language model's layers: its own, or those that look at pictures."""
    return sum(
        tensor.shape[0]
        for name, tensor in checkpoint.tensors.items()
        if name.endswith(_KEYS_AND_VALUES) and not _OTHER_PARTS.search(name) and ("cross" in name) == across
    )


def _on_gpu(loading: Loading, machine: Machine) -> bool:
    return loading.device_map != "cpu" and bool(machine.gpus)


def _room(loading: Loading, machine: Machine) -> int | None:
    """Say what is free where a checkpoint would go; None for a map in a file, or devices that are not here."""
    gpus = {f"cuda:{number}": gpu.free for number, gpu in enumerate(machine.gpus)}
    if loading.device_map in ("auto", "balanced", "sequential"):  # GPUs are filled first, and the rest goes beside them
        spare = 0 if gpus and loading.quantize else machine.free  # quantised layers go to one kind of device
        return sum(gpus.values()) + spare
    return {**gpus, "cpu": machine.free, "cuda": gpus.get("cuda:0")}.get(loading.device_map)


# --- this machine -------------------------------------------------------------------------------------------------


def install_command(package: str) -> str:
    """Say how to install a package in such a way that torch stays as it is."""
    if package not in ("torchvision", "timm"):  # the second needs the first, each of which goes with one torch alone
        return f"pip install {package}"
    version = importlib.metadata.version("torch")  # such as 2.13.0+cpu
    _, _, build = version.partition("+")
    if package == "torchvision":
        index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    else:
        package, index = (
            "timm torchvision",
            f" --extra-index-url https://download.pytorch.org/whl/{build}" if build else "",
        )
    return f"pip install {package} torch=={version}{index}"


def needed_package(error: Exception) -> str | None:
    """Name the package that a library says it lacks, if that is what it says."""
    found = re.search(r"\b(torchvision|timm|num2words)\b|requires the (\w+) library", str(error), re.IGNORECASE)
    return found and (found[1] or found[2]).lower()


def check_torchvision() -> None:
    """Refuse a torchvision that cannot be imported: transformers imports it wherever it finds the package.

    Raises:
        MmgenError: it is there, and broken, as one is that was built for another torch.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    remedy = f"pip uninstall torchvision; if you need it, then {install_command('torchvision')}"
    said = (ImportError, OSError, RuntimeError, AttributeError)  # by one that was built for another torch
    with refused("the torchvision that is installed cannot be imported", remedy, *said):
        importlib.import_module("torchvision")


def look(*, with_gpus: bool = True) -> Machine:
    """Look at this machine as it is now; at GPUs through torch, which has to open each that it asks."""
    is_cpu_build = importlib.metadata.version("torch").endswith("+cpu")  # known without importing it
    return Machine(*ram(), () if is_cpu_build or not with_gpus else _gpus())


def ram() -> tuple[int, int]:
    """Free and total bytes: of the machine, or of the control group where that allows less."""
    import psutil

    memory = psutil.virtual_memory()
    limit, used = _control_group() or (memory.total, 0)
    return min(memory.available, limit - used), min(memory.total, limit)


def _control_group() -> tuple[int, int] | None:
    """Read the limit and the use, page cache apart, of this process's control group (version 2), if it has a limit."""
    with suppress(OSError):  # no Linux
        own = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
        for folder in (_CGROUP / own, _CGROUP):  # inside a container its own group is the root
            with suppress(OSError, ValueError):  # not there; "max": no limit
                limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                return limit, max(0, used - int(stat["inactive_file"]))
    return None


def _gpus() -> tuple[Gpu, ...]:
    """List the GPUs that torch sees, in its order; one that is too full even to be asked has nothing free."""
    from torch import cuda

    found = []
    for number in range(cuda.device_count()):
        properties = cuda.get_device_properties(number)
        try:
            free = cuda.mem_get_info(number)[0]
        except RuntimeError:  # torch has no type of its own for a card without room for its context
            free = 0
        found.append(Gpu(properties.name, free, properties.total_memory))
    return tuple(found)

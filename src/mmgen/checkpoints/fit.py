"""What a checkpoint takes in memory, and whether that is free: from the shapes of its tensors. Without torch.

Refuses to know families; what a picture takes in tokens is told to it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mmgen.checkpoints.catalog import Checkpoint
from mmgen.checkpoints.headers import is_float, stored_bytes
from mmgen.checkpoints.machine import Machine
from mmgen.errors import MmgenError
from mmgen.request import Loading

if TYPE_CHECKING:
    from huggingface_hub.utils import TensorInfo

LARGE = 2_000_000_000  # bytes of tensors from which a CPU holds them in bfloat16
SMALL = 250_000_000  # bytes of tensors up to which nobody need ask
TOKENS = 2000  # of a usual prompt and its answer

_SIZES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
# Of a quantised weight, with the scales: 4 bits and a float32 for each 64 weights (QLoRA, arXiv 2305.14314, without
# its double quantisation); 8 bits and a number for each row, which is next to nothing.
_QUANTISED = {"4bit": 0.5 + 4 / 64, "8bit": 1.0, "quanto-int8": 1.0}
_WORKSPACE = 700_000_000  # torch and transformers themselves (400 MB), and what is in passing
_CODEC = "vqmodel."  # of pictures, always in float32: in fewer bits its choice of the nearest code flips
_ATTENTION = re.compile(r"(.*\blayers)\.\d+\.(.*)\b[kv]_proj\.weight")


@dataclass(frozen=True)
class Reply:
    """What a reply takes beside the weights.

    Attributes:
        tokens: how many are cached at once.
        decoding: bytes that a picture's decoder takes in passing.
    """

    tokens: int = TOKENS
    decoding: int = 0


USUAL = Reply()


@dataclass(frozen=True)
class Plan:
    """One way of loading a checkpoint.

    Attributes:
        flags: what to say on the command line for it.
        dtype: of the weights, where they are not quantised.
        weights: bytes of the weights.
        n_bytes: bytes in all, with what a reply takes.
        room: bytes that are free where it would go; None if that is not known.
        is_default: whether it is what comes without any flags.
    """

    flags: str
    dtype: str
    weights: int
    n_bytes: int
    room: int | None
    is_default: bool = False

    @property
    def fits(self) -> bool:
        """Whether there is room, as far as is known."""
        return self.room is None or self.n_bytes <= self.room


def check(checkpoint: Checkpoint, loading: Loading, machine: Machine, reply: Reply = USUAL) -> None:
    """Refuse what cannot fit into memory, and say what would.

    Raises:
        MmgenError: it does not fit.
    """
    asked = plan(checkpoint, loading, machine, reply)
    if asked.fits:
        return
    others = plans(checkpoint, loading, machine, reply)
    fitting = [f"{other.flags} ({gigabytes(other.n_bytes)})" for other in others if other.fits]
    least = min(others, key=lambda other: other.n_bytes)
    hint = (
        f"here fits: {', or '.join(fitting)}"
        if fitting
        else f"nothing makes it fit: {least.flags} takes {gigabytes(least.n_bytes)}; see mmgen models for smaller ones"
    )
    kind = "as stored" if "quantization_config" in checkpoint.config else loading.quantize or f"in {asked.dtype}"
    where = "the GPU" if _on_gpu(loading, machine) else "memory"
    raise MmgenError(
        f"{checkpoint.name} takes {gigabytes(asked.n_bytes)} ({kind}), "
        f"and {gigabytes(asked.room or 0)} of {where} are free",
        f"{hint}. --no-fit-check tries all the same",
    )


def plans(checkpoint: Checkpoint, loading: Loading, machine: Machine, reply: Reply = USUAL) -> list[Plan]:
    """List ways of loading a checkpoint, the most exact first; devices stay as they were asked for, or go to the CPU.

    A checkpoint that is stored quantised has one way only.
    """
    plain = replace(loading, quantize=None)
    ways = [replace(plain, dtype=dtype) for dtype in ("float32", "bfloat16")]
    ways += [replace(plain, dtype="auto", quantize=bits) for bits in ("8bit", "4bit")]
    if "quantization_config" in checkpoint.config:
        ways = [replace(plain, dtype="auto")]
    if _on_gpu(loading, machine):
        ways += [replace(way, device_map="cpu") for way in ways]
    return [plan(checkpoint, way, machine, reply, before=loading) for way in ways]


def plan(
    checkpoint: Checkpoint, loading: Loading, machine: Machine, reply: Reply = USUAL, before: Loading | None = None
) -> Plan:
    """Work out one way of loading a checkpoint.

    Args:
        before: what is set already, and needs no flag.
    """
    on_gpu, before = _on_gpu(loading, machine), before or loading
    dtype = dtype_name(loading, checkpoint.n_bytes, on_gpu)
    is_auto = dtype == dtype_name(replace(loading, dtype="auto"), checkpoint.n_bytes, on_gpu)
    weights = weights_bytes(checkpoint, dtype, loading.quantize)
    cached = reply.tokens * cache_per_token(checkpoint, dtype) + cache_per_look(checkpoint, dtype)
    n_bytes = weights + cached + reply.decoding + _WORKSPACE
    is_moved = loading.device_map != before.device_map
    flags = [f"--device-map {loading.device_map}"] if is_moved else []
    if loading.quantize is not None:
        flags.append(f"--quantize {loading.quantize}")
    elif loading.dtype != "auto":
        flags.append(f"--dtype {loading.dtype}")
    is_default = is_auto and loading.quantize is None and not is_moved
    return Plan(" ".join(flags) or "as stored", dtype, weights, n_bytes, _room(loading, machine), is_default)


def dtype_name(loading: Loading, n_bytes: int, on_gpu: bool) -> str:
    """Name the type of the weights; `auto` is bfloat16 on a GPU, and on a CPU float32 unless they are large."""
    if loading.dtype != "auto":
        return loading.dtype
    return "bfloat16" if on_gpu or n_bytes >= LARGE else "float32"


# --- weights and cache --------------------------------------------------------------------------------------------


def weights_bytes(checkpoint: Checkpoint, dtype: str, quantize: str | None = None) -> int:
    """Say how many bytes the weights take: as stored if they are quantised already, else by type or quantisation."""
    if "quantization_config" in checkpoint.config:
        return checkpoint.n_bytes
    n_bytes = 0.0
    for name, tensor in checkpoint.tensors.items():
        if not is_float(tensor):
            n_bytes += stored_bytes(tensor)
        elif _CODEC in name:
            n_bytes += tensor.parameter_count * _SIZES["float32"]
        elif quantize is not None and _is_linear(name, tensor):
            n_bytes += tensor.parameter_count * _QUANTISED[quantize]
        else:
            n_bytes += tensor.parameter_count * _SIZES[dtype]
    return round(n_bytes)


def cache_per_token(checkpoint: Checkpoint, dtype: str) -> int:
    """Say how many bytes of keys and values a token leaves in the language model's layers."""
    widths = sum(tensor.shape[0] for within, tensor in _keys_and_values(checkpoint) if "cross" not in within)
    return round(_SIZES[dtype] * (widths or _widths_by_config(checkpoint.config)))


def cache_per_look(checkpoint: Checkpoint, dtype: str) -> int:
    """Say how many bytes a picture leaves in layers that look across at it, where a model has such."""
    widths = sum(tensor.shape[0] for within, tensor in _keys_and_values(checkpoint) if "cross" in within)
    vision = checkpoint.config.get("vision_config") or {}
    size, patch, tiles = vision.get("image_size", 560), vision.get("patch_size", 14), vision.get("max_num_tiles", 4)
    n_seen: int = tiles * ((size // patch) ** 2 + 1) if widths else 0
    return round(_SIZES[dtype] * widths * n_seen)


def _is_linear(name: str, tensor: TensorInfo) -> bool:
    """Whether a tensor belongs to a layer that is quantised: the head and all tables are not."""
    is_matrix = name.endswith(".weight") and len(tensor.shape) == 2
    return is_matrix and "embed" not in name and not name.endswith("lm_head.weight")


def _keys_and_values(checkpoint: Checkpoint) -> list[tuple[str, TensorInfo]]:
    """List the key and value projections of the largest stack of layers: that is the one that speaks."""
    found: dict[str, list[tuple[str, TensorInfo]]] = defaultdict(list)
    sizes: dict[str, int] = defaultdict(int)
    for name, tensor in checkpoint.tensors.items():
        sizes[name.partition("layers.")[0] + "layers"] += stored_bytes(tensor)
        if (parts := _ATTENTION.fullmatch(name)) is not None:
            found[parts[1]].append((parts[2], tensor))
    return found[max(found, key=lambda stack: sizes[stack])] if found else []


def _widths_by_config(config: dict[str, Any]) -> int:
    text = config.get("text_config") or config
    heads = text.get("num_key_value_heads") or text.get("num_attention_heads") or 0
    width = text.get("head_dim") or text.get("hidden_size", 0) // max(1, text.get("num_attention_heads") or 1)
    return int(2 * text.get("num_hidden_layers", 0) * heads * width)


# --- room ---------------------------------------------------------------------------------------------------------


def _on_gpu(loading: Loading, machine: Machine) -> bool:
    return loading.device_map != "cpu" and bool(machine.gpus)


def _room(loading: Loading, machine: Machine) -> int | None:
    """Say what is free where a checkpoint would go. The loader fills GPUs first, and puts the rest beside them."""
    wanted = loading.device_map
    if wanted.endswith(".json"):
        return None
    if not _on_gpu(loading, machine):
        return machine.free
    if wanted.startswith("cuda"):
        number = wanted.partition(":")[2] or "0"
        known = number.isdecimal() and int(number) < len(machine.gpus)
        return machine.gpus[int(number)].free if known else None  # the loader says what is wrong with it
    on_gpus = sum(gpu.free for gpu in machine.gpus)
    return on_gpus if loading.quantize else on_gpus + machine.free  # quantised layers go to one kind of device


def gigabytes(n_bytes: float) -> str:
    """Write a number of bytes as people say it."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"

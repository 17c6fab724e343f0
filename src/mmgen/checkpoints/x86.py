"""A way in which an x86-64 processor computes sooner. Knows no model.

Weights of linear layers in the order in which oneDNN computes with them: as stored, a weight is gone through against
the grain, or put in order anew by every pass. In order once, it costs the time of reading it, for 16 tokens hardly more
than for one (`benchmarks.packing`).
"""

from __future__ import annotations

import platform
from collections import Counter
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

_MAPS = Path("/proc/self/maps")
_TOKENS = 16  # of the passes it is put in order for; others are right, too, and gain as well (`benchmarks.packing`)


def is_x86() -> bool:
    """Whether this is an x86-64 processor."""
    return platform.machine() in ("x86_64", "AMD64")


class PackedLinear(torch.nn.Linear):
    """A linear layer with its weight in oneDNN's order, to be called and no more.

    It cannot be trained, copied or brought to another type, nor can anything else compute with its weight.

    Attributes:
        weight: [out, in], opaque; `to_dense` gives it as it was.
        bias: [out], or None.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        in_order = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _TOKENS)
        self.weight = torch.nn.Parameter(in_order, requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], ""))


def packed(linear: torch.nn.Linear) -> torch.nn.Linear:
    """Return the layer with its weight in order, or itself if that cannot be or would gain nothing."""
    return PackedLinear(linear) if _can_pack(linear) else linear


def pack(module: torch.nn.Module) -> bool:
    """Put the weights of all linear layers within a module in order, one after the other, each in place of the old.

    Those that are shared, as a head's with the embedding, stay as they are.

    Returns:
        Whether any was put in order.
    """
    named = list(module.named_modules(remove_duplicate=False))
    owners = Counter(id(weight) for _, each in named for weight in each.parameters(recurse=False))
    names = [name for name, layer in named if isinstance(layer, torch.nn.Linear) and owners[id(layer.weight)] == 1]
    del named  # or no weight would be freed as it is replaced
    done = False
    for name in names:
        linear = cast(torch.nn.Linear, module.get_submodule(name))
        if name and _can_pack(linear):
            module.set_submodule(name, PackedLinear(linear))
            done = True
    return done


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


def _can_pack(linear: torch.nn.Linear) -> bool:
    weight = linear.weight
    if type(linear) is not torch.nn.Linear or weight.device.type != "cpu" or hasattr(linear, "_hf_hook"):
        return False  # quantised, on a GPU, or brought from disk by accelerate
    if not (is_x86() and torch._C._has_mkldnn):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32

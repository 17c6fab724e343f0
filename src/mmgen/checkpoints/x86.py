"""A way in which most x86-64 processors compute sooner. Knows no model.

Weights of linear layers in the order in which oneDNN computes with them: as stored, a weight is gone through against
the grain, or put in order anew by every pass. In order once, it costs the time of reading it, for 16 tokens hardly more
than for one (`benchmarks.packing`). But a single token takes longer so on some processors: it is measured.
"""

from __future__ import annotations

import platform
from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import accumulate, product
from typing import cast

import torch
from torch import Tensor

from mmgen.checkpoints.fit import SMALL
from mmgen.checkpoints.tuning import choose, shortest

IS_X86 = platform.machine() in ("x86_64", "AMD64")
_MEASURED = 64_000_000  # bytes of weights that are measured with: more than a processor holds in its caches
_OPERATORS = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
_TOKENS = 16  # of the passes it is put in order for; others are right, too, and gain as well (`benchmarks.packing`)


class PackedLinear(torch.nn.Linear):
    """A linear layer with its weight in oneDNN's order, to be called and no more.

    It cannot be trained, copied or brought to another type. Its weight [out, in] is opaque: see `Tensor.to_dense`.

    Args:
        least: tokens of a pass from which it is computed so; below, as stored, which is kept beside.
    """

    def __init__(self, linear: torch.nn.Linear, least: int = 1) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.least = least
        self.register_buffer("stored", linear.weight.detach() if least > 1 else None, persistent=False)
        in_order = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _TOKENS)
        self.weight = torch.nn.Parameter(in_order, requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        if self.least > 1 and x.numel() < self.least * self.in_features:
            return torch.nn.functional.linear(x, cast(Tensor, self.stored), self.bias)
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], ""))


def packed(linear: torch.nn.Linear, least: int = 1) -> torch.nn.Linear:
    """Return the layer with its weight in order, or itself if that cannot be or is not to be (see least_tokens)."""
    return PackedLinear(linear, least) if least and _can_pack(linear) else linear


def least_tokens(module: torch.nn.Module) -> int:
    """Measure from how many tokens of a pass on the layers within a module gain by being packed; 0: never.

    2: a single token loses, and there is memory to keep both ways.
    """
    layers = [each for each in module.modules() if isinstance(each, torch.nn.Linear)]
    if done := [each.least for each in layers if isinstance(each, PackedLinear)]:
        return done[0]
    layers = [each for each in layers if _can_pack(each)]
    shapes = [(*each.weight.shape, each.weight.dtype) for each in layers]
    return choose("tokens from which layers are packed", shapes, [1], lambda: [_measure(layers)])[0] if layers else 0


@torch.inference_mode()
def _measure(layers: Sequence[torch.nn.Linear]) -> int:
    sizes = list(accumulate(each.weight.nbytes for each in layers))
    some = layers[: bisect(sizes, _MEASURED) or 1]
    inputs = [each.weight.new_zeros(_TOKENS, each.in_features) for each in some]

    def run(n_tokens: int, layers: Sequence[torch.nn.Linear]) -> None:
        for each, x in zip(layers, inputs, strict=True):
            each(x[:n_tokens])

    kinds = product((1, _TOKENS), (some, [PackedLinear(each) for each in some]))
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a small model is computed; with more, it is rather memory that is measured
    try:
        one, one_packed, many, many_packed = shortest([partial(run, *kind) for kind in kinds], 0.15)
    finally:
        torch.set_num_threads(n_threads)
    if one < 0.9 * one_packed and many > many_packed and sizes[-1] <= SMALL:
        return 2
    return int(one * many >= one_packed * many_packed)


def pack(module: torch.nn.Module, least: int = 1) -> bool:
    """Put the weights of all linear layers within a module in order, one after the other, each in place of the old.

    Those that are shared, as a head's with the embedding, stay as they are. Returns whether any was put in order.
    """
    named = list(module.named_modules(remove_duplicate=False))
    owners = Counter(id(weight) for _, each in named for weight in each.parameters(recurse=False))
    names = [name for name, layer in named if isinstance(layer, torch.nn.Linear) and owners[id(layer.weight)] == 1]
    del named  # or no weight would be freed as it is replaced
    done = False
    for name in names:
        linear = cast(torch.nn.Linear, module.get_submodule(name))
        if name and (in_order := packed(linear, least)) is not linear:
            module.set_submodule(name, in_order)
            done = True
    return done


def _can_pack(linear: torch.nn.Linear) -> bool:
    weight = linear.weight
    if type(linear) is not torch.nn.Linear or weight.device.type != "cpu" or hasattr(linear, "_hf_hook"):
        return False  # quantised, on a GPU, or brought from disk by accelerate
    if not (IS_X86 and torch._C._has_mkldnn and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)):
        return False  # the operators are torch's own, and may go
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )

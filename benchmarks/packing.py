"""Linear layers with their weights in oneDNN's order, beside the same as stored: what one pass through them takes.

`python -m benchmarks.packing [--repeat 30]`. The linear layers of the 290 M model and of the built-in one, in bfloat16
and float32, with 1 to 256 tokens; both ways take turns. Medians in ms, and what putting in order took.
"""

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial

import torch

from mmgen.checkpoints.x86 import packed

from .checkpoints import SHAPES
from .measures import compare, environment

_290M = SHAPES["290m"]
WIDTHS = {"290m": (_290M.hidden, _290M.inner, _290M.layers), "demo": (256, 512, 6)}  # hidden, inner, layers
TOKENS = (1, 2, 4, 8, 16, 64, 256)


def layers(hidden: int, inner: int, n_layers: int, dtype: torch.dtype) -> list[torch.nn.Linear]:
    """Make the linear layers of a decoder: queries, keys, values, output, gate, up, down."""
    shapes = [(hidden, hidden)] * 4 + [(hidden, inner)] * 2 + [(inner, hidden)]
    return [torch.nn.Linear(*shape, bias=False, dtype=dtype) for _ in range(n_layers) for shape in shapes]


@torch.inference_mode()
def seconds(linears: Sequence[torch.nn.Module], n_tokens: int, dtype: torch.dtype) -> float:
    """Time one pass through all of them."""
    inputs = {width: torch.randn(1, n_tokens, width, dtype=dtype) for width in {each.in_features for each in linears}}
    started = time.perf_counter()
    for linear in linears:
        linear(inputs[linear.in_features])
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> None:
    """Time all, and print a table and JSON for each model and type."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(WIDTHS), default=list(WIDTHS))
    parser.add_argument("--repeat", type=int, default=30)
    asked = parser.parse_args(arguments)
    facts = environment(torch.device("cpu"))
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    for model in asked.models:
        for dtype in (torch.bfloat16, torch.float32):
            stored = layers(*WIDTHS[model], dtype)
            started = time.perf_counter()
            in_order = [packed(linear) for linear in stored]
            spent = time.perf_counter() - started
            rows = {}
            for n_tokens in TOKENS:
                ways = [partial(seconds, linears, n_tokens, dtype) for linears in (stored, in_order)]
                a, b, times = compare(*ways, asked.repeat)
                rows[n_tokens] = {"stored_ms": a, "packed_ms": b, "times": times}
            print(f"\n{model}, {str(dtype).removeprefix('torch.')}: put in order in {spent:.2f} s")
            print(f"{'tokens':>8}{'stored':>9}{'packed':>9}{'times as fast':>15}")
            for n_tokens, row in rows.items():
                print(f"{n_tokens:>8}{row['stored_ms']:>9.1f}{row['packed_ms']:>9.1f}{row['times']:>15.2f}")
            print(json.dumps({"model": model, "dtype": str(dtype), "pack_seconds": spent, "tokens": rows, **facts}))


if __name__ == "__main__":
    main()

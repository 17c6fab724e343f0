"""Attention of one token in bfloat16 on a CPU: PyTorch's as it is, and with each query asked twice as mmgen does.

`python -m benchmarks.attention [--repeat 25]`. Layers of the 290 M model and of Anole-7b, each with a cache of its own,
so that keys and values come from memory as they do in a pass; both ways take turns. Medians in ms for a layer.
"""

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from .checkpoints import SHAPES
from .measures import compare, environment

MODELS = {"290m": (1, 2, 16), "7b": (1, 2)}  # rows in a batch
KEYS = {"290m": (16, 32, 64, 128, 256), "7b": (128, 512, 1024)}
_LAYERS = 8  # more would not be more out of the processor's caches


@torch.inference_mode()
def seconds(query: Tensor, layers: Sequence[tuple[Tensor, Tensor]], n_keys: int) -> float:
    """Time one query [R, heads, T, D] for each layer of keys and values [R, heads, capacity, D]."""
    started = time.perf_counter()
    for keys, values in layers:
        torch.nn.functional.scaled_dot_product_attention(query, keys[:, :, :n_keys], values[:, :, :n_keys])
    return (time.perf_counter() - started) / len(layers)


def main(arguments: Sequence[str] | None = None) -> None:
    """Time all, and print a table and JSON for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--repeat", type=int, default=25)
    asked = parser.parse_args(arguments)
    facts = environment(torch.device("cpu"))
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    for model in asked.models:
        shape = SHAPES[model]
        print(f"\n{model}\n{'rows':>8}{'keys':>8}{'once':>9}{'twice':>9}{'times as fast':>15}")
        rows = []
        for n_rows in MODELS[model]:
            size = (n_rows, shape.heads, max(KEYS[model]), shape.hidden // shape.heads)
            layers = [tuple(torch.randn(2, *size, dtype=torch.bfloat16)) for _ in range(_LAYERS)]
            once = torch.randn(n_rows, shape.heads, 1, size[3], dtype=torch.bfloat16)
            for n_keys in KEYS[model]:
                ways = [partial(seconds, query, layers, n_keys) for query in (once, once.expand(-1, -1, 2, -1))]
                a, b, times = compare(*ways, asked.repeat)
                print(f"{n_rows:>8}{n_keys:>8}{a:>9.3f}{b:>9.3f}{times:>15.2f}", flush=True)
                rows.append({"rows": n_rows, "keys": n_keys, "once_ms": a, "twice_ms": b, "times": times})
        print(json.dumps({"model": model, "cases": rows, **facts}))


if __name__ == "__main__":
    main()

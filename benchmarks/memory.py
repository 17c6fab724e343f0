"""Peak memory of drawing, beside what is estimated: weights, cache, and what the picture's decoder takes in passing.

`python -m benchmarks.memory [--models demo 290m] [--pictures 1 4]`. Each drawing is a process of its own, which looks
at its peak (VmHWM of /proc/self/status, so on Linux) after importing, after loading, while the codec decodes one
picture alone, and while drawing. All but the imports is estimated, as by mmgen.checkpoints.fit, which refuses what does
not fit; there they are part of 700 MB. What the decoder takes is measured beside.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

import mmgen
from mmgen import families
from mmgen.checkpoints import catalog, fit
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.request import PICTURES, ImageSampling, Loading

from . import subject
from .checkpoints import SHAPES, save
from .draw import DTYPES
from .measures import environment, forget_peak, resident

CPU = torch.device("cpu")


def measure(name: str, dtype: str, pictures: int, guidance: float) -> dict[str, float]:
    """Load, decode, draw; return bytes at each point. In a process of its own."""
    found: dict[str, float] = {"imports": resident()["VmRSS"]}
    loading = Loading(dtype=dtype, device_map="cpu")
    model = cast(AutoregressiveModel, mmgen.load(name, loading))
    now = resident()
    found |= {"loaded": now["VmRSS"], "loading_peak": now["VmHWM"], "loaded_files": now["RssFile"]}
    v = model.language_model.vocabulary
    forget_peak(CPU)
    model.decode(torch.zeros(1, v.canvas.rows, v.canvas.columns, dtype=torch.int64))
    found["codec"] = resident()["VmHWM"] - now["VmRSS"]
    run = subject.draw(model, pictures, ImageSampling(guidance=guidance), None, 1)
    rows = math.ceil(pictures / run.n_groups) * (1 if guidance == 1 else 2)
    prompt = len(model.prompts([subject.make_request(1)])[0].ids)
    return found | {"drawing": run.peak_bytes, "cached_tokens": rows * (prompt + v.canvas.n_codes)}


def estimate(name: str, dtype: str, cached_tokens: float) -> dict[str, float]:
    """What mmgen.checkpoints.fit says of the same, in bytes; `fit` is what it compares with the memory that is free."""
    checkpoint = catalog.find(name)
    loading = Loading(dtype=dtype, device_map="cpu")
    chosen = fit.dtype_name(loading, checkpoint.n_bytes, on_gpu=False)
    reply = families.reply(checkpoint, PICTURES)
    plan = fit.plan(checkpoint, loading, fit.look(), reply)
    return {
        "weights": fit.weights_bytes(checkpoint, chosen, codec=reply.codec),
        "cache": cached_tokens * fit.cache_per_token(checkpoint, chosen),
        "decoding": reply.decoding,
        "fit": plan.n_bytes,
    }


def report(name: str, pictures: int, found: dict[str, float], said: dict[str, float]) -> None:
    """Print one case."""
    expected = found["imports"] + said["weights"] + said["cache"] + said["decoding"]
    own = found["drawing"] - found["imports"]
    own_expected = expected - found["imports"]
    mb = {part: f"{n_bytes / 1e6:.0f} MB" for part, n_bytes in (found | said).items()}
    print(f"\n{name}, {pictures} picture(s)")
    print(f"  imports {mb['imports']} measured; weights {mb['weights']}, cache {mb['cache']}, decoding "
          f"{mb['decoding']} estimated ({mb['codec']} measured)")  # fmt: skip
    print(f"  peak of drawing {mb['drawing']}, {found['drawing'] / expected - 1:+.0%} of their sum; "
          f"without imports {own / own_expected - 1:+.0%}")  # fmt: skip
    print(f"  loaded {mb['loaded']} ({mb['loaded_files']} of it mapped files), peak of loading {mb['loading_peak']}")
    print(f"  mmgen.checkpoints.fit asks for {mb['fit']} to be free")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each case in a process, and print it beside the estimate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=("demo", *SHAPES), default=["demo", "290m"])
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--codes", type=int, help="of a picture of a random model: a square")
    parser.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="a random model's is bfloat16")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)  # what the process of one case is told
    asked = parser.parse_args(arguments)
    if asked.measure:
        name, dtype, pictures, guidance = asked.measure
        print(json.dumps(measure(name, dtype, int(pictures), float(guidance))))
        return
    facts = environment(CPU)
    print(", ".join(f"{name} {value}" for name, value in facts.items() if value is not None))
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for model in asked.models:
            dtype = "bfloat16" if asked.dtype == "auto" and model != "demo" else asked.dtype
            side = None if asked.codes is None else math.isqrt(asked.codes)
            name = "demo" if model == "demo" else str(save(Path(folder) / model, model, DTYPES[dtype], side=side))
            for pictures in asked.pictures:
                case = [name, dtype, str(pictures), str(asked.guidance)]
                command = [sys.executable, "-m", "benchmarks.memory", "--measure", *case]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                said = estimate(name, dtype, found["cached_tokens"])
                report(model, pictures, found, said)
                cases.append({"model": model, "pictures": pictures, "dtype": dtype, "measured": found, "said": said})
    print(json.dumps({**facts, "cases": cases}))


if __name__ == "__main__":
    main()

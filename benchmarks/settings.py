"""The same seeds with the instructions of three processors: the codes, and where they part how near the two were.

`python -m benchmarks.settings`. The instructions are taken away from PyTorch's own kernels and from oneDNN
(`ATEN_CPU_CAPABILITY`, `ONEDNN_MAX_CPU_ISA`), each in a process of its own; MKL's matrices of float32 keep them. 24
prompts, as mmgen chooses windows and all else; twice each, in a fresh cache of choices and in the one that it left.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import cast

import mmgen
from mmgen import tasks
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.request import ImageSampling, Picture, Request
from tools.demo.scene import ALL_SCENES

from . import subject

SETTINGS: dict[str, dict[str, str]] = {
    "as it is": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "SSE4.1": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}


def requests(n: int = 24) -> list[Request]:
    """Make the drawings: every other one guided."""
    scenes = ALL_SCENES[:: len(ALL_SCENES) // n][:n]
    return [
        tasks.draw(scene.caption, image=ImageSampling(guidance=3.0 if seed % 2 else 1.0), seed=seed)
        for seed, scene in enumerate(scenes)
    ]


def codes_of(model: AutoregressiveModel) -> list[list[int]]:
    """Draw them."""
    drawn = {index: piece.codes for index, piece in model.replies(requests()) if isinstance(piece, Picture)}
    return [list(drawn[index] or ()) for index in sorted(drawn)]


def in_setting(environment: dict[str, str], cache: str) -> list[list[int]]:
    """Draw them in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.settings", "--codes"],
        env=os.environ | {"MMGEN_CACHE": cache} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return cast(list[list[int]], json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Compare the settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codes", action="store_true", help="print the codes of this process")
    if parser.parse_args().codes:
        print(json.dumps(codes_of(cast(AutoregressiveModel, mmgen.load("demo", mmgen.Loading(dtype="float32"))))))
        return
    model = cast(AutoregressiveModel, mmgen.load("demo", mmgen.Loading(dtype="float32")))
    expected: list[list[int]] = []
    for name, environment in SETTINGS.items():
        with tempfile.TemporaryDirectory() as cache:
            found, again = in_setting(environment, cache), in_setting(environment, cache)
        expected = expected or found
        ties = []
        for request, one, other in zip(requests(), expected, found, strict=True):
            place = next((at for at, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]), None)
            if place is not None:
                ties.append(subject.tie(model, request, one, place, other[place]))
        n_near = sum(tie.is_near for tie in ties)
        print(f"{name:<10} {len(found) - len(ties)} of {len(found)} the same, {n_near} of {len(ties)} near ties {ties}")
        kept = "the same" if found == again else "NOT the same"
        print(f"{'':<10} twice with one cache of choices: {kept}", flush=True)
        if n_near < len(ties) or found != again:
            raise SystemExit(1)


if __name__ == "__main__":
    main()

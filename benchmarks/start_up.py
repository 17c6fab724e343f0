"""From Enter to the result: `mmgen --help` and one drawing, beside the imports that no drawing can do without.

`python -m benchmarks.start_up [--repeat 5] [--only help draw …]`. Each is a process of its own; they take turns after
a warm-up, which fills the cache of files. Medians of wall time and of processor time (of all threads, user and system).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from .measures import environment

_CHAMELEON = "from transformers.models.chameleon.modeling_chameleon import ChameleonForConditionalGeneration"
COMMANDS = {
    "python": ("nothing", ("-c", "pass")),
    "help": ("mmgen --help", ("-m", "mmgen", "--help")),
    "torch": ("import torch", ("-c", "import torch")),
    "chameleon": ("import torch, transformers' Chameleon", ("-c", f"import torch; {_CHAMELEON}")),
    "draw": ("mmgen draw 'a snowman'", ("-m", "mmgen", "draw", "a snowman", "-o", "out.png", "--force")),
}


def run(arguments: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run Python and return seconds of wall time and of processor time."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return wall, usage.ru_utime + usage.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    """Time all and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=tuple(COMMANDS), default=list(COMMANDS))
    asked = parser.parse_args(arguments)
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in asked.only}
    if "PYTHONPATH" in os.environ:  # the processes run elsewhere
        paths = os.environ["PYTHONPATH"].split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in paths)
    with tempfile.TemporaryDirectory() as folder:
        for name in spent:
            run(COMMANDS[name][1], Path(folder))
        for _ in range(asked.repeat):
            for name, found in spent.items():
                found.append(run(COMMANDS[name][1], Path(folder)))
    facts = environment(torch.device("cpu"))
    print(", ".join(f"{name} {value}" for name, value in facts.items() if value is not None))
    print(f"{'':<40}{'wall':>10}{'processor':>10}{'least':>10}")
    rows = {}
    for name, found in spent.items():
        wall, processor = (statistics.median(column) for column in zip(*found, strict=True))
        least = min(wall for wall, _ in found)
        rows[name] = {"wall": wall, "processor": processor, "least_wall": least}
        print(f"{COMMANDS[name][0]:<40}{wall:>8.2f} s{processor:>8.2f} s{least:>8.2f} s")
    print(json.dumps({**facts, "rounds": asked.repeat, "commands": rows}))


if __name__ == "__main__":
    main()

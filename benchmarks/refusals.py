"""The commands of the README where system calls are refused: `python -m benchmarks.refusals` (Linux, `cc`).

For each call that a file system may refuse: every command gives what it gives elsewhere, or one clear line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .moments import preloaded

COMMANDS = (
    "draw 'a red cat on the grass' -n 2 --seed 7 -o cat.png",
    "caption cat-1.png cat-2.png --sidecar --jsonl c.jsonl",
    "ask --image cat-1.png 'what color is it?' --history talk.json",
    "vary cat-1.png --seed 7 -o other.png",
    "interleave 'Can you draw a snowman and explain how to build one?' --seed 7 -o story",
    "draw 'a snowman' -n 3 --seed 7 -o snow/",
    "export c.jsonl",
)
REFUSALS = ("", "fchmod", "flock", "fsync", "link", "eintr", "fchmod flock fsync link", "rename", "read")


def main() -> None:
    """Run each command under each refusal, and print what came of it."""
    n_bad = 0
    with tempfile.TemporaryDirectory(prefix="refusals-") as name:
        library = preloaded(Path(name))
        expected: dict[str, bytes] = {}
        for refusal in REFUSALS:
            folder = Path(name) / (refusal or "none")
            folder.mkdir()
            counts = {"right": 0, "one clear line": 0, "WRONG": 0}
            for command in COMMANDS:
                own = {"LD_PRELOAD": str(library), "REFUSE": refusal, "ONLY": "cat-1.png"}
                done = subprocess.run(
                    ["bash", "-c", f"{sys.executable} -m mmgen {command}"], cwd=folder, env=os.environ | own,
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
                ended = "right" if done.returncode == 0 else "one clear line" if errors else "WRONG"
                if "Traceback" in done.stderr or done.returncode not in (0, 1, 2):
                    ended = "WRONG"
                counts[ended] += 1
                if ended == "WRONG":
                    print(f"  {refusal}: mmgen {command}: exit {done.returncode}\n{done.stderr[-500:]}")
            made = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}
            expected = expected or made
            torn = [each for each, data in made.items() if expected.get(each) != data]
            strays = [path.name for path in folder.rglob(".mmgen*")]
            n_bad += counts["WRONG"] + len(torn) + len(strays)
            said = ", ".join(f"{n} {ended}" for ended, n in counts.items() if n)
            print(f"{refusal or 'nothing':24} {said}; pictures torn {torn}, strays {strays}", flush=True)
    sys.exit(n_bad > 0)


if __name__ == "__main__":
    main()

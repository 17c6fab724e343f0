"""A million rows: `python -m benchmarks.million [-n 1000000]`, each figure beside reading the lines with `json` alone.

Export to parquet, csv and tar, and what a journal takes to say what is missing; seconds, and bytes a row beyond what
10,000 rows take. Each in a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mmgen.cli import main as mmgen
from mmgen.outputs.journal import Journal

_STATUS = Path("/proc/self/status")
FEW = 10_000


def main() -> None:
    """Measure each part with few rows and with many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1_000_000)
    parser.add_argument("--part", choices=PARTS, help="of one file, in this process")
    parser.add_argument("--file", type=Path)
    given = parser.parse_args()
    if given.part:
        began = time.monotonic()
        PARTS[given.part](given.file)
        print(json.dumps({"seconds": time.monotonic() - began, "peak": peak()}))
        return
    with tempfile.TemporaryDirectory() as folder:
        few, many = (write(Path(folder) / f"{n}.jsonl", n) for n in (FEW, given.n))
        alone = measure("json", many)["seconds"]
        print(f"{given.n} rows of {many.stat().st_size / given.n:.0f} bytes, read with json alone in {alone:.1f} s")
        for part in PARTS:
            one, other = measure(part, few), measure(part, many)
            each = (other["peak"] - one["peak"]) / (given.n - FEW)
            print(
                f"{part:8} {other['seconds']:6.1f} s, {other['seconds'] / alone:5.2f} x json; {each:6.1f} bytes a row"
            )


def write(path: Path, n: int) -> Path:
    """Write a journal, as captions of pictures make it."""
    with path.open("w") as file:
        for number in range(n):
            key = hashlib.sha256(str(number).encode()).hexdigest()
            place = f"pictures/{number // 1000:04d}/{number:07d}.jpg"
            entry = {"path": f"/data/{place}", "size": 100_000 + number, "mtime_ns": 10**18 + number, "sha256": key}
            record = {
                "key": key[:32], "place": place, "version": 1, "command": "caption",
                "model": {"name": "demo", "revision": None}, "image": place, "prompt": "Describe this picture.",
                "text": f"A red cat on the grass, {number}.", "sampling": {"text": {"temperature": 0.0, "top_p": 0.9}},
                "seconds": 0.05, "files": [entry], "drawn_seed": 7,
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")
    return path


def measure(part: str, file: Path) -> dict[str, float]:
    """Run a part in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.million", "--part", part, "--file", str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak() -> int:
    """Give the most memory that was taken, in bytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def read_alone(file: Path) -> None:
    """Read the lines."""
    with file.open("rb") as opened:
        for line in opened:
            json.loads(line)


def export(ending: str) -> Callable[[Path], None]:
    """Give what exports a journal."""
    return lambda file: assert_done(mmgen(["export", str(file), "-o", str(file.with_suffix(ending)), "-q", "-f"]))


def assert_done(code: int) -> None:
    """Take an exit code."""
    assert code == 0, code


def resume(file: Path) -> None:
    """Open a journal, and ask of each item how it stands."""
    n_missing = 0
    with Journal(file) as journal, file.open("rb") as opened:
        for number, _ in enumerate(opened):
            key = hashlib.sha256(str(number).encode()).hexdigest()[:32]
            n_missing += journal.state(key, f"pictures/{number // 1000:04d}/{number:07d}.jpg") != "done"
    assert n_missing == 0


PARTS: dict[str, Callable[[Path], None]] = {
    "json": read_alone, "parquet": export(".parquet"), "csv": export(".csv"), "tar": export(".tar"), "resume": resume,
}  # fmt: skip

if __name__ == "__main__":
    main()

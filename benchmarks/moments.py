"""Stop commands at random moments, give them again, and compare with undisturbed ones.

`python -m benchmarks.moments [--model scripted|demo] [--moments 200] [--only kill|term|full]`. Each moment begins with
nothing done, and it is counted how many came while there was work left. Captions into a journal
and into sidecars, drawings and variations into folders, stories into folders; each stopped by SIGKILL, by SIGTERM and
by a disk that is full after so many bytes (a preloaded library, which takes `cc` and Linux), `moments` times in all for
each. In the end nothing may be lost, doubled or torn, and nobody else's file touched.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .kill_batch import check, command, rows

CASES = {
    "caption, journal": ("caption", "photos", "--jsonl", "out/out.jsonl", "--temperature", "0.5", "--seed", "3"),
    "caption, sidecars": ("caption", "photos", "--sidecar", "--outdir", "out", "--jsonl", "out/o.jsonl", "--seed", "3"),
    "draw": ("draw", "--prompts", "prompts.txt", "--seed", "5", "-o", "out/"),
    "vary": ("vary", "photos", "make it blue", "--seed", "5", "-o", "out/"),
    "interleave": ("interleave", "--prompts", "prompts.txt", "--seed", "5", "-o", "out/"),
}
OTHERS = {"out/notes.txt": "mine", "out/7.txt": "written by hand", "photos/own.txt": "mine, too"}


def main() -> None:
    """Run the trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("scripted", "demo"), default="scripted")
    parser.add_argument("--moments", type=int, default=200)
    parser.add_argument("--only", choices=("kill", "term", "full"))
    arguments = parser.parse_args()
    rng, n_items = random.Random(7), 40 if arguments.model == "scripted" else 12
    with tempfile.TemporaryDirectory(prefix="moments-") as name:
        library = preloaded(Path(name)) if arguments.only in (None, "full") else Path()
        for way in [arguments.only] if arguments.only else ["kill", "term", "full"]:
            for case, words in CASES.items():
                whole, n_within = Path(name) / f"{way} {case} whole", 0
                prepare(whole, n_items)
                own = command(arguments.model, *words, "-q")
                done = subprocess.run(own, cwd=whole, capture_output=True, text=True, check=False)
                check(f"{case}: undisturbed", done.returncode == 0)
                n_moments = -(-arguments.moments // len(CASES))
                for _ in range(n_moments):
                    folder = Path(name) / f"{way} {case}"
                    prepare(folder, n_items)
                    room = rng.uniform(
                        0, sum(path.stat().st_size for path in (whole / "out").rglob("*") if path.is_file())
                    )
                    stop(own, folder, way, rng.randrange(n_items), int(room), library, rng)
                    n_within += n_rows(folder) < n_items
                    done = subprocess.run(own, cwd=folder, capture_output=True, text=True, check=False)
                    assert done.returncode == 0, done.stderr
                    same(whole, folder)
                    shutil.rmtree(folder)
                check(f"{case}: {way} at {n_moments} moments, {n_within} of them with work left: the same", True)


def prepare(folder: Path, n_items: int) -> None:
    """Make pictures, prompts, and files that are somebody's."""
    (folder / "photos").mkdir(parents=True)
    (folder / "out").mkdir()
    for number in range(n_items):
        Image.new("RGB", (32, 32), (5 * number % 256, 90, 200)).save(folder / "photos" / f"{number}.png")
    (folder / "prompts.txt").write_text("".join(f"a cat, number {number}\n" for number in range(n_items)))
    for name, text in OTHERS.items():
        (folder / name).write_text(text)


def n_rows(folder: Path) -> int:
    """Count the whole lines of a folder's journal."""
    return sum(path.read_bytes().count(b"\n") for path in (folder / "out").glob("*.jsonl"))


def stop(
    words: Sequence[str], folder: Path, way: str, after: int, room: int, library: Path, rng: random.Random
) -> None:
    """Run a command and stop it: a moment after so many items have a row, or when so many bytes are written."""
    if way == "full":
        environment = os.environ | {"LD_PRELOAD": str(library), "ROOM": str(room), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode in (0, 1), done.returncode
        return
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and n_rows(folder) < after:
        time.sleep(0.0005)
    time.sleep(rng.uniform(0, 0.01) if after else rng.uniform(0, 1))
    process.send_signal(signal.SIGKILL if way == "kill" else signal.SIGTERM)
    _, said = process.communicate()
    assert "Traceback" not in said, said
    assert process.returncode in (0, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM), process.returncode


def same(whole: Path, folder: Path) -> None:
    """Check that two folders hold the same, whatever was done to one of them."""
    for name, each in (("whole", whole), ("stopped", folder)):
        (folder.parent / name).unlink(missing_ok=True)
        (folder.parent / name).symlink_to(each)
    compared = subprocess.run(
        ["diff", "-r", "-x", "*.jsonl", "whole", "stopped"],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    [journal] = [path.relative_to(folder) for path in folder.rglob("*.jsonl")]
    strays = [path.name for path in folder.rglob(".*")]
    for name, ok in (
        (f"the same files {compared.stdout[:300]}", not compared.stdout),
        ("the same rows", rows(folder / journal) == rows(whole / journal)),
        ("somebody's files as they were", all((folder / each).read_text() == text for each, text in OTHERS.items())),
        (f"no stray file {strays[:3]}", not strays),
    ):
        if not ok:
            check(name, ok)


def preloaded(folder: Path) -> Path:
    """Compile the library that refuses system calls."""
    library = folder / "refusing.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("error: no C compiler\nhint: install gcc, or try --only kill and --only term")
    source = Path(__file__).with_name("refusing.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


if __name__ == "__main__":
    main()

"""The engine alone, with a scripted model: `python -m benchmarks.engine [ITEMS] [PICTURES]`.

Items without pictures and with a journal, beside a bare loop that writes the same records; and a tar file of pictures
beside the same in a folder. Items a second, in turn.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from benchmarks.many_paths import Scripted, memory_mb
from benchmarks.measures import compare
from mmgen import tasks
from mmgen.inputs.finding import Found, find
from mmgen.jobs import Job
from mmgen.limits import Limits
from mmgen.outputs.journal import Journal
from mmgen.outputs.records import Item, Origin
from mmgen.outputs.terminal import Notes
from mmgen.outputs.writers import Lines
from mmgen.request import WORDS, Request

SHAPE = Request(parts=(), want=WORDS, seed=1)


def run(items: Iterable[Item], journal: Path) -> float:
    """Run items anew; return the seconds."""
    journal.unlink(missing_ok=True)
    model, began = Scripted(), time.monotonic()
    with Journal(journal) as kept:
        origin = Origin("ask", model.name, None)
        Job(origin, Lines(shown=False), Notes(quiet=True), lambda requests: model, Limits(), kept).run(items)
    return time.monotonic() - began


def bare(records: list[dict[str, object]], path: Path) -> float:
    """Write records, each as it comes."""
    began = time.monotonic()
    with path.open("wb", buffering=0) as file:
        for record in records:
            file.write(json.dumps(record).encode() + b"\n")
    return time.monotonic() - began


def captions(name: str, journal: Path) -> float:
    """Caption all pictures of a folder or a tar file."""
    found = (each for each in find([name]) if isinstance(each, Found))
    return run((Item(SHAPE, tasks.CAPTION, image=each.name, sources=(each.source,)) for each in found), journal)


def main() -> None:
    """Measure."""
    n, n_pictures = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, 100_000), (2, 10_000)))
    with tempfile.TemporaryDirectory(prefix="engine-") as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        journal = folder / "rows.jsonl"
        run((Item(SHAPE, f"prompt {number}", line=number) for number in range(10_000)), journal)
        before = memory_mb()
        run((Item(SHAPE, f"prompt {number}", line=number) for number in range(n)), journal)
        after = memory_mb()
        records = [json.loads(line) for line in journal.read_text().splitlines()]
        one, other, ratio = compare(
            lambda: bare(records, folder / "bare.jsonl"),
            lambda: run((Item(SHAPE, f"prompt {number}", line=number) for number in range(n)), journal), 3,
        )  # fmt: skip
        print(f"{n} items: {one:.0f} ms bare, {other:.0f} ms, {ratio:.2f} times as many a second; ", end="")
        print(f"{before:.0f} MB after 10,000 items, {after:.0f} after all")
        for number in range(n_pictures):
            Image.new("RGB", (96, 96), (number % 256, number // 256, 9)).save(folder / "photos" / f"{number:05}.png")
        with tarfile.open(folder / "photos.tar", "w") as tar:
            for path in sorted((folder / "photos").iterdir()):
                tar.add(path, path.name)
        one, other, ratio = compare(
            lambda: captions(str(folder / "photos"), journal), lambda: captions(str(folder / "photos.tar"), journal), 3
        )
        print(f"{n_pictures} pictures: {one:.0f} ms as a folder, {other:.0f} ms as a tar file, {ratio:.2f} times")


if __name__ == "__main__":
    main()

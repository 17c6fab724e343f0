"""Memory and time to the first result of a batch over very many pictures, with a scripted model.

`python -m benchmarks.many_paths [N]`, N pictures (100,000) of different content, with a journal. Memory is read from
/proc/self/status, so on Linux.
"""

import io
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from mmgen import tasks
from mmgen.inputs.finding import Found, Selection, find
from mmgen.jobs import Batch
from mmgen.model import Abilities, Model
from mmgen.outputs.journal import Journal
from mmgen.outputs.records import Choice, Item, Job
from mmgen.outputs.terminal import Notes
from mmgen.outputs.writers import Lines
from mmgen.request import WORDS, Piece, Request

PER_FOLDER = 1000


class Scripted(Model):
    """Answers at once, and notes when it was first asked."""

    name, revision, note, abilities = "scripted", None, None, Abilities()

    def __init__(self) -> None:
        self.first: float | None = None

    def reply(self, request: Request) -> Iterator[Piece]:
        """Say something about as long as a caption."""
        self.first = self.first or time.monotonic()
        yield f"A red cat on the grass, {request.seed}."


def memory_mb() -> float:
    """Return the memory that is resident."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise SystemExit("no VmRSS")


def make(folder: Path, n: int) -> None:
    """Write n pictures of different content in folders of a thousand."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "BMP")
    data = bytearray(buffer.getvalue())
    for i in range(n):
        if i % PER_FOLDER == 0:
            (folder / f"{i // PER_FOLDER:04d}").mkdir()
        data[-8:-4] = i.to_bytes(4, "little")  # in the pixels
        (folder / f"{i // PER_FOLDER:04d}" / f"{i}.bmp").write_bytes(data)


def main() -> None:
    """Measure."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(prefix="many-paths-") as name:
        folder = Path(name) / "photos"
        folder.mkdir()
        make(folder, n)
        model, shape = Scripted(), Request(parts=(), want=WORDS, seed=1)

        def items() -> Iterator[Item]:
            for found in find([str(folder)], Selection(recursive=True)):
                assert isinstance(found, Found)
                yield Item(shape, tasks.CAPTION, image=found.name, sources=(found.name,))

        for run in ("all new", "all done"):
            before, started = memory_mb(), time.monotonic()
            with Journal(Path(name) / "captions.jsonl") as journal:
                job = Job("caption", model.name, None)
                batch = Batch(job, "", Lines(False), Notes(quiet=True), lambda requests: model, Choice(), journal)
                counts = batch.run(items())
                after = memory_mb()
            first = (
                ""
                if run == "all done" or model.first is None
                else f", first result after {model.first - started:.2f} s"
            )
            print(
                f"{run}: {counts}, {time.monotonic() - started:.0f} s, {before:.0f} -> {after:.0f} MB{first}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Memory and time to the first result of a batch over very many pictures, with a scripted model.

`python -m benchmarks.many_paths [N]`, N pictures (100,000) of different content, with a journal. Memory is read from
/proc/self/status, so on Linux.
"""

import io
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from mmgen import tasks
from mmgen.inputs.finding import Found, find
from mmgen.inputs.selection import Selection
from mmgen.jobs import Job
from mmgen.limits import Limits
from mmgen.model import Abilities, Model
from mmgen.outputs.journal import Journal
from mmgen.outputs.records import Item, Origin
from mmgen.outputs.terminal import Notes
from mmgen.outputs.writers import Lines
from mmgen.request import WORDS, Done, Piece, Request

PER_FOLDER = 1000


class Scripted(Model):
    """Answers at once, and notes when it was first asked."""

    name, revision, note, abilities = "scripted", None, None, Abilities()

    def __init__(self) -> None:
        self.first: float | None = None

    def replies(self, requests: Iterable[Request | None]) -> Iterator[tuple[int, Piece | Done]]:
        """Say something about as long as a caption."""
        for number, request in enumerate(filter(None, requests)):
            self.first = self.first or time.monotonic()
            yield number, f"A red cat on the grass, {request.seed}."
            yield number, Done()


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
                origin, lines = Origin("caption", model.name, None), Lines(shown=False)
                job = Job(origin, lines, Notes(quiet=True), lambda requests: model, Limits(), journal)
                counts = job.run(items())
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

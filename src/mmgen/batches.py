"""Many at a time from Python: the engine of the command line, with its journal, and errors as values."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

from mmgen import tasks
from mmgen.errors import MmgenError
from mmgen.jobs import Job
from mmgen.limits import Limits
from mmgen.model import Model
from mmgen.outputs.journal import Journal
from mmgen.outputs.records import Item, Origin, Record
from mmgen.outputs.terminal import Notes
from mmgen.outputs.writers import Lines, PictureFiles, Writer
from mmgen.request import PICTURES, WORDS, ImageSampling, Request, TextSampling


def caption_all(
    model: Model,
    images: Sequence[str | Path],
    prompt: str = tasks.CAPTION,
    *,
    journal: str | Path | None = None,
    progress: bool = True,
    text: TextSampling | None = None,
    seed: int | None = None,
    **fields: Unpack[tasks.TextFields],
) -> list[str | MmgenError]:
    """Describe many pictures; one that cannot be has its error in its place.

    Args:
        images: paths or addresses.
        journal: a file that keeps what is done: called again, only what is missing or failed is asked. It is the file
            of `mmgen caption --jsonl`.
        progress: show it, on a terminal.
    """
    shape = Request((), WORDS, tasks.text_of(text, fields) or TextSampling(), seed=0 if seed is None else seed)
    items = [Item(shape, prompt, image=str(path), sources=(str(path),), own_seed=seed is not None) for path in images]
    records = _kept(model, "caption", items, Lines(shown=False), journal, progress)
    return [record["text"] if "text" in record else _error(record) for record in records]


def draw_all(
    model: Model,
    prompts: Sequence[str],
    folder: str | Path,
    *,
    progress: bool = True,
    image: ImageSampling | None = None,
    seed: int = 0,
    **fields: Unpack[tasks.ImageFields],
) -> list[Path | MmgenError]:
    """Draw a picture of each prompt into a folder; called again, only what is missing or failed is drawn.

    Files are called 0001.png and so on; one that cannot be drawn has its error in its place.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shape = Request((), PICTURES, image=tasks.image_of(image, fields) or ImageSampling(), seed=seed)
    items = [
        Item(shape, prompt, output=str(folder / f"{number:04d}.png"), line=number, own_seed=True)
        for number, prompt in enumerate(prompts, 1)
    ]
    records = _kept(model, "draw", items, PictureFiles(shown=False), folder / "mmgen.jsonl", progress)
    return [Path(record["output"]) if "error" not in record else _error(record) for record in records]


def _kept(
    model: Model, command: str, items: list[Item], writer: Writer, journal: str | Path | None, progress: bool
) -> list[Record]:
    """Do items with a journal, and give the last record of each."""
    with ExitStack() as stack:
        if journal is None:
            journal = Path(stack.enter_context(TemporaryDirectory(prefix="mmgen-"))) / "journal.jsonl"
        kept = stack.enter_context(Journal(journal))
        origin = Origin(command, model.name, model.revision, model.identity)
        job = Job(origin, writer, _Silent(quiet=not progress), lambda _: model, Limits(), kept)
        if items:
            job.run(iter(items), max(2, len(items)))
        return [kept.last(item.item_id) or {} for item in items]


class _Silent(Notes):
    """Shows progress, and says no errors: they are values here."""

    def error(self, error: MmgenError, about: str = "") -> None:
        """Say nothing."""


def _error(record: Record) -> MmgenError:
    return MmgenError(record.get("error", "nothing came"))

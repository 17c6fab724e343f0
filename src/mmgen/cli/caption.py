"""`mmgen caption`: describe pictures."""

from __future__ import annotations

from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.outputs.records import Choice
from mmgen.request import WORDS, Loading, Request, TextSampling

EXAMPLES = """\b
Examples:
  $ mmgen caption photo.jpg
  $ mmgen caption . --include '*.jpg'
"""


@options.grouped
def caption(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE", show_default=False, help="Pictures: files, folders, patterns or http(s) addresses."
        ),
    ] = None,
    *,
    find: options.FindOptions,
    beside: options.SidecarOptions,
    text: TextSampling,
    job: options.JobOptions,
    choice: Choice,
    loading: Annotated[Loading, options.without("window")],
) -> None:
    """Describe pictures.

    Prints the caption of one picture, or of several a line each: path, tab, caption. With --jsonl or --sidecar they
    go there instead, and the same command again does only what is missing or failed.
    """
    from mmgen.cli import arguments, pictures
    from mmgen.outputs.terminal import Notes

    look = arguments.find_pictures(images or [], find)
    command = arguments.Command("caption", job, choice, loading, WORDS, text.temperature > 0, Notes(job.quiet))
    shape = Request(parts=(), want=WORDS, text=text)
    is_one = arguments.is_one(images or [], find)
    n_items = 1 if is_one else arguments.count(look, find)
    pictures.ask_of_each(command, shape, tasks.CAPTION, look, beside, is_one=is_one, n_items=n_items)

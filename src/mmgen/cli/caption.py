"""`mmgen caption`: describe pictures."""

from __future__ import annotations

from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.cli.ask import ask_each
from mmgen.cli.talk import TalkOptions
from mmgen.limits import Limits
from mmgen.request import Loading, TextSampling

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
    prompt: Annotated[
        str,
        typer.Option(
            "--prompt",
            metavar="WORDS",
            rich_help_panel=options.RESULT,
            help="Words to ask with; the model's usual ones if not given.",
            show_default=False,
        ),
    ] = tasks.CAPTION,
    *,
    find: options.FindOptions,
    beside: options.SidecarOptions,
    text: TextSampling,
    talk: TalkOptions,
    job: options.JobOptions,
    limits: Limits,
    loading: Annotated[Loading, options.without("window")],
) -> None:
    """Describe pictures.

    Prints the caption of one picture, or of several a line each: path, tab, caption. With --jsonl or --sidecar they
    go there instead, and the same command again does only what is missing or failed.
    """
    from mmgen.cli.arguments import Command
    from mmgen.cli.given import check_prompt, find_pictures
    from mmgen.outputs.terminal import Notes

    pictures = find_pictures(images or [], find)
    command = Command("caption", talk.shape(text), job, limits, loading, Notes(job.quiet, talk.verbose))
    ask_each(command, check_prompt(prompt, "name pictures without --prompt"), pictures, beside)

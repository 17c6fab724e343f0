"""`mmgen report`: a batch as one page to look at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mmgen.cli import options
from mmgen.errors import UsageError

EXAMPLES = """\b
Examples:
  $ mmgen report captions.jsonl
  $ mmgen report captions.jsonl -o page.html
"""


@options.grouped
def report(
    journal: Annotated[
        str, typer.Argument(metavar="FILE", show_default=False, help="JSON lines, as --jsonl or --json wrote them.")
    ],
    output: Annotated[str | None, options.output("FILE", "Page to write; .html beside the other if not given.")] = None,
    *,
    save: Annotated[options.PictureOptions, options.only("force")],
    job: Annotated[options.JobOptions, options.only("quiet")],
) -> None:
    """Make a page to look at of a batch: pictures, words, seeds and errors.

    One file that needs nothing else. Prints its path.
    """
    from mmgen.outputs.export import read_records, write_report
    from mmgen.outputs.terminal import Notes, emit

    out = Path(journal).with_suffix(".html") if output is None else Path(output)
    _check_output(out, Path(journal), save.force)
    records = read_records(journal)
    write_report(records, out, Path(journal).name, folder=Path(journal).parent, notes=Notes(job.quiet))
    emit(f"{out}\n")


def _check_output(out: Path, journal: Path, force: bool) -> None:
    from mmgen.files import check_writable

    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out} is not a name for a page", "end it in .html, as in -o report.html")
    if out.is_dir():
        raise UsageError(f"{out} is a folder", "name a file in it with -o")
    if out.resolve() == journal.resolve():
        raise UsageError(f"{out} is the file that the page is made from", "choose another name with -o")
    if not force and os.path.lexists(out):
        raise UsageError(f"{out} exists", "choose another name with -o, or overwrite it with -f")
    check_writable(out.parent)

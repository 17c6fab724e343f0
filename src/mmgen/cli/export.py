"""`mmgen export`: a batch as one page to look at, a table or a data set. `mmgen report` is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmgen.cli import naming, options
from mmgen.errors import UsageError

EXAMPLES = """\b
Examples:
  $ mmgen export captions.jsonl
  $ mmgen export captions.jsonl -o table.csv
"""


@options.grouped
def export(
    journals: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            show_default=False,
            help="JSON lines, as --jsonl or --json wrote them; of several shards all.",
        ),
    ],
    output: Annotated[str | None, options.output("FILE", "File to write; .html beside the other if not given.")] = None,
    *,
    save: Annotated[options.PictureOptions, options.only("force")],
    job: Annotated[options.JobOptions, options.only("quiet")],
) -> None:
    """Make a page, a table or a data set of a batch.

    By the file's ending: .html, one page to look at that needs nothing else; .csv, whose cells are data as they are,
    even those that a spreadsheet takes for formulas (= + - @); metadata.jsonl (or any .jsonl), for Hugging Face's
    ImageFolder: pictures in the file's folder or below, with their captions or answers, or the prompts they were drawn
    from; .parquet, a table (package pyarrow); .tar, as webdataset has it: pictures, their words as .txt, records as
    .json. Prints the path.
    """
    from mmgen.files import check_writable
    from mmgen.outputs.export import FORMATS, Export
    from mmgen.outputs.reading import Records
    from mmgen.outputs.terminal import Notes, emit

    sources = [Path(journal) for journal in journals]
    for journal, source in zip(journals, sources, strict=True):
        if not source.name:
            raise UsageError(f"{journal} is a folder", "name a file in it that --jsonl wrote")
    source = sources[0]
    out = source.with_suffix(".html") if output is None else Path(output)
    if out.suffix.lower() not in FORMATS:
        endings = ", ".join(FORMATS)
        raise UsageError(f"{out} is not a name for a page, a table or a data set", f"end it in one of {endings}")
    naming.check_output(out, save.force)
    if out.resolve() in [each.resolve() for each in sources]:
        raise UsageError(f"{out} is the file that the page is made from", "choose another name with -o")
    check_writable(out.parent)
    Export(Records(*sources), out, source.name, source.parent, Notes(job.quiet)).write()
    emit(f"{out}\n")

"""`mmgen vary`: new pictures from a picture, and words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.errors import UsageError
from mmgen.inputs.finding import NotFoundError
from mmgen.outputs.records import Choice, Item
from mmgen.request import PICTURES, ImageSampling, Loading, Request

EXAMPLES = """\b
Examples:
  $ mmgen vary photo.jpg -o variation.png
  $ mmgen vary drawing.png "make it blue" -n 2 --seed 7
"""


@options.grouped
def vary(
    source: Annotated[
        str | None,
        typer.Argument(metavar="IMAGE", show_default=False, help="The picture, or a folder or pattern of many."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", show_default=False, help="What should change; - reads it from stdin."),
    ] = None,
    *,
    save: options.PictureOptions,
    find: options.FindOptions,
    image: Annotated[ImageSampling, options.without("negative_prompt", "ratio")],
    job: options.JobOptions,
    choice: Choice,
    loading: Loading,
) -> None:
    """Draw new pictures from a picture, and words.

    Prints the path of each picture that was written. Of a folder, into another with -o DIR/, the same command again
    draws only what is missing or failed.
    """
    from mmgen.cli import arguments, naming
    from mmgen.outputs.writers import PictureFiles

    n = save.n
    options.check_seeds(job.seed, n)
    if find.files_from is not None and prompt is None:  # the pictures are in the list: the only word is the prompt
        source, prompt = None, source
    arguments.check_stdin(prompt, find)
    hint = "vary takes one picture, a folder or a pattern; the second word says what should change"
    words = tasks.VARY if prompt is None else arguments.read_prompt(prompt, hint)
    sources = [] if source is None else [source]
    look = arguments.find_pictures(sources, find)
    is_one = arguments.is_one(sources, find)
    n_items = n if is_one else None
    naming.check_stdout(save.output, n_items, job.as_json)
    if save.output is None and not is_one:
        raise UsageError("no folder for the pictures", "name one with -o, as in -o varied/")
    command = arguments.Command("vary", job, choice, loading, PICTURES, True, save.notes(job.quiet))
    shape = Request(parts=(), want=PICTURES, image=image)
    title = naming.slug("variation" if prompt is None else words)
    default = f"{title}-{{seed}}.png" if is_one else "{stem}.png" if n == 1 else "{stem}-{n}.png"
    outputs = naming.Outputs(save.output, default, n_items)
    outputs.check_format()

    def items(first_seed: int) -> Iterator[Item]:
        outputs.forget()
        for index, found in enumerate(look(), 1):
            if isinstance(found, NotFoundError):
                yield Item(shape, words, image=found.name, error=found)
                continue
            for i in range(n):
                path = outputs.path(
                    prompt=words, seed=first_seed + i, index=index, n=i + 1, source=found.name, below=found.below
                )
                one = replace(shape, seed=first_seed + i)
                yield Item(
                    one, words, image=found.name, sources=(found.name,), output=path, number=i,
                    own_seed=job.seed is not None,
                )  # fmt: skip

    arguments.run_pictures(
        command,
        lambda made_by: PictureFiles(made_by, save.metadata, shown=not job.as_json, overwrite=save.force),
        items,
        n_items,
        None if is_one else outputs.folder,
        force=save.force,
    )

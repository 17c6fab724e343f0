"""`mmgen vary`: new pictures from a picture, and words."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.errors import UsageError
from mmgen.limits import Limits
from mmgen.request import PICTURES, Edit, ImageSampling, Loading, Request

EXAMPLES = """\b
Examples:
  $ mmgen vary drawing.png "make it blue" -n 2 --seed 7
  $ mmgen vary photo.jpg "a blue cat on the grass" --strength 0.5
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
    like: options.Like = None,
    mask: Annotated[
        str | None,
        typer.Option(
            "--mask", metavar="FILE", rich_help_panel=options.SAMPLING,
            help="Draw anew what is white in FILE, a picture of IMAGE's size, and keep the rest. It is drawn not "
            "looking at what lies below.",
        ),
    ] = None,
    *,
    save: options.PictureOptions,
    find: options.FindOptions,
    edit: Annotated[Edit, options.only("strength", "source_prompt", "keep", "drafts")],
    image: Annotated[ImageSampling, options.without("negative_prompt", "ratio")],
    job: options.JobOptions,
    limits: Limits,
    loading: Loading,
) -> None:  # fmt: skip
    """Draw new pictures from a picture, and words.

    With --strength, --from, --keep or --mask the new picture is made of IMAGE's own codes, and PROMPT says what it is
    to show; else the model looks at IMAGE, and PROMPT says what should change.

    Prints the path of each picture that was written. Of a folder, into another with -o DIR/, the same command again
    draws only what is missing or failed.
    """
    from mmgen.cli import naming
    from mmgen.cli.arguments import Command
    from mmgen.cli.given import find_pictures, read_prompt
    from mmgen.inputs.images import open_image
    from mmgen.outputs.writers import PictureFiles

    options.check_seeds(job.seed, save.n)
    if find.files_from is not None and prompt is None:  # the pictures are in the list: the only word is the prompt
        source, prompt = None, source
    hint = "vary takes one picture, a folder or a pattern; the second word says what should change"
    pictures = find_pictures([] if source is None else [source], find, prompt, counts=False)
    words = None if prompt is None else read_prompt(prompt, hint)
    shape = Request((), PICTURES, image=image)
    if mask is not None or edit != Edit():
        tasks.check_edit(edit, image, words, has_mask=mask is not None)
        shape = replace(shape, edit=edit, mask=None if mask is None else open_image(mask))
    words = words or ("" if shape.edit else tasks.VARY)
    n_items = save.n if pictures.is_one else None
    naming.check_stdout(save.output, n_items, job.as_json)
    if save.output is None and not pictures.is_one:
        raise UsageError("no folder for the pictures", "name one with -o, as in -o varied/")
    title = naming.slug("variation" if prompt is None else words)
    default = f"{title}-{{seed}}.png" if pictures.is_one else "{stem}.png" if save.n == 1 else "{stem}-{n}.png"
    outputs = naming.Outputs(save.output, default, n_items)
    outputs.check_format()
    command = Command("vary", shape, job, limits, loading, save.notes(job.quiet))
    command.run(
        lambda seed: command.items(command.of_pictures(pictures.found, words, seed), outputs.path, save.n),
        PictureFiles(save.metadata, shown=not job.as_json, overwrite=save.force),
        n_items,
        None if pictures.is_one or outputs.folder is None else outputs.folder / naming.JOURNAL,
        save.force,
        pictures.selection,
        pictures.count_all,
    )

"""`mmgen draw`: pictures from words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import typer

from mmgen.cli import options
from mmgen.errors import MmgenError, UsageError
from mmgen.inputs.prompts import Prompt
from mmgen.outputs.records import Choice, Item
from mmgen.request import PICTURES, ImageSampling, Loading, Request

EXAMPLES = """\b
Examples:
  $ mmgen draw "a snowman" -o snowman.png
  $ mmgen draw "a red cat on the grass" -n 4 --seed 7 -o cat.jpg
"""


@options.grouped
def draw(
    prompt: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", show_default=False, help="What to draw, a picture each; - reads stdin."),
    ] = None,
    prompts: options.Prompts = None,
    *,
    save: options.PictureOptions,
    image: Annotated[ImageSampling, options.without("image_guidance")],
    job: options.JobOptions,
    choice: Choice,
    loading: Loading,
) -> None:
    """Draw pictures from words.

    Prints the path of each picture that was written. Of --prompts into a folder, -o DIR/, the same command again draws
    only what is missing or failed.
    """
    from mmgen.cli import arguments, naming
    from mmgen.outputs.writers import PictureFiles

    n = save.n
    options.check_seeds(job.seed, n)
    asked = arguments.read_prompts(prompt or [], prompts, "draw from a picture with mmgen vary")
    n_items = None if prompts is not None else len(prompt or []) * n
    naming.check_stdout(save.output, n_items, job.as_json)
    command = arguments.Command("draw", job, choice, loading, PICTURES, True, save.notes(job.quiet))
    shape = Request(parts=(), want=PICTURES, image=image)

    outputs = naming.Outputs(save.output, "{slug}-{seed}.png", n_items)
    outputs.check_format()

    def items(first_seed: int) -> Iterator[Item]:
        outputs.forget()
        for index, (line, each) in enumerate(asked(), 1):
            if isinstance(each, MmgenError):
                yield Item(shape, "", line=line, error=each)
                continue
            if problem := _problem(each) or outputs.problem(each.output):
                yield Item(shape, each.text, line=line, error=problem)
                continue
            first = first_seed if each.seed is None else each.seed
            for i in range(n):
                path = outputs.path(each.output, prompt=each.text, seed=first + i, index=index, n=i + 1)
                has_seed = job.seed is not None or each.seed is not None
                one = replace(shape, seed=first + i)
                yield Item(one, each.text, output=path, line=line, number=i, own_seed=has_seed)

    arguments.run_pictures(
        command,
        lambda made_by: PictureFiles(made_by, save.metadata, shown=not job.as_json, overwrite=save.force),
        items,
        n_items,
        None if prompts is None else outputs.folder,
        force=save.force,
    )


def _problem(prompt: Prompt) -> MmgenError | None:
    from mmgen.outputs.pictures import format_of

    if prompt.images:
        return UsageError("draw takes words alone", "draw from pictures with mmgen vary")
    try:
        format_of(prompt.output or "any.png")
    except UsageError as error:
        return error
    return None

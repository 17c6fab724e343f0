"""`mmgen draw`: pictures from words."""

from __future__ import annotations

from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.errors import UsageError
from mmgen.limits import Limits
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
    comments: options.Comments = False,
    best_of: Annotated[
        int,
        typer.Option(
            "--best-of", metavar="M", rich_help_panel=options.RESULT,
            help="Draw M pictures of each prompt, and keep the -n best, as the model judges.",
        ),
    ] = 1,
    like: options.Like = None,
    *,
    save: options.PictureOptions,
    image: Annotated[ImageSampling, options.without("image_guidance")],
    job: options.JobOptions,
    limits: Annotated[Limits, options.without("pixel_limit", "strict")],
    loading: Loading,
) -> None:  # fmt: skip
    """Draw pictures from words.

    Prints the path of each picture that was written. Of --prompts into a folder, -o DIR/, the same command again draws
    only what is missing or failed.
    """
    from mmgen.cli import naming
    from mmgen.cli.arguments import Command
    from mmgen.cli.given import prompt_counter, read_prompts
    from mmgen.cli.mistyped import quoting
    from mmgen.outputs.pictures import format_of
    from mmgen.outputs.records import Item
    from mmgen.outputs.writers import PictureFiles

    if like is not None and prompts is not None:
        prompt = None  # the lines have their own
    options.check_seeds(job.seed, save.n)
    tasks.check_best_of(best_of, save.n, image)
    options.check_seeds(job.seed, best_of, "--best-of")
    if best_of > 1 and "{seed}" in (save.output or ""):
        raise UsageError("the best are named by rank: their seeds are not known yet", "name them by {n}, not {seed}")
    lines = read_prompts(prompt or [], prompts, "draw from a picture with mmgen vary", comments=comments)
    n_items = None if prompts is not None else len(prompt or []) * save.n
    naming.check_stdout(save.output, n_items, job.as_json)
    outputs = naming.Outputs(save.output, "{slug}-{seed}.png" if best_of == 1 else "{slug}-{n}.png", n_items)
    outputs.check_format()
    is_batch = prompts is not None or (n_items != 1 and outputs.is_folder)
    command = Command(
        "draw", Request((), PICTURES, image=image), job, limits, loading, save.notes(job.quiet), quoting(prompt or [])
    )

    def path(item: Item, index: int, below: str) -> str:
        if item.images:
            raise UsageError("draw takes words alone", "draw from pictures with mmgen vary")
        format_of(item.output or "any.png")
        return outputs.path(item, index, below)

    command.run(
        lambda seed: command.items(command.of_prompts(lines, seed, takes_images=False), path, save.n, best_of),
        PictureFiles(save.metadata, shown=not job.as_json, overwrite=save.force),
        n_items,
        outputs.folder / naming.JOURNAL if is_batch and outputs.folder is not None else None,
        save.force,
        count=prompt_counter(prompts, save.n),
    )

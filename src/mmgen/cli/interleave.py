"""`mmgen interleave`: words and pictures together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.errors import MmgenError, UsageError
from mmgen.limits import Limits
from mmgen.outputs.records import Item
from mmgen.request import BOTH, ImageSampling, Loading, Request, TextSampling

EXAMPLES = """\b
Examples:
  $ mmgen interleave "Can you draw a snowman and explain how to build one?" -o story
  $ mmgen interleave "Tell a story about a red cat" --seed 7 --image-temperature 0.6 -o tale
"""


@options.grouped
def interleave(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", show_default=False, help="What to tell; - reads it from stdin.")
    ] = None,
    output: Annotated[str | None, options.output("DIR", "Folder for index.md and the pictures; it is made.")] = None,
    images: options.Images = None,
    prompts: options.Prompts = None,
    comments: options.Comments = False,
    *,
    save: Annotated[options.PictureOptions, options.without("output", "n")],
    text: Annotated[TextSampling, options.without("max_thought_tokens", "json_schema")] = tasks.INTERLEAVE_TEXT,
    image: Annotated[ImageSampling, options.only("guidance", "image_guidance", temperature="image_temperature")],
    job: options.JobOptions,
    limits: Limits,
    loading: Loading,
) -> None:
    """Answer in words and pictures together.

    Prints Markdown, and writes it with its pictures into a folder; of --prompts, into a folder for each.
    """
    from mmgen.cli import naming
    from mmgen.cli.arguments import Command
    from mmgen.cli.given import prompt_counter, read_prompts
    from mmgen.files import claimed
    from mmgen.outputs.stories import Stories

    image = replace(image, top_p=text.top_p, top_k=text.top_k, min_p=text.min_p)
    shape = Request((), BOTH, text, image, completion=True)
    command = Command("interleave", shape, job, limits, loading, save.notes(job.quiet))
    lines = read_prompts([] if prompt is None else [prompt], prompts, "give pictures with --image", comments=comments)
    if prompts is None:
        folder, given = naming.check_folder(output, save.force), tuple(images or ())
        ((_, said),) = lines
        assert not isinstance(said, MmgenError)
        item = Item(
            replace(shape, seed=command.first_seed), said.text, images=given, sources=given, output=folder,
            own_seed=job.seed is not None,
        )  # fmt: skip
        item = replace(item, request=item.open(limits.strict))
        writer = Stories(save.metadata, not job.as_json, streamed=command.streams(1), overwrite=True)
        with claimed(Path(folder)):
            command.run(lambda seed: [replace(item, request=replace(item.request, seed=seed))], writer, 1)
        return
    if images:
        raise UsageError("--prompts has the prompts and their pictures", "leave out --image")
    if output is None:
        raise UsageError("no folder for the stories", "name one with -o, as in -o stories/")
    outputs = naming.Outputs(output, "{slug}-{seed}", None)
    command.run(
        lambda seed: command.items(command.of_prompts(lines, seed), outputs.path),
        Stories(save.metadata, not job.as_json, overwrite=save.force),
        None,
        None if outputs.folder is None else outputs.folder / naming.JOURNAL,
        save.force,
        count=prompt_counter(prompts),
    )

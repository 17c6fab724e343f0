"""`mmgen interleave`: words and pictures together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.errors import MmgenError, UsageError
from mmgen.outputs.records import Choice, Item, Job
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
    *,
    save: Annotated[options.PictureOptions, options.without("output", "n")],
    text: TextSampling = tasks.INTERLEAVE_TEXT,
    image: Annotated[ImageSampling, options.only("guidance", "image_guidance", temperature="image_temperature")],
    job: options.JobOptions,
    choice: Choice,
    loading: Loading,
) -> None:
    """Answer in words and pictures together.

    Prints Markdown, and writes it with its pictures into a folder; of --prompts, into a folder for each.
    """
    from mmgen.cli import arguments, naming
    from mmgen.outputs.live import Story
    from mmgen.outputs.writers import Stories

    image = replace(image, top_p=text.top_p, top_k=text.top_k)
    command = arguments.Command("interleave", job, choice, loading, BOTH, True, save.notes(job.quiet))
    shape = Request(parts=(), want=BOTH, text=text, image=image, completion=True)
    asked = arguments.read_prompts([] if prompt is None else [prompt], prompts, "give pictures with --image")
    if prompts is None:
        folder = arguments.check_folder(output, save.force)
        ((_, said),) = asked()
        assert not isinstance(said, MmgenError)
        given = tuple(images or ())
        one = replace(shape, seed=command.first_seed)
        item = Item(one, said.text, images=given, sources=given, output=folder, own_seed=job.seed is not None)
        if not (job.as_json or job.is_batch):
            request = item.open()
            opened = arguments.open_for(command, [request], command.first_seed)
            made_by = Job(command.name, opened.name, opened.revision)
            with Story(made_by, item, folder, with_metadata=save.metadata) as story:
                arguments.stream(opened, request, command.notes, story.take)
            return
    elif images:
        raise UsageError("--prompts has the prompts and their pictures", "leave out --image")
    elif output is None:
        raise UsageError("no folder for the stories", "name one with -o, as in -o stories/")
    outputs = naming.Outputs(output, "{slug}-{seed}", None)

    def items(first_seed: int) -> Iterator[Item]:
        if prompts is None:
            yield item
            return
        outputs.forget()
        for index, (line, each) in enumerate(asked(), 1):
            if isinstance(each, MmgenError):
                yield Item(shape, "", line=line, error=each)
                continue
            if problem := outputs.problem(each.output):
                yield Item(shape, each.text, line=line, error=problem)
                continue
            one = replace(shape, seed=first_seed if each.seed is None else each.seed)
            path = outputs.path(each.output, prompt=each.text, seed=one.seed, index=index, n=1)
            sources, has_seed = tuple(each.sources()), job.seed is not None or each.seed is not None
            yield Item(one, each.text, images=each.images, sources=sources, output=path, line=line, own_seed=has_seed)

    arguments.run_batch(
        command,
        lambda made_by: Stories(made_by, save.metadata, shown=not job.as_json, overwrite=save.force or prompts is None),
        items,
        1 if prompts is None else None,
        outputs.folder / naming.JOURNAL if prompts is not None and outputs.folder is not None else None,
    )

"""`mmgen interleave`: words and pictures together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.errors import MmgenError, UsageError
from mmgen.items import Item, Job
from mmgen.request import BOTH, ImageSampling, Loading, Request, TextSampling

EXAMPLES = """\b
Examples:
  $ mmgen interleave "Can you draw a snowman and explain how to build one?" -o story
  $ mmgen interleave "Tell a story about a red cat" --seed 7 --image-temperature 0.6 -o tale
"""


def interleave(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", show_default=False, help="What to tell; - reads it from stdin.")
    ] = None,
    prompts: options.Prompts = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder for index.md and the pictures; it is made."),
    ] = None,
    images: options.Images = None,
    force: options.Force = False,
    no_metadata: options.NoMetadata = False,
    jsonl: options.Jsonl = None,
    html: options.Html = None,
    plan: options.Plan = False,
    fail_fast: options.FailFast = False,
    limit: options.Limit = None,
    shard: options.Shard = None,
    batch_size: options.BatchSize = None,
    as_json: options.AsJson = False,
    seed: options.Seed = None,
    max_tokens: options.MaxTokens = tasks.INTERLEAVE_TEXT.max_tokens,
    temperature: options.Temperature = tasks.INTERLEAVE_TEXT.temperature,
    image_temperature: options.ImageTemperature = ImageSampling.temperature,
    top_p: options.TopP = tasks.INTERLEAVE_TEXT.top_p,
    top_k: options.TopK = tasks.INTERLEAVE_TEXT.top_k,
    repetition_penalty: options.RepetitionPenalty = tasks.INTERLEAVE_TEXT.repetition_penalty,
    guidance: options.Guidance = ImageSampling.guidance,
    image_guidance: options.ImageGuidance = ImageSampling.image_guidance,
    model: options.ModelName = options.DEFAULT_MODEL,
    revision: options.Revision = Loading.revision,
    dtype: options.DtypeName = "auto",
    device_map: options.DeviceMap = Loading.device_map,
    quantize: options.QuantizeBits = None,
    attn: options.AttentionName = "auto",
    offline: options.Offline = Loading.offline,
    no_fit_check: options.NoFitCheck = False,
    window: options.Window = Loading.window,
    verbose: options.Verbose = False,
    no_preview: options.NoPreview = False,
    quiet: options.Quiet = False,
) -> None:
    """Answer in words and pictures together.

    Prints Markdown, and writes it with its pictures into a folder; of --prompts, into a folder for each.
    """
    from mmgen.cli import names, run
    from mmgen.live import Story
    from mmgen.output import Stories
    from mmgen.streams import Notes

    many = options.many(jsonl, html, plan, fail_fast, limit, shard, batch_size)
    loading = options.loading(revision, dtype, device_map, quantize, attn, offline, no_fit_check, window)
    text = TextSampling(temperature, top_p, top_k, repetition_penalty, max_tokens)
    image = ImageSampling(image_temperature, top_p, top_k, guidance, image_guidance)
    options.check_seeds(seed)
    command = run.Command(
        "interleave", model, loading, BOTH, seed, True, as_json, many, Notes(quiet, verbose, not no_preview)
    )
    shape = Request(parts=(), want=BOTH, text=text, image=image, completion=True)
    asked = run.read_prompts([] if prompt is None else [prompt], prompts, "give pictures with --image")
    if prompts is None:
        folder = run.check_folder(output, force)
        ((_, said),) = asked()
        assert not isinstance(said, MmgenError)
        given = tuple(images or ())
        one = replace(shape, seed=command.first_seed)
        item = Item(one, said.text, images=given, sources=given, output=folder, own_seed=seed is not None)
        if not (as_json or many.is_asked_for):
            request = item.open()
            opened = run.open_for(command, [request], command.first_seed)
            job = Job(command.name, opened.name, opened.revision)
            with Story(job, item, folder, with_metadata=not no_metadata) as story:
                run.stream(opened, request, command.notes, story.take)
            return
    elif images:
        raise UsageError("--prompts has the prompts and their pictures", "leave out --image")
    elif output is None:
        raise UsageError("no folder for the stories", "name one with -o, as in -o stories/")
    outputs = names.Outputs(output, "{slug}-{seed}", None)

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
            sources, has_seed = tuple(each.sources()), seed is not None or each.seed is not None
            yield Item(one, each.text, images=each.images, sources=sources, output=path, line=line, own_seed=has_seed)

    run.run_batch(
        command,
        lambda job: Stories(job, not no_metadata, shown=not as_json, overwrite=force or prompts is None),
        items,
        1 if prompts is None else None,
        outputs.folder / names.JOURNAL if prompts is not None and outputs.folder is not None else None,
    )

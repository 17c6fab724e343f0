"""`mmgen vary`: new pictures from a picture, and words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.errors import UsageError
from mmgen.finding import NotFoundError
from mmgen.items import Item
from mmgen.request import PICTURES, ImageSampling, Loading, Request

EXAMPLES = """\b
Examples:
  $ mmgen vary photo.jpg -o variation.png
  $ mmgen vary drawing.png "make it blue" -n 2 --seed 7
"""


def vary(
    source: Annotated[
        str | None,
        typer.Argument(metavar="IMAGE", show_default=False, help="The picture, or a folder or pattern of many."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", show_default=False, help="What should change; - reads it from stdin."),
    ] = None,
    output: options.ImageFile = None,
    n: options.Number = 1,
    force: options.Force = False,
    no_metadata: options.NoMetadata = False,
    recursive: options.Recursive = False,
    include: options.Include = None,
    exclude: options.Exclude = None,
    files_from: options.FilesFrom = None,
    null: options.Null = False,
    jsonl: options.Jsonl = None,
    html: options.Html = None,
    plan: options.Plan = False,
    fail_fast: options.FailFast = False,
    limit: options.Limit = None,
    shard: options.Shard = None,
    batch_size: options.BatchSize = None,
    as_json: options.AsJson = False,
    seed: options.Seed = None,
    temperature: options.Temperature = ImageSampling.temperature,
    top_p: options.TopP = ImageSampling.top_p,
    top_k: options.TopK = ImageSampling.top_k,
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
    """Draw new pictures from a picture, and words.

    Prints the path of each picture that was written. Of a folder, into another with -o DIR/, the same command again
    draws only what is missing or failed.
    """
    from mmgen.cli import names, run
    from mmgen.output import PictureFiles
    from mmgen.streams import Notes

    many = options.many(jsonl, html, plan, fail_fast, limit, shard, batch_size)
    loading = options.loading(revision, dtype, device_map, quantize, attn, offline, no_fit_check, window)
    image = ImageSampling(temperature, top_p, top_k, guidance, image_guidance)
    options.check_seeds(seed, n)
    if files_from is not None and prompt is None:  # the pictures are in the list: the only word is the prompt
        source, prompt = None, source
    run.check_stdin(prompt, files_from)
    hint = "vary takes one picture, a folder or a pattern; the second word says what should change"
    words = tasks.VARY if prompt is None else run.read_prompt(prompt, hint)
    sources = [] if source is None else [source]
    look = run.find_pictures(sources, files_from, null, recursive, include, exclude)
    is_one = run.is_one(sources, files_from)
    n_items = n if is_one else None
    names.check_stdout(output, n_items, as_json)
    if output is None and not is_one:
        raise UsageError("no folder for the pictures", "name one with -o, as in -o varied/")
    command = run.Command(
        "vary", model, loading, PICTURES, seed, True, as_json, many, Notes(quiet, verbose, not no_preview)
    )
    shape = Request(parts=(), want=PICTURES, image=image)
    title = names.slug("variation" if prompt is None else words)
    default = f"{title}-{{seed}}.png" if is_one else "{stem}.png" if n == 1 else "{stem}-{n}.png"
    outputs = names.Outputs(output, default, n_items)
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
                    own_seed=seed is not None,
                )  # fmt: skip

    run.run_pictures(
        command,
        lambda job: PictureFiles(job, not no_metadata, shown=not as_json, overwrite=force),
        items,
        n_items,
        None if is_one else outputs.folder,
        force=force,
    )

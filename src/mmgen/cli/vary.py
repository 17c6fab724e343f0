"""`mmgen vary`: new pictures from a picture, and words."""

from __future__ import annotations

from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.output import Item, Job, PictureFiles
from mmgen.request import PICTURES, ImageSampling, Loading, fresh_seed

EXAMPLES = """\b
Examples:
  $ mmgen vary photo.jpg -o variation.png
  $ mmgen vary drawing.png "make it blue" -n 2 --seed 7
"""


def vary(
    source: Annotated[
        str, typer.Argument(metavar="IMAGE", show_default=False, help="The picture: file or http(s) address.")
    ],
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", show_default=False, help="What should change; - reads it from stdin."),
    ] = None,
    output: options.ImageFile = None,
    n: options.Number = 1,
    force: options.Force = False,
    no_metadata: options.NoMetadata = False,
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
    quiet: options.Quiet = False,
) -> None:
    """Draw new pictures from a picture, and words.

    Prints the path of each picture that was written.
    """
    from mmgen.cli import names, run
    from mmgen.images import open_image
    from mmgen.streams import Notes

    notes = Notes(quiet)
    loading = options.loading(revision, dtype, device_map, quantize, attn, offline, no_fit_check)
    image = ImageSampling(temperature, top_p, top_k, guidance, image_guidance)
    options.check_number(n)
    hint = "vary takes one picture; the second word says what should change"
    words = tasks.VARY if prompt is None else run.read_prompt(prompt, hint)
    names.check_stdout(output, n, as_json)
    used_seed = fresh_seed() if seed is None else seed
    title = "variation" if prompt is None else words
    paths = names.image_paths(output, [(title, used_seed + i) for i in range(n)])
    if output != "-":
        run.check_outputs(paths, force)
    picture = open_image(source)
    items = [Item(tasks.vary(picture, words, image=image, seed=used_seed + i), words, image=source) for i in range(n)]
    requests = [item.request for item in items]
    opened = run.open_model(model, loading, PICTURES, requests, notes)
    if seed is None:
        notes.say(f"seed: {used_seed}")

    job = Job("vary", opened.name, opened.revision, items, as_json)
    sink = PictureFiles(job, notes, paths, with_metadata=not no_metadata)
    run.feed(opened, requests, sink)
    run.finish(sink)

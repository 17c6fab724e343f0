"""`mmgen draw`: pictures from words."""

from __future__ import annotations

from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.errors import UsageError
from mmgen.output import Item, Job, PictureFiles
from mmgen.request import PICTURES, ImageSampling, Loading, fresh_seed

EXAMPLES = """\b
Examples:
  $ mmgen draw "a snowman" -o snowman.png
  $ mmgen draw "a red cat on the grass" -n 4 --seed 7 -o cat.jpg
"""


def draw(
    prompts: Annotated[
        list[str],
        typer.Argument(metavar="PROMPT", show_default=False, help="What to draw, a picture each; - reads stdin."),
    ],
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
    negative_prompt: options.NegativePrompt = ImageSampling.negative_prompt,
    ratio: options.Ratio = ImageSampling.ratio,
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
    """Draw pictures from words.

    Prints the path of each picture that was written.
    """
    from mmgen.cli import names, run
    from mmgen.streams import Notes

    notes = Notes(quiet)
    loading = options.loading(revision, dtype, device_map, quantize, attn, offline, no_fit_check)
    image = ImageSampling(temperature, top_p, top_k, guidance, negative_prompt=negative_prompt, ratio=ratio)
    options.check_number(n)
    if prompts.count("-") > 1:
        raise UsageError("two prompts are -", "stdin holds one")
    words = [run.read_prompt(prompt, "draw from a picture with mmgen vary") for prompt in prompts]
    names.check_stdout(output, len(words) * n, as_json)
    used_seed = fresh_seed() if seed is None else seed
    items = [Item(tasks.draw(prompt, image=image, seed=used_seed + i), prompt) for prompt in words for i in range(n)]
    paths = names.image_paths(output, [(item.prompt, item.request.seed) for item in items])
    if output != "-":
        run.check_outputs(paths, force)
    requests = [item.request for item in items]
    opened = run.open_model(model, loading, PICTURES, requests, notes)
    if seed is None:
        notes.say(f"seed: {used_seed}")

    job = Job("draw", opened.name, opened.revision, items, as_json)
    sink = PictureFiles(job, notes, paths, with_metadata=not no_metadata)
    run.feed(opened, requests, sink)
    run.finish(sink)

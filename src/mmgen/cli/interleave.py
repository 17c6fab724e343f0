"""`mmgen interleave`: words and pictures together."""

from __future__ import annotations

from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.output import Item, Job, Story
from mmgen.request import BOTH, ImageSampling, Loading, TextSampling, fresh_seed

EXAMPLES = """\b
Examples:
  $ mmgen interleave "Can you draw a snowman and explain how to build one?" -o story
  $ mmgen interleave "Tell a story about a red cat" --seed 7 --image-temperature 0.6 -o tale
"""


def interleave(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", show_default=False, help="What to tell; - reads it from stdin.")
    ],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder for index.md and the pictures; it is made."),
    ] = None,
    images: options.Images = None,
    force: options.Force = False,
    no_metadata: options.NoMetadata = False,
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
    quiet: options.Quiet = False,
) -> None:
    """Answer in words and pictures together.

    Prints Markdown, and writes it with its pictures into a folder.
    """
    from mmgen.cli import run
    from mmgen.images import open_image
    from mmgen.streams import Notes

    notes = Notes(quiet)
    loading = options.loading(revision, dtype, device_map, quantize, attn, offline, no_fit_check)
    text = TextSampling(temperature, top_p, top_k, repetition_penalty, max_tokens)
    image = ImageSampling(image_temperature, top_p, top_k, guidance, image_guidance)
    words = run.read_prompt(prompt, "give pictures with --image")
    folder = run.check_folder(output, force)
    used_seed = fresh_seed() if seed is None else seed
    given = tuple(images or ())
    pictures = [open_image(source) for source in given]
    request = tasks.interleave(words, pictures, text=text, image=image, seed=used_seed)
    opened = run.open_model(model, loading, BOTH, [request], notes)
    if seed is None:
        notes.say(f"seed: {used_seed}")

    job = Job("interleave", opened.name, opened.revision, [Item(request, words, images=given)], as_json)
    with Story(job, notes, folder, with_metadata=not no_metadata) as sink:
        run.feed(opened, [request], sink)
    run.finish(sink)

"""`mmgen ask`: ask about pictures, or without any."""

from __future__ import annotations

from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.errors import UsageError
from mmgen.output import Answer, Answers, Item, Job
from mmgen.request import WORDS, Loading, TextSampling, fresh_seed

EXAMPLES = """\b
Examples:
  $ mmgen ask --image photo.jpg "what color is it?"
  $ mmgen ask --image a.png --image b.png "first: <image> second: <image> what do they have in common?"
"""


def ask(
    question: Annotated[
        str | None,
        typer.Argument(metavar="QUESTION", show_default=False, help="What to ask; - reads it from stdin."),
    ] = None,
    images: options.Images = None,
    complete: Annotated[
        bool, typer.Option("--complete", envvar="MMGEN_COMPLETE", help="Continue the text instead of answering it.")
    ] = False,
    as_json: options.AsJson = False,
    seed: options.Seed = None,
    max_tokens: options.MaxTokens = TextSampling.max_tokens,
    temperature: options.Temperature = TextSampling.temperature,
    top_p: options.TopP = TextSampling.top_p,
    top_k: options.TopK = TextSampling.top_k,
    repetition_penalty: options.RepetitionPenalty = TextSampling.repetition_penalty,
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
    """Ask about pictures, or without any.

    Pictures stand before the question, or where it says <image>.
    """
    from mmgen.cli import run
    from mmgen.images import open_image
    from mmgen.streams import Notes

    notes = Notes(quiet)
    loading = options.loading(revision, dtype, device_map, quantize, attn, offline, no_fit_check)
    text = TextSampling(temperature, top_p, top_k, repetition_penalty, max_tokens)
    given = tuple(images or ())
    if question is None and not given:
        raise UsageError("nothing to ask", 'give a question, as in mmgen ask "what is a snowman?", or an --image')
    words = tasks.ASK if question is None else run.read_prompt(question, "give pictures with --image")
    used_seed = fresh_seed() if seed is None else seed
    pictures = [open_image(image) for image in given]
    request = tasks.ask(words, pictures, text=text, seed=used_seed, complete=complete)
    opened = run.open_model(model, loading, WORDS, [request], notes)
    if seed is None and temperature > 0:
        notes.say(f"seed: {used_seed}")

    job = Job("ask", opened.name, opened.revision, [Item(request, words, images=given)], as_json)
    sink = Answers(job, notes) if as_json else Answer(job, notes)
    run.feed(opened, [request], sink)
    run.finish(sink)

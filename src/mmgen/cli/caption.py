"""`mmgen caption`: describe pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.errors import MmgenError
from mmgen.output import Answer, Answers, Item, Job
from mmgen.request import WORDS, Loading, Request, TextSampling, fresh_seed

GROUP = 8  # pictures that are open at a time

EXAMPLES = """\b
Examples:
  $ mmgen caption photo.jpg
  $ mmgen caption photo.jpg drawing.png --json
"""


def caption(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", show_default=False, help="Pictures: files or http(s) addresses.")
    ],
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
    """Describe pictures.

    Prints the caption of one picture, or of several a line each: path, tab, caption.
    """
    from mmgen.cli import run
    from mmgen.images import check_file, is_url
    from mmgen.streams import Notes

    notes = Notes(quiet)
    loading = options.loading(revision, dtype, device_map, quantize, attn, offline, no_fit_check)
    text = TextSampling(temperature, top_p, top_k, repetition_penalty, max_tokens)
    for image in images:
        if not is_url(image):
            check_file(image)
    used_seed = tasks.check_seed(fresh_seed() if seed is None else seed)
    groups = _groups(images, text, used_seed)
    first = next(groups)
    if len(images) == 1 and isinstance(first[0], MmgenError):
        raise first[0]
    requests = [request for request in first.values() if isinstance(request, Request)]
    opened = run.open_model(model, loading, WORDS, requests, notes)
    if seed is None and temperature > 0:
        notes.say(f"seed: {used_seed}")

    shape = Request(parts=(tasks.CAPTION,), want=WORDS, text=text, seed=used_seed)
    items = [Item(shape, tasks.CAPTION, image=image) for image in images]
    job = Job("caption", opened.name, opened.revision, items, as_json)
    sink = Answer(job, notes) if len(images) == 1 and not as_json else Answers(job, notes)
    for group in chain([first], groups):
        for index, error in group.items():
            if isinstance(error, MmgenError):
                sink.take(index, error)
        good = {index: request for index, request in group.items() if isinstance(request, Request)}
        run.feed(opened, list(good.values()), sink, good)
    run.finish(sink)


def _groups(images: Sequence[str], text: TextSampling, seed: int) -> Iterator[dict[int, Request | MmgenError]]:
    """Open the pictures, a few at a time: by index, what to ask, or why it cannot be asked."""
    from mmgen.images import open_image

    for start in range(0, len(images), GROUP):
        group: dict[int, Request | MmgenError] = {}
        for index, image in enumerate(images[start : start + GROUP], start):
            try:
                group[index] = tasks.caption(open_image(image), text=text, seed=seed)
            except MmgenError as error:
                group[index] = error
        yield group

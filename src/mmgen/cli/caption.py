"""`mmgen caption`: describe pictures."""

from __future__ import annotations

from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.request import WORDS, Loading, Request, TextSampling

EXAMPLES = """\b
Examples:
  $ mmgen caption photo.jpg
  $ mmgen caption . --include '*.jpg'
"""


def caption(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE", show_default=False, help="Pictures: files, folders, patterns or http(s) addresses."
        ),
    ] = None,
    recursive: options.Recursive = False,
    include: options.Include = None,
    exclude: options.Exclude = None,
    files_from: options.FilesFrom = None,
    null: options.Null = False,
    jsonl: options.Jsonl = None,
    sidecar: options.Sidecar = False,
    outdir: options.OutDir = None,
    ext: options.Ext = ".txt",
    prefix: options.Prefix = "",
    suffix: options.Suffix = "",
    existing: options.Existing = "skip",
    html: options.Html = None,
    plan: options.Plan = False,
    fail_fast: options.FailFast = False,
    limit: options.Limit = None,
    shard: options.Shard = None,
    batch_size: options.BatchSize = None,
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

    Prints the caption of one picture, or of several a line each: path, tab, caption. With --jsonl or --sidecar they
    go there instead, and the same command again does only what is missing or failed.
    """
    from mmgen.cli import pictures, run
    from mmgen.streams import Notes

    many = options.many(jsonl, html, plan, fail_fast, limit, shard, batch_size)
    texts = options.Texts(sidecar, outdir, ext, prefix, suffix, existing)
    loading = options.loading(revision, dtype, device_map, quantize, attn, offline, no_fit_check)
    text = TextSampling(temperature, top_p, top_k, repetition_penalty, max_tokens)
    look = run.find_pictures(images or [], files_from, null, recursive, include, exclude)
    options.check_seeds(seed)
    command = run.Command("caption", model, loading, WORDS, seed, temperature > 0, as_json, many, Notes(quiet))
    shape = Request(parts=(), want=WORDS, text=text)
    is_one = run.is_one(images or [], files_from)
    n_items = 1 if is_one else run.count(look, files_from)
    pictures.ask_of_each(command, shape, tasks.CAPTION, look, texts, is_one=is_one, n_items=n_items)

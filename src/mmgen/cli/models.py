"""`mmgen models`: what can be loaded, what it can do, and what fits here."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmgen.checkpoints.aliases import ALIASES, Alias, gigabytes
from mmgen.cli import options
from mmgen.request import BOTH, PICTURES, WORDS, Loading

if TYPE_CHECKING:
    from mmgen.checkpoints.catalog import Checkpoint

EXAMPLES = """\b
Examples:
  $ mmgen models
  $ mmgen models llama-3.2-11b-vision
"""


_UNBOUNDED = 10_000  # columns

Told = dict[str, Any]  # what --json prints of a model


@options.grouped
def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            show_default=False,
            help="An alias, a folder or a Hub id.",
            autocompletion=options.complete_model,
        ),
    ] = None,
    pull: Annotated[
        bool, typer.Option("--pull", help="Fetch its weights now, to be used without a network later.")
    ] = False,
    *,
    loading: Annotated[Loading, options.only("revision", "device_map", "offline")],
    job: Annotated[options.JobOptions, options.only("as_json")],
) -> None:
    """List the models that have a short name, or say what one model can do, what it takes, and what fits here.

    Without --pull no weights are fetched: of those on the Hub only the headers are read.
    """
    from mmgen.checkpoints import catalog
    from mmgen.errors import UsageError
    from mmgen.outputs.terminal import emit

    if pull and name is None:
        raise UsageError("--pull fetches one model", "name it, as in mmgen models qwen3-vl-2b --pull")
    if name is None:
        told = [_tell(each, alias, catalog.is_here(each)) for each, alias in ALIASES.items()]
        rows = [
            (name, " ".join(each["can"]), gigabytes(each["n_bytes"]), "yes" if each["here"] else "no", _licence(each))
            for name, each in zip(ALIASES, told, strict=True)
        ]
        lines = _columns([("NAME", "CAN", "WEIGHTS", "HERE", "LICENCE"), *rows])
    else:
        found = catalog.find(name, revision=loading.revision, offline=loading.offline)
        found = catalog.fetch(found) if pull else found
        told, lines = _describe(found, Loading(device_map=loading.device_map))
    if job.as_json:
        lines = [json.dumps(each, ensure_ascii=False) for each in told]
    emit("\n".join(lines) + "\n")


def _tell(name: str, alias: Alias, is_here: bool) -> Told:
    """Tell what is known of a model beforehand, as --json does."""
    repo = alias.target if isinstance(alias.target, str) else None
    about = {"command": "models", "model": {"name": name, "revision": None}, "repo": repo, "can": alias.does}
    return about | {"n_bytes": alias.n_bytes, "licence": alias.licence, "gated": alias.gated, "here": is_here}


def _licence(told: Told) -> str:
    return f"{told['licence']}, gated" if told["gated"] else told["licence"] or ""


def _describe(found: Checkpoint, loading: Loading) -> tuple[list[Told], list[str]]:
    """Tell of a checkpoint and the ways to load it, as --json does and for people."""
    from mmgen import families
    from mmgen.checkpoints import fit
    from mmgen.families.standing import standing

    # 1) The model
    name, tensors, able, here = found.name, found.tensors.values(), families.abilities(found), fit.look()
    draws = "image" in able.gives
    n_values = sum(tensor.parameter_count for tensor in tensors)
    count = f"{n_values / 1e9:.2f} billion" if n_values >= 1e9 else f"{n_values / 1e6:.1f} million"
    types = ", ".join(sorted({tensor.dtype for tensor in tensors}))
    per_token, per_look = (count(found, "bfloat16") for count in (fit.cache_per_token, fit.cache_per_look))
    n_tokens = families.picture_tokens(found)
    told = _tell(name, ALIASES.get(name) or Alias("", able.tasks, 0, None, None), not found.missing) | {
        "model": {"name": name, "revision": found.revision},
        "repo": found.repo,
        "type": found.model_type,
        "standing": standing(found.model_type),
        "gives": sorted(able.gives, reverse=True),
        "n_parameters": n_values,
        "n_bytes": found.n_bytes,
        "cache_per_token": per_token,
        "cache_per_picture": n_tokens * per_token or None,
        "cache_per_look": per_look or None,
        "free": {"memory": here.free, "gpus": [gpu.free for gpu in here.gpus]},
    }
    cache = {
        "1000 tokens": 1000 * per_token,
        f"a picture that is drawn ({n_tokens} tokens) and each guidance row of it": n_tokens * per_token,
        "a picture that is looked at": per_look,
    }
    gpus = [f"{gigabytes(gpu.free)} of {gigabytes(gpu.total)} on {gpu.name}" for gpu in here.gpus] or ["no GPU"]
    lines = {
        "model": name + f" ({found.repo})" * (found.repo not in (None, name)),
        "revision": found.revision,
        "type": found.model_type,
        "standing": told["standing"],
        "gives": "words, pictures" if draws else "words",
        "can": ", ".join(told["can"]),
        "licence": _licence(told),
        "note": found.note,
        "weights": f"{count} numbers, {gigabytes(found.n_bytes)} as {types}",
        "here": f"no: {gigabytes(found.missing_bytes)} to fetch" if found.missing else "yes",
        "cache": "; ".join(f"{gigabytes(size)} for {what} (bfloat16)" for what, size in cache.items() if size),
        "free": ", ".join([f"{gigabytes(here.free)} of {gigabytes(here.total)} of memory", *gpus]),
    }

    # 2) The ways to load it, each with a picture if it draws, else an answer; and with an interleaved reply
    mixes = draws and able.mixes
    usual, mixed = (
        fit.plans(found, loading, here, families.reply(found, want)) for want in (PICTURES if draws else WORDS, BOTH)
    )
    told["ways"] = [
        asdict(way) | {"interleave": {"n_bytes": longest.n_bytes, "fits": longest.fits} if mixes else None}
        for way, longest in zip(usual, mixed, strict=True)
    ]
    about = _columns([(f"{key}:", value) for key, value in lines.items() if value])
    return [told], [*about, "", *_table(told["ways"]), "", _advice(told)]


def _table(ways: Sequence[Told]) -> list[str]:
    mixes = bool(ways[0]["interleave"])
    rows = [["TO LOAD IT WITH", "WEIGHTS", "IN ALL", *["TO INTERLEAVE"] * mixes, "FITS HERE"]]
    for way in ways:
        mixed = way["interleave"] or way
        fits = "no" if not way["fits"] else "yes" if mixed["fits"] else "not to interleave"
        sizes = map(gigabytes, [way["weights"], way["n_bytes"], *[mixed["n_bytes"]] * mixes])
        rows.append([way["flags"] + " (default)" * way["default"], *sizes, fits])
    return _columns(rows)


def _advice(told: Told) -> str:
    fitting = sorted((way for way in told["ways"] if way["fits"]), key=lambda way: not way["default"])
    if not fitting:
        return "nothing of this fits here"
    flags = "" if fitting[0]["default"] else f" {fitting[0]['flags']}"
    given = f"{told['can'][0]} photo.jpg".replace("draw photo.jpg", 'draw "a snowman"')
    return f"try: mmgen {given} -m {shlex.quote(told['model']['name'])}{flags}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out rows in columns: as wide as a terminal, or as they need."""
    from rich.console import Console
    from rich.table import Column, Table

    columns = [Column(overflow="fold", no_wrap=number == 0) for number in range(len(rows[0]))]  # names stay whole
    table = Table.grid(*columns, padding=(0, 2))
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else _UNBOUNDED
    console = Console(width=width, color_system=None, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]

"""`mmgen models`: what can be loaded, what it can do, and what fits here."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from mmgen.checkpoints.aliases import ALIASES
from mmgen.cli import options
from mmgen.request import BOTH, PICTURES, WORDS, Kind, Loading

if TYPE_CHECKING:
    from mmgen.checkpoints.catalog import Checkpoint
    from mmgen.checkpoints.fit import Plan
    from mmgen.checkpoints.machine import Machine

EXAMPLES = """\b
Examples:
  $ mmgen models
  $ mmgen models llama-3.2-11b-vision
"""


_UNBOUNDED = 10_000  # columns

Told: TypeAlias = Mapping[str, Any]  # what --json prints of a model; the text is made from it


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
    *,
    loading: Annotated[Loading, options.only("revision", "device_map", "offline")],
    job: Annotated[options.JobOptions, options.only("as_json")],
) -> None:
    """List the models that have a short name, or say what one model can do, what it takes, and what fits here.

    Weights are not fetched: of those on the Hub only the headers are read.
    """
    from mmgen.checkpoints import catalog, machine
    from mmgen.outputs.terminal import emit

    if name is None:
        told = [_tell_alias(each, catalog.is_here(each)) for each in ALIASES]
        text = partial(_list, told)
    else:
        checkpoint = catalog.find(name, revision=loading.revision, offline=loading.offline)
        here = machine.look()
        told = [_tell(checkpoint, Loading(device_map=loading.device_map), here)]
        text = partial(_describe, told[0], checkpoint, here)
    lines = [json.dumps(each, ensure_ascii=False) for each in told] if job.as_json else text()
    emit("\n".join(lines) + "\n")


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out rows in columns: as wide as a terminal, or as they need."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for number in range(len(rows[0])):
        table.add_column(overflow="fold", no_wrap=number == 0)  # a name stays whole, to be copied
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(file=StringIO(), color_system=None, width=None if sys.stdout.isatty() else _UNBOUNDED)
    return ["".join(segment.text for segment in line).rstrip() for line in console.render_lines(table)]


def _licence(told: Told) -> str:
    return f"{told['licence']}, gated" if told["gated"] else told["licence"] or ""


# --- all ----------------------------------------------------------------------------------------------------------


def _tell_alias(name: str, is_here: bool) -> Told:
    alias = ALIASES[name]
    return {
        "command": "models",
        "model": {"name": name, "revision": None},
        "repo": alias.target if isinstance(alias.target, str) else None,
        "can": alias.does,
        "n_bytes": alias.n_bytes,
        "licence": alias.licence,
        "gated": alias.gated,
        "here": is_here,
    }


def _list(told: Sequence[Told]) -> list[str]:
    from mmgen.checkpoints.fit import gigabytes

    rows = [["NAME", "CAN", "WEIGHTS", "HERE", "LICENCE"]]
    for each in told:
        size, here = gigabytes(each["n_bytes"]), "yes" if each["here"] else "no"
        rows.append([each["model"]["name"], " ".join(each["can"]), size, here, _licence(each)])
    return _columns(rows)


# --- one ----------------------------------------------------------------------------------------------------------


def _tell(checkpoint: Checkpoint, loading: Loading, machine: Machine) -> Told:
    """Tell of a checkpoint and the ways to load it, each beside what a picture takes where it draws, else an answer."""
    from mmgen import families
    from mmgen.checkpoints import fit

    def plans(want: frozenset[Kind]) -> list[Plan]:
        return fit.plans(checkpoint, loading, machine, families.reply(checkpoint, want))

    alias, able = ALIASES.get(checkpoint.name), families.abilities(checkpoint)
    draws = "image" in able.gives
    usual = plans(PICTURES if draws else WORDS)
    mixed = plans(BOTH) if draws and able.mixes else [None] * len(usual)  # an interleaved reply of full length
    per_token = fit.cache_per_token(checkpoint, "bfloat16")
    return {
        "command": "models",
        "model": {"name": checkpoint.name, "revision": checkpoint.revision},
        "repo": checkpoint.repo,
        "type": checkpoint.model_type,
        "gives": sorted(able.gives, reverse=True),
        "can": alias.does if alias else able.tasks,
        "licence": alias.licence if alias else None,
        "gated": alias.gated if alias else None,
        "here": not checkpoint.missing,
        "n_parameters": sum(tensor.parameter_count for tensor in checkpoint.tensors.values()),
        "n_bytes": checkpoint.n_bytes,
        "ways": [
            {
                "flags": plan.flags,
                "default": plan.is_default,
                "weights": plan.weights,
                "n_bytes": plan.n_bytes,
                "fits": plan.fits,
                "interleave": {"n_bytes": longest.n_bytes, "fits": longest.fits} if longest else None,
            }
            for plan, longest in zip(usual, mixed, strict=True)
        ],
        "cache_per_token": per_token,
        "cache_per_picture": families.picture_tokens(checkpoint) * per_token or None,
        "cache_per_look": fit.cache_per_look(checkpoint, "bfloat16") or None,
        "free": {"memory": machine.free, "gpus": [gpu.free for gpu in machine.gpus]},
    }


def _describe(told: Told, checkpoint: Checkpoint, machine: Machine) -> list[str]:
    from mmgen.checkpoints.fit import gigabytes

    n = told["n_parameters"]
    count = f"{n / 1e9:.2f} billion" if n >= 1e9 else f"{n / 1e6:.1f} million"
    stored = ", ".join(sorted({tensor.dtype for tensor in checkpoint.tensors.values()}))
    where = "" if checkpoint.repo in (None, checkpoint.name) else f" ({checkpoint.repo})"
    gpus = [f"{gigabytes(gpu.free)} of {gigabytes(gpu.total)} on {gpu.name}" for gpu in machine.gpus] or ["no GPU"]
    lines = [
        ("model", checkpoint.name + where),
        ("revision", checkpoint.revision or ""),
        ("type", checkpoint.model_type),
        ("gives", "words, pictures" if "image" in told["gives"] else "words"),
        ("can", ", ".join(told["can"])),
        ("licence", _licence(told)),
        ("note", checkpoint.note or ""),
        ("weights", f"{count} numbers, {gigabytes(checkpoint.n_bytes)} as {stored}"),
        ("here", f"no: {gigabytes(checkpoint.missing_bytes)} to fetch" if checkpoint.missing else "yes"),
        ("cache", _cache(told)),
        ("free", ", ".join([f"{gigabytes(machine.free)} of {gigabytes(machine.total)} of memory", *gpus])),
    ]
    return [*_columns([(f"{key}:", value) for key, value in lines if value]), "", *_table(told), "", _advice(told)]


def _cache(told: Told) -> str:
    from mmgen.checkpoints.fit import gigabytes

    per_token, per_picture, per_look = (told[f"cache_per_{each}"] for each in ("token", "picture", "look"))
    said = [f"{gigabytes(1000 * per_token)} for 1000 tokens"]
    if per_picture:
        n = per_picture // per_token
        said.append(f"{gigabytes(per_picture)} for a picture that is drawn ({n} tokens) and each guidance row of it")
    if per_look:
        said.append(f"{gigabytes(per_look)} for a picture that is looked at")
    return "; ".join(said) + " (bfloat16)"


def _table(told: Told) -> list[str]:
    from mmgen.checkpoints.fit import gigabytes

    mixes = any(way["interleave"] for way in told["ways"])
    rows = [["TO LOAD IT WITH", "WEIGHTS", "IN ALL", *(["TO INTERLEAVE"] if mixes else []), "FITS HERE"]]
    for way in told["ways"]:
        mixed = way["interleave"]
        fits = "no" if not way["fits"] else "yes" if mixed is None or mixed["fits"] else "not to interleave"
        sizes = [way["weights"], way["n_bytes"], *([mixed["n_bytes"]] if mixed else [])]
        rows.append([way["flags"] + (" (default)" if way["default"] else ""), *map(gigabytes, sizes), fits])
    return _columns(rows)


def _advice(told: Told) -> str:
    fitting = [way for way in told["ways"] if way["fits"]]
    if not fitting:
        return "nothing of this fits here"
    best = next((way for way in fitting if way["default"]), fitting[0])
    flags = "" if best["default"] else f" {best['flags']}"
    command = told["can"][0]
    given = 'draw "a snowman"' if command == "draw" else f"{command} photo.jpg"
    return f"try: mmgen {given} -m {shlex.quote(told['model']['name'])}{flags}"

"""`mmgen models`: what can be loaded, what it can do, and what fits here."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Annotated

import typer

from mmgen.cli import options
from mmgen.request import BOTH, PICTURES, WORDS, Kind, Loading

if TYPE_CHECKING:
    from mmgen.catalog import Checkpoint
    from mmgen.fit import Plan
    from mmgen.machine import Machine
    from mmgen.model import Abilities

EXAMPLES = """\b
Examples:
  $ mmgen models
  $ mmgen models llama-3.2-11b-vision
"""


_UNBOUNDED = 10_000  # columns


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
    from mmgen.streams import emit

    if name is None:
        emit(_list(job.as_json))
        return
    from mmgen import catalog, machine

    checkpoint = catalog.find(name, revision=loading.revision, offline=loading.offline)
    emit(_report(checkpoint, Loading(device_map=loading.device_map), machine.look(), job.as_json))


# --- all ----------------------------------------------------------------------------------------------------------


def _list(as_json: bool) -> str:
    from mmgen import catalog
    from mmgen.aliases import ALIASES
    from mmgen.fit import gigabytes

    lines, rows = [], [("NAME", "CAN", "WEIGHTS", "HERE", "LICENCE")]
    for name, alias in ALIASES.items():
        here = catalog.is_here(name)
        entry = {
            "command": "models",
            "model": {"name": name, "revision": None},
            "repo": alias.target if isinstance(alias.target, str) else None,
            "can": alias.does,
            "n_bytes": alias.n_bytes,
            "licence": alias.licence,
            "gated": alias.gated,
            "here": here,
        }
        lines.append(json.dumps(entry, ensure_ascii=False))
        licence = f"{alias.licence}, gated" if alias.gated else alias.licence
        rows.append((name, " ".join(alias.does), gigabytes(alias.n_bytes), "yes" if here else "no", licence))
    return "\n".join(lines if as_json else _columns(rows)) + "\n"


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


# --- one ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Way:
    """One way of loading a checkpoint, weighed for what it may be asked.

    Attributes:
        usual: with what one picture takes where it draws, else one answer.
        mixed: with what an interleaved reply of full length takes; None if it makes none.
    """

    usual: Plan
    mixed: Plan | None


def _report(checkpoint: Checkpoint, loading: Loading, machine: Machine, as_json: bool) -> str:
    from mmgen import families, fit

    able, n_codes = families.abilities(checkpoint), families.picture_tokens(checkpoint)

    def plans(want: frozenset[Kind]) -> list[Plan]:
        return fit.plans(checkpoint, loading, machine, families.reply(checkpoint, want))

    draws = "image" in able.gives
    usual = plans(PICTURES if draws else WORDS)
    mixed = plans(BOTH) if draws and able.mixes else [None] * len(usual)
    ways = [_Way(*pair) for pair in zip(usual, mixed, strict=True)]
    return (_as_json if as_json else _as_text)(checkpoint, ways, machine, able, n_codes)


def _can(checkpoint: Checkpoint, able: Abilities) -> list[str]:
    """List the commands a model is good for."""
    from mmgen.aliases import ALIASES

    if checkpoint.name in ALIASES:
        return list(ALIASES[checkpoint.name].does)
    return able.tasks


def _as_json(checkpoint: Checkpoint, ways: Sequence[_Way], machine: Machine, able: Abilities, n_codes: int) -> str:
    from mmgen import fit
    from mmgen.aliases import ALIASES

    alias = ALIASES.get(checkpoint.name)
    per_token = fit.cache_per_token(checkpoint, "bfloat16")
    entry = {
        "command": "models",
        "model": {"name": checkpoint.name, "revision": checkpoint.revision},
        "repo": checkpoint.repo,
        "type": checkpoint.model_type,
        "gives": sorted(able.gives, reverse=True),
        "can": _can(checkpoint, able),
        "licence": alias.licence if alias else None,
        "gated": alias.gated if alias else None,
        "here": not checkpoint.missing,
        "n_parameters": sum(tensor.parameter_count for tensor in checkpoint.tensors.values()),
        "n_bytes": checkpoint.n_bytes,
        "ways": [
            {
                "flags": way.usual.flags,
                "default": way.usual.is_default,
                "weights": way.usual.weights,
                "n_bytes": way.usual.n_bytes,
                "fits": way.usual.fits,
                "interleave": {"n_bytes": way.mixed.n_bytes, "fits": way.mixed.fits} if way.mixed else None,
            }
            for way in ways
        ],
        "cache_per_token": per_token,
        "cache_per_picture": n_codes * per_token or None,
        "cache_per_look": fit.cache_per_look(checkpoint, "bfloat16") or None,
        "free": {"memory": machine.free, "gpus": [gpu.free for gpu in machine.gpus]},
    }
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _as_text(checkpoint: Checkpoint, ways: Sequence[_Way], machine: Machine, able: Abilities, n_codes: int) -> str:
    from mmgen import fit
    from mmgen.aliases import ALIASES

    alias, size = ALIASES.get(checkpoint.name), fit.gigabytes(checkpoint.n_bytes)
    n_parameters = sum(tensor.parameter_count for tensor in checkpoint.tensors.values())
    count = f"{n_parameters / 1e9:.2f} billion" if n_parameters >= 1e9 else f"{n_parameters / 1e6:.1f} million"
    stored = ", ".join(sorted({tensor.dtype for tensor in checkpoint.tensors.values()}))
    where = "" if checkpoint.repo in (None, checkpoint.name) else f" ({checkpoint.repo})"
    lines = [
        ("model", checkpoint.name + where),
        ("revision", checkpoint.revision or ""),
        ("type", checkpoint.model_type),
        ("gives", "words, pictures" if "image" in able.gives else "words"),
        ("can", ", ".join(_can(checkpoint, able))),
        ("licence", alias.licence + (", gated" if alias.gated else "") if alias else ""),
        ("note", checkpoint.note or ""),
        ("weights", f"{count} numbers, {size} as {stored}"),
        ("here", f"no: {fit.gigabytes(checkpoint.missing_bytes)} to fetch" if checkpoint.missing else "yes"),
        ("cache", _cache(checkpoint, n_codes)),
        ("free", _free(machine)),
    ]
    told = _columns([(f"{key}:", value) for key, value in lines if value])
    return "\n".join([*told, "", *_table(ways, checkpoint.name, _can(checkpoint, able)[0])]) + "\n"


def _cache(checkpoint: Checkpoint, n_codes: int) -> str:
    from mmgen import fit

    per_token = fit.cache_per_token(checkpoint, "bfloat16")
    said = [f"{fit.gigabytes(1000 * per_token)} for 1000 tokens"]
    if n_codes:
        each = fit.gigabytes(n_codes * per_token)
        said.append(f"{each} for a picture that is drawn ({n_codes} tokens) and each guidance row of it")
    if per_look := fit.cache_per_look(checkpoint, "bfloat16"):
        said.append(f"{fit.gigabytes(per_look)} for a picture that is looked at")
    return "; ".join(said) + " (bfloat16)"


def _free(machine: Machine) -> str:
    from mmgen.fit import gigabytes

    gpus = [f"{gigabytes(gpu.free)} of {gigabytes(gpu.total)} on {gpu.name}" for gpu in machine.gpus]
    return ", ".join([f"{gigabytes(machine.free)} of {gigabytes(machine.total)} of memory", *(gpus or ["no GPU"])])


def _table(ways: Sequence[_Way], name: str, command: str) -> list[str]:
    from mmgen.fit import gigabytes

    column = ["TO INTERLEAVE"] if any(way.mixed for way in ways) else []
    rows = [["TO LOAD IT WITH", "WEIGHTS", "IN ALL", *column, "FITS HERE"]]
    for way in ways:
        flags = way.usual.flags + (" (default)" if way.usual.is_default else "")
        fits = "no" if not way.usual.fits else "yes" if way.mixed is None or way.mixed.fits else "not to interleave"
        sizes = [way.usual.weights, way.usual.n_bytes, *([way.mixed.n_bytes] if way.mixed else [])]
        rows.append([flags, *map(gigabytes, sizes), fits])
    fitting = [way.usual for way in ways if way.usual.fits]
    if not fitting:
        return [*_columns(rows), "", "nothing of this fits here"]
    best = next((way for way in fitting if way.is_default), fitting[0])
    flags = "" if best.is_default else f" {best.flags}"
    given = 'draw "a snowman"' if command == "draw" else f"{command} photo.jpg"
    return [*_columns(rows), "", f"try: mmgen {given} -m {shlex.quote(name)}{flags}"]

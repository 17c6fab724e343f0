"""Write what the code itself says: docs/commands.md, docs/python.md and the man page docs/mmgen.1.

python -m tools.reference
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import mmgen
from mmgen import api
from mmgen.request import ImageSampling, Loading, Picture, Progress, TextSampling, Turn

DOCS = Path(__file__).parents[1] / "docs"
COMMANDS = ("caption", "ask", "draw", "vary", "interleave", "chat", "info", "verify", "models", "export")


def shown(*words: str) -> str:
    """Give the help of mmgen, or of a command, 100 columns wide."""
    own = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MMGEN_")}
    done = subprocess.run(
        [sys.executable, "-m", "mmgen", *words, "--help"], env=plain | own, capture_output=True, text=True, check=True
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def commands() -> str:
    """Write the page of all commands."""
    parts = ["# Commands\n\nWhat `mmgen help COMMAND` says.\n", f"```text\n{shown()}\n```\n"]
    parts += [f"## {name}\n\n```text\n{shown(name)}\n```\n" for name in COMMANDS]
    return "\n".join(parts)


def man() -> str:
    """Write the man page (roff)."""

    def escaped(text: str) -> str:
        return "\n".join(
            f"\\&{line}" if line[:1] in (".", "'") else line for line in text.replace("\\", "\\e").split("\n")
        )

    parts = [
        (
            '.TH MMGEN 1 "" "mmgen"\n.SH NAME\nmmgen \\- read and draw pictures with local models\n'
            ".SH SYNOPSIS\n.B mmgen\nCOMMAND [OPTIONS] [WORDS]\n.SH DESCRIPTION\n.nf"
        ),
        escaped(shown()),
    ]
    for name in COMMANDS:
        parts += [f".fi\n.SH {name.upper()}\n.nf", escaped(shown(name))]
    return "\n".join([*parts, ".fi", ""])


def python() -> str:
    """Write the page of the Python API, from its docstrings."""
    parts = ["# Python\n\n```text\n" + (inspect.getdoc(api) or "") + "\n```\n"]
    for name in ("load", "caption", "ask", "draw", "vary", "interleave", "caption_all", "draw_all"):
        function = getattr(mmgen, name)
        signature = str(inspect.signature(function)).replace("'", "")
        parts.append(f"## mmgen.{name}\n\n```text\n{name}{signature}\n\n{inspect.getdoc(function)}\n```\n")
    for each in (Loading, TextSampling, ImageSampling, Picture, Progress, Turn):
        rows = [f"| `{field.name}` | {field.metadata.get('help') or field.type} |" for field in fields(each)]
        table = "\n".join(["| field | |", "|---|---|", *(row.replace(" | None |", " or None |") for row in rows)])
        about = (inspect.getdoc(each) or "").splitlines()[0]
        parts.append(f"## mmgen.{each.__name__}\n\n{about}\n\n{table}\n")
    return "\n".join(parts)


def main() -> None:
    """Write all three."""
    for name, text in (("commands.md", commands()), ("python.md", python()), ("mmgen.1", man())):
        (DOCS / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()

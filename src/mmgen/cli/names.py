"""What the files of a command are called."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mmgen.errors import UsageError

_LONGEST = 40  # letters of a prompt in a file's name


def image_paths(output: str | None, drawn: Sequence[tuple[str, int]]) -> list[str]:
    """Name a file for each picture: `-o` itself, numbered if there are several, or by prompt and seed.

    Args:
        output: the value of `-o`.
        drawn: prompt and seed of each picture.
    """
    if output is None:
        return _distinct([f"{slug(prompt)}-{seed}" for prompt, seed in drawn])
    if len(drawn) == 1:
        return [output]
    path = Path(output)
    return [str(path.with_name(f"{path.stem}-{i}{path.suffix}")) for i in range(1, len(drawn) + 1)]


def slug(prompt: str) -> str:
    """Make a prompt fit for a file's name: `A snowman!` is `a-snowman`."""
    words = re.sub(r"[\W_]+", "-", prompt.replace("<image>", " ").lower()).strip("-")
    if len(words) > _LONGEST:
        cut = words[: _LONGEST + 1]
        words = cut.rpartition("-")[0] or cut[:_LONGEST]
    return words or "picture"


def _distinct(stems: Sequence[str]) -> list[str]:
    """Add .png, and a number where two would be called the same."""
    paths: list[str] = []
    for stem in stems:
        path, number = f"{stem}.png", 1
        while path in paths:
            number += 1
            path = f"{stem}-{number}.png"
        paths.append(path)
    return paths


def free_path(stem: str) -> str:
    """Name a picture that does not exist yet: `stem.png`, or `stem-2.png`, …"""
    path, number = f"{stem}.png", 1
    while os.path.lexists(path):
        number += 1
        path = f"{stem}-{number}.png"
    return path


def check_stdout(output: str | None, n_pictures: int, as_json: bool) -> None:
    """Check, if pictures go to stdout, that one goes there, alone, and not onto a terminal."""
    if output != "-":
        return
    if n_pictures > 1:
        raise UsageError(f"{n_pictures} pictures do not go through one stdout", "give a file name with -o")
    if as_json:
        raise UsageError("-o - and --json both want stdout", "give a file name with -o")
    if sys.stdout.isatty():
        raise UsageError("a picture is no text for a terminal", "redirect stdout, or give a file name with -o")

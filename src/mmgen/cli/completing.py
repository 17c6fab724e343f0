"""Tab in a chat: commands, and paths after those that take one. Refuses to know terminals, and who asks for words."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

DELIMITERS = " /"  # a word ends at either, so that what is listed are names and not whole lines


def complete(line: str, names: Collection[str], take_paths: Collection[str]) -> list[str]:
    """Say what the last word of a line may become: a word is what follows the last of DELIMITERS.

    Args:
        line: up to the cursor.
        names: of commands, without their slash.
        take_paths: those of them after which paths are completed.
    """
    if not line.startswith("/"):
        return []
    name, space, path = line[1:].partition(" ")
    if not space:
        return [f"{each} " for each in sorted(names) if each.startswith(name)] if "/" not in name else []
    if name not in take_paths:
        return []
    folder, begun = os.path.split(path.lstrip())
    try:
        there = sorted(Path(folder or ".").expanduser().iterdir())
    except (OSError, RuntimeError):  # no such folder, or user
        return []
    shown = [each for each in there if begun.startswith(".") or not each.name.startswith(".")]
    found = [each.name + ("/" if each.is_dir() else " ") for each in shown if each.name.startswith(begun)]
    done = len(begun) - min(len(begun.rpartition(delimiter)[2]) for delimiter in DELIMITERS)
    return [each[done:] for each in found]  # a name may have spaces

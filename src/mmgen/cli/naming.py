"""What the files of a command are called."""

from __future__ import annotations

import os
import re
import string
import sys
from pathlib import Path

from mmgen.errors import MmgenError, UsageError

_LONGEST = 40  # letters of a prompt in a file's name
_FIELDS = ("stem", "slug", "seed", "index", "n")
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
JOURNAL = "mmgen.jsonl"  # of a folder of pictures


class Outputs:
    """Names a file for each of many results, from what `-o` says.

    `-o` is a file (numbered if there are several), a folder (one that exists, or ends in a slash), or a template with
    fields: stem (of the picture varied), slug (of the prompt), seed, index (of the prompt or picture), n (of its
    pictures), with a format if wanted: `out/{index:04d}-{slug}.png`.

    Args:
        output: the value of `-o`, or None: in the current folder.
        default: the template for a folder.

    Attributes:
        folder: what all files are under, if `-o` says a folder or a template.
    """

    def __init__(self, output: str | None, default: str, n_items: int | None) -> None:
        self.folder: Path | None = None
        self._issued: set[int] = set()
        if output is None:
            self._template = default
        elif "{" in output:
            self._template = output
            self.folder = Path(output.partition("{")[0] + "x").parent
        elif output.endswith("/") or Path(output).is_dir() or n_items is None:
            if not output.endswith("/") and Path(output).suffix.lower() in _ENDINGS:
                raise UsageError(f"-o {output} is one file, and there may be many", "end it in / to name a folder")
            self.folder = Path(output)
            self._template = f"{_escaped(str(self.folder))}/{default}"
        elif n_items == 1:
            self._template = _escaped(output)
        else:
            path = Path(output)
            self._template = f"{_escaped(str(path.with_suffix('')))}-{{n}}{_escaped(path.suffix)}"
        _check(self._template)

    def forget(self) -> None:
        """Begin again: what was named may be named again."""
        self._issued.clear()

    def path(
        self, own: str | None = None, *, prompt: str, seed: int, index: int, n: int, source: str = "", below: str = ""
    ) -> str:
        """Name the next file, unlike all before it.

        Args:
            own: what the item itself says: a name, in the folder if there is one.
            index, n: from 1.
            source: the picture varied.
            below: where that was found below a folder: mirrored, if there is a folder for results.
        """
        path = self._template.format(stem=_stem(source) or slug(prompt), slug=slug(prompt), seed=seed, index=index, n=n)
        if own is not None:
            path = str((self.folder or Path()) / own)
        elif self.folder is not None and below:
            inside = Path(path).relative_to(self.folder)
            path = str(self.folder / Path(below).parent / inside)
        stem, suffix = os.path.splitext(path)  # noqa: PTH122 -- a name of dots alone has a stem
        number = 1
        while (mark := hash(path)) in self._issued:
            number += 1
            path = f"{stem}-{number}{suffix}"
        self._issued.add(mark)
        return path

    def problem(self, own: str | None) -> MmgenError | None:
        """Say what is wrong with the name that a line gives its file."""
        if own is None:
            return None
        if self.folder is not None and (Path(own).is_absolute() or ".." in Path(own).parts):
            return UsageError(f"{own} leads out of {self.folder}", "name a file below it")
        return None

    def check_format(self) -> None:
        """Check that the files are pictures, by their ending."""
        from mmgen.outputs.pictures import format_of

        if self._template != "-":
            format_of(self._template)


def slug(prompt: str) -> str:
    """Make a prompt fit for a file's name: `A snowman!` is `a-snowman`."""
    words = re.sub(r"[\W_]+", "-", prompt.replace("<image>", " ").lower()).strip("-")
    if len(words) > _LONGEST:
        cut = words[: _LONGEST + 1]
        words = cut.rpartition("-")[0] or cut[:_LONGEST]
    return words or "picture"


def free_path(stem: str) -> str:
    """Name a picture that does not exist yet: `stem.png`, or `stem-2.png`, …"""
    path, number = f"{stem}.png", 1
    while os.path.lexists(path):
        number += 1
        path = f"{stem}-{number}.png"
    return path


def sidecar_path(source: str, below: str, folder: str | None, ending: str) -> str:
    """Name the text file of a picture: beside it, or under a folder as the picture is under its own."""
    path = Path(source) if folder is None else Path(folder) / below
    return str(path.with_suffix("." + ending.removeprefix(".")))


def check_stdout(output: str | None, n_pictures: int | None, as_json: bool) -> None:
    """Check, if pictures go to stdout, that one goes there, alone, and not onto a terminal."""
    if output != "-":
        return
    if n_pictures != 1:
        raise UsageError(f"{n_pictures or 'many'} pictures do not go through one stdout", "give a file name with -o")
    if as_json:
        raise UsageError("-o - and --json both want stdout", "give a file name with -o")
    if sys.stdout.isatty():
        raise UsageError("a picture is no text for a terminal", "redirect stdout, or give a file name with -o")


def _stem(source: str) -> str:
    return Path(source.partition("?")[0]).stem if source else ""


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _check(template: str) -> None:
    """Check a template's fields and their formats by filling it in."""
    try:
        for _, name, _, _ in string.Formatter().parse(template):
            if name is not None and name not in _FIELDS:
                raise UsageError(f"-o has an unknown field: {{{name}}}", f"fields are {', '.join(_FIELDS)}")
        template.format(stem="a", slug="a", seed=1, index=1, n=1)
    except (ValueError, IndexError, KeyError) as failure:
        raise UsageError(f"-o {template} cannot be filled in: {failure}", "as in 'out/{index:04d}-{slug}.png'") from (
            failure
        )

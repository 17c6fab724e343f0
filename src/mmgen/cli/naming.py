"""Names for the files that a command writes, and whether they may be written: checked before a model loads."""

from __future__ import annotations

import os
import re
import string
import sys
from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path

from mmgen.errors import UsageError
from mmgen.files import check_writable
from mmgen.inputs.selection import PICTURE_ENDINGS
from mmgen.outputs.records import Item

_LONGEST = 40  # letters of a prompt in a file's name
_FIELDS = ("stem", "slug", "seed", "index", "n")
_DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{name}{number}" for name in ("com", "lpt") for number in range(10)),
}  # Windows
JOURNAL = "mmgen.jsonl"  # of a folder of pictures
_PAGE = b'<meta name="generator" content="mmgen">'  # in pages of ours


class Outputs:
    """Names a file for each of many results, from what `-o` says.

    `-o` is a file (numbered if there are several), a folder (one that exists, or ends in a slash), or a template with
    fields: stem (of the picture varied), slug (of the prompt), seed, index (of the prompt or picture), n (of its
    pictures), with a format if wanted: `out/{index:04d}-{slug}.png`.

    Args:
        output: the value of `-o`, or None: in the current folder.
        default: the template for a folder.

    Attributes:
        folder: above all files, if `-o` says a folder or a template.
        is_folder: it says a folder.
    """

    def __init__(self, output: str | None, default: str, n_items: int | None) -> None:
        self.folder: Path | None = None
        self.is_folder = False
        self._template = default
        self._issued: set[int] = set()  # hashes of paths
        if output is None:
            return
        literal = Path(output.replace("}", "}}"))
        if "{" in output:
            self._template = output
            self.folder = Path(output.partition("{")[0] + "x").parent
        elif output.endswith("/") or Path(output).is_dir() or n_items is None:
            if output.lower().endswith(PICTURE_ENDINGS):
                raise UsageError(f"-o {output} is one file, and there may be many", "end it in / to name a folder")
            self.folder, self.is_folder = Path(output), True
            self._template = f"{literal}/{default}"
        elif n_items > 1:
            self._template = f"{literal.with_suffix('')}-{{n}}{literal.suffix}"
        else:
            self._template = output.replace("}", "}}")
        try:
            for _, name, _, _ in string.Formatter().parse(self._template):
                if name is not None and name not in _FIELDS:  # nor {seed.real}, {slug[0]}
                    raise UsageError(f"-o has an unknown field: {{{name}}}", f"fields are {', '.join(_FIELDS)}")
            self._template.format(stem="a", slug="a", seed=1, index=1, n=1)
        except (ValueError, IndexError, KeyError) as failure:
            hint = "as in 'out/{index:04d}-{slug}.png'"
            raise UsageError(f"-o {output} cannot be filled in: {failure}", hint) from failure

    def path(self, item: Item, index: int, below: str) -> str:
        """Name the next file, unlike all before it; what the item itself says is a name in the folder, if there is one.

        Args:
            index: which prompt or picture the item is of, from 1.
            below: where its picture was found below a folder: mirrored, if there is a folder for results.

        Raises:
            UsageError: the item's own name leads out of the folder.
        """
        words, own = slug(item.prompt), item.output
        stem = Path((item.image or "").partition("?")[0]).stem or words
        path = self._template.format(stem=stem, slug=words, seed=item.request.seed, index=index, n=item.number + 1)
        if own is not None:
            if self.folder is not None and (Path(own).is_absolute() or ".." in Path(own).parts):
                raise UsageError(f"{own} leads out of {self.folder}", "name a file below it")
            path = str((self.folder or Path()) / own)
        elif self.folder is not None and below:
            path = str(self.folder / Path(below).parent / Path(path).relative_to(self.folder))
        path = _first_free(path, lambda each: hash(each) in self._issued)
        self._issued.add(hash(path))
        return path

    def check_format(self) -> None:
        """Check that the files are pictures, by their ending."""
        from mmgen.outputs.pictures import format_of

        if self._template != "-":
            format_of(self._template)


def no_path(item: Item, index: int, below: str) -> None:
    """Name no file: the result goes elsewhere.

    Raises:
        UsageError: the item says which file.
    """
    if item.output is not None:
        raise UsageError("an answer goes into no output file", 'leave "output" out of the line')


def slug(prompt: str) -> str:
    """Make a prompt fit for a file's name: `A snowman!` is `a-snowman`."""
    words = re.sub(r"[\W_]+", "-", prompt.replace("<image>", " ").lower()).strip("-")
    if len(words) > _LONGEST:
        words = words[: _LONGEST + 1].rpartition("-")[0] or words[:_LONGEST]
    return f"{words}-" if words in _DEVICES else words or "picture"


def free_path(stem: str) -> str:
    """Name a picture that does not exist yet: `stem.png`, or `stem-2.png`, …"""
    return _first_free(f"{stem}.png", os.path.lexists)


def sidecar_path(source: str, below: str, folder: str | None, ending: str, *, whole: bool = False) -> str:
    """Name the text file of a picture: beside it, or under a folder as the picture is under its own.

    Args:
        whole: after the picture's whole name, as in `a.png.txt`, and not after its stem.
    """
    path, ending = Path(source) if folder is None else Path(folder) / below, "." + ending.removeprefix(".")
    return str(path.with_name(path.name + ending) if whole else path.with_suffix(ending))


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


def check_outputs(paths: Sequence[str], force: bool) -> None:
    """Check that picture files can be written and, unless forced, that none exists."""
    from mmgen.outputs.pictures import format_of

    for path in paths:
        format_of(path)
        check_output(Path(path), force)
    for folder in {Path(path).parent: None for path in paths}:
        check_writable(folder)


def check_output(path: Path, force: bool) -> None:
    """Check that a file may be written there: it is no folder and, unless forced, nothing that exists."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder", "name a file in it with -o")
    if not force and os.path.lexists(path):
        raise UsageError(f"{path} exists", "choose another name with -o, or overwrite it with -f")


def check_page(path: Path) -> None:
    """Check that a page can be written, and that what it replaces is one of ours."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{path} is not a name for a page", "end it in .html, as in --html report.html")
    if (path.exists() or path.is_symlink()) and not (path.is_file() and _PAGE in path.read_bytes()):
        raise UsageError(f"{path} exists, and is no page of mmgen's", "choose another name with --html")
    check_writable(path.parent)


def check_folder(output: str | None, force: bool) -> str:
    """Check that a folder can be made, or filled: an empty one or, if forced, any."""
    if output is None:
        raise UsageError("no folder for the story", "name one with -o, as in -o story")
    folder = Path(output)
    if not (folder.exists() or folder.is_symlink()):
        check_writable(folder.absolute().parent)
    elif not folder.is_dir():
        raise UsageError(f"{output} is not a folder", "choose another place with -o")
    elif not force and any(folder.iterdir()):
        raise UsageError(f"{output} is not empty", "choose another folder with -o, or overwrite what is in it with -f")
    else:
        check_writable(folder)
    return output


def _first_free(path: str, is_taken: Callable[[str], bool]) -> str:
    """Choose the first of `a.png`, `a-2.png`, `a-3.png`, … that is not taken."""
    stem, suffix = os.path.splitext(path)  # noqa: PTH122 -- a name of dots alone has a stem
    numbered = (f"{stem}-{number}{suffix}" for number in count(2))
    return next(each for each in chain([path], numbered) if not is_taken(each))

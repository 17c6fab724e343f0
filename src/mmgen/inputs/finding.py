"""Find the pictures that were named on the command line: files, folders, patterns, web addresses, and lists of them.

Looks at names only: opens no picture, and refuses to know what is done with one. Standard library only.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from mmgen.errors import MmgenError, explained, reason
from mmgen.inputs.selection import PICTURE_ENDINGS, Selection, counts, fits_any, left_out
from mmgen.inputs.shards import Member, is_shard, members
from mmgen.inputs.tables import Row, is_table, rows

_MAGIC = re.compile(r"[*?\[]")
_PIPE = re.compile(r"/dev/fd/\d+|/proc/self/fd/\d+|/dev/stdin")
MAX_BYTES = 100_000_000  # of a picture that is downloaded, or comes through a pipe
_PEEK = 1000  # folders that are looked into for a hint


@dataclass(frozen=True)
class Found:
    """A picture, as far as its name tells.

    Attributes:
        name: as given, or the folder as given / the path below it; results are called so.
        below: its path from the folder, or from where a pattern begins, else its file name. Never leads upwards.
        data: all of it, as a `data:` address, where its name leads to it only once, or is that address; or where else
            it is.
        beside: what belongs to a picture of an archive, by endings such as .txt; None: it lies in a folder.
        words: to ask with, where a table says so.
    """

    name: str
    below: str
    data: str = ""
    beside: Mapping[str, bytes] | None = None
    words: str | None = None

    @property
    def source(self) -> str:
        """Where the picture is."""
        return self.data or self.name


class NotFoundError(MmgenError):
    """A name that gives no picture.

    Args:
        name: as given, or the folder in which something went wrong.
    """

    def __init__(self, message: str, hint: str, name: str) -> None:
        super().__init__(message, hint)
        self.name = name


def find(
    names: Iterable[str], selection: Selection | None = None, read: Mapping[str, Found] = MappingProxyType({})
) -> Iterator[Found | NotFoundError]:
    """Find pictures one after the other, each once; what cannot be found is an error in its place.

    A file that is named passes whatever its ending. A folder gives the pictures in it, with `recursive` then those of
    its folders, as `ls -R` lists them, in natural order. A pattern gives what a shell would make of it; it is one only
    if there is no file of that name. Hidden files and folders are left out unless named. Folders are followed through
    symbolic links, and entered once. In a folder only names are looked at: a pipe or a dangling link that is called
    like a picture comes along, and opening it says what is wrong.

    A file is its folder and its name in it, whichever way leads there. Links to a file are files of their own: whether
    two have the same content is for others to ask.

    Args:
        read: those that `captured` has read, by their names.
    """
    selection = selection or Selection()
    seen: set[int] = set()  # hashes take less memory than a hundred thousand paths
    for name in names:
        for item in [read[name]] if name in read else _named(name, selection):
            key = hash(_place(item.name))
            if key not in seen:
                seen.add(key)
                yield item


def is_url(source: str | Path) -> bool:
    """Say whether a picture is on the web, or in its address itself (RFC 2397)."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://", "data:"))


def captured(name: str) -> Found | None:
    """Read a picture that can be read only once, from stdin (`-`) or from a pipe that the shell names; or is its name.

    Raises:
        MmgenError: it cannot be read, or goes on and on.
    """
    if name.lower().startswith("data:"):
        return Found(f"data: of {len(name):,} letters, {sha256(os.fsencode(name)).hexdigest()[:8]}", "picture", name)
    if name != "-" and not (_PIPE.match(name) and os.path.exists(name) and stat.S_ISFIFO(os.stat(name).st_mode)):
        return None
    hint = "pipe a picture into it, or name a file"
    with (
        explained("read", name, hint),
        nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb") as stream,
    ):
        data = stream.read(MAX_BYTES + 1)
    if not 0 < len(data) <= MAX_BYTES:
        raise MmgenError(f"{name} is {'too large' if data else 'empty'}", hint)
    return Found(name, "stdin" if name == "-" else "picture", _address(data))


def from_folder(folder: str | Path, source: str) -> str:
    """Look up a picture from a folder; web addresses and absolute paths stay as they are."""
    return source if is_url(source) else str(Path(folder) / source)


def check_file(source: str | Path) -> None:
    """Check that a file is there and can be opened, without reading it. Never blocks.

    Raises:
        MmgenError: it is not, or cannot.
    """
    try:
        mode = os.stat(source).st_mode
        if stat.S_ISREG(mode):
            open(source, "rb").close()
    except (FileNotFoundError, NotADirectoryError):
        hint = "check the name; it is looked up from the current folder"
        if "://" in str(source):
            hint = "a web address begins with http:// or https://"
        elif _MAGIC.search(str(source)):
            hint = "nothing matches the pattern"
        raise MmgenError(f"no such file: {source or '(an empty name)'}", hint) from None
    except (OSError, ValueError) as failure:
        raise MmgenError(f"cannot open {source}: {reason(failure)}", "check the name, and its permissions") from failure
    if stat.S_ISDIR(mode):
        raise MmgenError(f"{source} is a folder, not a picture", f"name the pictures in it: {Path(source) / '*.jpg'}")
    if not stat.S_ISREG(mode):
        raise MmgenError(f"{source} is not a regular file", "save the picture to a file first")


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Sort names as people count: img2 before img10, without regard to capitals; ties by the letters themselves."""

    def natural(name: str) -> str:  # the length of a number stands before its digits: of two, the longer is greater
        return re.sub("0*([0-9]+)", lambda number: f"0{chr(len(number[1]))}{number[1]}", name.casefold())

    return sorted(sorted(names), key=natural)


def _place(name: str) -> str:
    """Tell a file from others: by its folder, whichever way leads there, and its name in it."""
    folder, last = os.path.split(name)
    with suppress(OSError, ValueError):
        if not is_url(name):
            status = os.stat(folder or ".")
            return f"{status.st_dev} {status.st_ino} {last}"
    return name


def _named(name: str, selection: Selection) -> Iterator[Found | NotFoundError]:
    """Find what one name stands for."""
    if is_url(name):
        yield Found(name, _last_part(name))
        return
    top, parts = name, []
    if _MAGIC.search(name) and not os.path.lexists(name):
        top = "".join(_MAGIC.split(name)[0].rpartition("/")[:2])
        parts = name.removeprefix(top).split("/")
    items = _matching(top, parts, top, selection) if name else iter(())
    holds_many = os.path.isdir(name) or is_collection(name)
    yield next(items, None) or (_no_pictures(name, selection) if holds_many else _checked(name, ""))
    yield from items


def _checked(name: str, below: str) -> Found | NotFoundError:
    try:
        check_file(name)
    except MmgenError as error:
        return NotFoundError(error.message, error.hint, name)
    return Found(name, below)


def _last_part(url: str) -> str:
    """Name a file after an address: the last part of its path, else its host. Not unquoted: so it holds no slash."""
    last = re.split("[?#]", url, maxsplit=1)[0].rstrip("/").rpartition("/")[2].rpartition("@")[2]
    return last if last.strip(".") else "picture"


def _matching(path: str, parts: Sequence[str], top: str, selection: Selection) -> Iterator[Found | NotFoundError]:
    """Give what matches the parts of a pattern below a path, as if named; a folder that does may have no pictures.

    Args:
        top: from where `below` counts, if it does not lead upwards from there.
    """
    if not parts:
        below = path.removeprefix(top)
        if ".." in Path(below).parts:
            below = ""
        if os.path.isdir(path or "."):
            yield from _in_folder(path, below, selection, None if selection.recursive else 1)
        elif is_shard(path):
            yield from _in_shard(path, below, selection)
        elif is_table(path):
            yield from _in_table(path, below, selection)
        else:
            yield _checked(path, below or os.path.basename(path))
        return
    part, *rest = parts
    exact = os.path.join(path, part)
    if part != "**" and os.path.lexists(exact):
        yield from _matching(exact, rest, top, selection)
    elif _MAGIC.search(part) and os.path.isdir(path or "."):
        for found in islice(_walk(path), None if part == "**" else 1):
            if isinstance(found, NotFoundError):
                yield found
                continue
            below, folders, files = found
            names = fnmatch.filter(folders if rest else files + folders, part)
            names = [name for name in names if name[0] != "." or part[0] == "."]
            for each in [below] if part == "**" else names:
                yield from _matching(os.path.join(path, each), rest, top, selection)


def _walk(top: str, exclude: Sequence[str] = ()) -> Iterator[tuple[str, list[str], list[str]] | NotFoundError]:
    """Enter a folder and then those below it, each once: its path below `top`, the folders and the files in it."""
    waiting, entered = [""], set()
    while waiting:
        below = waiting.pop()
        folder = os.path.join(top, below) if below else top
        place = _place(os.path.join(folder, ""))
        if place in entered:  # a link leads back, or there a second time
            continue
        entered.add(place)
        failures: list[OSError] = []
        listing = next(os.walk(folder or ".", onerror=failures.append), None)
        if listing is None:
            message = f"cannot open folder {folder}: {reason(failures[0])}"
            yield NotFoundError(message, "check that it can be read", folder)
            continue
        folders, files = map(in_natural_order, listing[1:])
        yield below, folders, files
        paths = [os.path.join(below, name) for name in reversed(folders) if name[0] != "."]
        waiting += [path for path in paths if not fits_any(path, exclude)]


def _in_folder(top: str, prefix: str, selection: Selection, n_folders: int | None) -> Iterator[Found | NotFoundError]:
    """Give the pictures of a folder and of those below it, `n_folders` in all.

    Args:
        prefix: where it stands from what their `below` counts from.
    """
    for found in islice(_walk(top, selection.exclude), n_folders):
        if isinstance(found, NotFoundError):
            yield found
            continue
        folder, _, files = found
        for name in files:
            path = os.path.join(folder, name)
            if name[0] != "." and counts(path, selection):
                yield Found(os.path.join(top, path), os.path.join(prefix, path))
    if n_folders == 1 and not selection.not_entered and _has_more(top, selection):  # one is spoken of
        selection.not_entered.add(top)


def _in_shard(path: str, prefix: str, selection: Selection) -> Iterator[Found | NotFoundError]:
    """Give the pictures of an archive, which are called as if it were a folder."""
    for found in members(path, selection, MAX_BYTES):
        if isinstance(found, Member):
            name = os.path.join(path, found.name)
            yield Found(name, os.path.join(prefix, found.name), _address(found.data), found.beside)
        else:
            below, error = found
            yield NotFoundError(error.message, error.hint, os.path.join(path, below) if below else path)


def _in_table(path: str, prefix: str, selection: Selection) -> Iterator[Found | NotFoundError]:
    """Give the pictures of a table, which are called by their keys as if it were a folder."""
    for number, found in enumerate(rows(path, selection), 1):
        if isinstance(found, Row):
            source = from_folder(os.path.dirname(path), found.source) if found.data is None else _address(found.data)
            is_within = not (os.path.isabs(found.key) or ".." in Path(found.key).parts)
            below = os.path.join(prefix, found.key if is_within else str(number))
            yield Found(os.path.join(path, found.key), below, source, words=found.words)
        else:
            key, error = found
            yield NotFoundError(error.message, error.hint, os.path.join(path, key) if key else path)


def is_collection(path: str) -> bool:
    """Say whether a file holds many pictures: an archive, or a table."""
    return is_shard(path) or is_table(path)


def _address(data: bytes) -> str:
    import base64  # not on the way to --help

    return f"data:;base64,{base64.b64encode(data).decode()}"


def _has_more(top: str, selection: Selection) -> bool:
    """Say whether there are pictures in the first folders within a folder."""
    inner = replace(selection, left_out=set())
    within = (each for each in islice(_walk(top, selection.exclude), 1, _PEEK) if not isinstance(each, NotFoundError))
    paths = (os.path.join(folder, name) for folder, _, files in within for name in files if name[0] != ".")
    return any(counts(path, inner) for path in paths)


def _no_pictures(folder: str, selection: Selection) -> NotFoundError:
    hint = f"names count that end in {' '.join(ending[1:] for ending in PICTURE_ENDINGS)}"
    if selection.left_out:
        hint = left_out(selection)
    elif selection.include or selection.exclude:
        hint = "look at --include and --exclude"
    below = () if selection.recursive else _in_folder(folder, "", selection, _PEEK)
    if any(isinstance(found, Found) for found in below):
        hint = "there are some in its folders: -r takes them in"
    return NotFoundError(f"no pictures in {folder}", hint, folder)

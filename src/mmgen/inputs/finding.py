"""What was named on the command line, as a stream of pictures: files, folders, patterns, web addresses.

Looks at names only: opens no picture, and refuses to know what is done with one. Standard library only.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import blake2b
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from mmgen.errors import MmgenError, explained, reason

# What Pillow reads by itself and people keep pictures in; no documents (pdf, eps), no icons.
PICTURE_ENDINGS = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    *(".jp2", ".mpo", ".tga", ".qoi", ".ppm", ".pgm", ".pbm", ".pnm"),
)

_MAGIC = re.compile(r"[*?\[]")
_LONGEST = 65_536  # bytes of a name in a list: whatever is longer is no name
_PEEK = 1000  # folders that are looked into for a hint


@dataclass(frozen=True)
class Selection:
    """Which files of a folder count.

    A pattern without a slash is compared with names, one with a slash with the path below the folder, where `**` stands
    for any number of folders; capitals do not matter. An excluded folder is not entered.

    Attributes:
        include: empty: every name that ends like a picture. Else those of them that fit a pattern, and whatever fits
            one that spells its ending out (`*.dat`); so `cat*` does not take in the `cat.txt` beside `cat.jpg`.
    """

    recursive: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """A picture, as far as its name tells.

    Attributes:
        name: as given, or the folder as given / the path below it: what results call it.
        below: its path from the folder, or from where a pattern begins, else its file name. Never leads upwards.
    """

    name: str
    below: str


class NotFoundError(MmgenError):
    """A name that gives no picture.

    Args:
        name: as given, or the folder in which something went wrong.
    """

    def __init__(self, message: str, hint: str, name: str) -> None:
        super().__init__(message, hint)
        self.name = name


def find(names: Iterable[str], selection: Selection = Selection()) -> Iterator[Found | NotFoundError]:
    """Find pictures one after the other, each once; what cannot be found is an error in its place.

    A file that is named passes whatever its ending. A folder gives the pictures in it, with `recursive` then those of
    its folders, as `ls -R` lists them, in natural order. A pattern gives what a shell would make of it; it is one only
    if there is no file of that name. Hidden files and folders are left out unless named. Folders are followed through
    symbolic links, and entered once. What only looks like a picture (a pipe, a dangling link) comes along: opening it
    says what is wrong.

    A file is its folder and its name in it, whichever way leads there. Links to a file are files of their own: whether
    two have the same content is for others to ask.
    """
    seen: set[bytes] = set()
    for name in names:
        for item in _named(name, selection):
            key = _identity(item.name)
            if key not in seen:
                seen.add(key)
                yield item


def read_names(source: str, *, null: bool = False) -> Iterator[str]:
    """Read a list of names from a file, or stdin if it is `-`, as it comes: one a line, or NUL-separated.

    Raises:
        MmgenError: it cannot be read, or is no list.
    """
    with (
        explained("open", source, "name a list of pictures, or - for stdin"),
        nullcontext(sys.stdin.buffer) if source == "-" else open(source, "rb") as stream,
    ):
        for number, name in enumerate(_pieces(stream, b"\0" if null else b"\n")):
            if len(name) > _LONGEST or (not null and b"\0" in name):
                hint = "without -0, one name a line" if null else "one name a line, or NUL-separated with -0"
                raise MmgenError(f"{source} is not a list of names", hint)
            if not null:  # lists from elsewhere
                name = name.removesuffix(b"\r")
                name = name if number else name.removeprefix(b"\xef\xbb\xbf")
            if name:
                yield os.fsdecode(name)


def _pieces(stream: BinaryIO, end: bytes) -> Iterator[bytes]:
    """Split what comes; a piece that is far too long to be a name is given before its end."""
    rest = b""
    while chunk := cast(BufferedReader, stream).read1(_LONGEST):  # what a pipe has by now, not a full buffer
        *whole, rest = (rest + chunk).split(end)
        yield from whole
        if len(rest) > _LONGEST:
            break
    yield rest


def is_url(source: str | Path) -> bool:
    """Say whether a picture is on the web."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def check_file(source: str | Path) -> None:
    """Check that a file is there and can be opened, without reading it. Never blocks.

    Raises:
        MmgenError: it is not, or cannot.
    """
    try:
        mode = os.stat(source).st_mode
    except (FileNotFoundError, NotADirectoryError):
        hint = "check the name; it is looked up from the current folder"
        if "://" in str(source):
            hint = "a web address begins with http:// or https://"
        elif _MAGIC.search(str(source)):
            hint = "nothing matches the pattern"
        raise MmgenError(f"no such file: {source or '(an empty name)'}", hint) from None
    except (OSError, ValueError) as failure:
        raise MmgenError(f"cannot open {source}: {reason(failure)}", "check the name") from failure
    if stat.S_ISDIR(mode):
        raise MmgenError(f"{source} is a folder, not a picture", f"name the pictures in it: {Path(source) / '*.jpg'}")
    if not stat.S_ISREG(mode):
        raise MmgenError(f"{source} is not a regular file", "save the picture to a file first")
    if not os.access(source, os.R_OK):
        raise MmgenError(f"cannot open {source}: permission denied", f"make it readable: chmod +r {source}")


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Sort names as people count: img2 before img10, without regard to capitals; ties by the letters themselves."""
    return sorted(sorted(names), key=_natural)


def _natural(name: str) -> str:
    """Put the length of each number before its digits: of two, the longer is greater. The 0 keeps digits' place."""
    return re.sub("0*([0-9]+)", lambda number: f"0{chr(len(number[1]))}{number[1]}", name.casefold())


# One name


def _named(name: str, selection: Selection) -> Iterator[Found | NotFoundError]:
    if is_url(name):
        yield Found(name, _last_part(name))
    elif os.path.isdir(name):
        items = _in_folder(name, "", selection)
        yield next(items, None) or _no_pictures(name, selection)
        yield from items
    elif _MAGIC.search(name) and not os.path.lexists(name):
        items = _matching(name, selection)
        yield next(items, None) or _checked(name, "")
        yield from items
    else:
        yield _checked(name, os.path.basename(name))


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


def _identity(name: str) -> bytes:
    """Tell names of one file from others in a few bytes: a hundred thousand are kept."""
    folder, last = os.path.split(name)
    place = name
    if not is_url(name):
        with suppress(OSError, ValueError):
            status = os.stat(folder or ".")
            place = f"{status.st_dev} {status.st_ino} {last}"
    return blake2b(place.encode("utf-8", "surrogatepass"), digest_size=12).digest()


# Folders


def _in_folder(top: str, prefix: str, selection: Selection) -> Iterator[Found | NotFoundError]:
    """Give the pictures of a folder; `prefix` is where it stands from what their `below` counts from."""
    for found in _walk(top, selection):
        if isinstance(found, NotFoundError):
            yield found
        else:
            folder, names = found
            yield from (Found(os.path.join(top, folder, name), os.path.join(prefix, folder, name)) for name in names)


def _walk(top: str, selection: Selection) -> Iterator[tuple[str, list[str]] | NotFoundError]:
    """Go through a folder and, if asked, those below: the path below `top` of each, and the names in it that count."""
    waiting, entered = [""], set()
    while waiting:
        below = waiting.pop()
        folder = os.path.join(top, below) if below else top
        try:
            status = os.stat(folder or ".")
            if (status.st_dev, status.st_ino) in entered:  # a link leads back, or there a second time
                continue
            entered.add((status.st_dev, status.st_ino))
            files, folders = _list(folder)
        except OSError as failure:
            yield _unreadable(folder, failure)
            continue
        yield below, [name for name in files if name[0] != "." and _counts(os.path.join(below, name), selection)]
        if selection.recursive:
            paths = [os.path.join(below, name) for name in reversed(folders) if name[0] != "."]
            waiting += [path for path in paths if not _fits_any(path, selection.exclude)]


def _list(folder: str) -> tuple[list[str], list[str]]:
    """List a folder's files, and its folders."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder or ".") as entries:
        for entry in entries:
            (folders if _is_folder(entry) else files).append(entry.name)
    return in_natural_order(files), in_natural_order(folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or a file system that refuses to say
        return False


def _unreadable(folder: str, failure: OSError) -> NotFoundError:
    return NotFoundError(f"cannot open folder {folder}: {reason(failure)}", "check that it can be read", folder)


def _no_pictures(folder: str, selection: Selection) -> NotFoundError:
    hint = f"names count that end in {' '.join(ending[1:] for ending in PICTURE_ENDINGS)}"
    if selection.include or selection.exclude:
        hint = "look at --include and --exclude"
    if not selection.recursive:
        below = islice(_walk(folder, Selection(True, selection.include, selection.exclude)), _PEEK)
        if any(found[1] for found in below if not isinstance(found, NotFoundError)):
            hint = "there are some in its folders: -r takes them in"
    return NotFoundError(f"no pictures in {folder}", hint, folder)


def _counts(below: str, selection: Selection) -> bool:
    if _fits_any(below, selection.exclude):
        return False
    if below.lower().endswith(PICTURE_ENDINGS):
        return not selection.include or _fits_any(below, selection.include)
    return _fits_any(below, [pattern for pattern in selection.include if _spells_ending(pattern)])


def _spells_ending(pattern: str) -> bool:
    name = os.path.basename(pattern)
    ending = os.path.splitext(name)[1]
    return not _MAGIC.search(ending or name)


def _fits_any(below: str, patterns: Sequence[str]) -> bool:
    return any(_fits(below.lower(), pattern.lower().rstrip("/")) for pattern in patterns)


def _fits(below: str, pattern: str) -> bool:
    if "/" not in pattern:
        return fnmatchcase(os.path.basename(below), pattern)
    return _parts_fit(below.split("/"), pattern.split("/"))


def _parts_fit(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_parts_fit(parts[start:], patterns[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _parts_fit(parts[1:], patterns[1:])


# Patterns


def _matching(pattern: str, selection: Selection) -> Iterator[Found | NotFoundError]:
    """Give what matches, as if named; of folders that match, some may be without pictures."""
    magic = _MAGIC.search(pattern)
    assert magic
    start = pattern.rfind("/", 0, magic.start()) + 1
    for match in _expand(pattern[:start], pattern[start:].split("/")):
        if isinstance(match, NotFoundError):
            yield match
            continue
        below = match[start:]
        upwards = ".." in below.split("/")
        if os.path.isdir(match or "."):
            yield from _in_folder(match, "" if upwards else below, selection)
        else:
            yield _checked(match, os.path.basename(match) if upwards else below)


def _expand(path: str, parts: Sequence[str]) -> Iterator[str | NotFoundError]:
    """Give what there is below a path that matches the parts of a pattern."""
    if not parts:
        yield path
        return
    if not os.path.isdir(path or "."):
        return
    part, rest = parts[0], parts[1:]
    exact = os.path.join(path, part)
    if part == "**":
        for found in _walk(path, Selection(recursive=True)):
            if isinstance(found, NotFoundError):
                yield found
            else:
                yield from _expand(os.path.join(path, found[0]), rest)
    elif os.path.lexists(exact):
        yield from _expand(exact, rest)
    elif _MAGIC.search(part):
        try:
            files, folders = _list(path)
        except OSError as failure:
            yield _unreadable(path, failure)
            return
        for name in folders if rest else files + folders:
            if fnmatchcase(name, part) and (name[0] != "." or part[0] == "."):
                yield from _expand(os.path.join(path, name), rest)

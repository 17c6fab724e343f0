"""Which files of a folder are pictures that are meant: by the endings of their names, and by patterns.

Standard library only; looks at names alone.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# Of the formats that Pillow reads by itself and people keep pictures in; no documents (pdf, eps), no icons.
PICTURE_ENDINGS = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    *(".jp2", ".mpo", ".tga", ".qoi", ".ppm", ".pgm", ".pbm", ".pnm"),
)

# Those that a package beside Pillow reads: its module, and its name.
HEIF, JXL = ("pi_heif", "pi-heif"), ("pillow_jxl", "pillow-jxl-plugin")
_BY_PACKAGE = {".heic": HEIF, ".heif": HEIF, ".hif": HEIF, ".jxl": JXL}

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Columns:
    """Which columns of tables have the pictures, their keys, and what to ask about each."""

    image: str | None = None
    key: str | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class Selection:
    """Which files of a folder count.

    A pattern without a slash is compared with names, one with a slash with the path below the folder, where `**` stands
    for any number of folders; capitals do not matter. An excluded folder is not entered.

    Attributes:
        include: empty: every name that ends like a picture. Else those of them that fit a pattern, and whatever fits
            one that spells its ending out (`*.dat`); so `cat*` does not take in the `cat.txt` beside `cat.jpg`.
        left_out: grows: paths that would count, were the package here that reads them.
        not_entered: gets the first folder that has others within it, with pictures that `recursive` would take in.
    """

    recursive: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    columns: Columns = Columns()
    left_out: set[str] = field(default_factory=set, compare=False)
    not_entered: set[str] = field(default_factory=set, compare=False)


def counts(below: str, selection: Selection) -> bool:
    """Say whether a file of a folder counts, by its path below that."""
    ending = Path(below).suffix.lower()
    if below.lower().endswith(PICTURE_ENDINGS) or ending in _BY_PACKAGE:
        is_included = not selection.include or fits_any(below, selection.include)
    else:  # only if a pattern spells its ending out
        spelled = [pattern for pattern in selection.include if not _MAGIC.search(pattern.rpartition(".")[2])]
        is_included = fits_any(below, spelled)
    if not is_included or fits_any(below, selection.exclude):
        return False
    if ending in _BY_PACKAGE and not is_installed(_BY_PACKAGE[ending][0]):
        selection.left_out.add(below)
        return False
    return True


@cache
def is_installed(module: str) -> bool:
    """Say whether a package is here, without importing it."""
    return find_spec(module) is not None


def left_out(selection: Selection) -> str:
    """Say which files are left out, and what reads them."""
    n, endings = len(selection.left_out), sorted({Path(path).suffix.lower() for path in selection.left_out})
    packages = sorted({_BY_PACKAGE[ending][1] for ending in endings})
    kinds = ", ".join(ending.removeprefix(".") for ending in endings)
    return f"{n} file{'s' * (n > 1)} left out: {kinds}; pip install {' '.join(packages)} reads them"


def fits_any(below: str, patterns: Iterable[str]) -> bool:
    """Say whether a path below a folder fits any of these patterns."""
    for pattern in patterns:
        parts, wanted = Path(below.lower()).parts, Path(pattern.lower()).parts
        if _fits(parts if len(wanted) > 1 else parts[-1:], wanted):
            return True
    return False


def _fits(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_fits(parts[start:], patterns[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], patterns[0]) and _fits(parts[1:], patterns[1:])

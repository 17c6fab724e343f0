"""Pictures in tar files, as webdataset and img2dataset write them: read member by member, never unpacked.

What belongs together lies together and is called alike up to the first dot: `00012.jpg`, `00012.txt`, `00012.json`
(github.com/webdataset/webdataset). Nothing in an archive is trusted, and nothing of it is written. Standard library
only.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mmgen.errors import MmgenError, reason
from mmgen.inputs.selection import Selection, counts

_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_BROKEN = (tarfile.TarError, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, OverflowError)
_MOST_BESIDE = 1_000_000  # bytes of a caption or of a description


class Member(NamedTuple):
    """A picture in an archive: its name there, all of it, and the small files that belong to it by their endings."""

    name: str
    data: bytes
    beside: Mapping[str, bytes]


def is_shard(path: str) -> bool:
    """Say whether a name is that of an archive of pictures."""
    return path.lower().endswith(_ENDINGS) and Path(path).is_file()


def members(path: str, selection: Selection, most_bytes: int) -> Iterator[Member | tuple[str, MmgenError]]:
    """Read the pictures of an archive in their order; what is none that can be read is an error, by its name.

    Args:
        most_bytes: of a picture.
    """
    group: list[tuple[str, bytes]] = []  # pictures of one key, whose other files may still come
    beside: dict[str, bytes] = {}
    key = ""
    try:
        with tarfile.open(path, "r|*") as shard:
            for info in shard:
                own, ending = _key(info.name)
                if own != key:
                    yield from (Member(name, data, beside) for name, data in group)
                    group, beside, key = [], {}, own
                if _is_hidden(info.name) or info.isdir():
                    continue
                is_picture = counts(info.name, selection)
                problem = _problem(info, most_bytes) if is_picture else None
                if problem is not None:
                    yield info.name, MmgenError(f"{path}: {info.name} {problem}", "leave it out of the archive")
                elif info.isreg() and (is_picture or info.size <= _MOST_BESIDE):
                    opened = shard.extractfile(info)
                    data = b"" if opened is None else opened.read()
                    if is_picture:
                        group.append((info.name, data))
                    else:
                        beside[ending] = data
        yield from (Member(name, data, beside) for name, data in group)
    except _BROKEN as failure:
        yield from (Member(name, data, beside) for name, data in group)
        yield "", MmgenError(f"{path} is broken: {reason(failure)}", "get a whole copy of the archive")


def _key(name: str) -> tuple[str, str]:
    """Split a name at the first dot of its last part: what belongs together, and the ending with its dot."""
    folder, slash, last = name.rpartition("/")
    stem, dot, ending = last.partition(".")
    return f"{folder}{slash}{stem}", f"{dot}{ending}".lower()


def _is_hidden(name: str) -> bool:
    return PurePosixPath(name).name.startswith(".")


def _problem(info: tarfile.TarInfo, most_bytes: int) -> str | None:
    """Say what hinders a member from being read, if anything does."""
    if info.name.startswith("/") or ".." in PurePosixPath(info.name).parts:
        return "leads out of the archive"
    if not info.isreg():
        return "is a link or a device, and no picture"
    if info.size > most_bytes:
        return f"has more than {most_bytes:,} bytes"
    return None

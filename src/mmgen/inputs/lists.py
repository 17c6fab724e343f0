"""Lists in files and on stdin, read as they come: names of pictures, lines of prompts. Standard library only."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from io import BufferedReader
from typing import cast

from mmgen.errors import MmgenError, explained

_LONGEST = 65_536  # bytes of a name in a list: whatever is longer is no name


def read_names(source: str, *, null: bool = False) -> Iterator[str]:
    """Read a list of names from a file, or stdin if it is `-`, as it comes: one a line, or NUL-separated.

    Raises:
        MmgenError: it cannot be read, or is no list.
    """
    hint = "name a list, or - for stdin: one path a line, or NUL-separated with -0"
    for name in read_pieces(source, hint, b"\0" if null else b"\n", _LONGEST):
        if not null and b"\0" in name:
            raise MmgenError(f"{source} is not a list of names", hint)
        name = name if null else name.removesuffix(b"\r")  # of lists from elsewhere
        if name:
            yield os.fsdecode(name)


def read_pieces(source: str, hint: str, end: bytes = b"\n", longest: int = 10**7) -> Iterator[bytes]:
    """Read a file, or stdin if it is `-`, as it comes, in pieces that end in `end`; lines are UTF-8 without a mark.

    UTF-16, as Windows writes it, is known by its byte-order mark.

    Raises:
        MmgenError: it cannot be read, is no text of UTF-16, or a piece has more bytes than the longest may have.
    """
    rest, to_utf_8 = b"", _Utf8(source, hint) if end == b"\n" else bytes
    with (
        explained("open", source, hint),
        nullcontext(sys.stdin.buffer) if source == "-" else open(source, "rb") as stream,
    ):
        while chunk := cast(BufferedReader, stream).read1(_LONGEST):  # what a pipe has by now, not a full buffer
            *whole, rest = (rest + to_utf_8(chunk)).split(end)
            yield from whole
            if len(rest) > longest:
                raise MmgenError(f"{source} is not a list: it goes on for more than {longest:,} bytes", hint)
    yield rest


class _Utf8:
    """Makes UTF-8 of the chunks of a text as they come, by the mark that the first begins with."""

    def __init__(self, source: str, hint: str) -> None:
        self._source, self._hint = source, hint
        self._decoder: codecs.IncrementalDecoder | None = None
        self._is_first = True

    def __call__(self, chunk: bytes) -> bytes:
        if self._is_first and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            self._decoder = codecs.getincrementaldecoder("utf-16")()
        elif self._is_first:
            chunk = chunk.removeprefix(codecs.BOM_UTF8)
        self._is_first = False
        try:
            return chunk if self._decoder is None else self._decoder.decode(chunk).encode()
        except UnicodeError as failure:
            raise MmgenError(f"{self._source} is no UTF-16 text, though its mark says so", self._hint) from failure

"""stdout for results, stderr for what is said beside them. Knows terminals and pipes; refuses to know results."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress

from mmgen.errors import CannotGoOnError, MmgenError

_CONTROL = dict.fromkeys(code for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t")


class PipeClosedError(Exception):
    """Nobody reads stdout any more."""


def clean(text: str) -> str:
    """Drop control characters, all but newline and tab: what a model or a file name says must not steer a terminal."""
    return text.translate(_CONTROL)


def is_text(text: str) -> bool:
    """Say whether a string can be written as UTF-8: JSON and file names may hold halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_line(record: Mapping[str, object]) -> str:
    """Write a record as one line of JSON; readable, unless a file name in it is not UTF-8."""
    line = json.dumps(record, ensure_ascii=False)
    return (line if is_text(line) else json.dumps(record)) + "\n"


def emit(text: str) -> None:
    """Write a result to stdout, at once."""
    if sys.stdout.isatty():
        text = clean(text)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as failure:
        raise _stdout_failure(failure) from failure


def emit_bytes(data: bytes) -> None:
    """Write a file to stdout."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as failure:
        raise _stdout_failure(failure) from failure


def _stdout_failure(failure: OSError) -> Exception:
    """Turn stdout away from what failed, lest the interpreter fail again when it flushes at its end."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    if isinstance(failure, BrokenPipeError):
        return PipeClosedError()
    return CannotGoOnError(
        f"cannot write to stdout: {failure.strerror}", "send the output elsewhere, or free some space"
    )


class Notes:
    """What is said beside the result, on stderr: notes, errors, and progress if that is a terminal.

    Attributes:
        quiet: says errors only.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self._verbose = verbose
        self._live = not quiet and sys.stderr.isatty()
        self._width = 0  # of the progress line that stands there

    def say(self, text: str) -> None:
        """Say a line."""
        if not self.quiet:
            self._line(text)

    def detail(self, text: str) -> None:
        """Say a line to those who asked for more."""
        if self._verbose:
            self.say(text)

    def error(self, error: MmgenError, about: str = "") -> None:
        """Say what is wrong and what to do about it, in a line each."""
        self._line(f"error: {about + ': ' if about else ''}{error.message}")
        if error.hint:
            self._line(f"hint: {error.hint}")

    def progress(self, text: str) -> None:
        """Show how far it is, in the place of what was shown before."""
        if self._live:
            sys.stderr.write("\r" + text.ljust(self._width))
            sys.stderr.flush()
            self._width = len(text)

    def clear(self) -> None:
        """Take the progress line away: something else is about to be written."""
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
            self._width = 0

    def _line(self, text: str) -> None:
        self.clear()
        sys.stderr.write(" ".join(clean(text).splitlines()) + "\n")
        sys.stderr.flush()

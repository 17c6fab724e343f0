"""stdout for results, stderr for what is said beside them. Knows terminals and pipes; refuses to know results."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal

from mmgen.errors import CannotGoOnError, MmgenError

_CONTROL = dict.fromkeys(code for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t")


_ERASE_LINE, _ERASE_BELOW = "\x1b[K", "\x1b[J"  # from the cursor on (ECMA-48, EL and ED)

# What stands before the cursor where stdout and stderr are one terminal: words that go on, or were broken off for
# progress.
_before: Literal["nothing", "words", "break"] = "nothing"


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


def duration(seconds: float) -> str:
    """Say how long something takes."""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h" if minutes >= 60 else f"{minutes}:{rest:02d} min"


def terminal_size() -> os.terminal_size | None:
    """Say how large the terminal of stderr is, if that is one and knows."""
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except OSError:
        return None
    return size if size.columns and size.lines else None


def _columns() -> int:
    size = terminal_size()
    return 10**6 if size is None else max(size.columns, 8)


def emit(text: str) -> None:
    """Write a result to stdout, at once."""
    global _before
    if sys.stdout.isatty():
        text = clean(text)
        is_whole = text.endswith("\n")
        if _before == "break":  # the line has ended already
            text = text.removeprefix("\n")
        if text or is_whole:
            _before = "nothing" if is_whole else "words"
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as failure:
        raise stdout_failure(failure) from failure


def emit_bytes(data: bytes) -> None:
    """Write a file to stdout."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as failure:
        raise stdout_failure(failure) from failure


def stdout_failure(failure: OSError) -> Exception:
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

    Args:
        previews: pictures may be shown while they are drawn.

    Attributes:
        quiet: says errors only.
        is_live: shows progress.
        previews: shows pictures.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False, previews: bool = True) -> None:
        self.quiet = quiet
        self._verbose = verbose
        self.is_live = not quiet and sys.stderr.isatty()
        self.previews = previews and self.is_live
        self._n_above = 0  # lines of ours that stand over the cursor
        self._width = 0  # of the progress line
        self._is_writing = False
        self._held: list[str] = []  # lines that were to be said meanwhile

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

    def progress(self, text: str, above: Sequence[str] | None = None) -> None:
        """Show how far it is, in the place of what was shown before.

        Args:
            above: lines to stand over it from now on, none wider than the terminal; if not given, those that do stay.
        """
        if not self.is_live:
            return
        self._end_words()
        if above is not None:
            self._write(self._back())
            for line in above:
                self._n_above += 1
                self._write(f"{line}{_ERASE_LINE}\n")
            self._write(_ERASE_BELOW)
        room = _columns() - 3  # a terminal puts ^C behind it: that must not begin a new line
        shown = text[:room].ljust(min(self._width, room))
        self._width = len(text[:room])
        self._write("\r" + shown)

    def clear(self) -> None:
        """Take progress away, and what stands over it: something else is about to be written."""
        if self._n_above:
            self._width = 0
            self._write(self._back() + _ERASE_BELOW)
        elif self._width:
            width, self._width = min(self._width + 2, _columns() - 1), 0  # and ^C
            self._write("\r" + " " * width + "\r")

    def _back(self) -> str:
        """Go back to where the lines over the cursor begin."""
        n_lines, self._n_above = self._n_above, 0
        return f"\r\x1b[{n_lines}A" if n_lines else "\r"

    def _end_words(self) -> None:
        """Begin a new line if words stand in this one that are to go on."""
        global _before
        if _before == "words":
            _before = "break"
            self._write("\n")

    def _line(self, text: str) -> None:
        global _before
        if self._is_writing:  # whoever handles a signal says something
            self._held.append(text)
            return
        self.clear()
        self._write(" ".join(clean(text).splitlines()) + "\n")
        if sys.stderr.isatty():
            _before = "nothing"

    def _write(self, text: str) -> None:
        """Write, and be sure that it is seen. State changes before: what is interrupted is still written, later."""
        self._is_writing = True
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        finally:
            self._is_writing = False
        while self._held:
            self._line(self._held.pop(0))

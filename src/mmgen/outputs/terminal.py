"""stdout for results, stderr for what is said beside them. Knows terminals and pipes; refuses to know results."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from mmgen.errors import CannotGoOnError, MmgenError
from mmgen.signals import uninterrupted
from mmgen.text import clean

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

_STYLES = {"error": "bold red", "hint": "cyan", "note": "dim"}  # of the word that a line begins with
_MOST_A_SECOND, _SHARE = 4, 0.04  # how often progress is written anew, and the share of the time that may take

# What stands before the cursor where stdout and stderr are one terminal: words that go on, or were broken off for
# progress.
_before: Literal["nothing", "words", "break"] = "nothing"


class PipeClosedError(Exception):
    """Nobody reads stdout any more."""


def duration(seconds: float) -> str:
    """Say how long something takes."""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h" if minutes >= 60 else f"{minutes}:{rest:02d} min"


def rate(per_second: float) -> str:
    """Say how fast something goes."""
    return f"{per_second:.2g} a second" if per_second < 10 else f"{per_second:.0f} a second"


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
        previews: shows pictures, if the terminal can.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False, previews: bool = True) -> None:
        self.quiet = quiet
        self._verbose = verbose
        self._is_terminal = sys.stderr.isatty()
        self.is_live = not quiet and self._is_terminal
        self.previews = previews and self.is_live
        self._live: Live | None = None  # progress, while there is some on the terminal
        self._above: RenderableType | None = None
        self._due = 0.0  # when progress may be written anew

    @cached_property
    def console(self) -> Console:
        """The terminal. Rich is imported only where there is one."""
        from rich.console import Console

        return Console(stderr=True, color_system=None if os.environ.get("NO_COLOR") else "auto")

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

    @uninterrupted()
    def progress(self, text: str, above: RenderableType | None = None) -> None:
        """Show how far it is, in the place of what was shown before.

        Args:
            above: is to stand over it from now on; if not given, what does stays.
        """
        global _before
        if not self.is_live or (above is None and time.monotonic() < self._due):
            return
        from rich.console import Group
        from rich.live import Live
        from rich.text import Text

        began = time.monotonic()
        if _before == "words":
            _before = "break"
            self.console.line()
        if self._live is None:
            self._live = Live(
                console=self.console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            with self.console:
                self._live.start()
                self.console.show_cursor()  # should we be killed, it would not come back
        self._above = above or self._above
        line = Text(text)
        line.truncate(self.console.width - 3, pad=self.console.is_dumb_terminal)  # ^C, too, must not begin a new line
        self._live.update(Group(*[self._above] if self._above else [], line), refresh=True)
        if self.console.is_dumb_terminal:  # there Live shows nothing
            self.console.print(line, end="\r", soft_wrap=True)
        now = time.monotonic()
        self._due = now + max(1 / _MOST_A_SECOND, (now - began) / _SHARE)

    @uninterrupted()
    def clear(self) -> None:
        """Take progress away, and what stands over it: something else is about to be written to stdout."""
        if self._live is None:
            return
        from rich.console import Group

        self._live.update(Group())  # else all of it is written once more before it is erased
        self._live.stop()
        if self.console.is_dumb_terminal:
            self.console.print(" " * (self.console.width - 3), end="\r", soft_wrap=True)
        self._live, self._above, self._due = None, None, 0.0

    @uninterrupted()
    def _line(self, text: str) -> None:
        global _before
        text = " ".join(clean(text).splitlines())
        if not self._is_terminal:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
            return
        from rich.text import Text

        if self.console.is_dumb_terminal:
            self.clear()
        word, colon, rest = text.partition(":")
        self.console.print(Text.assemble((word + colon, _STYLES.get(word, "")), rest), soft_wrap=True)
        _before = "nothing"

"""Lines from stdin: typed on a terminal, with a prompt and editing, or piped. Refuses to know what they mean."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mmgen.errors import UsageError
from mmgen.text import clean

_STDOUT, _STDERR = 1, 2  # file descriptors


def is_typed() -> bool:
    """Say whether somebody types: stdin is a terminal."""
    return sys.stdin.isatty()


def is_prompted() -> bool:
    """Say whether who types is shown a prompt: stderr is a terminal too."""
    return is_typed() and sys.stderr.isatty()


def read_line(prompt: str) -> str | None:
    """Read a line, or None at the end of input.

    Raises:
        UsageError: the line is not UTF-8 text.
        KeyboardInterrupt: Ctrl-C was typed.
    """
    try:
        if is_prompted():
            line = _edited(prompt)
        else:
            data = sys.stdin.buffer.readline()
            line = data.decode() if data else None
    except UnicodeDecodeError as failure:
        raise UsageError("a line is not UTF-8 text", "check the encoding of what is typed or piped") from failure
    return None if line is None else clean(line)


def break_line() -> None:
    """End the line on which Ctrl-C was typed."""
    if is_prompted():
        sys.stderr.write("\n")
        sys.stderr.flush()


def _edited(prompt: str) -> str | None:
    with _stdout_on_stderr():
        with suppress(ImportError):  # gives input() its editing keys; not everywhere
            import readline  # noqa: F401
        try:
            return input(prompt)
        except EOFError:
            sys.stdout.write("\n")
            sys.stdout.flush()
            return None


@contextmanager
def _stdout_on_stderr() -> Iterator[None]:
    """Let what goes to stdout appear on stderr for a while: input() edits, and prompts, there and nowhere else."""
    sys.stdout.flush()
    kept = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    try:
        yield
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)

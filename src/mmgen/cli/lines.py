"""Lines from stdin: typed on a terminal, with a prompt and editing, or piped. Refuses to know what they mean."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from mmgen.errors import UsageError
from mmgen.text import clean

_STDOUT, _STDERR = 1, 2  # file descriptors


def is_typed() -> bool:
    """Say whether somebody types: stdin is a terminal."""
    return sys.stdin.isatty()


def is_prompted() -> bool:
    """Say whether a prompt is shown to whoever types: stderr is a terminal too."""
    return is_typed() and sys.stderr.isatty()


def read_line(prompt: str) -> str | None:
    """Read a line, or None at the end of input.

    Raises:
        UsageError: the line is not UTF-8 text.
        KeyboardInterrupt: Ctrl-C was typed.
    """
    try:
        line = _edited(prompt) if is_prompted() else sys.stdin.buffer.readline().decode()
    except UnicodeDecodeError as failure:
        raise UsageError("a line is not UTF-8 text", "check the encoding of what is typed or piped") from failure
    return clean(line) if line else None


def break_line() -> None:
    """End the line on which Ctrl-C was typed."""
    if is_prompted():
        print(file=sys.stderr, flush=True)


def _edited(prompt: str) -> str:
    """Read a line with editing keys. As input() edits and prompts on stdout alone, stdout is stderr for that time."""
    with suppress(ImportError):  # gives input() its editing keys; not everywhere
        import readline  # noqa: F401
    sys.stdout.flush()
    kept = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    try:
        return input(prompt) + "\n"
    except EOFError:
        print(flush=True)
        return ""
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)

"""Ctrl-C while nothing is in hand: it ends the program at once.

As an exception in the middle of an import it would be swallowed by whoever imports, or leave a module half made. Knows
the standard library alone, so that it can be there before anything else.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # the exit code

_undo: Callable[[], None] | None = None  # what comes before the end; None where Ctrl-C is an exception, as ever


def undo_nothing() -> None:
    """Leave all as it is."""


def leave_at_once() -> None:
    """Let Ctrl-C end the process, which is our own, until a model is open, unless it is to be ignored."""
    global _undo
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        _undo = undo_nothing


@contextmanager
def nothing_in_hand(undo: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C end our own process meanwhile, but for a download, which it stops; after that it is an exception.

    Args:
        undo: to be done before the end.
    """
    global _undo
    if _undo is None:  # somebody else's process
        yield
        return
    before = signal.signal(signal.SIGINT, _interrupt)
    _undo = undo
    try:
        yield
    finally:
        _undo = None
        signal.signal(signal.SIGINT, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _undo is None or _is_fetching(frame):
        raise KeyboardInterrupt
    try:
        _undo()
        if os.isatty(2):
            os.write(2, b"\r\x1b[K")  # where a line of progress may stand
    finally:
        os._exit(INTERRUPTED)


def _is_fetching(frame: FrameType | None) -> bool:
    """Whether a download is under way, which keeps what it has and puts the terminal right."""
    hub = sys.modules.get("mmgen.hub")
    while hub is not None and frame is not None:
        if frame.f_code is hub.fetch.__code__:
            return True
        frame = frame.f_back
    return False

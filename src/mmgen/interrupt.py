"""Ctrl-C while nothing is in hand: it ends the process at once.

As an exception in the middle of an import it would be swallowed by whoever imports, or leave a module half made. Knows
the standard library alone, so that it can be there before anything else.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # the exit code


_is_ours = False  # the process


def leave_at_once() -> None:
    """Let Ctrl-C end the process, which is our own, from here on, unless it is to be ignored."""
    global _is_ours
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
        _is_ours = True


@contextmanager
def nothing_in_hand() -> Iterator[None]:
    """Let Ctrl-C end our own process meanwhile, but for a download, which it stops; then something may be in hand."""
    if not _is_ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is _leave else before)


def _leave(number: int, frame: FrameType | None) -> None:
    hub = sys.modules.get("mmgen.hub")
    while hub is not None and frame is not None:
        if frame.f_code is hub.fetch.__code__:  # keeps what it has, and puts the terminal right
            raise KeyboardInterrupt
        frame = frame.f_back
    if os.isatty(2):
        os.write(2, b"\r\x1b[K")  # where a line of progress may stand
    os._exit(INTERRUPTED)

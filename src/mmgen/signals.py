"""Ctrl-C: it ends our own process at once until something is written; then it is an exception, which may wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ends_at_once = False
_was_raised = False


def end_on_interrupt() -> None:
    """Let Ctrl-C end the process, which is our own, at once until something is written; unless it is ignored.

    As an exception in the middle of an import it would be swallowed by whoever imports, or leave a module half made.
    """
    global _ends_at_once
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _ends_at_once = True


def raise_on_interrupt() -> None:
    """Let Ctrl-C be an exception again, if it was to end our own process: what is written now is not left half done."""
    global _ends_at_once
    if _ends_at_once and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _raise)
        _ends_at_once = False


def _raise(number: int, frame: object) -> None:
    global _was_raised
    _was_raised = True
    raise KeyboardInterrupt


@contextmanager
def noticed() -> Iterator[None]:
    """Raise an interruption again that libraries meanwhile swallowed, or turned into something else, as imports may."""
    global _was_raised
    _was_raised = False
    try:
        yield
    finally:
        if _was_raised:
            raise KeyboardInterrupt


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until what is written is whole: its handler may say something, or raise."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if caught:
            signal.raise_signal(signal.SIGINT)

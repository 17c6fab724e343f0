"""Files that are there whole or not at all: written beside their place, then moved into it.

Knows the file system; refuses to know what is in a file.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mmgen.errors import MmgenError

_BESIDE = re.compile(r"\.mmgen-\d+-\w{8}")  # how `_beside` names a file: its process, and tempfile's eight letters


interrupted = False  # by Ctrl-C, since something was first written
_ends_at_once = False


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
    global interrupted
    interrupted = True  # for whoever imports meanwhile, and may lose the exception
    raise KeyboardInterrupt


@contextmanager
def replacing(target: Path, mode: int | None = None) -> Iterator[IO[bytes]]:
    """Open a file beside `target` and move it there once it is written. If that fails, what was there stays.

    Args:
        mode: its permissions, if not those of a new file.
    """
    raise_on_interrupt()
    file, path = _beside(target.parent)
    try:
        with file:
            yield file
            file.flush()
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(file.fileno(), 0o666 & ~mask if mode is None else mode)  # tempfile makes it private
            os.fsync(file.fileno())
            path.replace(target)  # before it is closed, and with that unlocked
    except BaseException:  # an interruption too leaves nothing behind
        path.unlink(missing_ok=True)
        raise


def _beside(folder: Path) -> tuple[IO[bytes], Path]:
    """Make a file for as long as something is written, locked: `sweep` takes away what nobody locks."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".mmgen-{os.getpid()}-", dir=folder)
        with suppress(OSError):  # a file system without locks, where nothing is swept
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return os.fdopen(handle, "wb"), Path(name)
        os.close(handle)  # swept away before it was locked


@contextmanager
def aside(path: Path) -> Iterator[None]:
    """Take a file away, for good if what is done meanwhile succeeds; else it is put back."""
    if not os.path.lexists(path):
        yield
        return
    raise_on_interrupt()
    place = path.with_name(f".mmgen-{os.getpid()}-{secrets.token_hex(4)}")  # which `sweep` takes away after a kill
    path.rename(place)
    try:
        yield
    except MmgenError:
        place.rename(path)
        raise
    place.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder.

    Told by the lock, which ends with its process: the number in the name is for people only, as numbers come again,
    and may be those of another machine or container that writes into the same folder.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _BESIDE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    _remove_unlocked(entry.path)


def _remove_unlocked(path: str) -> None:
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: it is being written
        Path(path).unlink()
    finally:
        os.close(handle)

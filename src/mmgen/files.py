"""Files that are there whole or not at all, and Ctrl-C, which waits until they are. Refuses to know what is in a file.

Until something is written Ctrl-C ends our own process at once; from then on it is an exception, which may wait.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO

from mmgen.errors import MmgenError, UsageError, explained

_HOUR = 3600.0  # seconds in which a note is not said again


def _report(text: str) -> None:
    import logging  # a twentieth of what help takes

    logging.getLogger("mmgen").warning(text)


def lock(file: int, wait: bool = False) -> bool | None:
    """Lock an open file until it is closed, if nobody else has; None: on a file system without locks.

    On Windows a locked file is read through the handle that locked it, and through no other.
    """
    from filelock import lock_descriptor  # 30 ms: not on the way to --help

    try:
        return lock_descriptor(file, blocking=wait)
    except OSError:  # such as Lustre, NFS, some of FUSE
        _report("this file system has no locks: let no two runs write into one place")
        return None


def sync(file: IO[bytes]) -> None:
    """Wait until what was written is on the disk, where the file system can tell."""
    try:
        os.fsync(file.fileno())
    except OSError as failure:
        if failure.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise
        _report("this file system does not tell what is on its disk: a power cut may cost what was written last")


@contextmanager
def alone_in(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Keep others of us out of a folder meanwhile, having waited until they are; False: one is in it, and no wait."""
    with ExitStack() as stack:
        is_alone: bool | None = True
        with suppress(PermissionError):  # Windows opens no folders
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            is_alone = lock(handle, wait=wait)
        yield is_alone is not False


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make a folder and keep others of us out of it meanwhile; if nothing was put into it, it goes.

    Raises:
        UsageError: one of us is in it.
    """
    is_new = not folder.exists()
    with explained("make", folder, "choose another place with -o"):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with alone_in(folder, wait=False) as is_alone:
            if not is_alone:
                raise UsageError(f"another run is writing into {folder}", "wait for it to end, or choose another")
            yield
    finally:
        if is_new:
            with suppress(OSError):
                folder.rmdir()


def change_locked(change: Callable[[], object], opened: IO[bytes]) -> None:
    """Move or remove a file while it is open and locked, so that no other process takes it meanwhile.

    Windows neither moves, replaces nor removes what is open: there it is closed first. If
    another process opens or sweeps it in between, the second try is an error, and what stood in its place stays.
    """
    try:
        change()
    except PermissionError:
        opened.close()
        change()


@contextmanager
def whole_file(target: str | Path) -> Iterator[IO[bytes]]:
    """Open a file beside `target` and move it there once it is written. If that fails, what was there stays.

    A link stays one. It has the permissions of the file that it replaces, or those of a new one.

    Raises:
        MmgenError: it cannot be written (a full disk, no permission).
    """
    raise_on_interrupt()
    given, target = target, real(target)
    path = _name_beside(target)
    with explained("write", given, "choose another place with -o"):
        try:
            with _locked(path) as file:
                with suppress(OSError):  # nothing is replaced, or a file system without permissions
                    path.chmod(target.stat().st_mode & 0o7777)
                yield file
                file.flush()
                sync(file)
                change_locked(lambda: path.replace(target), file)
        except BaseException:  # an interruption too leaves nothing behind
            path.unlink(missing_ok=True)
            raise


def _locked(path: Path) -> IO[bytes]:
    """Make a file that is locked: `sweep` takes away what nobody locks."""
    while True:
        file = path.open("xb")
        is_locked = lock(file.fileno())
        if is_locked is None or (is_locked and os.fstat(file.fileno()).st_nlink):
            return file
        file.close()  # swept away before it was locked


def real(path: str | Path) -> Path:
    """Say where a file is that a path leads to, through links, whether it is there or not."""
    return Path(os.path.realpath(path))


def _name_beside(target: Path) -> Path:
    """Name a file in the same folder, as `sweep` knows it: by our process and eight letters."""
    return target.with_name(f".mmgen-{os.getpid()}-{os.urandom(4).hex()}")


@contextmanager
def aside(path: Path) -> Iterator[None]:
    """Take a file away, for good if what is done meanwhile succeeds; else it is put back."""
    raise_on_interrupt()
    place = _name_beside(path)  # which `sweep` takes away after a kill
    if os.path.lexists(path):
        path.rename(place)
    try:
        yield
    except MmgenError:
        if os.path.lexists(place):
            place.rename(path)
        raise
    place.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder.

    A file that nobody locks is such a one. The number of the process in its name is for people only: numbers come
    again, and may be those of another machine or container that writes into the same folder.
    """
    with suppress(OSError):
        for path in folder.glob(".mmgen-[0-9]*-????????"):
            with suppress(OSError), path.open("rb+") as file:
                if lock(file.fileno()):  # else it is being written, or one cannot tell
                    change_locked(path.unlink, file)


def check_writable(folder: Path) -> None:
    """Check, by trying, that a file can be made in a folder. Leaves nothing behind."""
    if not folder.is_dir():
        raise MmgenError(f"no such folder: {folder}", f"make it first: mkdir -p {folder}")
    import tempfile  # not on the way to --help

    with explained("write into", folder, "choose another place, or make it writable"):
        tempfile.TemporaryFile(prefix=".mmgen-", dir=folder).close()


def check_makeable(folder: Path) -> None:
    """Check, by trying, that a folder is one that files can be made in, or can be made itself."""
    check_writable(next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path)))


# --- what is kept between commands --------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Say where what can be made again is kept: MMGEN_CACHE, else a folder of the system's for that."""
    given = os.environ.get("MMGEN_CACHE") or os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return Path(given or os.path.expanduser("~/.cache")) / "mmgen"  # noqa: PTH111 -- pathlib raises without a home


def said_lately(note: str) -> bool:
    """Say whether a note was said within the last hour, and keep that it is said now; where it cannot be kept, no."""
    stamp = cache_folder() / f"said-{sha256(note.encode()).hexdigest()[:16]}"
    with suppress(OSError):
        if 0 <= time.time() - stamp.stat().st_mtime < _HOUR:
            return True
    with suppress(OSError):
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()
    return False


def kept(name: str, make: Callable[[], str]) -> str | None:
    """Give a text of this name from the cache folder, where it is kept once it was made.

    Of two processes that make it at once, both get what the first has kept. None: it cannot be kept, and is not made.
    """
    place = cache_folder() / name
    beside = _name_beside(place)
    try:
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("x") as file:
                file.write(make())
            if not place.exists():
                beside.replace(place)
        return place.read_text()
    except OSError:
        return None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


# --- Ctrl-C -------------------------------------------------------------------------------------------------------

_STOPS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]  # not on Windows
_ends_at_once = False
_was_raised = False


def end_on_interrupt() -> None:
    """Let Ctrl-C end the process, which is our own, at once until something is written; unless it is ignored.

    As an exception in the middle of an import it would be swallowed by whoever imports, or leave a module half made.
    """
    global _ends_at_once
    if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # which the kernel keeps from PID 1
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _ends_at_once = True


def raise_on_interrupt() -> None:
    """Let Ctrl-C be an exception again, if it was to end our own process: a write under way is not left half done."""
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
def first_interrupt(call: Callable[[int], None]) -> Iterator[None]:
    """Let the first Ctrl-C, SIGTERM or SIGHUP call a function with its number, and a second one end it all.

    One that is ignored stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _STOPS}
    heeded = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]

    def handle(number: int, frame: object) -> None:
        for each in heeded:
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
        call(number)

    for number in heeded:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, before[number])


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

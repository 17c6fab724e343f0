"""Files that are there whole or not at all: written beside their place, then moved into it.

Knows the file system; refuses to know what is in a file.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mmgen.errors import MmgenError, explained
from mmgen.signals import raise_on_interrupt


def lock(file: int, wait: bool = False) -> bool | None:
    """Lock an open file until it is closed, if nobody else has; None: on a file system without locks.

    On Windows a locked file is read through the handle that locked it, and through no other.
    """
    from filelock import lock_descriptor  # 30 ms: not on the way to --help

    try:
        return lock_descriptor(file, blocking=wait)
    except OSError:  # such as Lustre, NFS, some of FUSE
        return None


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

    It has the permissions of the file that it replaces, or those of a new one.

    Raises:
        MmgenError: it cannot be written (a full disk, no permission).
    """
    raise_on_interrupt()
    path = _name_beside(Path(target))
    with explained("write", target, "choose another place with -o"):
        try:
            with _locked(path) as file:
                with suppress(OSError):  # nothing is replaced, or a file system without permissions
                    shutil.copymode(target, path)
                yield file
                file.flush()
                os.fsync(file.fileno())
                change_locked(lambda: path.replace(target), file)
        except BaseException:  # an interruption too leaves nothing behind
            path.unlink(missing_ok=True)
            raise


def _locked(path: Path) -> IO[bytes]:
    """Make a file that is locked: `sweep` takes away what nobody locks."""
    while True:
        file = path.open("xb")
        if lock(file.fileno()) is not False and os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # swept away before it was locked


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
    with explained("write into", folder, "choose another place with -o"):
        tempfile.TemporaryFile(prefix=".mmgen-", dir=folder).close()

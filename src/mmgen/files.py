"""Files that are there whole or not at all: written beside their place, then moved into it.

Knows the file system; refuses to know what is in a file.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mmgen.errors import MmgenError, explained
from mmgen.signals import raise_on_interrupt

_BESIDE = re.compile(r"\.mmgen-\d+-\w{8}")  # how `_name_beside` names a file: its process, and eight letters


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
def whole_file(target: str | Path, mode: int | None = None) -> Iterator[IO[bytes]]:
    """Open a file beside `target` and move it there once it is written. If that fails, what was there stays.

    Args:
        mode: its permissions, if not those of a new file.

    Raises:
        MmgenError: it cannot be written (a full disk, no permission).
    """
    raise_on_interrupt()
    path = _name_beside(Path(target))
    with explained("write", target, "choose another place with -o"):
        try:
            with _locked(path, 0o666 if mode is None else mode) as file:
                yield file
                file.flush()
                with suppress(OSError):  # a file system without permissions
                    if mode is not None:
                        path.chmod(mode)  # also what the mask took
                os.fsync(file.fileno())
                change_locked(lambda: path.replace(target), file)
        except BaseException:  # an interruption too leaves nothing behind
            path.unlink(missing_ok=True)
            raise


def _locked(path: Path, mode: int) -> IO[bytes]:
    """Make a file that is locked: `sweep` takes away what nobody locks."""
    while True:
        file = open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
        if lock(file.fileno()) is not False and os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # swept away before it was locked


def _name_beside(target: Path) -> Path:
    return target.with_name(f".mmgen-{os.getpid()}-{os.urandom(4).hex()}")


@contextmanager
def aside(path: Path) -> Iterator[None]:
    """Take a file away, for good if what is done meanwhile succeeds; else it is put back."""
    if not os.path.lexists(path):
        yield
        return
    raise_on_interrupt()
    place = _name_beside(path)  # which `sweep` takes away after a kill
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
                path = Path(entry.path)
                with suppress(OSError), path.open("rb+") as file:
                    if lock(file.fileno()):  # else it is being written, or one cannot tell
                        change_locked(path.unlink, file)


def check_writable(folder: Path) -> None:
    """Check, by trying, that a file can be made in a folder. Leaves nothing behind."""
    if not folder.is_dir():
        raise MmgenError(f"no such folder: {folder}", f"make it first: mkdir -p {folder}")
    with explained("write into", folder, "choose another place with -o"):
        tempfile.TemporaryFile(prefix=".mmgen-", dir=folder).close()

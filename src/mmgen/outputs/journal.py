"""The journal of a batch: a file of JSON lines that says what is done, and that no crash, kill or full disk can spoil.

Knows of a line its `key` (what the result depends on), its `place` (which item of the command it answers), its `error`,
`files` and `drawn_seed`; refuses to know what else is in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Self, TypeAlias, TypeGuard

from mmgen.errors import CannotGoOnError, MmgenError, UsageError, explained
from mmgen.files import change_locked, lock, sweep
from mmgen.outputs.records import FileEntry, Record
from mmgen.text import as_line, from_json

# How an item stands. new: nothing is known; done: its place has its result; failed: its place has its error;
# stale: its place has something else, as its picture or the command changed; copy: another place has its result.
State: TypeAlias = Literal["new", "done", "stale", "failed", "copy"]

SYNC_SECONDS = 1.0  # between two waits for the disk: what a reboot may cost
_BEGINNING = b'{"key": "'  # of every line that `append` writes, by which one that was cut off is told
_CHECK = "choose another file, or see that it can be written"
_MAX_OTHERS = 100  # lines that are no records, before the first one that is: then it is some other file


def key_of(*parts: object) -> str:
    """Return 32 hex digits that stand for these values: the beginning of SHA-256 over their JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))  # ASCII, so halves of surrogate pairs survive
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class _Row(NamedTuple):
    """What is remembered of a place: its last record's key, whether that is an error, where its line begins."""

    key: bytes
    failed: bool
    offset: int


class Journal:
    """A journal that is being written, by nobody else. To be used in a `with` statement.

    On entry it is made, if it is not there, locked, mended if its end was cut off, and read. Of a place the last line
    counts; those before it stay.

    Attributes:
        path: as given.
        drawn_seed: the first that a record has.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.drawn_seed: int | None = None
        self._file = Path(os.path.realpath(path))  # through a link, which stays one
        # 100,000 lines are to cost some 50 MB, so texts are kept as their hashes: of the 64 bits of Python's own, which
        # are salted in each process, two in 100,000 are equal once in 10^9 runs.
        self._rows: dict[int, _Row] = {}  # by hash of the place
        self._results: dict[bytes, int] = {}  # by key: where a line with its result begins
        self._digests: dict[int, bytes] = {}  # of files, by hash of path, size and time
        self._moving = threading.Lock()  # held while its place in the file is moved, to read or to write
        self._synced = 0.0

    # Opening and closing

    def __enter__(self) -> Self:
        with explained("write", self.path, _CHECK):
            self._is_new = not self._file.exists()
            self._handle = _open_locked(self._file, self.path)
            try:
                sweep(self._file.parent)
                self._read()
            except BaseException:
                self._handle.close()
                raise
        return self

    def __exit__(self, *failure: object) -> None:
        with explained("write", self.path, _CHECK), self._handle:  # closed, and with that unlocked
            os.fsync(self._handle)
            is_empty = not os.fstat(self._handle.fileno()).st_size
            if self._is_new and is_empty and _names(self._file, self._handle):
                change_locked(self._file.unlink, self._handle)

    def _lines_from(self, offset: int) -> IO[bytes]:
        """Give what is in the file from there on; with the one handle, as Windows lets no other read what is locked."""
        self._handle.seek(offset)
        return os.fdopen(self._handle.fileno(), "rb", closefd=False)

    def _read(self) -> None:
        """Learn what is in the file, and mend its last line if that was cut off. Lines that are no records are let be.

        Raises:
            UsageError: none is one. It is some other file then, unless all there is is the beginning of a record.
        """
        line, is_record, offset, n_others = b"\n", False, 0, 0
        for line in self._lines_from(0):
            record = from_json(line)
            if is_record := _is_record(record):
                self._learn(record, offset)
            elif offset or not _BEGINNING.startswith(line[: len(_BEGINNING)]) or line.endswith(b"\n"):
                n_others += 1
            if n_others > _MAX_OTHERS and not self._rows:
                break
            offset += len(line)
        if n_others and not self._rows:
            raise UsageError(
                f"{self.path} is not the journal of a batch, and is left as it is",
                "name a new file; results saved from --json have no keys to go on by",
            )
        if not line.endswith(b"\n"):
            if is_record:
                self._handle.write(b"\n")
            else:
                self._handle.truncate(offset - len(line))

    def _learn(self, record: Mapping[str, Any], offset: int) -> None:
        place = hash(record["place"])
        row = _Row(bytes.fromhex(record["key"]), "error" in record, offset)
        self._rows[place] = row
        if not row.failed:
            self._results[row.key] = offset
        match record:
            case {"drawn_seed": int(seed)} if self.drawn_seed is None:
                self.drawn_seed = seed
        entries = record.get("files")
        for entry in entries if isinstance(entries, list) else ():
            match entry:
                case {"path": str(path), "size": int(size), "mtime_ns": int(mtime_ns), "sha256": str(digest)}:
                    if re.fullmatch("[0-9a-f]{64}", digest):
                        self._digests[hash((path, size, mtime_ns))] = bytes.fromhex(digest)

    # Looking up

    def state(self, key: str, place: str) -> State:
        """Say how the item of this key stands at this place."""
        digest = bytes.fromhex(key)
        row = self._rows.get(hash(place))
        if row is not None and row.key == digest:
            return "failed" if row.failed else "done"
        if digest in self._results:
            return "copy"
        return "new" if row is None else "stale"

    def result(self, key: str) -> Record:
        """Return a record that has the result of this key, where an item is done, or one it is a copy of.

        Raises:
            KeyError: there is none.
        """
        return self._record_at(self._results[bytes.fromhex(key)])

    def last(self, place: str) -> Record | None:
        """Return the last record of a place, if it has one."""
        row = self._rows.get(hash(place))
        return None if row is None else self._record_at(row.offset)

    def _record_at(self, offset: int) -> Record:
        """Read a line. Threads may do so side by side."""
        with self._moving:
            line = self._lines_from(offset).readline()
        record: Record = json.loads(line)
        return record

    def records(self) -> Iterator[Record]:
        """Yield the last record of each place, in the order in which they came."""
        for row in sorted(self._rows.values(), key=lambda row: row.offset):
            yield self._record_at(row.offset)

    def file_entry(self, path: str) -> FileEntry:
        """Return what a record's `files` say of a file: `path`, which is absolute, `size`, `mtime_ns`, `sha256`.

        It is not read if size and time are as they were. Threads may call it side by side.

        Raises:
            MmgenError: it cannot be read.
        """
        absolute = str(Path(path).absolute())
        with explained("read", path, "check that it can be read"):
            now = Path(path).stat()  # before it is read: if it changes meanwhile, it is read again
            mark = hash((absolute, now.st_size, now.st_mtime_ns))
            digest = self._digests.get(mark)
            if digest is None:
                if not stat.S_ISREG(now.st_mode):
                    raise MmgenError(f"{path} is not a regular file", "save it to a file first")
                with Path(path).open("rb") as file:
                    digest = self._digests[mark] = hashlib.file_digest(file, "sha256").digest()
        return {"path": absolute, "size": now.st_size, "mtime_ns": now.st_mtime_ns, "sha256": digest.hex()}

    # Writing

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record, which needs a `key` and a `place`, as a whole line or not at all.

        Raises:
            CannotGoOnError: it cannot be written (a full disk); the file is as it was.
        """
        record = {"key": record["key"], "place": record["place"], **record}  # in this order: see _BEGINNING
        if not _is_record(record):
            raise TypeError(f"a record needs a key of 32 hex digits and a place: {record}")
        with explained("write", self.path, _CHECK, CannotGoOnError):
            offset = self._write(as_line(record).encode())
        self._learn(record, offset)

    def _write(self, line: bytes) -> int:
        """Write at the end of the file, all or nothing, and return where that was."""
        if not _names(self._file, self._handle):
            raise MmgenError(
                f"{self.path} was removed or replaced while it was being written",
                "give the same command again: it goes on from what is there",
            )
        end = os.fstat(self._handle.fileno()).st_size
        try:
            with self._moving:
                while line:  # once, unless the disk is full: then the second time says so
                    line = line[self._handle.write(line) :]
            if time.monotonic() >= self._synced + SYNC_SECONDS:
                os.fsync(self._handle)
                self._synced = time.monotonic()
        except BaseException:  # an interruption too leaves nothing torn
            self._handle.truncate(end)
            raise
        return end


# The file


def _open_locked(file: Path, name: str | Path) -> io.FileIO:
    """Open a journal, which is made if it is not there, so that nobody else can (where there are locks).

    Raises:
        MmgenError: another run has it, it is not a file, or there is no such folder.
        OSError: it cannot be opened.
    """
    folder = Path(name).parent
    if not folder.is_dir():
        raise MmgenError(f"no such folder: {folder}", f"make it first: mkdir -p {folder}")
    while True:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(file.stat().st_mode):
                kind = "a folder, not a file" if file.is_dir() else "not a regular file"
                raise UsageError(f"{name} is {kind}", "name a file, such as captions.jsonl")
        handle = file.open("a+b", buffering=0)
        if lock(handle.fileno()) is False:
            handle.close()
            raise UsageError(f"another run is writing {name}", "wait for it to end, or choose another file")
        # While we were opening it, the run before may have taken it away, if nothing was written.
        if _names(file, handle):
            return handle
        handle.close()


def _names(file: Path, handle: io.FileIO) -> bool:
    """Say whether a path still leads to an open file."""
    return file.exists() and os.path.samestat(file.stat(), os.fstat(handle.fileno()))


def _is_record(found: Mapping[str, Any] | None) -> TypeGuard[Record]:
    match found:
        case {"key": str(key), "place": str()}:
            return re.fullmatch("[0-9a-f]{32}", key) is not None
    return False

"""The journal of a batch: a file of JSON lines that says what is done, and that no crash, kill or full disk can spoil.

Knows of a line its `key` (what the result depends on), its `place` (the id of the item that it answers), its `error`,
`files` and `drawn_seed`; refuses to know what else is in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Literal, Self, TypeAlias, cast

from mmgen.errors import CannotGoOnError, MmgenError, UsageError, explained
from mmgen.files import change_locked, check_writable, lock, real, sweep, sync
from mmgen.inputs.finding import check_file
from mmgen.outputs.index import Index
from mmgen.outputs.records import FileEntry, Record, in_order
from mmgen.text import as_line, from_json

# How an item stands. new: nothing is known; done: its last record is its result; failed: it is its error;
# stale: it is of something else, as its picture or the command changed; copy: another item has its result.
State: TypeAlias = Literal["new", "done", "stale", "failed", "copy"]

_DIGEST, _DIGEST_BYTES = re.compile("[0-9a-f]{64}"), 32  # SHA-256
SYNC_SECONDS = 1.0  # between two waits for the disk: how much a power cut may cost
_BEGINNING = b'{"key": "'  # of every line that `append` writes: tells one that was cut off from some other file
_CHECK = "choose another file, or see that it can be written"


class Journal:
    """A journal that is being written, by nobody else. To be used in a `with` statement.

    On entry it is made, if it is not there, locked, mended if its end was cut off, and read. Of an item's lines the
    last one counts; those before it stay. `drawn_seed` is the first that a record has, and `last_seed` that of the
    last run, drawn or given.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.drawn_seed: int | None = None
        self.last_seed: int | None = None
        self._file = real(path)  # through a link, which stays one
        # A million lines are to cost some 150 MB, so texts are kept as their hashes: of the 64 bits of Python's own,
        # which are salted in each process, two in a million are equal once in 10^7 runs.
        self._items = Index()  # the number of an item's last line among those
        self._keys, self._lines = (
            array("q"),
            array("q"),
        )  # of these: the key; twice where it begins, 1 more if it failed
        self._results = Index()  # by key: where a line with its result begins
        self._files, self._digests = Index(), bytearray()  # by path, size and time: the number of its digest
        self._knowing = threading.Lock()  # held while these are looked at, or grow
        self._moving = threading.Lock()  # held while its position in the file is moved, to read or to write
        self._synced = 0.0

    def __enter__(self) -> Self:
        with explained("write", self.path, _CHECK), ExitStack() as on_failure:
            self._is_new = not self._file.exists()
            if self._is_new:
                check_writable(Path(self.path).parent)
            elif not self._file.is_file():
                raise UsageError(
                    f"{self.path} is a folder or not a regular file", "name a file, such as captions.jsonl"
                )
            self._handle = on_failure.enter_context(self._file.open("a+b", buffering=0))
            # The run before takes its journal away at its end, perhaps just now, if nothing was written.
            if lock(self._handle.fileno()) is False or not self._is_in_place():
                raise UsageError(f"another run is writing {self.path}", "wait for it to end, or choose another file")
            sweep(self._file.parent)
            self._read()
            on_failure.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        with explained("write", self.path, _CHECK), self._handle:  # closed, and with that unlocked
            sync(self._handle)
            if self._is_new and self._is_in_place() and not self._file.stat().st_size:
                change_locked(self._file.unlink, self._handle)

    def _is_in_place(self) -> bool:
        """Say whether the path still leads to the open file."""
        fd = self._handle.fileno()
        return self._file.exists() and os.path.samefile(self._file, fd)  # noqa: PTH121 -- Path.samefile takes no fd

    def _lines_from(self, offset: int) -> IO[bytes]:
        """Give what is in the file from there on; with the one handle, as Windows lets no other read what is locked."""
        self._handle.seek(offset)
        return os.fdopen(self._handle.fileno(), "rb", closefd=False)

    def _read(self) -> None:
        """Learn what is in the file, and mend its last line if that was cut off. Lines that are no records are let be.

        Raises:
            UsageError: none is one. It is some other file then, unless all there is is the beginning of a record.
        """
        line, record, is_other, offset = b"\n", None, False, 0
        for line in self._lines_from(0):
            record = _record_of(line)
            if record:
                self._learn(record, offset)
            elif offset or line.endswith(b"\n") or not _BEGINNING.startswith(line[: len(_BEGINNING)]):
                is_other = True
            offset += len(line)
        if is_other and not self._keys:
            raise UsageError(
                f"{self.path} is not the journal of a batch, and is left as it is",
                "name a new file; results saved from --json have no keys to go on by",
            )
        if not line.endswith(b"\n"):
            if record:
                self._handle.write(b"\n")
            else:
                self._handle.truncate(offset - len(line))

    def _learn(self, record: Record, offset: int) -> None:
        item, key, failed = hash(record["place"]), hash(record["key"]), "error" in record
        with self._knowing:
            number = self._items.get(item)
            if number is None:
                self._items.put(item, len(self._keys))
                self._keys.append(key)
                self._lines.append(2 * offset + failed)
            else:
                self._keys[number], self._lines[number] = key, 2 * offset + failed
            if not failed:
                self._results.put(key, offset)
        match record:
            case {"drawn_seed": int(seed)} if self.drawn_seed is None:
                self.drawn_seed = seed
        match record:
            case {"drawn_seed": int(seed)} | {"given_seed": int(seed)}:
                self.last_seed = seed
        match record:
            case {"files": [*entries]}:
                for entry in entries:
                    match entry:
                        case {"path": path, "size": size, "mtime_ns": mtime_ns, "sha256": str(digest)}:
                            self._remember(hash(f"{path} {size} {mtime_ns}"), digest)

    def _remember(self, mark: int, digest: str) -> None:
        """Keep the digest of a file, if it is one."""
        if _DIGEST.fullmatch(digest):
            with self._knowing:
                self._files.put(mark, len(self._digests))
                self._digests += bytes.fromhex(digest)

    def _digest_of(self, mark: int) -> str | None:
        with self._knowing:
            at = self._files.get(mark)
            return None if at is None else self._digests[at : at + _DIGEST_BYTES].hex()

    def _row(self, item_id: str) -> tuple[int, bool, int] | None:
        """Give of an item's last line the hash of its key, whether it failed, and where it begins."""
        with self._knowing:
            number = self._items.get(hash(item_id))
            if number is None:
                return None
            return self._keys[number], bool(self._lines[number] & 1), self._lines[number] >> 1

    def _result_of(self, key: str) -> int | None:
        with self._knowing:
            return self._results.get(hash(key))

    def state(self, key: str, item_id: str) -> State:
        """Say how an item stands that has this key now."""
        row = self._row(item_id)
        if row and row[0] == hash(key):
            return "failed" if row[1] else "done"
        if self._result_of(key) is not None:
            return "copy"
        return "stale" if row else "new"

    def result(self, key: str) -> Record:
        """Return a record that has the result of this key, where an item is done, or a copy.

        Raises:
            KeyError: there is none.
        """
        offset = self._result_of(key)
        if offset is None:
            raise KeyError(key)
        return self._record_at(offset)

    def last(self, item_id: str) -> Record | None:
        """Return the last record of an item, if it has one."""
        row = self._row(item_id)
        return self._record_at(row[2]) if row else None

    def records(self) -> Iterator[Record]:
        """Yield the last record of each item, in the order in which they came."""
        for line in sorted(self._lines):
            yield self._record_at(line >> 1)

    def _record_at(self, offset: int) -> Record:
        """Read a line. Threads may do so side by side."""
        with self._moving:
            line = self._lines_from(offset).readline()
        record: Record = json.loads(line)
        return record

    def file_entry(self, path: str) -> FileEntry:
        """Return what a record's `files` say of a file: `path`, which is absolute, `size`, `mtime_ns`, `sha256`.

        It is not read if size and time are as they were. Threads may call it side by side.

        Raises:
            MmgenError: it cannot be read.
        """
        file = Path(path).absolute()
        with explained("read", path, "check that it can be read"):
            now = file.stat()  # before it is read: if it changes meanwhile, it is read again
            mark = hash(f"{file} {now.st_size} {now.st_mtime_ns}")
            digest = self._digest_of(mark)
            if digest is None:
                check_file(path)
                with file.open("rb") as opened:
                    digest = hashlib.file_digest(opened, "sha256").hexdigest()
                self._remember(mark, digest)
        return {"path": str(file), "size": now.st_size, "mtime_ns": now.st_mtime_ns, "sha256": digest}

    def append(self, record: Record) -> None:
        """Add a record, which needs a `key` and a `place`, as a whole line or not at all.

        Raises:
            CannotGoOnError: it cannot be written (a full disk); the file is as it was.
        """
        line = as_line(in_order(record)).encode()  # which begins with the key: see _BEGINNING
        if not _record_of(line):
            raise TypeError(f"a record needs a key of 32 hex digits and a place: {record}")
        with explained("write", self.path, _CHECK, CannotGoOnError):
            if not self._is_in_place():
                raise MmgenError(
                    f"{self.path} was removed or replaced while it was being written",
                    "give the same command again: it goes on from what is there",
                )
            end = self._file.stat().st_size
            try:
                with self._moving:
                    while line:  # once, unless the disk is full: then the second time says so
                        line = line[self._handle.write(line) :]
                if time.monotonic() >= self._synced + SYNC_SECONDS:
                    sync(self._handle)
                    self._synced = time.monotonic()
            except BaseException:  # an interruption too leaves nothing torn
                self._handle.truncate(end)
                raise
        self._learn(record, end)


def _record_of(line: bytes) -> Record | None:
    """Read a line; None: it is no record of a batch."""
    match record := from_json(line):
        case {"key": str(key), "place": str()} if re.fullmatch("[0-9a-f]{32}", key):
            return cast(Record, record)
    return None

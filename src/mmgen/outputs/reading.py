"""The records of batches, read from files of JSON lines when they are asked for: a million take some bytes each.

Nothing in a record is trusted. Refuses to know models.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TypeAlias, overload

from mmgen.errors import MmgenError, explained
from mmgen.text import from_json

AnyRecord: TypeAlias = Mapping[str, object]  # a Record, or what an older version or somebody else wrote

_LIKE_THIS = "give a file that --jsonl wrote, or what --json printed"
# How a line begins that a journal wrote (records.in_order), and where the place of its item stands in it.
_BEGINNING = re.compile(rb'\{"key": "[0-9a-f]{32}", "place": "([^"\\]*)", "version": \d+, "command": "')


class Records(Sequence[AnyRecord]):
    """Of each item the last record, in the order of the files; a torn last line is left out.

    Raises:
        MmgenError: a file cannot be read, or holds something else.
    """

    def __init__(self, *paths: str | Path) -> None:
        self._paths, self._begins = [Path(path) for path in paths], [0]  # where each begins, were they one file
        items, offsets = array("q"), array("q")
        for path in self._paths:
            offset = self._begins[-1]
            with explained("open", path, _LIKE_THIS), path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    item = _item_of(line, path, number)
                    if item is not None:
                        items.append(item)
                        offsets.append(offset)
                    offset += len(line)
            self._begins.append(offset)
        if not items:
            raise MmgenError(f"no records in {', '.join(map(str, paths))}", _LIKE_THIS)
        import numpy as np

        _, first = np.unique(np.frombuffer(items, np.int64)[::-1], return_index=True)  # of the reversed: the last
        self._offsets = array("q", np.sort(np.frombuffer(offsets, np.int64)[::-1][first]).tobytes())

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[AnyRecord]:
        with ExitStack() as stack:
            which, file = -1, None
            for offset in self._offsets:
                while file is None or offset >= self._begins[which + 1]:
                    which += 1
                    file = stack.enter_context(self._paths[which].open("rb"))
                yield self._read(file, which, offset)

    @overload
    def __getitem__(self, index: int) -> AnyRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[AnyRecord]: ...
    def __getitem__(self, index: int | slice) -> AnyRecord | Sequence[AnyRecord]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        offset = self._offsets[index]
        which = next(i for i, end in enumerate(self._begins[1:]) if offset < end)
        with self._paths[which].open("rb") as file:
            return self._read(file, which, offset)

    def _read(self, file: IO[bytes], which: int, offset: int) -> AnyRecord:
        file.seek(offset - self._begins[which])
        record = from_json(file.readline())
        if record is None:
            raise MmgenError(f"{self._paths[which]} has a damaged record", _LIKE_THIS)
        return record


def _item_of(line: bytes, path: Path, number: int) -> int | None:
    """Say which item a line is of, as a hash; None: it is empty, or torn."""
    found = _BEGINNING.match(line)
    if found is not None and line.endswith(b"}\n"):
        return hash(found[1].decode(errors="surrogateescape"))
    record = from_json(line)
    if record and isinstance(record.get("command"), str) and record["command"]:
        place = record.get("place")
        return hash(place) if isinstance(place, str) and place else hash((path, number))
    if line.strip() and line.endswith(b"\n"):
        raise MmgenError(f"{path}: line {number} is not a record", _LIKE_THIS)
    return None

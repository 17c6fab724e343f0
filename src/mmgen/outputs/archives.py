"""Tables and archives of many rows, written as they come: parquet, and tar as webdataset has it. Knows no record."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import IO

from mmgen.errors import MmgenError
from mmgen.inputs.selection import is_installed

# The columns of a table, with their types.
COLUMNS = {
    "key": "string", "sha256": "string", "path": "string", "text": "string", "model": "string", "revision": "string",
    "seed": "int64", "error": "string", "command": "string", "prompt": "string", "output": "string",
}  # fmt: skip
_GROUP = 10_000  # rows that are held, and stand in a row group


def write_parquet(rows: Iterable[Mapping[str, object]], file: IO[bytes]) -> None:
    """Write rows as parquet (parquet.apache.org), row group by row group.

    Raises:
        MmgenError: the package is missing.
    """
    if not is_installed("pyarrow"):
        raise MmgenError("parquet takes a package", "pip install pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in COLUMNS.items()])
    with pq.ParquetWriter(file, schema) as writer:
        waiting = iter(rows)
        while group := list(islice(waiting, _GROUP)):
            columns = {name: [row.get(name) for row in group] for name in COLUMNS}
            writer.write_table(pa.table(columns, schema=schema))


def write_tar(samples: Iterable[tuple[str, Mapping[str, bytes]]], file: IO[bytes]) -> None:
    """Write samples as tar: of each (its key, what belongs to it by endings); the same samples give the same bytes."""
    for key, parts in samples:
        for ending, data in parts.items():
            info = tarfile.TarInfo(f"{key}{ending}")
            info.size = len(data)
            file.write(info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE))
    file.write(bytes(2 * tarfile.BLOCKSIZE))  # the end

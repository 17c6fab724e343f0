"""Pictures in parquet files, row group by row group: as bytes, as Hugging Face's image feature, as paths or addresses.

The image feature is {bytes, path} (huggingface.co/docs/datasets/image_dataset). Package pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmgen.errors import MmgenError, first_line
from mmgen.inputs.selection import Selection, is_installed

_ROWS = 32  # that are held at once
_USUAL = ("image", "jpg", "png", "bytes", "url", "path")  # columns of pictures, where none is named


class Row(NamedTuple):
    """A picture in a table: its key, all of it or where it is, and what to ask about it, if a column says so."""

    key: str
    data: bytes | None
    source: str
    words: str | None


def is_table(path: str) -> bool:
    """Say whether a name is that of a table of pictures."""
    return path.lower().endswith(".parquet") and Path(path).is_file()


def rows(path: str, selection: Selection) -> Iterator[Row | tuple[str, MmgenError]]:
    """Read the pictures of a table in their order; what is none is an error, by its key."""
    if not is_installed("pyarrow"):
        yield "", MmgenError(f"{path} takes a package to read", "pip install pyarrow")
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            named, known = selection.columns, table.schema_arrow.names
            image = named.image or next((name for name in _USUAL if name in known), None)
            for column in filter(None, (image, named.key, named.prompt)):
                if column not in known:
                    yield "", MmgenError(f"{path} has no column {column}", f"it has {', '.join(known)}")
                    return
            if image is None:
                yield "", MmgenError(f"{path} has no column of pictures", f"say which: it has {', '.join(known)}")
                return
            columns = list(dict.fromkeys(filter(None, (image, named.key, named.prompt))))
            number = 0
            for batch in table.iter_batches(_ROWS, columns=columns):
                for cells in batch.to_pylist():
                    number += 1
                    key = cells.get(named.key) if named.key else None
                    yield _row(path, str(number if key is None else key), cells[image], cells.get(named.prompt))
    except (pa.ArrowException, OSError, ValueError) as failure:
        yield "", MmgenError(f"{path} is broken: {first_line(failure)}", "get a whole copy of the table")


def _row(path: str, key: str, cell: object, words: object) -> Row | tuple[str, MmgenError]:
    said = words if isinstance(words, str) and words.strip() else None
    match cell:
        case bytes(data) | {"bytes": bytes(data)}:
            return Row(key, data, "", said)
        case str(source) | {"path": str(source)}:
            return Row(key, None, source, said)
    return key, MmgenError(f"{path}: row {key} has no picture", "its cell is neither bytes nor a path or an address")

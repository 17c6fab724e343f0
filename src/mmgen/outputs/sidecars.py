"""Words beside pictures: a file of text, or of XMP, for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeAlias

from mmgen.errors import MmgenError, explained
from mmgen.inputs.placeholders import expand
from mmgen.outputs.records import Item, Record, Result
from mmgen.outputs.writers import Files, digest_of
from mmgen.outputs.xmp import described
from mmgen.text import folded

Existing: TypeAlias = Literal["skip", "overwrite", "append", "prepend"]


class Sidecars(Files):
    """A text file for each picture. One that was edited by hand, or was there before, is left as it is, unless asked.

    Ours is written anew from its record, without a model, where prefix or suffix are others now. A file holds one line,
    as programs that train on captions read no other.

    Args:
        prefix, suffix: around the words, with placeholders of the picture.
        existing: of a file that is not ours: skip it, overwrite it, or add to it, once for each result.
        multiline: keep the lines of an answer.
        xmp: write XMP instead of text.
    """

    def __init__(
        self,
        prefix: str = "",
        suffix: str = "",
        existing: Existing = "skip",
        multiline: bool = False,
        xmp: bool = False,
    ) -> None:
        super().__init__(existing == "overwrite")
        self._prefix, self._suffix, self._multiline, self._xmp = prefix, suffix, multiline, xmp
        self._adds = existing if existing in ("append", "prepend") else None

    def is_there(self, item: Item, recorded: Callable[[], Record]) -> bool:
        record, now = recorded(), digest_of(self.place(item))
        text = record.get("text")
        if self._adds:  # else it was added, and perhaps edited; or the run was killed before it could be
            return bool(now) and now != record.get("before")
        return isinstance(text, str) and now == sha256(self._encoded(item, text)).hexdigest()

    def is_foreign(self, item: Item, last: Record | None) -> bool:
        is_foreign = super().is_foreign(item, last)
        if last is not None and self.place(item).exists() and (other := _other_picture(item, last)):
            raise MmgenError(
                f"{item.image}: {item.output} is of {other}", "--sidecar-name name gives each picture a file of its own"
            )
        return is_foreign and not self._adds

    @contextmanager
    def stage(self, item: Item, result: Result, record: Record, last: Record | None) -> Iterator[Path | None]:
        record["text"], record["output"] = result.text(item), str(item.output)
        if self._prefix:
            record["prefix"] = self._prefix
        if self._suffix:
            record["suffix"] = self._suffix
        if self.is_foreign(item, last):
            raise MmgenError(f"{item.output} was written meanwhile, and is left", "--existing overwrite replaces it")
        data, place = self._encoded(item, record["text"]), self.place(item)
        if self._adds and place.exists():
            with explained("read", place, "check that it can be read"):
                before = place.read_bytes()
            record["before"] = sha256(before).hexdigest()
            data = _joined(before, data) if self._adds == "append" else _joined(data, before)
        with self.whole(item, data, record) as path:
            yield None if "before" in record else path  # somebody's words are never put aside

    def _encoded(self, item: Item, text: str) -> bytes:
        words = text if self._multiline else folded(text)
        prefix, suffix = (expand(each, item.image or "") for each in (self._prefix, self._suffix))
        words = f"{prefix}{words}{suffix}"
        return described(words) if self._xmp else f"{words}\n".encode()


def _joined(first: bytes, second: bytes) -> bytes:
    """Put words after others: after a space, unless they bring something else to stand between."""
    first = first.rstrip(b"\r\n")
    is_apart = not first or first[-1:] in b" \t\n" or second[:1] in b" \t\n,.;:"
    return first + (b"" if is_apart else b" ") + second.rstrip(b"\r\n") + b"\n"


def _other_picture(item: Item, last: Record) -> str | None:
    """Say which other picture a record is of, if that is still there."""
    for entry in last.get("files", []):
        path = Path(entry["path"])
        if path != Path(item.image or "").absolute() and path.exists() and not path.samefile(item.image or ""):
            return str(last.get("image"))
    return None

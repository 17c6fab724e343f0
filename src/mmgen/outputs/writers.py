"""Where results go, a class a destination: lines on stdout, text beside pictures, picture files, illustrated stories.

Knows items and what came of them; refuses to know what made it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from pathlib import Path

from mmgen.errors import MmgenError, explained
from mmgen.files import check_makeable, real, sweep, sync, uninterrupted, whole_file
from mmgen.outputs.records import Item, Record, Result
from mmgen.outputs.terminal import emit, emit_bytes
from mmgen.request import Picture
from mmgen.text import clean, folded, on_a_line

EMPTY = "try another --seed or another prompt"


class Writer(ABC):
    """Takes results, one item after the other."""

    def is_there(self, item: Item, recorded: Callable[[], Record]) -> bool:
        """Whether an item's result is still there as it would be written now; recorded: reads its record."""
        return True

    def is_foreign(self, item: Item, last: Record | None) -> bool:
        """Whether something stands in an item's place that must not be touched; last: the last record of that place.

        Raises:
            MmgenError: so it is, and nobody said that it may stay.
        """
        return False

    def recall(self, item: Item, record: Record) -> Result | None:
        """Bring back a result for an item from the record of an equal one, or None if that is not possible."""
        return Result([record["text"]]) if "text" in record else None

    def take(self, item: Item, piece: str | Picture, record: Record) -> None:  # noqa: B027 -- most show whole results
        """Show a piece of the only item as it comes."""

    def end_early(self, failure: BaseException) -> None:  # noqa: B027
        """Leave in order what was shown of the only item: nothing more comes."""

    @abstractmethod
    def stage(
        self, item: Item, result: Result, record: Record, last: Record | None
    ) -> AbstractContextManager[Path | None]:
        """Prepare a result, and put it in its place when the `with` block ends.

        The block gets the file that will be replaced, if any, and writes the record. So the order is: temporary file,
        record, rename. Killed after the record, the file is missing and is made again; had it been renamed first, the
        next run would find a file without a record, take it for somebody else's, and refuse to touch it.

        Args:
            record: is filled in with what came.
            last: the last record of the item's place.

        Raises:
            MmgenError: nothing came that could be written, or it cannot be.
        """


class Lines(Writer):
    """A line for each item: path (or prompt), tab and text, with whitespace folded.

    Args:
        shown: on stdout; otherwise texts are only recorded.
        streamed: the only item's text as it comes, and as it is.
        null: lines end with NUL, and names are as they are.
    """

    def __init__(self, shown: bool = True, streamed: bool = False, null: bool = False) -> None:
        self.said = ""  # the last text
        self._shown, self._streamed, self._null = shown, streamed, null
        self._held = ""  # space that is written once a word follows

    def take(self, item: Item, piece: str | Picture, record: Record) -> None:
        if not self._streamed or not isinstance(piece, str):
            return
        as_is = item.request.completion
        text = self._held + clean(piece)
        whole = text if as_is else text.rstrip()
        self._held = text[len(whole) :]
        if not (self.said or as_is):
            whole = whole.lstrip()
        if whole:
            self.said += whole  # before it is seen: whoever interrupts has seen it
            emit(whole)

    def end_early(self, failure: BaseException) -> None:
        if self._streamed and self.said and isinstance(failure, MmgenError):
            emit("\n")

    @contextmanager
    def stage(self, item: Item, result: Result, record: Record, last: Record | None) -> Iterator[None]:
        self.said = record["text"] = result.text(item)
        yield
        if self._streamed:
            emit("\n")
        elif self._shown:
            name = item.image if self._null else on_a_line(item.image or "")
            emit(f"{name or folded(item.prompt)}\t{folded(self.said)}{chr(0) if self._null else chr(10)}")


class Files(Writer):
    """A file for each item; one that is as its record says is ours, and may be replaced."""

    def __init__(self, overwrite: bool = False) -> None:
        self._overwrite = overwrite
        self._folders: set[Path] = set()  # that are made, and swept
        self._checked: set[Path] = set()  # folders that can be written

    def place(self, item: Item) -> Path:
        """Say which file is an item's."""
        return Path(item.output or "")

    def is_there(self, item: Item, recorded: Callable[[], Record]) -> bool:
        return item.output != "-" and os.path.lexists(self.place(item))

    def is_foreign(self, item: Item, last: Record | None) -> bool:
        if os.path.isdir(self.place(item)):  # noqa: PTH112 -- Path raises on names that are too long
            raise MmgenError(f"{self.place(item)} is a folder", "choose another place")
        self._check_folder(self.place(item).parent)
        if self._overwrite or item.output == "-" or not os.path.lexists(self.place(item)):
            return False
        return last is None or last.get("written") != digest_of(self.place(item))

    def _check_folder(self, folder: Path) -> None:
        """Check once, before anything is computed for them, that files can be made in a folder."""
        if folder not in self._checked:
            check_makeable(folder)
            self._checked.add(folder)

    @contextmanager
    def whole(self, item: Item, data: bytes, record: Record) -> Iterator[Path]:
        """Write an item's file beside its place, and move it there at the end."""
        path = real(self.place(item))
        if path.parent not in self._folders:
            make(path.parent)
            sweep(path.parent)
            self._folders.add(path.parent)
        record["written"] = sha256(data).hexdigest()
        with uninterrupted(), whole_file(self.place(item)) as file:  # or the old file would be aside, or gone
            file.write(data)
            file.flush()
            sync(file)  # before the old one is put aside
            yield path


class PictureFiles(Files):
    """A picture for each item; its path on stdout, if shown. The path `-` is stdout itself."""

    def __init__(self, with_metadata: bool = True, shown: bool = True, overwrite: bool = False) -> None:
        super().__init__(overwrite)
        self._with_metadata, self._shown = with_metadata, shown

    def is_foreign(self, item: Item, last: Record | None) -> bool:
        if super().is_foreign(item, last):
            raise MmgenError(f"{item.output} exists", "choose another place with -o, or overwrite it with -f")
        return False

    def recall(self, item: Item, record: Record) -> Result | None:
        path = Path(str(record.get("output")))
        if path.suffix.lower() != self.place(item).suffix.lower():
            return None
        try:
            data = path.read_bytes()
        except OSError:  # it was taken away
            return None
        return Result(copied=(data, record)) if sha256(data).hexdigest() == record.get("written") else None

    @contextmanager
    def stage(self, item: Item, result: Result, record: Record, last: Record | None) -> Iterator[Path | None]:
        data = self._encoded(item, result, record)
        if item.output == "-":
            yield None
            emit_bytes(data)
            return
        record["output"] = str(item.output)
        self.is_foreign(item, last)  # by now, perhaps
        with self.whole(item, data, record) as path:
            yield path
        if self._shown:
            emit(f"{item.output}\n")

    def _encoded(self, item: Item, result: Result, record: Record) -> bytes:
        if result.copied is not None:
            data, other = result.copied
            record["passes"] = other.get("passes")
            if "kept" in other:
                record["kept"], record["prompt"] = other["kept"], other["prompt"]
            if "score" in other:
                record["score"] = other["score"]
            if "seed" in other:
                record["seed"] = other["seed"]
            return data
        picture = next((piece for piece in result.pieces if isinstance(piece, Picture)), None)
        if picture is None:
            raise MmgenError("the model ended without a picture", EMPTY)
        from mmgen.outputs.pictures import encode

        record["passes"] = picture.passes
        if picture.score is not None:
            record["score"], record["seed"] = picture.score, picture.seed
        if picture.kept is not None:
            record["kept"] = picture.kept
        if picture.prompt is not None:
            record["prompt"] = picture.prompt
        return encode(picture, self.place(item), record if self._with_metadata else None, item.sources)


def make(folder: Path) -> None:
    """Make a folder, and those above it."""
    with explained("make", folder, "choose another place with -o"):
        folder.mkdir(parents=True, exist_ok=True)


def digest_of(path: Path) -> str:
    """Digest a file; one that cannot be read has a digest that no file has."""
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""

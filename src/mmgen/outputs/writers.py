"""Where whole results go: lines on stdout, text beside pictures, picture files, illustrated stories.

Knows items and what came of them; refuses to know what made it.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

from mmgen.errors import MmgenError
from mmgen.files import aside, sweep, whole_file
from mmgen.outputs.live import Story
from mmgen.outputs.records import Item, Job, Outcome
from mmgen.outputs.terminal import emit, emit_bytes
from mmgen.signals import uninterrupted
from mmgen.text import clean

Keep: TypeAlias = Callable[[Mapping[str, object]], None]
Recorded: TypeAlias = Callable[[], Mapping[str, object]]  # reads the record of an item's result


class Sink(ABC):
    """Takes whole results, one item after the other."""

    def is_there(self, item: Item, recorded: Recorded) -> bool:
        """Say whether what was written for an item is still there, as it would be written now, by its record."""
        return True

    def is_foreign(self, item: Item, record: Mapping[str, object] | None) -> bool:
        """Say whether something stands in an item's place that must not be touched; record: the last of that place.

        Raises:
            MmgenError: so it is, and nobody said that it may stay.
        """
        return False

    def cleared(self, item: Item) -> AbstractContextManager[None]:
        """Take away what was written for an item before; put it back if what is done meanwhile fails."""
        return nullcontext()

    def recall(self, item: Item, record: Mapping[str, object]) -> Outcome | None:
        """Bring back a result for an item from the record of an equal one, or None if that is not possible."""
        return Outcome([str(record["text"])]) if "text" in record else None

    @abstractmethod
    def write(self, item: Item, outcome: Outcome, record: Mapping[str, object] | None, keep: Keep) -> None:
        """Write a result.

        Args:
            record: the last of the item's place.
            keep: takes what belongs into the new record. A file is moved in place after that: if we are killed in
                between, it is not there, and is made again; the other way round it would be somebody else's.

        Raises:
            MmgenError: nothing came that could be written, or it cannot be.
        """


class Lines(Sink):
    """A line for each item: path (or prompt), tab and text, with whitespace folded. Not shown: only recorded.

    Attributes:
        said: the last text.
    """

    def __init__(self, shown: bool) -> None:
        self.said = ""
        self._shown = shown

    def write(self, item: Item, outcome: Outcome, record: Mapping[str, object] | None, keep: Keep) -> None:
        self.said = text = text_of(item, outcome)
        keep({"text": text})
        if self._shown:
            emit(f"{item.image or _folded(item.prompt)}\t{_folded(text)}\n")


class Files(Sink):
    """A file for each item; one that is as its record says is ours, and may be replaced."""

    def __init__(self, overwrite: bool) -> None:
        self._overwrite = overwrite
        self._folders: set[Path] = set()  # that are made, and swept

    def is_there(self, item: Item, recorded: Recorded) -> bool:
        return _output(item) != "-" and os.path.lexists(_output(item))

    def is_foreign(self, item: Item, record: Mapping[str, object] | None) -> bool:
        if self._overwrite or not Files.is_there(self, item, dict):
            return False
        return record is None or record.get("written") != _digest(_output(item))

    def cleared(self, item: Item) -> AbstractContextManager[None]:
        return nullcontext() if _output(item) == "-" else aside(Path(_output(item)))

    def put(self, item: Item, data: bytes, result: Mapping[str, object], keep: Keep) -> None:
        """Write an item's file, and have it recorded just before it is in place."""
        path = Path(_output(item))
        if path.parent not in self._folders:
            _make_folder(path.parent)
            sweep(path.parent)
            self._folders.add(path.parent)
        with uninterrupted(), whole_file(path) as file:  # or the old file would be aside, or gone
            file.write(data)
            keep({**result, "written": sha256(data).hexdigest()})


class Sidecars(Files):
    """A text file for each picture. One that was edited by hand, or was there before, is left as it is.

    What we wrote is written anew from the record, without a model, where prefix or suffix are others now.
    """

    def __init__(self, prefix: str = "", suffix: str = "", overwrite: bool = False) -> None:
        super().__init__(overwrite)
        self._prefix, self._suffix = prefix, suffix

    def is_there(self, item: Item, recorded: Recorded) -> bool:
        text = recorded().get("text")
        return isinstance(text, str) and _digest(_output(item)) == sha256(self._encoded(text)).hexdigest()

    def write(self, item: Item, outcome: Outcome, record: Mapping[str, object] | None, keep: Keep) -> None:
        text = text_of(item, outcome)
        self.put(item, self._encoded(text), {"text": text, "output": _output(item)}, keep)

    def _encoded(self, text: str) -> bytes:
        return f"{self._prefix}{text}{self._suffix}\n".encode()


class PictureFiles(Files):
    """A picture for each item; its path on stdout, if shown. The path `-` is stdout itself."""

    def __init__(self, job: Job, with_metadata: bool = True, shown: bool = True, overwrite: bool = False) -> None:
        super().__init__(overwrite)
        self._job = job
        self._with_metadata = with_metadata
        self._shown = shown

    def is_foreign(self, item: Item, record: Mapping[str, object] | None) -> bool:
        if super().is_foreign(item, record):
            raise MmgenError(f"{_output(item)} exists", "choose another place with -o, or overwrite it with -f")
        return False

    def recall(self, item: Item, record: Mapping[str, object]) -> Outcome | None:
        path, seed = Path(str(record.get("output"))), record.get("seed")
        if path.suffix.lower() != Path(_output(item)).suffix.lower() or not isinstance(seed, int):
            return None
        try:
            data = path.read_bytes()
        except OSError:  # it was taken away
            return None
        passes = record.get("passes")
        file = (data, seed, passes if isinstance(passes, int) else None)
        return Outcome(file=file) if sha256(data).hexdigest() == record.get("written") else None

    def write(self, item: Item, outcome: Outcome, record: Mapping[str, object] | None, keep: Keep) -> None:
        data, seed, passes = outcome.file or self._encoded(item, outcome)
        path = _output(item)
        if path == "-":
            emit_bytes(data)
            keep({})
            return
        self.is_foreign(item, record)  # by now, perhaps
        self.put(item, data, {"output": path, "seed": seed, "passes": passes}, keep)
        if self._shown:
            emit(path + "\n")

    def _encoded(self, item: Item, outcome: Outcome) -> tuple[bytes, int, int | None]:
        from mmgen.outputs.pictures import encode_image, format_of

        if not outcome.pictures:
            raise MmgenError("the model ended without a picture", "try another --seed or another prompt")
        (picture,) = outcome.pictures
        metadata = self._job.metadata(item, picture) if self._with_metadata else None
        path = _output(item)
        data = encode_image(picture.image, "PNG" if path == "-" else format_of(path), metadata)
        return data, picture.seed, picture.passes


class Stories(Sink):
    """A folder for each item; the path of its page on stdout, if shown."""

    def __init__(self, job: Job, with_metadata: bool = True, shown: bool = True, overwrite: bool = False) -> None:
        self._job = job
        self._with_metadata = with_metadata
        self._shown = shown
        self._overwrite = overwrite

    def is_there(self, item: Item, recorded: Recorded) -> bool:
        page = _page(item)
        if not page.is_file():
            return False
        pictures = re.findall(r"\]\((\d{3,}\.png)\)", page.read_text("utf-8", "replace"))
        return all((page.parent / picture).is_file() for picture in pictures)

    def is_foreign(self, item: Item, record: Mapping[str, object] | None) -> bool:
        is_ours = record is not None and record.get("written") == _digest(_page(item))
        if _page(item).is_file() and not (self._overwrite or is_ours):
            raise MmgenError(f"{item.output} has a story", "choose another place with -o, or overwrite it with -f")
        return False

    def cleared(self, item: Item) -> AbstractContextManager[None]:
        return aside(_page(item))

    def recall(self, item: Item, record: Mapping[str, object]) -> Outcome | None:
        return None  # a story is told again

    def write(self, item: Item, outcome: Outcome, record: Mapping[str, object] | None, keep: Keep) -> None:
        self.is_foreign(item, record)  # by now, perhaps
        folder = Path(_output(item))
        _make_folder(folder.parent)
        sweep(folder)

        def keep_page(page: bytes) -> None:
            keep({"output": str(folder), "parts": story.parts, "written": sha256(page).hexdigest()})

        with Story(self._job, item, str(folder), self._with_metadata, shown=False, keep=keep_page) as story:
            for piece in outcome.pieces:
                story.take(piece)
        if self._shown:
            emit(f"{_page(item)}\n")


def text_of(item: Item, outcome: Outcome) -> str:
    """Give an item's words as they are recorded: without space around them, unless a text was continued."""
    text = clean(outcome.text)
    return text if item.request.completion else text.strip()


def _folded(text: str) -> str:
    return " ".join(text.split())


def _output(item: Item) -> str:
    assert item.output is not None
    return item.output


def _page(item: Item) -> Path:
    return Path(_output(item)) / "index.md"


def _digest(path: str | Path) -> str:
    """Digest a file; one that cannot be read has a digest that no file has."""
    try:
        return sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise MmgenError(f"cannot make {folder}: {failure.strerror}", "choose another place") from failure

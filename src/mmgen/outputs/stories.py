"""Illustrated stories as folders: index.md and its pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmgen.errors import MmgenError
from mmgen.files import uninterrupted, whole_file
from mmgen.outputs.markdown import link, markdown, page_of
from mmgen.outputs.records import Item, Record, RecordPart, Result
from mmgen.outputs.terminal import emit
from mmgen.outputs.writers import EMPTY, Files, make
from mmgen.request import Picture
from mmgen.text import clean


class Stories(Files):
    """A folder for each item: index.md and its pictures; the path of the page on stdout, if shown.

    Args:
        streamed: the only story's Markdown on stdout as it comes, in place of the path.
    """

    def __init__(
        self, with_metadata: bool = True, shown: bool = True, streamed: bool = False, overwrite: bool = False
    ) -> None:
        super().__init__(overwrite)
        self._with_metadata, self._shown, self._streamed = with_metadata, shown, streamed
        self._page = Path()
        self._parts: list[RecordPart] = []  # of the story that is streamed
        self._n_shown = 0  # letters of it

    def place(self, item: Item) -> Path:
        return Path(item.output or "") / "index.md"

    def is_there(self, item: Item, recorded: Callable[[], Record]) -> bool:
        page = self.place(item)
        if not os.path.isfile(page):  # noqa: PTH113 -- likewise
            return False
        images = re.findall(r"\]\((\d{3,}\.png)\)", page.read_text("utf-8", "replace"))
        return all((page.parent / image).is_file() for image in images)

    def is_foreign(self, item: Item, last: Record | None) -> bool:
        if os.path.isfile(self.place(item)) and super().is_foreign(item, last):  # noqa: PTH113 -- likewise
            raise MmgenError(f"{item.output} has a story", "choose another place with -o, or overwrite it with -f")
        return False

    def recall(self, item: Item, record: Record) -> Result | None:
        return None  # a story is told again

    def take(self, item: Item, piece: str | Picture, record: Record) -> None:
        if self._streamed:
            self._page = self.place(item)
            self._add(self._parts, piece, item, record)
            self._show(markdown(self._parts, link))

    def end_early(self, failure: BaseException) -> None:
        if self._parts:
            if isinstance(failure, MmgenError):
                self._show(markdown(self._parts, link), "\n")
            make(self._page.parent)
            with uninterrupted(), whole_file(self._page) as file:
                file.write(page_of(self._parts))

    @contextmanager
    def stage(self, item: Item, result: Result, record: Record, last: Record | None) -> Iterator[Path]:
        self.is_foreign(item, last)  # by now, perhaps
        parts = self._parts
        if self._streamed:
            self._show(markdown(parts, link), "\n")
        else:
            parts = []
            for piece in result.pieces:
                self._add(parts, piece, item, record)
        if not parts:
            raise MmgenError("the model ended without a word or a picture", EMPTY)
        record["output"], record["parts"] = str(item.output), parts
        with self.whole(item, page_of(parts), record) as path:
            yield path
        if self._shown and not self._streamed:
            emit(f"{self.place(item)}\n")

    def _add(self, parts: list[RecordPart], piece: str | Picture, item: Item, record: Record) -> None:
        """Add the next words, or write the next picture into the folder and add that."""
        before = parts[-1]["text"] if parts and "text" in parts[-1] else ""
        if isinstance(piece, Picture):
            from mmgen.outputs.pictures import encode

            folder = self.place(item).parent
            make(folder)
            path = folder / f"{sum('image' in part for part in parts) + 1:03d}.png"
            with whole_file(path) as file:
                file.write(encode(piece, path, record if self._with_metadata else None, item.sources))
            parts.append({"image": str(path), "seed": piece.seed, "passes": piece.passes})
            return
        text = clean(piece)
        if not before or before.endswith("\n\n"):
            text = text.lstrip()
        if before:
            parts[-1]["text"] = before + text
        elif text:
            parts.append({"text": text})

    def _show(self, text: str, end: str = "") -> None:
        """Show what is new of a text, and see to it that it ends so."""
        text = text if text.endswith(end) else text + end
        emit(text[self._n_shown :])
        self._n_shown = len(text)

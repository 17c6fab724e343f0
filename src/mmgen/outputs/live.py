"""A reply as it is made: an answer on stdout, a story on stdout and in a folder. Knows pieces, but no models."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from mmgen.errors import MmgenError
from mmgen.files import whole_file
from mmgen.outputs.markdown import link
from mmgen.outputs.records import Item, Job
from mmgen.outputs.terminal import emit
from mmgen.request import Picture
from mmgen.signals import uninterrupted
from mmgen.text import clean


class Answer:
    """One answer, streamed; space around it is dropped, unless the prompt's text is being continued.

    Attributes:
        said: what was written of it.
    """

    def __init__(self, as_is: bool = False) -> None:
        self.said = ""
        self._as_is = as_is
        self._held = ""  # space that is written once a word follows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *failure: object) -> None:
        """End the line, unless nothing was said before it failed or was interrupted."""
        if kind is None or (self.said and issubclass(kind, MmgenError)):
            emit("\n")

    def take(self, piece: str | Picture) -> None:
        """Write the next words."""
        if not isinstance(piece, str):
            return
        text = self._held + clean(piece)
        whole = text if self._as_is else text.rstrip()
        self._held = text[len(whole) :]
        if not (self.said or self._as_is):
            whole = whole.lstrip()
        if whole:
            self.said += whole  # before it is seen: whoever interrupts has seen it
            emit(whole)


class Story:
    """One reply of words and pictures: Markdown on stdout, if shown, and the same in a folder with its pictures.

    The folder is made on entry; on exit it gets index.md, or is taken away again if nothing came.

    Args:
        keep: is given index.md just before it is in place.

    Attributes:
        parts: what came, as in a record: `text`, or `image` (a path), `seed` and `passes`.
    """

    def __init__(
        self,
        job: Job,
        item: Item,
        folder: str,
        with_metadata: bool = True,
        shown: bool = True,
        keep: Callable[[bytes], None] = lambda page: None,
    ) -> None:
        self.parts: list[dict[str, object]] = []
        self._keep = keep
        self._job, self._item = job, item
        self._folder = Path(folder)
        self._with_metadata = with_metadata
        self._shown = shown
        self._pages = ""  # index.md so far
        self._n_pictures = 0

    def __enter__(self) -> Self:
        self._is_ours = not self._folder.is_dir()
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as failure:
            raise MmgenError(
                f"cannot make {self._folder}: {failure.strerror}", "choose another place with -o"
            ) from failure
        return self

    def __exit__(self, kind: type[BaseException] | None, *failure: object) -> None:
        """Write index.md with what there is: all of it, or as far as it came."""
        if self._pages and not self._pages.endswith("\n") and (kind is None or issubclass(kind, MmgenError)):
            self._write("\n", "\n")
        if self.parts:
            page = (self._pages.rstrip("\n") + "\n").encode()
            with uninterrupted(), whole_file(self._folder / "index.md") as file:
                file.write(page)
                self._keep(page)
            return
        if self._is_ours:
            with suppress(OSError):
                self._folder.rmdir()
        if kind is None:
            raise MmgenError("the model ended without a word or a picture", "try another --seed or another prompt")

    def take(self, piece: str | Picture) -> None:
        """Write the next words, or the next picture."""
        if isinstance(piece, str):
            self._text(clean(piece))
        else:
            self._picture(piece)

    def _text(self, text: str) -> None:
        if self._pages.endswith("\n\n") or not self._pages:
            text = text.lstrip()
        if not text:
            return
        self._write(text, text)
        if self.parts and "text" in self.parts[-1]:
            text = f"{self.parts.pop()['text']}{text}"
        self.parts.append({"text": text})

    def _picture(self, picture: Picture) -> None:
        from mmgen.outputs.pictures import save_image

        self._n_pictures += 1
        path = self._folder / f"{self._n_pictures:03d}.png"
        save_image(picture.image, path, self._job.metadata(self._item, picture) if self._with_metadata else None)
        gap = "\n" * (2 - len(self._pages[-2:]) + len(self._pages[-2:].rstrip("\n"))) if self._pages else ""
        title = f"{gap}![picture {self._n_pictures}]"
        self._write(f"{title}({path.name})\n\n", f"{title}({link(path)})\n\n")
        self.parts.append({"image": str(path), "seed": picture.seed, "passes": picture.passes})

    def _write(self, page: str, shown: str) -> None:
        self._pages += page
        if self._shown:
            emit(shown)

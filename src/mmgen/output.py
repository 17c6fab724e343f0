"""Where results go: text and JSON lines on stdout, picture files, an illustrated story in a folder.

Knows requests and pieces; refuses to know what made them.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Self

from mmgen import __version__
from mmgen.errors import MmgenError
from mmgen.request import Done, Picture, Piece, Progress, Request
from mmgen.streams import Notes, clean, emit, emit_bytes

if TYPE_CHECKING:
    from mmgen.images import Metadata


@dataclass(frozen=True)
class Item:
    """One thing asked for: the request, and how the user put it.

    Attributes:
        request: seed and sampling; its parts may be left out.
        prompt: the words.
        image: the picture it is about, as given, where a command takes exactly one.
        images: the pictures, as given, where a command takes any number.
        line: where it stands in a file of many.
    """

    request: Request
    prompt: str
    image: str | None = None
    images: tuple[str, ...] | None = None
    line: int | None = None


@dataclass(frozen=True)
class Job:
    """What all results of one command share."""

    command: str
    model: str
    revision: str | None
    items: Sequence[Item]
    as_json: bool = False

    def record(self, item: Item, seconds: float, result: Mapping[str, object]) -> str:
        """Write a result as one line of JSON.

        The keys: `command`, `model` (`name`, `revision`), `line` (where one of a file of many stands), `image`
        (caption, vary) or `images` (ask, interleave) as given, `prompt`, the result (`text`; `output`, a path; `output`
        and `parts`; or `error`), `seed`, `sampling` (by kind, "text" and "image", what request.py's classes hold),
        `seconds` (since the result before, or since the model was ready).
        """
        fields: dict[str, object] = {"command": self.command, "model": {"name": self.model, "revision": self.revision}}
        if item.line is not None:
            fields["line"] = item.line
        if item.image is not None:
            fields["image"] = item.image
        if item.images is not None:
            fields["images"] = list(item.images)
        fields |= {"prompt": item.prompt, **result}
        fields.setdefault("seed", item.request.seed)
        fields |= {"sampling": _sampling(item.request), "seconds": round(seconds, 3)}
        line = json.dumps(fields, ensure_ascii=False)
        try:
            line.encode()
        except UnicodeEncodeError:  # a file name that is not UTF-8
            line = json.dumps(fields)
        return line + "\n"

    def metadata(self, item: Item, picture: Picture) -> Metadata:
        """Say how a picture was made, for its file: no paths, so of a model's folder only the name."""
        return {
            "mmgen": __version__,
            "prompt": item.prompt,
            "model": plain_name(self.model),
            "revision": self.revision,
            "seed": picture.seed,
            "sampling": _sampling(item.request),
        }


def plain_name(model: str) -> str:
    """Say which model it was without saying where it lies."""
    is_path = model.startswith(("/", ".", "~")) or Path(model).is_dir()
    return Path(model).resolve().name if is_path else model


def _sampling(request: Request) -> dict[str, dict[str, float | int | str | None]]:
    by_kind = {"text": asdict(request.text), "image": asdict(request.image)}
    return {kind: by_kind[kind] for kind in by_kind if kind in request.want}


class Sink(ABC):
    """Takes the pieces of a job's items as they come.

    Attributes:
        failed: how many items ended in an error.
        said: the words of the answer that was written last, or is being written.
    """

    def __init__(self, job: Job, notes: Notes) -> None:
        self.job = job
        self.notes = notes
        self.failed = 0
        self.said = ""
        self._since = time.monotonic()

    def take(self, index: int, piece: Piece | Done | MmgenError) -> None:
        """Take the next piece of an item, or what ended it."""
        if isinstance(piece, Progress):
            n_items = len(self.job.items)
            which = f"picture {index + 1} of {n_items}, " if n_items > 1 else ""
            self.notes.progress(f"drawing {which}{piece.done}/{piece.total}")
            return
        self.notes.clear()
        if isinstance(piece, str):
            self.text(index, clean(piece))
        elif isinstance(piece, Picture):
            self.picture(index, piece)
        else:
            self.end(index, piece if isinstance(piece, MmgenError) else None)

    def text(self, index: int, text: str) -> None:  # noqa: B027 -- a sink of pictures lets words pass
        """Take words."""

    def picture(self, index: int, picture: Picture) -> None:  # noqa: B027
        """Take a picture."""

    @abstractmethod
    def end(self, index: int, error: MmgenError | None) -> None:
        """Finish an item."""

    def emit_record(self, index: int, result: Mapping[str, object]) -> None:
        """Write an item's line of JSON."""
        now = time.monotonic()
        emit(self.job.record(self.job.items[index], now - self._since, result))
        self._since = now

    def fail(self, index: int, error: MmgenError) -> None:
        """Say that an item failed. An only item's error is the command's."""
        if self.job.as_json:
            self.emit_record(index, {"error": error.message})
        item = self.job.items[index]
        if len(self.job.items) == 1 and item.line is None:
            raise error
        about = f"line {item.line}" if item.line else item.image or shorten(item.prompt, 60, placeholder=" …")
        self.notes.error(error, about="" if item.image and item.image in error.message else about)
        self.failed += 1


class Answer(Sink):
    """One answer, streamed as it comes; space around it is dropped, unless the prompt's text is being continued."""

    def __init__(self, job: Job, notes: Notes) -> None:
        super().__init__(job, notes)
        self._as_is = job.items[0].request.completion
        self._held = ""  # space that is written once a word follows

    def text(self, index: int, text: str) -> None:
        text = self._held + text
        whole = text if self._as_is else text.rstrip()
        self._held = text[len(whole) :]
        if not (self.said or self._as_is):
            whole = whole.lstrip()
        if whole:
            self.said += whole  # before it is seen: whoever interrupts has seen it
            emit(whole)

    def end(self, index: int, error: MmgenError | None) -> None:
        if self.said or error is None:
            emit("\n")
        if error is not None:
            self.fail(index, error)


class Answers(Sink):
    """A line for each item, in their order, each as soon as it can be: path (or prompt), tab and text, or JSON."""

    def __init__(self, job: Job, notes: Notes) -> None:
        super().__init__(job, notes)
        self._texts = [""] * len(job.items)
        self._ends: dict[int, MmgenError | None] = {}
        self._next = 0

    def text(self, index: int, text: str) -> None:
        self._texts[index] += text

    def end(self, index: int, error: MmgenError | None) -> None:
        self._ends[index] = error
        while self._next in self._ends:
            index = self._next
            self._next += 1
            self._write(index, self._ends.pop(index))

    def _write(self, index: int, error: MmgenError | None) -> None:
        text = self._texts[index]
        self._texts[index] = ""
        if error is not None:
            self.fail(index, error)
            return
        item = self.job.items[index]
        self.said = text if item.request.completion else text.strip()
        if self.job.as_json:
            self.emit_record(index, {"text": self.said})
        else:
            emit(f"{item.image or _folded(item.prompt)}\t{_folded(text)}\n")


class PictureFiles(Sink):
    """A file for each item; its path on stdout once it is in place. The path `-` is stdout itself."""

    def __init__(self, job: Job, notes: Notes, paths: Sequence[str], with_metadata: bool = True) -> None:
        super().__init__(job, notes)
        self._paths = paths
        self._with_metadata = with_metadata
        self._drawn: set[int] = set()

    def picture(self, index: int, picture: Picture) -> None:
        from mmgen.images import encode_image, save_image

        metadata = self.job.metadata(self.job.items[index], picture) if self._with_metadata else None
        path = self._paths[index]
        self._drawn.add(index)
        if path == "-":
            emit_bytes(encode_image(picture.image, "PNG", metadata))
            return
        save_image(picture.image, path, metadata)
        if self.job.as_json:
            self.emit_record(index, {"output": path, "seed": picture.seed})
        else:
            emit(path + "\n")

    def end(self, index: int, error: MmgenError | None) -> None:
        if error is None and index not in self._drawn:
            error = MmgenError("the model ended without a picture", "try another --seed or another prompt")
        if error is not None:
            self.fail(index, error)


class Story(Sink):
    """One reply of words and pictures: Markdown on stdout, and the same in a folder with its pictures.

    The folder is made on entry; on exit it gets index.md, or is taken away again if nothing came.
    """

    def __init__(self, job: Job, notes: Notes, folder: str, with_metadata: bool = True) -> None:
        super().__init__(job, notes)
        self._folder = Path(folder)
        self._with_metadata = with_metadata
        self._pages = ""  # index.md so far
        self._n_pictures = 0
        self._parts: list[dict[str, object]] = []

    def __enter__(self) -> Self:
        self._is_ours = not self._folder.is_dir()
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as failure:
            raise MmgenError(
                f"cannot make {self._folder}: {failure.strerror}", "choose another place with -o"
            ) from failure
        return self

    def __exit__(self, *failure: object) -> None:
        """Write index.md with what there is: all of it, or as far as it came."""
        from mmgen.images import write_file

        if self._parts:
            write_file(self._folder / "index.md", (self._pages.rstrip("\n") + "\n").encode())
        elif self._is_ours:
            with suppress(OSError):
                self._folder.rmdir()

    def text(self, index: int, text: str) -> None:
        if self._pages.endswith("\n\n") or not self._pages:
            text = text.lstrip()
        if not text:
            return
        self._write(text, text)
        if self._parts and "text" in self._parts[-1]:
            text = f"{self._parts.pop()['text']}{text}"
        self._parts.append({"text": text})

    def picture(self, index: int, picture: Picture) -> None:
        from mmgen.images import save_image

        self._n_pictures += 1
        path = self._folder / f"{self._n_pictures:03d}.png"
        metadata = self.job.metadata(self.job.items[index], picture) if self._with_metadata else None
        save_image(picture.image, path, metadata)
        gap = "\n" * (2 - len(self._pages[-2:]) + len(self._pages[-2:].rstrip("\n"))) if self._pages else ""
        title = f"{gap}![picture {self._n_pictures}]"
        self._write(f"{title}({path.name})\n\n", f"{title}({link(path)})\n\n")
        self._parts.append({"image": str(path), "seed": picture.seed})

    def end(self, index: int, error: MmgenError | None) -> None:
        if self._pages and not self._pages.endswith("\n"):
            self._write("\n", "\n")
        if error is None and not self._parts:
            error = MmgenError("the model ended without a word or a picture", "try another --seed or another prompt")
        if error is not None:
            self.fail(index, error)
        elif self.job.as_json:
            self.emit_record(index, {"output": str(self._folder), "parts": self._parts})

    def _write(self, page: str, shown: str) -> None:
        self._pages += page
        if not self.job.as_json:
            emit(shown)


def _folded(text: str) -> str:
    return " ".join(text.split())


def link(path: Path) -> str:
    """Write a path as a Markdown link's target (CommonMark 6.3): in angle brackets where it has spaces or brackets."""
    text = str(path)
    return f"<{text}>" if any(letter in text for letter in " ()<>") else text

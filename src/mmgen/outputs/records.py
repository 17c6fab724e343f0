"""One thing asked for, what came of it, and the record of both. Opens pictures; refuses to know models and outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmgen import __version__, tasks
from mmgen.errors import MmgenError, UsageError
from mmgen.request import WORDS, Picture, Request, option

if TYPE_CHECKING:
    from mmgen.outputs.pictures import Metadata

GROUP = 16  # items that are put to the model together; it takes fewer at a time where memory is short


@dataclass(frozen=True)
class Choice:
    """Which items are done, and how many at a time."""

    fail_fast: bool = option(False, "Stop at the first that fails.", env=False)
    limit: int | None = option(None, "Stop after N that had to be computed.", metavar="N", env=False)
    shard: str | None = option(None, "Do only the I-th of N parts: one part a machine.", metavar="I/N", env=False)
    batch_size: int | None = option(None, "Most at a time. Found by itself if not given.", metavar="N")

    def __post_init__(self) -> None:
        for flag, value in (("--batch-size", self.batch_size), ("--limit", self.limit)):
            if value is not None and value < 1:
                raise UsageError(f"{flag} {value} is out of range", "it is a number of at least 1")
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            raise UsageError(f"--shard {self.shard} is out of range", "as in 1/4 for the first of 4")

    @property
    def group(self) -> int:
        """Most items at a time."""
        return self.batch_size or GROUP

    @property
    def part(self) -> tuple[int, int] | None:
        """(i, n): only the i-th of n parts, from 1, chosen by key."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", self.shard or "", re.ASCII)
        if self.shard is not None and found is None:
            raise UsageError(f"--shard {self.shard} is not I/N", "as in --shard 1/4 for the first of four parts")
        return (int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True)
class Item:
    """One thing asked for, as the user put it.

    Attributes:
        request: what is wanted, the seed and the sampling; its parts are put in by `open`.
        prompt: the words.
        image: the picture it is about, as given, where a command takes exactly one.
        images: the pictures, as given, where a command takes any number.
        sources: where the pictures are.
        output: the file or folder that the result is written to, where there is one.
        line: where it stands in a file of many.
        number: which of several pictures of one prompt.
        again: how many lines before it ask the same.
        own_seed: the seed was given, by a flag or in the item's line; otherwise it was drawn.
        error: why it cannot be asked.
    """

    request: Request
    prompt: str
    image: str | None = None
    images: tuple[str, ...] | None = None
    sources: tuple[str, ...] = ()
    output: str | None = None
    line: int | None = None
    number: int = 0
    again: int = 0
    own_seed: bool = False
    error: MmgenError | None = None

    def open(self) -> Request:
        """Open the pictures and put them where they stand in the prompt.

        Raises:
            MmgenError: one cannot be opened, or it was known that the item cannot be asked.
        """
        from mmgen.inputs.images import open_image

        if self.error is not None:
            raise self.error
        if self.request.parts:
            return self.request
        pictures = [open_image(source) for source in self.sources]
        return replace(self.request, parts=tasks.place(self.prompt, pictures))

    @property
    def place(self) -> str:
        """Say which of a command's items it is: the same again tomorrow, whatever is asked about it."""
        if self.error is not None and self.line is not None:
            return f"line {self.line}"
        named = self.output or self.image or "\0".join([*(self.images or ()), self.prompt])
        which = self.number or self.again
        return f"{named}\0{which}" if which and not self.output else named

    def depends_on(self, contents: Sequence[str]) -> dict[str, object]:
        """List what its result depends on, beside command and model; contents: digests of its pictures."""
        greedy = self.request.want == WORDS and self.request.text.temperature == 0
        seed: object = self.request.seed if self.own_seed else f"drawn + {self.number}"
        return {
            "prompt": self.prompt,
            "completion": self.request.completion,
            "pictures": list(contents),
            "sampling": sampling_of(self.request),
            "seed": None if greedy else seed,
        }


@dataclass
class Outcome:
    """What came of an item: its pieces, or an error, after which pieces do not count.

    Attributes:
        file: a picture as it stands in a file that was written before, with its seed and passes.
    """

    pieces: list[str | Picture] = field(default_factory=list)
    error: MmgenError | None = None
    file: tuple[bytes, int, int | None] | None = None

    @property
    def text(self) -> str:
        """All words."""
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    @property
    def pictures(self) -> list[Picture]:
        """All pictures."""
        return [piece for piece in self.pieces if isinstance(piece, Picture)]


@dataclass(frozen=True)
class Job:
    """What all results of one command share."""

    command: str
    model: str
    revision: str | None

    def record(self, item: Item, seconds: float, result: Mapping[str, object]) -> dict[str, object]:
        """Give a result as an object of JSON.

        The keys: `command`, `model` (`name`, `revision`), `line` (where one of a file of many stands), `image`
        (caption, vary) or `images` (ask, interleave) as given, `prompt`, the result (`text`; `output`, a path, and
        `passes` of the network; `output` and `parts`; or `error`), `seed`, `sampling` (by kind, "text" and "image",
        what request.py's classes hold), `seconds` (since the result before, or since the model was ready). A journal
        adds `key`, `place`, `files` and `drawn_seed` (see journal.py). Of a result in a file, `written` is its
        SHA-256: what is otherwise is not ours.
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
        return fields | {"sampling": sampling_of(item.request), "seconds": round(seconds, 3)}

    def metadata(self, item: Item, picture: Picture) -> Metadata:
        """Say how a picture was made, for its file: no paths, so of a model's folder only the name."""
        return {
            "mmgen": __version__,
            "prompt": item.prompt,
            "model": plain_name(self.model),
            "revision": self.revision,
            "seed": picture.seed,
            "sampling": sampling_of(item.request),
        }


def plain_name(model: str) -> str:
    """Say which model it was without saying where it lies."""
    is_path = model.startswith(("/", ".", "~")) or Path(model).is_dir()
    return Path(model).resolve().name if is_path else model


def sampling_of(request: Request) -> dict[str, dict[str, float | int | str | None]]:
    """Say how words and pictures, as far as they are wanted, are chosen."""
    by_kind = {"text": asdict(request.text), "image": asdict(request.image)}
    return {kind: by_kind[kind] for kind in by_kind if kind in request.want}

"""An item (what is asked for), its result (what came of it), and the record of both: the only JSON.

An item has an id, which records call its `place`: which of the command's items it is, the same in every run; and a key,
which stands for all that its result depends on. Knows neither models nor files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from mmgen.codes import digest
from mmgen.errors import MmgenError
from mmgen.request import WORDS, Edit, ImageSampling, Picture, Request, TextSampling
from mmgen.tasks import insert_images
from mmgen.text import clean

VERSION = 1  # of the record: raised when a field changes its meaning, not when one is added

# The fields of sampling that have always been part of records and keys. One that is added later is there only
# where it differs from its default, so that no journal becomes stale by a new option.
_FIELDS_OF_VERSION_1 = {
    "text": {"temperature", "top_p", "top_k", "repetition_penalty", "max_tokens"},
    "image": {"temperature", "top_p", "top_k", "guidance", "image_guidance", "negative_prompt", "ratio"},
}
_DEFAULTS = {"text": asdict(TextSampling()), "image": asdict(ImageSampling())}


class ModelName(TypedDict):
    """Which model it was: as it was called, and the Hub's commit."""

    name: str
    revision: str | None


class FileEntry(TypedDict):
    """A file as it was when it was read."""

    path: str  # absolute
    size: int
    mtime_ns: int
    sha256: str


class RecordPart(TypedDict, total=False):
    """One part of a story: words, or a picture."""

    text: str
    image: str  # its path
    seed: int
    passes: int | None


class Record(TypedDict, total=False):
    """All that is recorded of an item, in this order: a line of a journal, or of `--json`."""

    key: str  # in journals: 32 hex digits that stand for all that the result depends on
    place: str  # in journals: which of the command's items it is (Item.item_id)
    version: int  # VERSION
    command: str
    model: ModelName
    line: int  # where one of a file of many stands
    image: str  # as given, where a command takes exactly one
    images: list[str]  # as given, where a command takes any number
    system: str  # the system prompt, where there is one
    template_args: dict[str, object]  # variables of the chat template, where there are any
    prompt: str
    text: str  # the result in words
    thoughts: str  # of a model that thought before it answered
    chances: dict[str, float]  # where only some answers may come: the probability of each among them
    prefix: str  # what was put before the words in a sidecar
    suffix: str  # what was put after them
    output: str  # the result's path
    parts: list[RecordPart]  # of a story
    passes: int | None  # of the network, to choose a picture's codes
    edit: dict[str, Any]  # how a picture was made of another's codes, where it was (see request.Edit)
    best_of: int  # pictures that were drawn, of which this is one of the best
    score: float  # by which it was judged: see Picture
    kept: int  # codes of the other that it has at their places
    error: str  # in place of a result
    written: str  # SHA-256 of the result's file: one that differs is not ours
    before: str  # likewise, of what a file held that the result was added to
    seed: int  # where something is random
    sampling: dict[str, dict[str, Any]]  # by kind: what request.TextSampling and request.ImageSampling hold
    seconds: float  # the item's share of the time that the batch took
    files: list[FileEntry]  # in journals: the pictures that were given
    drawn_seed: int  # in journals: the batch's seed, if it was drawn
    given_seed: int  # in journals: the batch's seed, if it was given


@dataclass(frozen=True)
class Item:
    """One thing asked for, as the user put it.

    Attributes:
        request: the kinds wanted, the seed and the sampling; its parts are put in by `open`.
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

    def open(self, strict: bool = False, reads: bool = True) -> Request:
        """Open the pictures and put them where they stand in the prompt; see images.open_image.

        Args:
            reads: whether their pixels are read; one that is edited is, in any case.

        Raises:
            MmgenError: one cannot be opened.
        """
        from mmgen.inputs.images import open_image, open_unread

        if self.request.parts:
            return self.request
        name = self.image if self.sources[:1] != (self.image,) else None  # of a picture whose source is its own data
        if not reads and self.request.edit is None:
            return replace(self.request, parts=insert_images(self.prompt, [open_unread(s, name) for s in self.sources]))
        images = [open_image(source, strict=strict, name=name) for source in self.sources]
        if self.request.edit is not None:
            return replace(self.request, parts=(self.prompt,), source=images[0])
        return replace(self.request, parts=insert_images(self.prompt, images))

    @property
    def item_id(self) -> str:
        """Which of a command's items it is: the same again tomorrow, whatever is asked about it."""
        if self.error is not None and self.line is not None:
            return f"line {self.line}"
        named = self.output or self.image or "\0".join([*(self.images or ()), self.prompt])
        which = self.number or self.again
        return f"{named}\0{which}" if which and not self.output else named

    def depends_on(self, contents: Sequence[str]) -> dict[str, object]:
        """List what its result depends on, beside command and model; contents: digests of its pictures."""
        greedy = self.request.want == WORDS and self.request.text.temperature == 0
        seed: object = self.request.seed if self.own_seed else f"drawn + {self.number}"
        system, arguments = self.request.system, dict(self.request.template_args)
        return {
            **({"system": system} if system is not None else {}),
            **({"template_args": arguments} if arguments else {}),
            **({"choices": list(self.request.choices)} if self.request.choices else {}),
            **({"edit": edit_of(self.request)} if self.request.edit is not None else {}),
            **({"best_of": [self.request.best_of, self.request.rank]} if self.request.best_of > 1 else {}),
            "prompt": self.prompt,
            "completion": self.request.completion,
            "pictures": list(contents),
            "sampling": sampling_of(self.request),
            "seed": None if greedy else seed,
        }


@dataclass
class Result:
    """An item's outcome: its pieces, or an error, after which pieces do not count.

    Attributes:
        thoughts: of a model that thought before it answered.
        chances: of each answer that might have come, where they were given.
        copied: a picture's file that was written for an equal item, with its record.
    """

    pieces: list[str | Picture] = field(default_factory=list)
    error: MmgenError | None = None
    thoughts: str = ""
    chances: dict[str, float] = field(default_factory=dict)
    copied: tuple[bytes, Record] | None = None

    def text(self, item: Item) -> str:
        """Give its words as they are recorded: without space around them, unless a text was continued."""
        text = clean("".join(piece for piece in self.pieces if isinstance(piece, str)))
        return text if item.request.completion else text.strip()


@dataclass(frozen=True)
class Origin:
    """The fields that all records of one command share."""

    command: str
    model: str
    revision: str | None
    model_id: str = ""  # stands for the model's content in keys
    drawn_seed: int | None = None  # the command's seed, if it was drawn
    given_seed: int | None = None  # the command's seed, if it was given

    def key(self, item: Item, contents: Sequence[str]) -> str:
        """Say what an item's result depends on; contents: digests of its pictures."""
        return key_of(self.command, self.model_id, item.depends_on(contents))

    def record(self, item: Item) -> Record:
        """Begin the record of an item: all that is known before its result."""
        record: Record = {
            "version": VERSION,
            "command": self.command,
            "model": {"name": self.model, "revision": self.revision},
            "prompt": item.prompt,
            "sampling": sampling_of(item.request),
        }
        if item.request.system is not None:
            record["system"] = item.request.system
        if item.request.template_args:
            record["template_args"] = dict(item.request.template_args)
        if item.request.edit is not None:
            record["edit"] = edit_of(item.request)
        if item.request.best_of > 1:
            record["best_of"] = item.request.best_of
        if item.line is not None:
            record["line"] = item.line
        if item.image is not None:
            record["image"] = item.image
        if item.images is not None:
            record["images"] = list(item.images)
        if is_random(item.request):
            record["seed"] = item.request.seed
        return record


def key_of(*parts: object) -> str:
    """Return 32 hex digits that stand for these values: the beginning of SHA-256 over their JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))  # ASCII, so halves of surrogate pairs survive
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def in_order(record: Record) -> dict[str, object]:
    """Give a record's fields in the order in which they are written."""
    return {name: record[name] for name in Record.__annotations__ if name in record}  # type: ignore[literal-required]


def plain_name(model: str) -> str:
    """Say which model it was without saying where it lies."""
    is_path = model.startswith(("/", ".", "~")) or Path(model).is_dir()
    return Path(model).resolve().name if is_path else model


def is_random(request: Request) -> bool:
    """Whether the result depends on the seed."""
    kinds: Mapping[str, TextSampling | ImageSampling] = {"text": request.text, "image": request.image}
    return any(kinds[kind].temperature > 0 for kind in request.want)


def edit_of(request: Request) -> dict[str, Any]:
    """Say what was given of how a picture is edited; a mask by a digest."""
    by_default = asdict(Edit())
    said = {name: value for name, value in asdict(request.edit or Edit()).items() if value != by_default[name]}
    return said if request.mask is None else {**said, "mask": digest(request.mask)}


def sampling_of(request: Request) -> dict[str, dict[str, Any]]:
    """Say how words and pictures, as far as they are wanted, are chosen."""
    by_kind = {"text": asdict(request.text), "image": asdict(request.image)}
    return {
        kind: {n: v for n, v in values.items() if n in _FIELDS_OF_VERSION_1[kind] or v != _DEFAULTS[kind][n]}
        for kind, values in by_kind.items()
        if kind in request.want
    }

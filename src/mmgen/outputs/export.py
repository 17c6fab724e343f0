"""A batch as one page to look at: records in, HTML with small pictures in it out. Refuses to know models.

Nothing in a record is trusted: the template escapes all of it, and the page forbids itself scripts and addresses
other than its own. Pictures are opened one at a time, as the page is written.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from mmgen import tasks
from mmgen.errors import MmgenError, explained
from mmgen.files import whole_file
from mmgen.inputs.finding import is_url
from mmgen.inputs.images import open_image
from mmgen.outputs.rerun import rerun
from mmgen.outputs.terminal import Notes
from mmgen.text import from_json

Record: TypeAlias = Mapping[str, object]

_LIKE_THIS = "give a file that --jsonl wrote, or what --json printed"

THUMBNAIL_PX = (320, 480)  # at most, width and height
QUALITY = 80  # of WebP: about 10 KB a photograph

# Control characters, characters that turn the direction of what follows (UAX #9), halves of surrogate pairs.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


# Reading


def read_records(path: str | Path) -> Iterator[Record]:
    """Read a file of JSON lines: of each place the last record, in the order of the file; a torn last line is left out.

    Raises:
        MmgenError: it cannot be read, or holds something else.
    """
    found: dict[object, Record] = {}
    with explained("open", path, _LIKE_THIS), Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            record = from_json(line)
            if record is not None and isinstance(record.get("command"), str):
                key = record.get("place")
                key = key if isinstance(key, str) else number
                found.pop(key, None)
                found[key] = record
            elif line.strip() and line.endswith(b"\n"):
                raise MmgenError(f"{path}: line {number} is not a record", _LIKE_THIS)
    if not found:
        raise MmgenError(f"no records in {path}", _LIKE_THIS)
    yield from found.values()


# The page


@dataclass(frozen=True)
class Figure:
    """A picture on a card: embedded, or why it is not.

    Attributes:
        label: what it is to the reader: "given" beside those that were made of it, else nothing.
        data: WebP as a data: URL, `width` by `height` pixels; empty if there is none.
        link: where it is on the web.
        problem: why it cannot be shown.
    """

    name: str
    label: str = ""
    data: str = ""
    width: int = 0
    height: int = 0
    link: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Card:
    """What the page shows of a record."""

    name: str
    figures: Sequence[Figure]
    prompt: str
    parts: Sequence[str | Figure]  # the answer: words, or the words and pictures of a story in turn
    error: str
    seed: str
    seconds: float | None
    command: str  # to make it again; empty if that cannot be told


@dataclass(frozen=True)
class Head:
    """What ran."""

    commands: Sequence[str]
    models: Sequence[tuple[str, str]]  # name, revision
    n_done: int
    n_failed: int
    seconds: float


def write_report(
    records: Iterable[Record], out: Path, title: str, *, folder: Path = Path(), notes: Notes | None = None
) -> None:
    """Write records as one page that needs no other file and no network. A reader sees the whole page or none.

    Args:
        folder: where pictures are looked up whose names lead nowhere from the current folder.
        notes: where to say how far it is.

    Raises:
        MmgenError: the page cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # slow to import

    kept = list(records)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, finalize=_visible
    )
    environment.filters |= {"csp_hash": _csp_hash, "duration": _duration}
    page = environment.get_template("report.html")
    stream = page.stream(title=title, head=_head(kept), cards=_cards(kept, folder, notes or Notes(quiet=True)))
    stream.enable_buffering(size=100)  # pieces, of which a card has about 30
    with whole_file(out) as file:
        stream.dump(file, encoding="utf-8")


def _visible(value: object) -> object:
    r"""Write what would not show, or would lead the eye astray, as an escape: `\x1b`, `\u202e`."""
    if not isinstance(value, str) or not _UNSEEN.search(value):
        return value
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), value)


def _csp_hash(text: str) -> str:
    """Name an inline script or style for the page's Content-Security-Policy (CSP 3, 2.3.1)."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def _duration(seconds: float) -> str:
    """Say how long something took: 0.25 s, 7.2 s, 4 min 5 s, 2 h 3 min."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _head(records: Sequence[Record]) -> Head:
    models = {
        (_text(model, "name"), _text(model, "revision"))
        for record in records
        if isinstance(model := record.get("model"), Mapping)
    }
    n_failed = sum("error" in record for record in records)
    return Head(
        commands=sorted({_text(record, "command") for record in records}),
        models=sorted(models),
        n_done=len(records) - n_failed,
        n_failed=n_failed,
        seconds=sum(_seconds(record) or 0 for record in records),
    )


def _cards(records: Sequence[Record], folder: Path, notes: Notes) -> Iterator[Card]:
    try:
        for number, record in enumerate(records, 1):
            notes.progress(f"report: {number} of {len(records)}")
            yield _card(record, folder)
    finally:
        notes.clear()


def _card(record: Record, folder: Path) -> Card:
    command, prompt = _text(record, "command"), _text(record, "prompt")
    output, error = _text(record, "output"), _text(record, "error")
    if "error" in record and not error:
        error = "failed"
    given, made = _sources(record), output if output and "parts" not in record else ""
    figures = [_figure(path, name, folder, "given" if made else "") for name, path in given]
    if error:  # a picture that cannot be opened is what it says
        figures = [figure for figure in figures if not figure.problem]
    if made:
        figures.append(_figure(made, made, folder))
    is_usual = (command, prompt) in (("caption", tasks.CAPTION), ("vary", tasks.VARY))
    seed = record.get("seed")
    return Card(
        name=output or ", ".join(name for name, _ in given),
        figures=figures,
        prompt="" if is_usual else prompt,
        parts=_parts(record, folder),
        error=error,
        seed=str(seed) if isinstance(seed, int) else "",
        seconds=_seconds(record),
        command=rerun(record, [path for _, path in given]),
    )


def _sources(record: Record) -> list[tuple[str, str]]:
    """List the pictures that were given: as given, and where they lie for all the record knows."""
    names = [record.get("image")] if "image" in record else _list(record, "images")
    given = [name for name in names if isinstance(name, str)]
    files = [_text(file, "path") for file in _list(record, "files") if isinstance(file, Mapping)]
    local = [name for name in given if not is_url(name)]
    lies = dict(zip(local, files, strict=True)) if len(files) == len(local) and all(files) else {}
    return [(name, lies.get(name, name)) for name in given]


def _parts(record: Record, folder: Path) -> list[str | Figure]:
    """List an answer's words and pictures."""
    if text := _text(record, "text"):
        return [text]
    parts: list[str | Figure] = []
    for part in _list(record, "parts"):
        if isinstance(part, Mapping):
            path = _text(part, "image")
            parts.append(_figure(path, path, folder) if path else _text(part, "text").strip())
    return parts


def _figure(path: str, name: str, folder: Path, label: str = "") -> Figure:
    if is_url(path):
        return Figure(name, label, link=path)
    beside = folder / path
    try:
        image = open_image(beside if not os.path.lexists(path) and os.path.lexists(beside) else path)
    except MmgenError as error:
        return Figure(name, label, problem=error.message)
    image.thumbnail(THUMBNAIL_PX)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY)
    data = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Figure(name, label, data, image.width, image.height)


def _text(record: Record, key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""


def _list(record: Record, key: str) -> Sequence[object]:
    value = record.get(key)
    return value if isinstance(value, list) else []


def _seconds(record: Record) -> float | None:
    value = record.get("seconds")
    return value if isinstance(value, int | float) and 0 <= value < math.inf else None

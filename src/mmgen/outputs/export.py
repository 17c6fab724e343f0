"""A batch as a file to look at or to go on with: records in; a page, a table or a data set out. Refuses to know models.

Nothing in a record is trusted: a value of a wrong kind counts as missing. A format is a function that yields the text
of a file, and a row of FORMATS.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import quote

from mmgen import tasks
from mmgen.checkpoints.aliases import DEFAULT
from mmgen.errors import MmgenError
from mmgen.files import whole_file
from mmgen.inputs.finding import check_file, is_url
from mmgen.inputs.images import open_image
from mmgen.inputs.placeholders import expand
from mmgen.outputs.archives import write_parquet, write_tar
from mmgen.outputs.reading import AnyRecord
from mmgen.outputs.terminal import Notes
from mmgen.request import ImageSampling, TextSampling
from mmgen.text import as_line, is_text

THUMBNAIL_PX = (320, 480)  # at most, width and height
QUALITY = 80  # of WebP: about 10 KB a photograph

_USUAL = {("caption", tasks.CAPTION), ("vary", tasks.VARY)}  # commands with prompts that nobody typed
# Control characters, characters that turn the direction of what follows (UAX #9), halves of surrogate pairs.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


# Reading


def _text(record: object, key: str) -> str:
    value = record.get(key) if isinstance(record, dict) else None  # as JSON has it: to ask for a Mapping takes long
    return value if isinstance(value, str) else ""


def _list(record: AnyRecord, key: str) -> list[object]:
    value = record.get(key)
    return value if isinstance(value, list) else []


def _model(record: AnyRecord) -> tuple[str, str]:
    """Give the model's name and revision."""
    return _text(record.get("model"), "name"), _text(record.get("model"), "revision")


def _given(record: AnyRecord) -> list[tuple[str, str]]:
    """List the pictures that were given: as given, and where they lie for all the record knows."""
    names = [name for name in [record.get("image"), *_list(record, "images")] if name and isinstance(name, str)]
    files = iter(_list(record, "files"))  # of those that are no addresses
    return [(name, name if is_url(name) else _text(next(files, None), "path") or name) for name in names]


def _drawn(record: AnyRecord) -> str:
    """Give the path of the picture that was made, if one was."""
    return "" if "text" in record or "parts" in record else _text(record, "output")


# Writing


class Export(NamedTuple):
    """Records on their way into a file.

    Attributes:
        title: of a page.
        folder: where pictures are looked up whose names lead nowhere from the current folder.
        notes: say how far it is, and what is left out.
    """

    records: Sequence[AnyRecord]
    out: Path
    title: str
    folder: Path
    notes: Notes

    def write(self) -> None:
        """Write the file, in the format that its name ends in. A reader sees the whole of it or none.

        Raises:
            MmgenError: it cannot be written.
        """
        with whole_file(self.out) as file:
            FORMATS[self.out.suffix.lower()](self, file)

    def find(self, path: str) -> str:
        """Say where a picture lies: as it is named, or in the folder."""
        beside = self.folder / path
        return str(beside) if not os.path.lexists(path) and os.path.lexists(beside) else path


def parquet(export: Export, file: IO[bytes]) -> None:
    """Write a table whose columns stand in `archives.COLUMNS`; of words and pictures mixed the words alone."""
    write_parquet(map(_row, export.records), file)


def _row(record: AnyRecord) -> dict[str, object]:
    model, revision = _model(record)
    names = [record.get("image"), *_list(record, "images")]
    seed, entry = record.get("seed"), next(iter(_list(record, "files")), None)
    row = {name: _text(record, name) for name in ("key", "error", "command", "prompt", "output")}
    row |= {"sha256": _text(entry, "sha256"), "text": _words(record), "model": model, "revision": revision}
    row["path"] = next((name for name in names if name and isinstance(name, str)), "")
    is_number = isinstance(seed, int) and 0 <= seed < 2**63
    # Halves of surrogate pairs are spelled out: no UTF-8 has them
    whole = {n: v if v.isascii() else v.encode(errors="backslashreplace").decode() for n, v in row.items() if v}
    return {**whole, "seed": seed if is_number else None}


def web_dataset(export: Export, file: IO[bytes]) -> None:
    """Write a tar of samples: each picture that is a file, its words or its prompt as .txt, the record as .json."""
    write_tar(_samples(export), file)


def _samples(export: Export) -> Iterator[tuple[str, dict[str, bytes]]]:
    taken: Counter[str] = Counter()
    for record in export.records:
        if "error" in record:
            continue
        drawn = _drawn(record)
        path = drawn or next((path for _, path in _given(record)), "")
        stem = re.sub(r"[^\w-]", "_", Path(path).stem, flags=re.ASCII) or "sample"  # a key ends at its first dot
        taken[stem] += 1
        parts: dict[str, bytes] = {}
        with suppress(MmgenError, OSError):  # it is on the web, in an archive, or gone
            check_file(export.find(path))
            parts[Path(path).suffix.lower()] = Path(export.find(path)).read_bytes()
        words = _text(record, "prompt") if drawn else _words(record)
        parts[".txt"] = words.encode(errors="backslashreplace")
        parts[".json"] = as_line(record).encode(errors="backslashreplace")
        yield stem if taken[stem] == 1 else f"{stem}-{taken[stem]}", parts


def _words(record: AnyRecord) -> str:
    parts = _list(record, "parts")
    return (
        "\n\n".join(filter(None, [_text(part, "text") for part in [record, *parts]]))
        if parts
        else _text(record, "text")
    )


def table(export: Export) -> Iterator[str]:
    """Write comma-separated values (RFC 4180). Cells are data, as they are, even where a spreadsheet sees a formula."""
    line = io.StringIO(newline="")
    columns = ["command", "model", "images", "prompt", "text", "output", "seed", "seconds", "error"]
    rows = csv.DictWriter(line, columns, extrasaction="ignore")
    rows.writeheader()
    for record in export.records:
        model, images = _model(record)[0], "\n".join(name for name, _ in _given(record))
        rows.writerow({**record, "model": model, "images": images, "text": _words(record)})
        yield line.getvalue()
        line.seek(0)
        line.truncate()


def image_folder(export: Export) -> Iterator[str]:
    """Write the metadata.jsonl of ImageFolder (Hugging Face's `datasets`), for pictures in its folder or below.

    One that was given has its caption or answer as `text`, with what stands around it in its sidecar; one that was
    drawn its prompt.
    """
    folder, n_left_out = export.out.parent.resolve(), 0
    for record in export.records:
        if "error" in record:
            continue
        drawn = _drawn(record)
        text = _text(record, "prompt" if drawn else "text")
        try:
            (path,) = [drawn] if drawn else [path for _, path in _given(record)]
            path = export.find(path)
            check_file(path)
            name = (Path(path).parent.resolve() / Path(path).name).relative_to(folder).as_posix()
            if not drawn:
                before, after = (_text(record, around) for around in ("prefix", "suffix"))
                if "{caption}" not in before + after:  # the caption that lay there then is gone
                    text = f"{expand(before, path)}{text}{expand(after, path)}"
        except (MmgenError, ValueError):  # ValueError: there is not exactly one, or it does not lie below
            name = ""
        if name and text and is_text(name + text):
            yield as_line({"file_name": name, "text": text})
        else:
            n_left_out += 1
    if n_left_out:
        export.notes.say(f"note: {n_left_out} left out: no picture of their own in {export.out.parent} or below")


# A page


class Figure(NamedTuple):
    """A picture on a card: embedded, or why it is not, or else an address to follow.

    Attributes:
        data: WebP in base64, of `size` in pixels.
        problem: why it cannot be shown.
        full: where it lies in full size, as an address from the page's folder on.
    """

    name: str
    data: str = ""
    size: tuple[int, int] = (0, 0)
    problem: str = ""
    full: str = ""


def page(export: Export) -> Iterator[str]:
    """Write one page that needs no other file and no network: it forbids itself scripts and addresses but its own.

    The template escapes all that records say. Pictures are opened one at a time, as the page is written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # slow to import

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, finalize=_visible
    )
    environment.filters |= {"text": _text, "list_of": _list, "model": _model, "given": _given, "drawn": _drawn}
    environment.filters |= {"rerun": rerun, "csp_hash": _csp_hash}
    template = environment.get_template("report.html")
    return template.generate(export=export, cards=_cards(export), figure=_figure, usual=_USUAL)


def _cards(export: Export) -> Iterator[tuple[AnyRecord, Sequence[Figure]]]:
    """Yield each record with the pictures that were given or drawn."""
    try:
        for number, record in enumerate(export.records, 1):
            export.notes.progress(f"report: {number} of {len(export.records)}", number / len(export.records))
            drawn = _drawn(record)
            yield record, [_figure(export, name, path) for name, path in [*_given(record), (drawn, drawn)] if path]
    finally:
        export.notes.clear()


def _figure(export: Export, name: str, path: str) -> Figure:
    if is_url(path):
        return Figure(path)
    place = export.find(path)
    try:
        image = open_image(place)
    except MmgenError as error:
        return Figure(name, problem=error.message)
    # The file's name may hold anything: an address of it is bytes, and begins with a dot so that it is no "script:".
    full = "./" + quote(os.fsencode(os.path.relpath(place, export.out.parent))) if Path(place).is_file() else ""
    image.thumbnail(THUMBNAIL_PX)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY)
    return Figure(name, base64.b64encode(buffer.getvalue()).decode(), image.size, full=full)


def _visible(value: object) -> object:
    r"""Write what would not show, or would lead the eye astray, as an escape: `\x1b`, `\u202e`."""
    if not isinstance(value, str) or not _UNSEEN.search(value):
        return value
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), value)


def _csp_hash(text: str) -> str:
    """Name an inline script or style for the page's Content-Security-Policy (CSP 3, 2.3.1)."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


# The command that makes an item again


def rerun(record: AnyRecord) -> str:
    """Write the command that makes a record's item again, fit for a shell; nothing if no command does."""
    command, prompt = _text(record, "command"), _text(record, "prompt")
    if command not in ("caption", "ask", "draw", "vary", "interleave") or not prompt:
        return ""
    words = [path for _, path in _given(record)] if command in ("caption", "vary") else []
    if command != "caption" and (command, prompt) not in _USUAL:
        words.append(prompt)
    options = [
        word
        for flag, value, usual in _settings(record, command)
        if isinstance(value, str | int | float) and value not in ("", usual)
        for word in (flag, str(value))
    ]
    dashed = any(word.startswith("-") for word in words)
    typed = ["mmgen", command, *options, "--", *words] if dashed else ["mmgen", command, *words, *options]
    cannot_be_typed = re.search("[\0\ud800-\udc7f\udd00-\udfff]", "".join(typed))
    return "" if cannot_be_typed else " ".join(map(_quoted, typed))


def _settings(record: AnyRecord, command: str) -> Iterator[tuple[str, object, object]]:
    """Yield the command's flags, the record's values and the usual ones."""
    is_story, sampling, (model, revision) = command == "interleave", record.get("sampling"), _model(record)
    if command in ("ask", "interleave"):
        yield from (("--image", path, "") for _, path in _given(record))
    if is_story:  # which has no folder of its own accord
        yield "-o", f"{Path(_text(record, 'output')).name or 'story'}-again", ""
    yield "--seed", record.get("seed"), ""
    yield "-m", model, DEFAULT
    yield "--revision", revision, ""
    usual = {"text": asdict(tasks.INTERLEAVE_TEXT if is_story else TextSampling()), "image": asdict(ImageSampling())}
    for kind, defaults in usual.items():
        values = sampling.get(kind) if isinstance(sampling, Mapping) else None
        for name, default in defaults.items():
            value = values.get(name) if isinstance(values, Mapping) else None
            if is_story and kind == "image":  # which takes --top-p and whatever else words have too for both
                name = {"temperature": "image_temperature"}.get(name, name)
                default = value if name in usual["text"] else default
            yield f"--{name.replace('_', '-')}", value, default


def _quoted(word: str) -> str:
    r"""Quote a word for a shell; what would not show is spelled in bytes (`$'\x1b'`: bash, zsh, ksh; POSIX 2024)."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(map(_spelled, word)) + "'"


def _spelled(letter: str) -> str:
    if letter.isprintable() and letter not in "\\'":
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))


def _as_text(lines: Callable[[Export], Iterator[str]]) -> Callable[[Export, IO[bytes]], None]:
    def write(export: Export, file: IO[bytes]) -> None:
        for text in lines(export):
            file.write(text.encode(errors="backslashreplace"))

    return write


FORMATS: Mapping[str, Callable[[Export, IO[bytes]], None]] = {
    ".html": _as_text(page),
    ".htm": _as_text(page),
    ".csv": _as_text(table),
    ".jsonl": _as_text(image_folder),
    ".parquet": parquet,
    ".tar": web_dataset,
}

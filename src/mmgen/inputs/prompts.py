"""Read many prompts from one file, a line each: plain text, or JSON lines. Opens no picture, knows no model."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmgen.errors import MmgenError, reason
from mmgen.inputs.finding import from_folder
from mmgen.inputs.lists import read_pieces
from mmgen.request import MAX_SEED
from mmgen.text import from_json, is_text

_LIKE_THIS = 'a line looks like {"prompt": "what is it?", "images": ["cat.png"], "seed": 7}'
_MOST = 10_000  # pictures of one line
_KEYS = ("prompt", "images", "seed", "output", "n")
_SAMPLING: dict[str, tuple[type, ...]] = {
    "temperature": (int, float),
    "guidance": (int, float),
    "negative_prompt": (str,),
    "ratio": (str,),
}


@dataclass(frozen=True)
class PromptLine:
    """A prompt, and what its line says beside it.

    Attributes:
        images: as given.
        folder: where relative ones are looked up.
        seed: its own, if it has one.
        output: the file its result goes to, if it says so.
        n: how many pictures of it, if it says so.
        sampling: what it says of request.ImageSampling and request.TextSampling, by their fields.
    """

    text: str
    images: tuple[str, ...] = ()
    folder: str = ""
    seed: int | None = None
    output: str | None = None
    n: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def sources(self) -> list[str]:
        """Say where the pictures are."""
        return [from_folder(self.folder, image) for image in self.images]


def read_prompts(path: str, *, comments: bool = False) -> Iterator[tuple[int, PromptLine | MmgenError]]:
    """Read a file, or stdin if it is `-`, as it comes: by number of the line, its prompt or what is wrong with it.

    A file called .csv is read by its header. One whose first line begins with `{` has JSON lines, any other one prompt
    a line. Empty lines are passed over. Pictures are looked up from the file's folder; those of stdin from the current
    one.

    Args:
        comments: pass over lines that begin with `#`, too.

    Raises:
        MmgenError: the file cannot be read, there is nothing in it, it is one JSON list, or a CSV without prompts.
    """
    folder = "" if path == "-" else str(Path(path).parent)
    if path.lower().endswith(".csv"):
        yield from _of_csv(path, folder)
        return
    as_json: bool | None = None  # until a line tells
    for number, line in enumerate(read_pieces(path, "name a file of prompts, or - for stdin"), 1):
        line = line.strip()
        if not line or (comments and line.startswith(b"#")):
            continue
        if b"\0" in line:
            yield number, MmgenError("not UTF-8 text: it has NULs in it", "save the file as UTF-8")
            as_json = as_json or False
            continue
        if as_json is None:
            as_json = line.startswith(b"{")
            if line == b"[" or line.startswith(b"[{"):
                raise MmgenError(f"{path} is a JSON list, and JSON lines are meant", _LIKE_THIS)
        try:
            yield number, _from_json(line, folder) if as_json else PromptLine(line.decode())
        except MmgenError as error:
            yield number, error
        except UnicodeDecodeError:
            yield number, MmgenError("not UTF-8 text", "save the file as UTF-8")
    if as_json is None:
        raise MmgenError(
            f"no prompts {'on stdin' if path == '-' else f'in {path}'}",
            "write one a line, as plain text or as JSON lines with images and seed",
        )


def _of_csv(path: str, folder: str) -> Iterator[tuple[int, PromptLine | MmgenError]]:
    """Read a table by its header; columns that are no fields of a prompt are passed over, as are empty cells."""
    hint = f"its first line names the columns: prompt, and any of {', '.join((*_KEYS[1:], *_SAMPLING))}"
    try:
        text = "\n".join(line.decode() for line in read_pieces(path, hint))
        rows = csv.DictReader(io.StringIO(text), strict=True)
        if "prompt" not in (rows.fieldnames or ()):
            raise MmgenError(f"{path} has no column called prompt", hint)
        n_rows = 0
        for row in rows:
            n_rows += 1
            fields = {name: cell for name, cell in row.items() if name in (*_KEYS, *_SAMPLING) and cell}
            try:
                yield (
                    rows.line_num,
                    _from_fields({name: _of_cell(name, str(cell)) for name, cell in fields.items()}, folder),
                )
            except MmgenError as error:
                yield rows.line_num, error
    except (UnicodeDecodeError, csv.Error) as failure:
        raise MmgenError(f"{path} is no table of UTF-8 text: {reason(failure)}", hint) from failure
    if not n_rows:
        raise MmgenError(f"no prompts in {path}", hint)


def _of_cell(name: str, cell: str) -> object:
    if name == "images":
        return [cell]
    for kind in (int, float) if name in ("seed", "n", "temperature", "guidance") else ():
        with suppress(ValueError):
            return kind(cell)
    return cell


def _from_json(line: bytes, folder: str) -> PromptLine:
    fields = from_json(line)
    if fields is None:
        raise MmgenError(f"not JSON in braces: {line[:60].decode(errors='replace')}", _LIKE_THIS)
    return _from_fields(fields, folder)


def _from_fields(fields: dict[str, Any], folder: str) -> PromptLine:
    text, images, seed, output, n = (fields.pop(key, None) for key in _KEYS)
    sampling = {name: fields.pop(name) for name in _SAMPLING if name in fields}
    if fields:
        known = ", ".join((*_KEYS, *_SAMPLING))
        raise MmgenError(f"unknown key {json.dumps(next(iter(fields)))}", f"a line may have {known}")
    if not isinstance(text, str):
        raise MmgenError("no prompt", _LIKE_THIS)
    if not is_text(text):
        raise MmgenError("the prompt has half a surrogate pair in it", "take it out: it is no text")
    if not text.strip():
        raise MmgenError("the prompt is empty", "say in words what you want")
    images = images or []
    if not isinstance(images, list) or not all(map(_is_name, images)):
        raise MmgenError("images is not a list of paths", _LIKE_THIS)
    if seed is not None and not (type(seed) is int and 0 <= seed <= MAX_SEED):
        raise MmgenError(f"seed {json.dumps(seed)} is not a whole number from 0 to {MAX_SEED}", _LIKE_THIS)
    if output is not None and (not _is_name(output) or os.path.split(output)[1] in ("", ".", "..")):
        raise MmgenError("output is not the name of a file", 'it looks like "output": "snowman.png"')
    if n is not None and not (type(n) is int and 1 <= n <= _MOST):
        raise MmgenError(f"n {json.dumps(n)} is not a whole number from 1 to {_MOST}", _LIKE_THIS)
    for name, value in sampling.items():
        if type(value) not in _SAMPLING[name] or (isinstance(value, str) and not is_text(value)):
            kind = "text" if _SAMPLING[name] == (str,) else "a number"
            raise MmgenError(f"{name} {json.dumps(value)} is not {kind}", _LIKE_THIS)
    return PromptLine(text, tuple(images), folder, seed, output, n, sampling)


def _is_name(name: object) -> bool:
    """Say whether the system takes it for a name: it may be any bytes but NUL."""
    try:
        return isinstance(name, str) and name != "" and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False

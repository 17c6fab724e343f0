"""Read many prompts from one file, a line each: plain text, or JSON lines. Opens no picture, knows no model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmgen.errors import MmgenError
from mmgen.inputs.finding import from_folder, read_pieces
from mmgen.request import MAX_SEED
from mmgen.text import from_json, is_text

_LIKE_THIS = 'a line looks like {"prompt": "what is it?", "images": ["cat.png"], "seed": 7}'
_KEYS = ("prompt", "images", "seed", "output")


@dataclass(frozen=True)
class PromptLine:
    """A prompt, and what its line says beside it.

    Attributes:
        images: as given.
        folder: where relative ones are looked up.
        seed: its own, if it has one.
        output: the file its result goes to, if it says so.
    """

    text: str
    images: tuple[str, ...] = ()
    folder: str = ""
    seed: int | None = None
    output: str | None = None

    def sources(self) -> list[str]:
        """Say where the pictures are."""
        return [from_folder(self.folder, image) for image in self.images]


def read_prompts(path: str) -> Iterator[tuple[int, PromptLine | MmgenError]]:
    """Read a file, or stdin if it is `-`, as it comes: by number of the line, its prompt or what is wrong with it.

    A file whose first line begins with `{` has JSON lines, any other has a prompt a line. Empty lines are passed over.
    Pictures are looked up from the file's folder; those of stdin from the current one.

    Raises:
        MmgenError: the file cannot be read, there is nothing in it, or it is one JSON list.
    """
    folder = "" if path == "-" else str(Path(path).parent)
    as_json: bool | None = None  # until a line tells
    for number, line in enumerate(read_pieces(path, "name a file of prompts, or - for stdin"), 1):
        line = line.strip()
        if not line:
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


def _from_json(line: bytes, folder: str) -> PromptLine:
    fields = from_json(line)
    if fields is None:
        raise MmgenError(f"not JSON in braces: {line[:60].decode(errors='replace')}", _LIKE_THIS)
    text, images, seed, output = (fields.pop(key, None) for key in _KEYS)
    if fields:
        raise MmgenError(f"unknown key {json.dumps(next(iter(fields)))}", f"a line may have {', '.join(_KEYS)}")
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
    return PromptLine(text, tuple(images), folder, seed, output)


def _is_name(name: object) -> bool:
    """Say whether the system takes it for a name: it may be any bytes but NUL."""
    try:
        return isinstance(name, str) and name != "" and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False

"""Many questions from one file of JSON lines: prompt, pictures and seed of each. Opens no picture, knows no model."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from mmgen.errors import MmgenError
from mmgen.streams import is_text

_LIKE_THIS = 'a line looks like {"prompt": "what is it?", "images": ["cat.png"], "seed": 7}'
_KEYS = ("prompt", "images", "seed")


@dataclass(frozen=True)
class Question:
    """One line.

    Attributes:
        images: as given.
        folder: where relative ones are looked up.
        seed: its own, if it has one.
    """

    prompt: str
    images: tuple[str, ...] = ()
    folder: str = ""
    seed: int | None = None

    def sources(self) -> list[str]:
        """Say where the pictures are."""
        from mmgen.images import is_url

        return [image if is_url(image) else str(Path(self.folder) / image) for image in self.images]


def read_questions(path: str) -> dict[int, Question | MmgenError]:
    """Read a file, or stdin if it is `-`: by line number, a question or what is wrong with the line.

    Pictures are looked up from the file's folder; those of stdin from the current one. Empty lines are passed over.

    Raises:
        MmgenError: there is no such file, or nothing in it.
    """
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as failure:
        raise MmgenError(f"cannot open {path}: {failure.strerror}", "name a file of JSON lines, or - for stdin") from (
            failure
        )
    folder = "" if path == "-" else str(Path(path).parent)
    found: dict[int, Question | MmgenError] = {}
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            try:
                found[number] = _question(line, folder)
            except MmgenError as error:
                found[number] = error
    if not found:
        raise MmgenError(f"no questions {'on stdin' if path == '-' else f'in {path}'}", _LIKE_THIS)
    return found


def _question(line: bytes, folder: str) -> Question:
    try:
        fields = json.loads(line.decode())
    except (ValueError, RecursionError) as failure:
        raise MmgenError(f"not JSON text: {failure}", _LIKE_THIS) from failure
    if not isinstance(fields, dict) or not isinstance(fields.get("prompt"), str):
        raise MmgenError("no prompt", _LIKE_THIS)
    if not is_text(fields["prompt"]):
        raise MmgenError("the prompt has half a surrogate pair in it", "take it out: it is no text")
    unknown = [key for key in fields if key not in _KEYS]
    if unknown:
        raise MmgenError(f"unknown key {json.dumps(unknown[0], ensure_ascii=False)}", _LIKE_THIS)
    images, seed = fields.get("images") or [], fields.get("seed")
    if not isinstance(images, list) or not all(isinstance(image, str) and image for image in images):
        raise MmgenError("images is not a list of paths", _LIKE_THIS)
    if isinstance(seed, bool) or not isinstance(seed, int | None):
        raise MmgenError("seed is not a whole number", _LIKE_THIS)
    return Question(fields["prompt"], tuple(images), folder, seed)

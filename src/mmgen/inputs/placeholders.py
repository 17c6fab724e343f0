"""Placeholders in a prompt, a prefix or a suffix: what stands for a picture's name, or for what lies beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from mmgen.errors import MmgenError
from mmgen.inputs.finding import is_url
from mmgen.inputs.lists import read_pieces

# Other braces stay as they are.
_PLACEHOLDER = re.compile(r"\{(stem|name|folder|caption|json(?:\.[\w-]+)+)\}")


def expand(text: str, picture: str, ending: str = ".txt", beside: Mapping[str, bytes] | None = None) -> str:
    """Fill in `{stem}`, `{name}` and `{folder}` of a picture, `{caption}` beside it and `{json.FIELD}` of its .json.

    Args:
        picture: its path or address; an address has nothing beside it.
        ending: of the file that has its caption.
        beside: what belongs to it, by endings, where it lies in no folder.

    Raises:
        MmgenError: nothing lies there, or it is not what it should be.
    """
    return _PLACEHOLDER.sub(lambda found: _value(found[1], picture, ending, beside), text)


def _value(field: str, picture: str, ending: str, given: Mapping[str, bytes] | None) -> str:
    path = Path(picture.partition("?")[0] if is_url(picture) else picture)
    match field:
        case "stem":
            return path.stem
        case "name":
            return path.name
        case "folder":
            return path.parent.name or path.absolute().parent.name
    beside = path.with_suffix("." + ending.removeprefix(".") if field == "caption" else ".json")
    is_there = beside.suffix.lower() in given if given is not None else not is_url(picture) and beside.is_file()
    if not is_there:
        raise MmgenError(f"{picture}: no {beside.name} beside it for {{{field}}}", "write one, or leave it out")
    hint = "save it as UTF-8"
    try:
        pieces = read_pieces(str(beside), hint) if given is None else given[beside.suffix.lower()].split(b"\n")
        text = "\n".join(piece.decode() for piece in pieces).strip()
    except UnicodeDecodeError as failure:
        raise MmgenError(f"{beside} is not UTF-8 text", hint) from failure
    if field == "caption":
        return text
    try:
        value = json.loads(text)
        for key in field.split(".")[1:]:
            value = value[key]
    except (ValueError, LookupError, TypeError, RecursionError) as failure:
        raise MmgenError(f"{beside} has no {field.removeprefix('json.')}", f"{{{field}}} asks for it") from failure
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""Placeholders in a prompt, a prefix or a suffix: what stands for a picture's name, or for what lies beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mmgen.errors import MmgenError
from mmgen.inputs.finding import is_url, read_pieces

# Other braces stay as they are.
_PLACEHOLDER = re.compile(r"\{(stem|name|folder|caption|json(?:\.[\w-]+)+)\}")


def expand(text: str, picture: str, ending: str = ".txt") -> str:
    """Fill in `{stem}`, `{name}` and `{folder}` of a picture, `{caption}` beside it and `{json.FIELD}` of its .json.

    Args:
        picture: its path or address; an address has nothing beside it.
        ending: of the file that has its caption.

    Raises:
        MmgenError: nothing lies there, or it is not what it should be.
    """
    return _PLACEHOLDER.sub(lambda found: _value(found[1], picture, ending), text)


def _value(field: str, picture: str, ending: str) -> str:
    path = Path(picture.partition("?")[0] if is_url(picture) else picture)
    match field:
        case "stem":
            return path.stem
        case "name":
            return path.name
        case "folder":
            return path.parent.name or path.absolute().parent.name
    beside = path.with_suffix("." + ending.removeprefix(".") if field == "caption" else ".json")
    if is_url(picture) or not beside.is_file():
        raise MmgenError(f"{picture}: no {beside.name} beside it for {{{field}}}", "write one, or leave it out")
    hint = "save it as UTF-8"
    try:
        text = "\n".join(piece.decode() for piece in read_pieces(str(beside), hint)).strip()
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

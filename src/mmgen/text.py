"""Text as it goes in and out, fit for a terminal or a file, and JSON lines. Knows nothing of the project."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_CONTROL = dict.fromkeys(code for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t")


def clean(text: str) -> str:
    """Drop control characters, all but newline and tab: no model and no file name may steer a terminal."""
    return text.translate(_CONTROL)


def folded(text: str) -> str:
    """Make every run of white space one space."""
    return " ".join(text.split())


def on_a_line(name: str) -> str:
    """Write a file's name so that it stays on one line, in one column: `?` for what would break them, as in `ls`."""
    return re.sub(r"[\t\n\v\f\r]", "?", name)


def is_text(text: str) -> bool:
    """Say whether a string can be written as UTF-8: JSON and file names may hold halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_line(record: Mapping[str, object]) -> str:
    """Write a record as one line of JSON; readable, unless a file name in it is not UTF-8."""
    line = json.dumps(record, ensure_ascii=False)
    return (line if is_text(line) else json.dumps(record)) + "\n"


def from_json(text: str | bytes) -> dict[str, Any] | None:
    """Read an object of JSON, such as a line; None: it is something else, or damaged."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None

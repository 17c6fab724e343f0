"""JSON schemas that answers are to keep to. Refuses to know models."""

from __future__ import annotations

import json

from mmgen.errors import MmgenError
from mmgen.inputs.lists import read_pieces
from mmgen.inputs.selection import is_installed
from mmgen.text import folded, from_json

_LIKE_THIS = (
    'it looks like {"type": "object", "properties": {"color": {"enum": ["red", "blue"]}}, "required": ["color"]}'
)


def read_schema(path: str) -> str:
    """Read a JSON schema from a file; - is stdin.

    Raises:
        MmgenError: it cannot be read, it is none, or the package that keeps to it is missing.
    """
    return check_schema("\n".join(line.decode(errors="replace") for line in read_pieces(path, _LIKE_THIS)), path)


def check_schema(text: str, name: str) -> str:
    """Check a JSON schema; `name` is for errors. It comes back as one line.

    Raises:
        MmgenError: it is none, or the package that keeps to it is missing.
    """
    if not is_installed("llguidance"):
        raise MmgenError("--json-schema takes a package", "pip install llguidance")
    from llguidance import LLMatcher

    schema = from_json(text)
    wrong = "no object of JSON" if schema is None else ""
    if schema is not None:
        wrong = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(text), None)
    if wrong:
        raise MmgenError(f"{name} is no JSON schema: {folded(wrong)}", _LIKE_THIS)
    return json.dumps(schema)

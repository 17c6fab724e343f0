"""`--json-schema`: answers are JSON of it, or errors; what is none is said before anything loads. Built-in model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmgen.inputs import schemas
from tests.support.scripted import install, run
from tools.demo.judge import fresh_renders

SCHEMA = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "blue"]}},
    "required": ["color"],
    "additionalProperties": False,
}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.json").write_text(json.dumps(SCHEMA))


def test_every_answer_is_json_of_the_schema() -> None:
    for number, image in enumerate(fresh_renders(3, seed=5)[1]):
        image.save(f"{number}.png")
    flags = ("--json-schema", "s.json", "--temperature", "1", "--seed", "3", "--json")
    result = run("ask", "--each", "what color is it?", "--image", ".", *flags)
    assert result.code == 0
    records = [json.loads(line) for line in result.out.splitlines()]
    assert len(records) == 3
    assert all(json.loads(record["text"])["color"] in ("red", "blue") for record in records)
    assert json.loads(records[0]["sampling"]["text"]["json_schema"]) == SCHEMA
    assert run("caption", "0.png", *flags, "--max-tokens", "2").code == 1


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"type": "no such"}'])
def test_what_is_no_schema_is_said_before_anything_loads(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    model = install(monkeypatch)
    Path("bad.json").write_text(text)
    result = run("ask", "what?", "--json-schema", "bad.json")
    assert result.code == 1
    assert result.err.startswith("error: bad.json is no JSON schema: ")
    assert not model.opened


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "is_installed", lambda module: False)
    result = run("ask", "what?", "--json-schema", "s.json")
    assert (result.code, result.err.splitlines()[1]) == (1, "hint: pip install llguidance")

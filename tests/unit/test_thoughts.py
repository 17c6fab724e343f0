"""Thoughts on the command line: in records and with -v, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from mmgen.request import Thought
from tests.support.scripted import Scripted, install, run


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    """A model that thinks twice before it answers, in a folder with two pictures."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(name)
    return install(monkeypatch, Scripted(scripts=[[Thought("Let me\n"), Thought("see. "), "A cat."] for _ in range(2)]))


def test_an_answer_has_no_thoughts_in_it(model: Scripted) -> None:
    result = run("ask", "what?", "-q")
    assert (result.code, result.out, result.err) == (0, "A cat.\n", "")


def test_v_shows_them_on_stderr(model: Scripted) -> None:
    result = run("caption", "a.png", "b.png", "-v")
    assert result.out == "a.png\tA cat.\nb.png\tA cat.\n"
    assert result.err.count("thought: Let me see.\n") == 2


def test_a_record_has_them_apart(model: Scripted) -> None:
    run("caption", "a.png", "b.png", "--jsonl", "j.jsonl", "--sidecar")
    for line in Path("j.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert (record["text"], record["thoughts"]) == ("A cat.", "Let me\nsee.")
    assert Path("a.txt").read_text() == "A cat.\n"


def test_a_record_says_how_it_was_asked(model: Scripted) -> None:
    flags = ["--system", "Be brief.", "--template-arg", "enable_thinking=false", "--template-arg", "mode=fast"]
    record = json.loads(run("caption", "a.png", "--json", *flags).out)
    assert record["system"] == "Be brief."
    assert record["template_args"] == {"enable_thinking": False, "mode": "fast"}
    assert "system" not in json.loads(run("caption", "a.png", "--json").out)


@pytest.mark.parametrize("flag", [["--system", "Be brief."], ["--template-arg", "enable_thinking=false"]])
def test_another_way_to_ask_makes_a_journal_stale(model: Scripted, flag: list[str]) -> None:
    run("caption", "a.png", "b.png", "--jsonl", "j.jsonl")
    assert run("caption", "a.png", "b.png", "--jsonl", "j.jsonl", "--plan").out.startswith("new 0, done 2, stale 0")
    asked = run("caption", "a.png", "b.png", "--jsonl", "j.jsonl", "--plan", *flag)
    assert asked.out.startswith("new 0, done 0, stale 2")

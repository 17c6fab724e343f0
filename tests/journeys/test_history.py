"""ask --history: conversations in files. With a scripted model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmgen.errors import MmgenError
from mmgen.request import Piece, Request
from tests.support.scripted import Scripted, install, run
from tests.support.terminal import ROOT


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    """A scripted model, in a folder with two pictures and an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name, tint in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (8, 8), tint).save(name)
    Path("talks").mkdir()
    return install(monkeypatch)


def user(*parts: dict[str, str]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


# --history


def test_a_conversation_is_begun_read_and_gone_on_with(model: Scripted) -> None:
    model.scripts = [["Red.\n"], ["Blue."], ["No."]]
    assert run("ask", "what color?", "--image", "a.png", "--history", "talks/talk.json").out == "Red.\n"
    assert run("ask", "is <image> too?", "--image", "b.png", "--history", "talks/talk.json").out == "Blue.\n"
    record = json.loads(run("ask", "sure?", "--history", "talks/talk.json", "--json").out)
    assert (record["text"], record["prompt"]) == ("No.", "sure?")
    assert Path("talks/talk.json").read_text() == (
        "[\n"
        '  {"role": "user", "content": [{"type": "image", "path": "../a.png"}, '
        '{"type": "text", "text": "what color?"}]},\n'
        '  {"role": "assistant", "content": [{"type": "text", "text": "Red."}]},\n'
        '  {"role": "user", "content": [{"type": "text", "text": "is "}, {"type": "image", "path": "../b.png"}, '
        '{"type": "text", "text": " too?"}]},\n'
        '  {"role": "assistant", "content": [{"type": "text", "text": "Blue."}]},\n'
        '  {"role": "user", "content": [{"type": "text", "text": "sure?"}]},\n'
        '  {"role": "assistant", "content": [{"type": "text", "text": "No."}]}\n'
        "]\n"
    )
    asked = model.requests[2]
    assert asked.parts == ("sure?",)
    assert [turn.role for turn in asked.history] == ["user", "assistant", "user", "assistant"]
    assert [part if isinstance(part, str) else part.getpixel((0, 0)) for t in asked.history for part in t.parts] == [
        (255, 0, 0),
        "what color?",
        "Red.",
        "is ",
        (0, 0, 255),
        " too?",
        "Blue.",
    ]


@pytest.mark.parametrize(
    "before",
    [
        '[{"role":"user", "content":"h\\u00e9?"},\r\n\t{"content": [ ], "role": "assistant", "note": 1.0e0}\r\n]\r\n\n',
        '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "é"}]',
        "[\n]\n",
        " [ ] ",
    ],
)
def test_what_stood_there_stays_as_it_was(model: Scripted, before: str) -> None:
    Path("talk.json").write_bytes(before.encode())
    Path("talk.json").chmod(0o600)
    Path("link.json").symlink_to("talk.json")
    assert run("ask", "and?", "--history", "link.json").code == 0
    after = Path("talk.json").read_bytes().decode()
    kept = before.rstrip()[:-1].rstrip()
    assert after.startswith(kept)
    assert after.endswith("]" + before[len(before.rstrip()) :])
    assert json.loads(after) == [
        *json.loads(before),
        user(text("and?")),
        {"role": "assistant", "content": [text("A snowman.")]},
    ]
    assert Path("talk.json").stat().st_mode & 0o777 == 0o600
    assert Path("link.json").is_symlink()


def test_a_question_that_waits_at_the_end_is_answered(model: Scripted) -> None:
    waiting = user({"type": "image", "path": "a.png"}, text("what?"))
    Path("talk.json").write_text(json.dumps([waiting], indent=4))
    assert run("ask", "more?", "--history", "talk.json").code == 2
    assert run("ask", "--image", "a.png", "--history", "talk.json").code == 2
    assert run("ask", "--history", "talk.json", "--json").out.count('"prompt": "<image>what?"') == 1
    assert json.loads(Path("talk.json").read_text()) == [
        waiting,
        {"role": "assistant", "content": [text("A snowman.")]},
    ]
    assert model.requests[0].parts[1] == "what?"
    assert model.requests[0].history == ()
    assert run("ask", "--history", "talk.json").code == 2


def test_pictures_are_where_the_file_says(model: Scripted) -> None:
    pictures = [{"type": "image", key: f"../{name}.png"} for key, name in (("path", "a"), ("image", "b"), ("url", "a"))]
    whole = {"type": "image", "path": str(Path("b.png").absolute())}
    Path("talks/talk.json").write_text(json.dumps([user(*pictures, whole)]))
    assert run("ask", "--history", "talks/talk.json").code == 0
    tints = [part.getpixel((0, 0)) for part in model.requests[0].parts]  # type: ignore[union-attr]
    assert tints == [(255, 0, 0), (0, 0, 255), (255, 0, 0), (0, 0, 255)]


def test_a_picture_s_name_need_not_be_utf_8(model: Scripted) -> None:
    name = os.fsdecode(b"\xff.png")
    Path("a.png").rename(name)
    for question in ("one", "two"):
        assert run("ask", question, "--image", name, "--history", "talk.json").code == 0
    assert len(model.requests[1].history[0].parts) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('["a"]', "message 1"),
        ('{"messages": []}', "not a list"),
        ('[{"role": "user"}]', "message 1"),
        ('[{"role": "system", "content": "a"}, {"role": "system", "content": "b"}]', 'message 2 has the role "system"'),
        ('[{"role": "system", "content": ""}]', "message 1 is empty"),
        ('[{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]', 'message 2 has the role "system"'),
        ('[{"role": "assistant", "content": "a"}]', "message 1"),
        ('[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]', "message 2"),
        ('[{"role": "user", "content": 7}]', "message 1"),
        ('[{"role": "user", "content": ""}]', "message 1 is empty"),
        ('[{"role": "user", "content": "\\ud800"}]', "message 1 has a part that is neither text nor a picture"),
        ('[{"role": "user", "content": ["a"]}]', "message 1"),
        ('[{"role": "user", "content": [{"type": "video", "path": "a.mp4"}]}]', "a.mp4"),
        ('[{"role": "user", "content": [{"type": "image"}]}]', "message 1"),
        ('[{"role": "user", "content": [{"type": "image", "path": "none.png"}]}]', "no such file: none.png"),
        ('[{"role": "user", "content": [{"type": "image", "path": "a\\u0000.png"}]}]', "message 1"),
    ],
)
def test_what_is_no_conversation_is_said_and_left_alone(model: Scripted, content: str, said: str) -> None:
    Path("talk.json").write_text(content)
    result = run("ask", "what?", "--history", "talk.json")
    assert (result.code, result.out, model.opened) == (1, "", [])
    error, _ = result.err.splitlines()
    assert error.startswith("error: talk.json")
    assert said in error
    assert Path("talk.json").read_text() == content


@pytest.mark.parametrize("path", ["talks", "nowhere/talk.json", "pipe", "", "/proc/talk.json", "x" * 300])
def test_a_history_that_cannot_be_kept_is_refused_before_anything_loads(model: Scripted, path: str) -> None:
    os.mkfifo("pipe")
    result = run("ask", "what?", "--history", path)
    assert (result.code, result.out) == (1, "")
    assert [line.partition(":")[0] for line in result.err.splitlines()] == ["error", "hint"]
    assert not model.opened


def test_a_question_that_fails_leaves_the_conversation_alone(model: Scripted) -> None:
    model.scripts = [["so f", MmgenError("too long")], ["so f", KeyboardInterrupt()]]
    Path("talk.json").write_text("[]")
    assert [run("ask", "what?", "--history", "talk.json").code for _ in range(2)] == [1, 130]
    assert Path("talk.json").read_text() == "[]"
    assert run("ask", "Once", "--complete", "--history", "talk.json").code == 2
    assert run("ask", "what?", "--history", "-").code == 2


def test_a_conversation_that_changed_meanwhile_is_not_overwritten(model: Scripted) -> None:
    def answer(request: Request) -> Iterator[Piece]:
        yield "Yes."
        Path("talk.json").write_text("[ ]")

    model._default = answer  # type: ignore[assignment, method-assign]
    result = run("ask", "what?", "--history", "talk.json")
    assert (result.code, result.out) == (1, "Yes.\n")
    assert "error: talk.json was changed meanwhile" in result.err
    assert Path("talk.json").read_text() == "[ ]"


def test_of_several_at_once_those_that_succeed_are_in_it(model: Scripted) -> None:
    code = """
import sys, time, pytest
from tests.support.scripted import install
from mmgen.cli import main
model = install(pytest.MonkeyPatch())
model._default = lambda request: [request.parts[0]]
sys.exit(main(["ask", sys.argv[1], "--history", "talk.json"]))
"""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"question {n}"],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for n in range(4)
    ]
    done = {f"question {n}" for n, process in enumerate(running) if process.wait(60) == 0}
    messages = json.loads(Path("talk.json").read_text())
    assert done
    assert {message["content"][0]["text"] for message in messages} == done
    assert len(messages) == 2 * len(done)

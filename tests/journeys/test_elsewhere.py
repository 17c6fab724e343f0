"""mmgen where there is no POSIX: its own code goes without what Windows lacks (see `tests.support.elsewhere`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mmgen

ROOT = Path(__file__).parents[2]
SOURCE = Path(mmgen.__file__).parent

_START = f"""
import contextlib, io, json, os, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from tests.support.elsewhere import move_to_windows
move_to_windows(Path({str(SOURCE)!r}))
"""

_JOURNEY = """
from mmgen.cli import main

def run(*arguments, stdin=b"", code=0):
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = main(arguments)
    shown = [each.detach().getvalue().decode() for each in (out, err)]
    assert found == code, (arguments, found, *shown)
    return shown[0]

def names(folder="."):
    return sorted(path.name for path in Path(folder).iterdir())

assert run("draw", "a red cat on the grass", "-n", "2", "--seed", "7", "-o", "cat.png") == "cat-1.png\\ncat-2.png\\n"
assert run("caption", "cat-1.png", "cat-2.png").count("cat") == 4
assert run("ask", "--image", "cat-1.png", "what color is it?", "--history", "talk.json")
assert run("ask", "is it a car?", "--history", "talk.json")
assert len(json.loads(Path("talk.json").read_text())) == 4
run("vary", "cat-1.png", "make it blue", "--seed", "7", "-o", "blue.png")
assert "001.png" in run("interleave", "Can you draw a snowman and explain how?", "--seed", "7", "-o", "story")
assert run("chat", "--image", "cat-1.png", stdin=b"what color is it?\\n/save talk.md\\n")
for more in ([], ["--max-tokens", "7"], []):
    run("caption", ".", "--jsonl", "a.jsonl", "--html", "a.html", *more)
    lines = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert {line["place"] for line in lines} == {"./" + name for name in names() if name.endswith(".png")}
assert run("caption", ".", "--jsonl", "a.jsonl", "--plan").startswith("new 0")
for most in "20", "21":
    run("caption", "cat-1.png", "--max-tokens", most, "--sidecar", "--jsonl", "b.jsonl")
run("caption", "cat-1.png", "--jsonl", "none.jsonl", "--shard", "9/1000000")
assert not Path("none.jsonl").exists()
Path("prompts.txt").write_text("a red cat\\na blue boat\\n")
for seed in "7", "8", "8":
    run("draw", "--prompts", "prompts.txt", "--seed", seed, "-f", "-o", "out/{index}.png")
assert names("out") == ["1.png", "2.png", "mmgen.jsonl"]
assert len(Path("out/mmgen.jsonl").read_text().splitlines()) == 4
Path("prompts.txt").write_text("Tell a story about a red cat\\n")
run("interleave", "--prompts", "prompts.txt", "--seed", "7", "-o", "stories/")
run("models")
run("models", "demo")
run("report", "a.jsonl", "-o", "b.html")
Path(".mmgen-1-abcdefgh").touch()
run("caption", "cat-1.png", "--jsonl", "a.jsonl")
assert [name for name in names() if name.startswith(".")] == [], names()
"""


def process(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _START + code], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(300)
def test_every_kind_of_command_runs_without_what_windows_lacks(tmp_path: Path) -> None:
    done = process(_JOURNEY, tmp_path)
    assert done.returncode == 0, done.stderr


def test_what_windows_lacks_or_refuses_is_missing_here_too(tmp_path: Path) -> None:
    trial = """
import builtins
ours = {"__name__": "mmgen.trial", "__file__": SOURCE + "/trial.py"}
def fails(line, error):
    try:
        exec(compile(line, SOURCE + "/trial.py", "exec"), dict(ours))
    except error:
        return
    raise SystemExit(line)
fails("import fcntl", ImportError)
fails("from os import pread", ImportError)
fails("import os; os.fchmod", AttributeError)
fails("import signal; signal.SIGHUP", AttributeError)
fails("from pathlib import Path; Path('/proc/self/maps').read_text()", FileNotFoundError)
fails("import os; os.open('.', os.O_RDONLY)", PermissionError)
fails("from pathlib import Path; f = open('a', 'wb'); Path('a').rename('b')", PermissionError)
fails("from pathlib import Path; f = open('c', 'wb'); Path('c').unlink()", PermissionError)
fails("import filelock; f = open('d', 'a+b'); filelock.lock_descriptor(f.fileno()); open('d')", PermissionError)
import fcntl, termios
os.fchmod, os.pread
""".replace("SOURCE", repr(str(SOURCE)))
    done = process(trial, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")

"""What people type, from beginning to end, on the built-in model: files in, files and words out."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import mmgen
from mmgen import tasks
from mmgen.cli import main
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.request import ImageSampling
from tests.support.checkpoints import make_checkpoint
from tests.support.near_ties import BOUND, chosen, least_gap
from tools.demo.judge import load_judge, see

ERRORS_WITHOUT_WEIGHTS = """
import sys
from mmgen.cli import main
code = main(sys.argv[1:])
heavy = {"torch", "transformers"} & set(sys.modules)
print(f"heavy: {sorted(heavy)}", file=sys.stderr)
sys.exit(code)
"""


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must succeed; return what it wrote to stdout."""
    capsys.readouterr()
    code = main(arguments)
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def test_a_red_cat_is_drawn_and_is_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "draw", "a red cat on the grass", "-o", "cat.jpg", "--seed", "1") == "cat.jpg\n"
    assert "red" in run(capsys, "ask", "--image", "cat.jpg", "what color is it?").lower()
    assert run(capsys, "ask", "--image", "cat.jpg") == "A red cat on the grass.\n"
    assert run(capsys, "caption", "cat.jpg") == "A red cat on the grass.\n"
    record = json.loads(run(capsys, "caption", "cat.jpg", "--json"))
    assert (record["command"], record["image"], record["text"]) == ("caption", "cat.jpg", "A red cat on the grass.")


def test_a_loop_over_a_list_answers_every_line(tmp_path: Path) -> None:
    for seed, prompt in enumerate(("a red cat", "a blue boat", "a green tree")):
        assert main(["draw", prompt, "-o", str(tmp_path / f"{seed}.png"), "--seed", str(seed), "-q"]) == 0
    (tmp_path / "list").write_text("0.png\n1.png\n2.png\n")
    script = 'while read f; do mmgen ask --image "$f" "what is it?" -q; done < list'
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "A cat.\nA boat.\nA tree.\n"


@pytest.mark.parametrize("guidance", ["1", "3"])
def test_four_files_of_seed_7_hold_the_file_of_seed_8(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], guidance: str
) -> None:
    demo, sampling = mmgen.load("demo"), ImageSampling(guidance=float(guidance))
    assert isinstance(demo, AutoregressiveModel)
    (picture,) = mmgen.draw(demo, "a house in the snow", seed=8, image=sampling)
    request = tasks.draw("a house in the snow", seed=8, image=sampling)
    assert least_gap(chosen(demo, request, picture.codes or ())) > BOUND, "a near tie: choose another seed"
    common = ["--guidance", guidance, "--no-metadata", "-q"]
    many, one = tmp_path / "many.png", tmp_path / "one.png"
    paths = run(capsys, "draw", "a house in the snow", "-n", "4", "--seed", "7", "-o", str(many), *common).split()
    run(capsys, "draw", "a house in the snow", "--seed", "8", "-o", str(one), *common)
    assert Path(paths[1]).read_bytes() == one.read_bytes()
    assert len({Path(path).read_bytes() for path in paths}) == 4


def test_vary_repeats_under_a_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source.png"
    run(capsys, "draw", "a yellow car", "--seed", "3", "-o", str(source))
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        run(capsys, "vary", str(source), "--seed", seed, "-o", str(tmp_path / f"{name}.png"))
    a, b, c = (Image.open(tmp_path / f"{name}.png").tobytes() for name in "abc")
    assert a == b != c


def test_a_story_is_markdown_with_pictures_that_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    prompt = "Can you draw a snowman and explain how to build one?"
    told = run(capsys, "interleave", prompt, "-o", "story", "--seed", "1")
    pictures = sorted(Path("story").glob("*.png"))
    assert pictures
    for number, path in enumerate(pictures, 1):
        assert f"![picture {number}]({path})" in told
        assert f"![picture {number}]({path.name})" in Path("story/index.md").read_text()
    assert {scene.subject for scene in see(load_judge(), [Image.open(path) for path in pictures])} == {"snowman"}
    assert run(capsys, "interleave", prompt, "-o", "again", "--seed", "1") == told.replace("(story/", "(again/")


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantized_it_still_draws_and_describes(tmp_path: Path, capsys: pytest.CaptureFixture[str], bits: str) -> None:
    path = tmp_path / "cat.png"
    run(capsys, "draw", "a red cat on the grass", "--seed", "1", "-o", str(path), "--quantize", bits)
    assert "cat" in run(capsys, "caption", str(path), "--quantize", bits)


def test_every_help_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("photo.jpg", "1"), ("drawing.png", "2"), ("a.png", "3"), ("b.png", "4")):
        run(capsys, "draw", "a red cat", "--seed", seed, "-o", name)
    for command in ("draw", "caption", "ask", "vary", "interleave"):
        examples = re.findall(r"^ *\$ mmgen (.*)$", run(capsys, *command.split(), "--help"), re.MULTILINE)
        assert len(examples) == 2
        for example in examples:
            assert run(capsys, *shlex.split(example))
    examples = re.findall(r"^ *\$ mmgen (.*)$", run(capsys, "chat", "--help"), re.MULTILINE)
    assert len(examples) == 2
    for example in examples:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Describe this picture.\n/help\n/quit\n")))
        assert len(run(capsys, *shlex.split(example))) > 1


def bad_files(folder: Path) -> None:
    """Make everything that the errors below speak of."""
    Image.new("RGB", (64, 64), "red").save(folder / "fine.png")
    Image.effect_noise((64, 64), 50).convert("RGB").save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:900])
    (folder / "text.jpg").write_text("I am no picture")
    Image.new("1", (30_000, 30_000)).save(folder / "huge.png")
    (folder / "exists.png").write_bytes(b"mine")
    (folder / "empty").mkdir()
    make_checkpoint(folder / "words", decoder=False)


ERRORS = [
    (1, ["caption", "missing.jpg"], "missing.jpg"),
    (1, ["caption", "text.jpg"], "text.jpg"),
    (1, ["caption", "truncated.jpg"], "truncated.jpg"),
    (1, ["caption", "huge.png"], "huge.png"),
    (2, ["draw", ""], "empty"),
    (2, ["ask", " ", "--image", "fine.png"], "empty"),
    (1, ["draw", "very " * 3000, "-o", "x.png"], "too long"),
    (1, ["draw", "a cat", "-m", "no-such-model", "-o", "x.png"], "no-such-model"),
    (1, ["draw", "a cat", "-m", "./empty", "-o", "x.png"], "empty"),
    (1, ["draw", "a cat", "-m", "./words", "-o", "x.png"], "cannot draw"),
    (2, ["draw", "a cat", "-o", "exists.png"], "exists.png"),
    (1, ["draw", "a cat", "-o", "nowhere/x.png"], "nowhere"),
    (2, ["draw", "a cat", "-o", "x.txt"], "x.txt"),
    (2, ["draw", "a cat", "--top-p", "7", "-o", "x.png"], "top-p"),
    (2, ["draw", "a cat", "--no-such-flag"], "no-such-flag"),
]


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("troubled")
    bad_files(folder)
    return folder


@pytest.mark.parametrize(("code", "arguments", "named"), ERRORS, ids=lambda value: str(value)[:40])
def test_what_cannot_work_is_one_line_and_a_hint_before_anything_heavy(
    troubled: Path, code: int, arguments: list[str], named: str
) -> None:
    before = sorted(troubled.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", ERRORS_WITHOUT_WEIGHTS, *arguments],
        cwd=troubled,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == code
    assert done.stdout == ""
    assert [line.split(":")[0] for line in lines] == ["error", "hint", "heavy"], done.stderr
    assert named in lines[0]
    assert lines[2] == "heavy: []"
    assert sorted(troubled.rglob("*")) == before
    assert (troubled / "exists.png").read_bytes() == b"mine"

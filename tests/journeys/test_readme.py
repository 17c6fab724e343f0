"""The README, run for real in an empty folder.

By its fences: `console` has commands after `$ ` and what they print on stdout, where `…` stands for anything; `python`
is run as a script; `sh` needs a clone, a network or large weights and is checked as far as it goes without.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import mmgen
from mmgen.checkpoints.aliases import ALIASES
from tests.support.serving import serving
from tests.support.shell import run

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = _BLOCK.findall((ROOT / "README.md").read_text("utf-8"))


def blocks(kind: str) -> list[str]:
    return [text for fence, text in BLOCKS if fence == kind]


def commands(block: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block with the output shown for it."""
    first, *rest = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert first == "", "a console block begins with a command"
    for entry in rest:
        command, _, shown = entry.partition("\n")
        yield command, shown


def looks_like(shown: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(piece) for piece in shown.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def test_every_block_says_what_it_is() -> None:
    assert {fence for fence, _ in BLOCKS} == {"console", "python", "sh"}
    assert (ROOT / "README.md").read_text().count("```") == 2 * len(BLOCKS)


@pytest.mark.timeout(300)
def test_the_console_blocks_print_what_they_show(tmp_path: Path) -> None:
    for command, shown in (each for block in blocks("console") for each in commands(block)):
        done = run(command, tmp_path)
        assert done.returncode == 0, f"$ {command}\n{done.stderr}"
        assert looks_like(shown, done.stdout), f"$ {command}\n{done.stdout}"


def test_the_python_blocks_run(tmp_path: Path) -> None:
    for number, block in enumerate(blocks("python")):
        if "openai" in block:
            continue  # below
        (tmp_path / f"{number}.py").write_text(block)
        done = run([sys.executable, f"{number}.py"], tmp_path)
        assert done.returncode == 0, done.stderr
        assert "red cat" in done.stdout
        assert list(tmp_path.glob("cat-*.png"))


def test_the_block_for_openai_s_client_draws_through_a_server(tmp_path: Path) -> None:
    (block,) = (block for block in blocks("python") if "openai" in block)
    with mmgen.load("demo") as model, serving(model) as server:
        (tmp_path / "draw.py").write_text(block.replace("8686", str(server.port)))
        done = run([sys.executable, "draw.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "red-cat.png") as image:
        assert image.size == (96, 96)


def test_the_sh_blocks_hold_as_far_as_they_go_without_weights(tmp_path: Path) -> None:
    lines = [line.partition("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    for line in lines:
        match line.split()[0]:
            case "make":
                assert run(f"make -n -C '{ROOT}' {line.removeprefix('make ')}", tmp_path).returncode == 0, line
            case "source":
                assert line == "source .venv/bin/activate"  # a file that `make demo` makes
            case "vllm":
                assert line.endswith("&")  # another's, which listens where the next line asks
            case "mmgen" if "--endpoint" in line:
                (tmp_path / "photos").mkdir()
                Image.new("RGB", (64, 64)).save(tmp_path / "photos/photo.jpg")
                done = run(line, tmp_path)
                assert done.returncode == 1
                assert "cannot reach http://127.0.0.1:8000" in done.stderr
            case "mmgen" if line.startswith("mmgen serve"):
                done = run(f"{line} --port 0 --idle 1s", tmp_path)
                assert done.returncode == 0, done.stderr
                assert "demo is loaded: caption, ask, draw, vary, interleave" in done.stderr
            case "mmgen":
                Image.new("RGB", (64, 64)).save(tmp_path / "photo.jpg")
                done = run(f"{line} --offline", tmp_path, HF_HOME=str(tmp_path / "empty"))
                assert done.returncode == 1, f"{line}\n{done.stderr}"  # understood, but the weights are not here
                assert "is not on this machine" in done.stderr
            case other:
                pytest.fail(f"nobody checks {other} lines")


def test_the_links_and_the_models_are_there() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for target in re.findall(r"\]\((?!http|#)([^)]+)\)", text.replace("```", "")):
        if not target.startswith("story/"):
            assert (ROOT / target).exists(), target
    models = (ROOT / "docs" / "models-and-memory.md").read_text("utf-8")
    for alias in ALIASES:
        assert f"`{alias}`" in models

"""A torchvision that is installed, broken or fitting, leaves every command as it is."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"
FITTING = Path(sys.prefix, "torchvision")  # where `make test` puts the package index's
FOLDERS = {"broken": [SUPPORT / "broken"], "fitting": [SUPPORT / "fitting", FITTING]}

COMMANDS = """
    import contextlib, io, sys
    from mmgen.cli import main
    def mmgen(*arguments, stdin=""):
        sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()))
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = main([*arguments])
        assert code == 0, (arguments, code)
        return out.getvalue()
    assert mmgen("draw", "a red cat on the grass", "--seed", "7", "-o", "cat.png") == "cat.png\\n"
    assert mmgen("draw", "a red boat on the beach", "--seed", "1", "-o", "boat.png") == "boat.png\\n"
    assert mmgen("caption", "cat.png", "boat.png").count("\\t") == 2
    assert mmgen("ask", "--image", "cat.png", "what color is it?") == "Red.\\n"
    assert mmgen("vary", "cat.png", "make it blue", "--seed", "7", "-o", "blue.png") == "blue.png\\n"
    assert "![picture 1]" in mmgen("interleave", "Can you draw a snowman?", "--seed", "7", "-o", "story")
    assert mmgen("chat", "--image", "cat.png", stdin="what color is it?") == "Red.\\n"
    assert "demo" in mmgen("models")
"""


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_command_works_beside_it(tmp_path: Path, kind: str) -> None:
    assert FITTING.is_dir(), "no torchvision to try: `make test` fetches it"
    with_it = f"""
        import torch
        {"import torchvision" if kind == "fitting" else ""}
    """
    done = beside(kind, with_it, COMMANDS, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_one_is_an_error_of_the_python_api(tmp_path: Path) -> None:
    code = """
        import mmgen
        try:
            mmgen.load("demo")
        except mmgen.MmgenError as error:
            assert "operator torchvision::nms does not exist" in error.message, error.message
            assert "pip uninstall torchvision" in error.hint, error.hint
            raise SystemExit(7)
    """
    assert beside("broken", code, folder=tmp_path).returncode == 7


def beside(kind: str, *parts: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process that finds a torchvision of this kind."""
    path = os.pathsep.join([*map(str, FOLDERS[kind]), *filter(None, [os.environ.get("PYTHONPATH")])])
    code = "\n".join(map(textwrap.dedent, parts))
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )

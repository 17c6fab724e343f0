"""What Tab makes of a line of chat."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmgen.cli.completing import DELIMITERS, complete

NAMES, TAKE_PATHS = ("image", "save", "set", "show"), ("image", "save")


def lines(typed: str) -> list[str]:
    """The lines that Tab may make of one, as readline does: it replaces the last word."""
    word = min((typed.rpartition(delimiter)[2] for delimiter in DELIMITERS), key=len)
    return [typed.removesuffix(word) + each for each in complete(typed, NAMES, TAKE_PATHS)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files with names of all kinds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("cat.png", "my first cat.png", "my first dog.png", ".hidden.png", "home/x.png", "a b/c d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "become"),
    [
        ("/", ["/image ", "/save ", "/set ", "/show "]),
        ("/s", ["/save ", "/set ", "/show "]),
        ("/x", []),
        ("what is /im", []),
        ("/image c", ["/image cat.png "]),
        ("/image ca", ["/image cat.png "]),
        ("/image my", ["/image my first cat.png ", "/image my first dog.png "]),
        ("/image my first d", ["/image my first dog.png "]),
        ("/image ~/", ["/image ~/x.png "]),
        ("/image home", ["/image home/"]),
        ("/image a b/c ", ["/image a b/c d.png "]),
        ("/image .h", ["/image .hidden.png "]),
        ("/image nowhere/", []),
        ("/set c", []),
        (
            "/save ",
            ["/save a b/", "/save cat.png ", "/save home/", "/save my first cat.png ", "/save my first dog.png "],
        ),
    ],
)
def test_commands_and_paths_are_completed(folder: Path, typed: str, become: list[str]) -> None:
    assert lines(typed) == become


@given(st.text(st.sampled_from("/~ .aimgeshow"), max_size=12))
def test_no_line_is_too_strange_and_each_becomes_a_longer_one(typed: str) -> None:
    assert all(line.startswith(typed) for line in lines(typed))

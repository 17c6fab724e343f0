"""The contract of the command line: every row of tests/contract/, through the command line and nothing else."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from unittest import mock

import pytest
from PIL import Image

from mmgen.cli import main
from tests.contract import ROWS
from tests.contract.row import ABSENT, ANY, Content, Drawn, Row
from tests.support import shell

Fill = Callable[[Content], bytes]


class _Unread(io.RawIOBase):
    """A stdin that nobody may read."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        raise AssertionError("stdin was read")


class _Stream(io.TextIOWrapper):
    """A standard stream whose bytes are kept."""

    def __init__(self, terminal: bool) -> None:
        self.kept = io.BytesIO()
        super().__init__(self.kept, encoding="utf-8", write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def call(
    arguments: Sequence[str], stdin: bytes | None, environment: Mapping[str, str], terminal: bool = False
) -> tuple[int, bytes, str]:
    """Run mmgen in this process; return its exit code, stdout and stderr."""
    given = io.BufferedReader(_Unread()) if stdin is None else io.BytesIO(stdin)
    out, err = _Stream(terminal), _Stream(terminal)
    with (
        mock.patch.multiple(sys, stdin=io.TextIOWrapper(given, encoding="utf-8"), stdout=out, stderr=err),
        mock.patch.dict(os.environ, environment),
        warnings.catch_warnings(),
    ):
        code = main(arguments)
    return code, out.kept.getvalue(), err.kept.getvalue().decode()


@pytest.fixture(scope="module")
def fill(tmp_path_factory: pytest.TempPathFactory) -> Fill:
    """Give the bytes of a file that a row begins with; a picture is drawn once."""
    folder = tmp_path_factory.mktemp("drawn")

    def content(given: Content) -> bytes:
        if not isinstance(given, Drawn):
            return given.encode() if isinstance(given, str) else given
        path = folder / f"{given.prompt}.png"
        if not path.exists():
            code, _, err = call(["draw", given.prompt, "--seed", str(given.seed), "-o", str(path)], None, {})
            assert code == 0, err
        return path.read_bytes()

    return content


def _prepare(row: Row, fill: Fill) -> None:
    for name, given in row.files.items():
        path = Path(name)
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(fill(given))
    for command in row.first:
        program, *arguments = shlex.split(command)
        if program == "mmgen":
            call(arguments, None, row.env)
        else:
            done = shell.run(command, Path())
            assert done.returncode == 0, done.stderr


def _snapshot() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def _fits(pattern: str | bytes, found: str | bytes) -> bool:
    """Compare with a pattern, in which … stands for anything."""
    pattern = pattern.encode(errors="surrogateescape") if isinstance(pattern, str) else pattern
    found = found.encode(errors="surrogateescape") if isinstance(found, str) else found
    return re.fullmatch(b".*".join(map(re.escape, pattern.split(ANY.encode()))), found, re.DOTALL) is not None


def _has(found: object, expected: object) -> bool:
    """Say whether a value of JSON has what is expected: of an object some keys, of a list all values in turn."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        return all(_has(found.get(key, ABSENT), value) for key, value in expected.items())
    if isinstance(expected, list) and isinstance(found, list):
        if expected[-1:] == [ANY]:
            expected, found = expected[:-1], found[: len(expected) - 1]
        return len(expected) == len(found) and all(map(_has, found, expected))
    if isinstance(expected, str) and isinstance(found, str):
        return _fits(expected, found)
    return found is not ABSENT if expected == ANY else found == expected


def _pixels(path: str) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def _spelled(words: str) -> list[bytes]:
    return [words.encode(encoding) for encoding in ("utf-8", "utf-16-be", "utf-16-le")]


def _as_list(words: str | Sequence[str]) -> list[str]:
    return [words] if isinstance(words, str) else list(words)


def _check_said(row: Row, err: str) -> None:
    lines = err.splitlines()
    for beginning, expected in (("error: ", _as_list(row.error)), ("hint: ", _as_list(row.hint))):
        said = [line.removeprefix(beginning) for line in lines if line.startswith(beginning)]
        assert len(said) == len(_as_list(row.error)), f"a line of {beginning}for each error\n{err}"
        for found, words in zip(said, expected, strict=False):
            assert _fits(f"{words}{ANY}", found), err
    for pattern in row.says:
        assert any(_fits(pattern, line) for line in lines), f"no line {pattern}\n{err}"
    if row.err is not None:
        assert _fits(row.err, err), err
    if row.env.get("MMGEN_DEBUG") is None:
        assert "Traceback" not in err
    if not row.terminal:
        assert not {"\r", "\x1b"} & set(err), "progress or colours where there is no terminal"


def _check_files(row: Row, before: Mapping[str, bytes], fill: Fill) -> None:
    after = _snapshot()
    written = {name for name in after if after[name] != before.get(name)}
    patterns = row.writes.split()
    assert {name for name in written if not any(fnmatch(name, each) for each in patterns)} == set(), "not to be written"
    assert {each for each in patterns if not any(fnmatch(name, each) for name in written)} == set(), "not written"
    assert set(before) <= set(after), "files were taken away"
    for name, expected in row.holds.items():
        assert _fits(fill(expected), after[name]), after[name][:2000]
    for name, words in row.tells.items():
        for each in words:
            assert any(spelled in after[name] for spelled in _spelled(each)), f"no {each} in {name}"
    for name, words in row.hides.items():
        for each in words:
            assert not any(spelled in after[name] for spelled in _spelled(each)), f"{each} in {name}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", "-", row.name))
def test_the_command_line_keeps_its_contract(
    row: Row, fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _prepare(row, fill)
    before = _snapshot()
    # 1) Run it
    stdin = row.stdin.encode() if isinstance(row.stdin, str) else row.stdin
    if row.shell:
        done = shell.run(row.command, tmp_path, **row.env)
        code, out, err = done.returncode, done.stdout.encode(), done.stderr
    else:
        program, *arguments = shlex.split(row.command)
        assert program == "mmgen"
        code, out, err = call(arguments, stdin, row.env, row.terminal)
    # 2) Compare what it said
    assert code == row.code, err
    if "-" not in row.records:
        assert _fits(row.out, out), out.decode(errors="replace")
    assert b"\x1b[" not in out or out.startswith(b"\x89PNG"), "something is coloured on stdout"
    _check_said(row, err)
    for text in row.never:
        assert text not in out.decode(errors="replace") + err
    # 3) Compare what it wrote
    _check_files(row, before, fill)
    for name, expected in row.records.items():
        data = out if name == "-" else Path(name).read_bytes()
        records = [json.loads(line) for line in data.splitlines()]
        assert _has(records, list(expected)), records
    if row.same is not None:
        assert _pixels(row.same[0]) == _pixels(row.same[1])
    if row.differ is not None:
        assert _pixels(row.differ[0]) != _pixels(row.differ[1])

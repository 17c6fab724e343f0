"""Files that are there whole or not at all, also when their writer is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmgen import files
from mmgen.files import sweep, whole_file


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from mmgen.files import whole_file
with whole_file(Path({str(tmp_path / "a.txt")!r})) as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    others = {".mmgen-notes", ".mmgen-1-two", "mmgen-1-abcdefgh", ".mmgen-x-abcdefgh"}
    for name in others:
        (tmp_path / name).touch()
    assert len(list(tmp_path.iterdir())) == len(others) + 1
    with whole_file(tmp_path / "b.txt") as file:
        file.write(b"whole")
        sweep(tmp_path)  # not that of a process at work
    assert (tmp_path / "b.txt").read_bytes() == b"whole"
    assert {each.name for each in tmp_path.iterdir()} == {*others, "b.txt"}
    sweep(tmp_path / "none")


def test_a_file_that_was_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = files.lock

    def sweep_first(file: int) -> bool | None:
        monkeypatch.setattr(files, "lock", lock)
        sweep(tmp_path)
        return lock(file)

    monkeypatch.setattr(files, "lock", sweep_first)
    with whole_file(tmp_path / "a.txt") as file:
        file.write(b"whole")
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"whole"]


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with whole_file(path) as file:
        file.write(b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o640)

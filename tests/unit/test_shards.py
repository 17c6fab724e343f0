"""Tar files as folders of pictures: read in place, whatever is in them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from mmgen.request import Request
from tests.support.scripted import Scripted, install, run


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as shard:  # type: ignore[call-overload]  # any of its modes
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
    return path


SAMPLES = {
    "000.png": png("red"), "000.txt": b"a red thing", "000.json": b'{"artist": "me"}',
    "001.txt": b"a blue thing", "001.json": b'{"artist": "you"}', "001.png": png("blue"),
    "deep/002.jpg.png": png("green"), "notes.md": b"none",
}  # fmt: skip


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    monkeypatch.chdir(tmp_path)
    return install(monkeypatch)


def colours(requests: list[Request]) -> list[object]:
    return [request.images[0].getpixel((0, 0)) for request in requests]


RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 128, 0)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_the_pictures_of_an_archive_are_called_as_those_of_a_folder(model: Scripted, tmp_path: Path, mode: str) -> None:
    name = {"w": "s.tar", "w:gz": "s.tar.gz", "w:xz": "s.tar.xz"}[mode]
    write(tmp_path / name, SAMPLES, mode)
    result = run("caption", name)
    assert result.code == 0, result.err
    names = [line.partition("\t")[0] for line in result.out.splitlines()]
    assert names == [f"{name}/000.png", f"{name}/001.png", f"{name}/deep/002.jpg.png"]
    assert colours(model.requests) == [RED, BLUE, GREEN]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_what_lies_beside_a_picture_fills_placeholders(model: Scripted, tmp_path: Path) -> None:
    write(tmp_path / "s.tar", SAMPLES)
    result = run("caption", "s.tar", "--prompt", "{caption} by {json.artist}, {stem}", "--exclude", "deep/*")
    assert result.code == 0, result.err
    assert [request.parts[-1] for request in model.requests] == ["a red thing by me, 000", "a blue thing by you, 001"]
    lacking = run("caption", "s.tar", "--prompt", "{caption}", "--include", "deep/*")
    assert lacking.code == 1
    assert "no 002.jpg.txt beside it for {caption}" in lacking.err


def test_a_batch_goes_on_within_an_archive(model: Scripted, tmp_path: Path) -> None:
    write(tmp_path / "s.tar", SAMPLES)
    arguments = ["caption", "s.tar", "--jsonl", "j.jsonl"]
    assert run(*arguments, "--limit", "2").code == 0
    assert run(*arguments).code == 0
    assert colours(model.requests) == [RED, BLUE, GREEN]
    assert "0 done, 3 skipped" in run(*arguments).err
    write(tmp_path / "s.tar", {**SAMPLES, "001.png": png("white")})
    assert run(*arguments).code == 0
    assert colours(model.requests)[3:] == [(255, 255, 255)]
    rows = [json.loads(line) for line in Path("j.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == [
        "s.tar/000.png",
        "s.tar/001.png",
        "s.tar/deep/002.jpg.png",
        "s.tar/001.png",
    ]


def test_patterns_take_archives_and_captions_go_below_another_folder(model: Scripted, tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"{number}.tar", {f"{number}.png": png("red")})
    assert run("caption", "?.tar", "--sidecar", "--outdir", "out").code == 0
    assert sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.txt")) == ["0.tar/0.txt", "1.tar/1.txt"]
    beside = run("caption", "0.tar", "--sidecar")
    assert beside.code == 1
    assert "nothing can stand beside 0.tar/0.png" in beside.err


def test_other_archives_are_refused_row_by_row_and_nothing_leaves_them(model: Scripted, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with tarfile.open(folder / "bad.tar", "w") as shard:
        for name, kind in {
            "link.png": tarfile.SYMTYPE, "hard.png": tarfile.LNKTYPE, "null.png": tarfile.CHRTYPE,
            "pipe.png": tarfile.FIFOTYPE,
        }.items():  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            shard.addfile(info)
        for name in ("/tmp/absolute.png", "../up.png", "a/../../up.png", ".hidden.png", "not.png", "whole.png"):
            data = png("red") if name != "not.png" else b"no picture"
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
    result = run("caption", "in/bad.tar")
    assert result.code == 1
    assert [line.partition("\t")[0] for line in result.out.splitlines()] == ["in/bad.tar/whole.png"]
    for name in ("link.png is a link", "hard.png is a link", "null.png is a link", "pipe.png is a link"):
        assert f"in/bad.tar: {name}" in result.err
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert sum("leads out of the archive" in line for line in lines) == 3
    assert "error: in/bad.tar/not.png is not a picture that can be read" in lines
    assert len(lines) == 8
    assert ".hidden" not in result.err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["bad.tar"]


def test_an_archive_that_ends_too_early_gives_what_is_there(model: Scripted, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.tar", SAMPLES).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: whole.index(b"deep/002") + 530])
    result = run("caption", "cut.tar")
    assert result.code == 1
    assert len(result.out.splitlines()) == 2
    assert "cut.tar is broken" in result.err
    (tmp_path / "none.tar").write_bytes(b"hello" * 1000)
    none = run("caption", "none.tar")
    assert (none.code, none.out) == (1, "")
    assert "none.tar is broken" in none.err


def test_an_archive_without_pictures_is_said(tmp_path: Path) -> None:
    write(tmp_path / "s.tar", {"a.txt": b"a"})
    result = run("caption", "s.tar")
    assert result.code == 1
    assert "no pictures in s.tar" in result.err

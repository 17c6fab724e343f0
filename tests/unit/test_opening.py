"""Pictures as people have them: from pipes and addresses, of phones, large, cut off, of odd numbers."""

from __future__ import annotations

import base64
import io
import os
import struct
import threading
from pathlib import Path

import pytest
from PIL import Image

from mmgen.errors import MmgenError
from mmgen.inputs import images, selection
from mmgen.inputs.finding import Found, captured, find
from mmgen.inputs.images import open_image
from mmgen.inputs.selection import Selection
from tests.support.scripted import Scripted, install, run


def encoded(image: Image.Image, kind: str, **ways: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **ways)
    return buffer.getvalue()


def scene(width: int = 64, height: int = 800) -> Image.Image:
    """No row of it is like the next."""
    return Image.effect_noise((width, height), 60).convert("RGB")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), "red").save("a.png")
    return install(monkeypatch)


# Where they come from


@pytest.mark.parametrize("words", [("caption", "-"), ("ask", "what?", "--image", "-"), ("vary", "-", "-o", "b.png")])
def test_a_picture_comes_through_stdin(model: Scripted, words: tuple[str, ...]) -> None:
    assert run(*words, stdin=Path("a.png").read_bytes()).code == 0
    [image] = model.requests[0].images
    assert image.tobytes() == open_image("a.png").tobytes()


def test_a_pipe_that_the_shell_names_is_read_once(model: Scripted) -> None:
    reading, writing = os.pipe()
    data = Path("a.png").read_bytes()
    threading.Thread(target=lambda: (os.write(writing, data), os.close(writing))).start()
    result = run("caption", f"/dev/fd/{reading}", "--jsonl", "j.jsonl")
    os.close(reading)
    assert result.code == 0
    assert model.requests[0].images[0].tobytes() == open_image("a.png").tobytes()


def test_a_picture_is_in_its_address(model: Scripted) -> None:
    data = Path("a.png").read_bytes()
    address = "data:image/png;base64," + base64.b64encode(data).decode()
    assert open_image(address).tobytes() == open_image("a.png").tobytes()
    result = run("caption", address, "a.png", "--json")
    assert result.code == 0
    assert address not in result.out  # which names it shortly
    for wrong in ("data:,", "data:image/png;base64,????", "data:image/png;base64,aGFsbG8="):
        assert run("caption", wrong).code == 1


def test_stdin_holds_one_thing(model: Scripted) -> None:
    for words in (("caption", "-", "-"), ("ask", "-", "--image", "-"), ("vary", "-", "-", "-o", "b.png")):
        result = run(*words, stdin=b"")
        assert (result.code, "stdin holds one" in result.err) == (2, True)
    assert run("caption", "-", stdin=b"").err.startswith("error: - is empty")


def test_files_and_named_pipes_are_not_taken_for_pictures_to_be_read_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert captured(str(tmp_path / "pipe")) is None
    assert captured("a.png") is None


# What they are


@pytest.mark.parametrize(("ending", "package"), [("heic", "pi-heif"), ("jxl", "pillow-jxl-plugin")])
def test_formats_of_a_missing_package_are_left_out_and_said(
    model: Scripted, monkeypatch: pytest.MonkeyPatch, ending: str, package: str
) -> None:
    data = {"heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "jxl": b"\xff\x0a" + bytes(30)}[ending]
    Path("d").mkdir()
    Path("d", f"b.{ending.upper()}").write_bytes(data)
    for room in (selection, images):
        monkeypatch.setattr(room, "is_installed", lambda module: False)
    only = run("caption", "d")
    assert only.code == 1
    assert only.err.splitlines()[1] == f"hint: 1 file left out: {ending}; pip install {package} reads them"
    Path("a.png").rename("d/a.png")
    both = run("caption", "d", "--jsonl", "j.jsonl")
    assert both.code == 0
    assert f"1 file left out: {ending}; pip install {package} reads them" in both.err.splitlines()
    assert "1 done, 0 skipped, 0 failed" in both.err
    assert ", 1 left out\n" in both.err
    named = run("caption", f"d/b.{ending.upper()}")
    assert named.code == 1
    assert f"hint: pip install {package}" in named.err
    assert "left out" not in run("caption", "d", "--exclude", f"*.{ending}").err


def test_a_jxl_is_read_like_any_other(tmp_path: Path) -> None:
    image = scene(40, 30)
    __import__("pillow_jxl")
    (tmp_path / "a.jxl").write_bytes(encoded(image, "JXL", lossless=True))
    [found] = find([str(tmp_path)], Selection())
    assert isinstance(found, Found)
    assert open_image(found.name).tobytes() == image.tobytes()


# How they are


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PPM"])
def test_a_picture_without_its_last_rows_is_what_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    path, image = tmp_path / "a", scene()
    data = encoded(image, kind)
    whole = open_image(_written(path, data))
    cut = data[: int(len(data) * 0.95)]
    opened = open_image(_written(path, cut))
    assert 0.9 * 800 <= opened.height < 800
    assert opened.width == 64
    n_sure = opened.height - 17  # a JPEG's last row of blocks may be half there
    assert opened.crop((0, 0, 64, n_sure)).tobytes() == whole.crop((0, 0, 64, n_sure)).tobytes()
    assert f"lacks its last {800 - opened.height} rows of 800" in caplog.text
    with pytest.raises(MmgenError, match="is broken"):
        open_image(path, strict=True)
    with pytest.raises(MmgenError, match="is broken"):
        open_image(_written(path, data[: len(data) // 2]))


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_what_is_odd_is_said_once_and_strict_refuses(model: Scripted) -> None:
    data = encoded(scene(), "PNG")
    Path("cut.png").write_bytes(data[: int(len(data) * 0.97)])
    result = run("caption", "cut.png")
    assert result.code == 0
    assert result.err.count("note: cut.png lacks its last") == 1
    assert run("caption", "cut.png", "--strict").code == 1


def test_only_a_large_jpeg_is_read_smaller(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    large = Image.new("L", (10_000, 9_000), 200)
    large.save(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg").size == (5_000, 4_500)
    assert "a.jpg has 90 megapixels: it is read at half its size" in caplog.text
    large.resize((9_400, 9_500)).save(tmp_path / "b.jpg")
    assert open_image(tmp_path / "b.jpg").size == (9_400, 9_500)


def test_the_limit_is_pillows_and_can_be_set(model: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    assert run("caption", "a.png", "--pixel-limit", "64").code == 0
    result = run("caption", "a.png", "--pixel-limit", "63")
    assert result.code == 0  # 64 are twice 32
    result = run("caption", "a.png", "--pixel-limit", "62")
    assert result.code == 1
    assert result.err.splitlines()[0] == "error: a.png is too large: 8 x 8 pixels"
    assert "--pixel-limit" in result.err
    monkeypatch.setenv("MMGEN_PIXEL_LIMIT", "100")
    assert run("caption", "a.png").code == 0
    assert run("caption", "a.png", "--pixel-limit", "0").code == 2


def test_numbers_that_are_none_do_not_spoil_a_float_tiff(tmp_path: Path) -> None:
    values = [float(value) for value in range(256)]
    values[3], values[4], values[5] = float("nan"), float("inf"), float("-inf")
    image = Image.frombytes("F", (16, 16), struct.pack("256f", *values))
    image.save(tmp_path / "a.tif")
    opened = open_image(tmp_path / "a.tif")
    assert opened.getpixel((0, 1)) == (16, 16, 16)
    assert [opened.getpixel((x, 0)) for x in (3, 4, 5)] == [(0, 0, 0), (255, 255, 255), (0, 0, 0)]


def test_whatever_a_decoder_raises_is_an_error_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for failure in (RuntimeError("odd"), AssertionError(), KeyError("x")):

        def fail(*_: object, failure: Exception = failure) -> None:
            raise failure

        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", fail)
        with pytest.raises(MmgenError, match="is broken"):
            open_image(tmp_path / "a.png")

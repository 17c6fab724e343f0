"""Pictures in and out: what users have opens as they see it, or says why not; what is saved is whole and says how."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import stat
import struct
import threading
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin

from mmgen.errors import MmgenError, UsageError
from mmgen.files import check_writable
from mmgen.inputs import images
from mmgen.inputs.finding import check_file
from mmgen.inputs.images import open_image
from mmgen.outputs.pictures import Metadata, encode_image, read_metadata, save_image

METADATA: Metadata = {
    "mmgen": "0.1.0",
    "prompt": 'a café, "quoted": 🐈\nsecond line',
    "model": "demo",
    "revision": None,
    "seed": 7,
    "sampling": {"image": {"temperature": 0.7, "guidance": 3.0, "negative_prompt": None}},
}


def noise(mode: str = "RGB", side: int = 64) -> Image.Image:
    return Image.effect_noise((side, side), 80).convert(mode)


def png_header(width: int, height: int) -> bytes:
    """A PNG of one bit a pixel that is tiny as a file, whatever it claims."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunks + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


# Opening


def test_a_photo_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == (20, 40)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(tmp_path: Path, mode: str) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).convert(mode).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    assert (image.mode, image.getpixel((1, 1))) == ("RGB", (255, 255, 255))


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    image = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, 16448, 65535)):
        image.putpixel((x, 0), value)
    image.save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert [opened.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (64, 64, 64), (255, 255, 255)]


@pytest.mark.parametrize(("mode", "values"), [("I", (0, 100, 200)), ("F", (0.0, 0.5, 1.0)), ("F", (-5.0, 0.0, 5.0))])
def test_deep_grey_of_other_kinds_keeps_its_order(tmp_path: Path, mode: str, values: tuple[float, ...]) -> None:
    image = Image.new(mode, (3, 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    image.save(tmp_path / "a.tiff")
    opened = open_image(tmp_path / "a.tiff").convert("L")
    greys = [opened.getpixel((x, 0)) for x in range(3)]
    assert greys == sorted(set(greys))  # type: ignore[type-var]


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "bmp", "tiff", "avif"])
def test_usual_formats_open_as_rgb(tmp_path: Path, ending: str) -> None:
    noise().save(tmp_path / f"a.{ending}")
    assert open_image(str(tmp_path / f"a.{ending}")).mode == "RGB"


def test_a_cmyk_jpeg_opens(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").convert("CMYK").save(tmp_path / "a.jpg")
    red, green, blue = open_image(tmp_path / "a.jpg").getpixel((3, 3))  # type: ignore[misc]
    assert red > 200 > 60 > max(green, blue)


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert open_image(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "avif"])
def test_a_truncated_picture_is_an_error(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    noise().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(MmgenError, match=re.escape(str(path))):
        open_image(path)


@pytest.mark.parametrize("content", [b"", b"hello, I am text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + b"\0" * 50])
def test_what_is_no_picture_is_an_error_with_a_hint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(MmgenError, match=r"a\.jpg") as caught:
        open_image(tmp_path / "a.jpg")
    assert caught.value.hint


@pytest.mark.parametrize("side", [30_000, 9_500, 50_000])
def test_a_picture_over_the_limit_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png_header(side, side))
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings(action="error"), pytest.raises(MmgenError, match=f"too large: {side} x {side}"):
        open_image(tmp_path / "a.png")
    assert limit == Image.MAX_IMAGE_PIXELS


def test_what_is_no_file_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    started = time.monotonic()
    for name, reason in (
        ("pipe.png", "not a regular file"),
        ("", "folder"),
        ("none.png", "no such file"),
        ("*.png", "no such"),
        ("x" * 400, "too long"),
    ):
        for look in (open_image, check_file):
            with pytest.raises(MmgenError, match=reason) as caught:
                look(tmp_path / name)
            assert caught.value.hint
    assert time.monotonic() - started < 2


def _saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    noise(side=16).save(buffer, kind)
    return buffer.getvalue()


SAVED = [_saved(kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")]


@settings(max_examples=150, deadline=None)
@given(
    whole=st.sampled_from(SAVED),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    length=st.floats(0.1, 1),
)
def test_broken_bytes_give_a_picture_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, changes: list[tuple[float, int]], length: float
) -> None:
    data = bytearray(whole)
    for place, value in changes:
        data[int(place * len(data))] = value
    path = tmp_path_factory.getbasetemp() / "broken.png"
    path.write_bytes(data[: int(length * len(data))])
    with warnings.catch_warnings(action="ignore"), suppress(MmgenError):
        assert open_image(path).mode == "RGB"


# From the web


class _Server(BaseHTTPRequestHandler):
    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/ok.png")
            self.end_headers()
        elif self.path == "/ok.png":
            self._send(SAVED[0])
        elif self.path == "/busy" and self.asked[self.path] < 3:
            self.send_error(503)
        elif self.path == "/cut" and self.asked[self.path] < 2:
            self._send(SAVED[0][:20], length=len(SAVED[0]))
        elif self.path in ("/busy", "/cut"):
            self._send(SAVED[0])
        elif self.path == "/page":
            self._send(b"<html>")
        elif self.path == "/down":
            self.send_error(503)
        elif self.path == "/claims":
            self._send(b"x", length=10**12)
        elif self.path in ("/endless", "/slow"):
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(50):
                    self.wfile.write(b"x" * 10_000)
                    time.sleep(0.1 if self.path == "/slow" else 0)
            except OSError:
                pass
        else:
            self.send_error(404)

    def _send(self, body: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("page", ["/ok.png", "/redirect"])
def test_a_web_address_opens(web: str, page: str) -> None:
    assert open_image(web + page).size == (16, 16)


@pytest.mark.parametrize(("page", "attempts"), [("/busy", 3), ("/cut", 2), ("/down", 3), ("/gone", 1)])
def test_a_server_that_is_busy_or_breaks_off_is_asked_again(web: str, page: str, attempts: int) -> None:
    with nullcontext() if page in ("/busy", "/cut") else pytest.raises(MmgenError, match=r"503|404"):
        assert open_image(web + page).size == (16, 16)
    assert _Server.asked[page] == attempts


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("/none", "404"),
        ("/page", "not a picture"),
        ("/claims", "too large"),
        ("/endless", "too large"),
        ("/slow", "seconds"),
    ],
)
def test_a_web_address_that_does_not_serve_a_picture_is_an_error(
    web: str, page: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 200_000)
    monkeypatch.setattr(images, "MAX_SECONDS", 0.3)
    with pytest.raises(MmgenError, match=reason) as caught:
        open_image(web + page)
    assert caught.value.hint


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/a.png", "http://", "http://[/a.png", "https://a b/c"])
def test_a_web_address_that_leads_nowhere_is_an_error(address: str) -> None:
    with pytest.raises(MmgenError, match="cannot download"):
        open_image(address)


# Saving


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG", "webp"])
def test_a_file_says_how_its_picture_was_made(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    save_image(noise(), path, METADATA)
    assert read_metadata(path) == METADATA
    save_image(noise(), path)
    assert read_metadata(path) is None


def test_pictures_of_others_and_broken_notes_say_nothing(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "holiday".encode("utf-16-be")
    noise().save(tmp_path / "a.jpg", exif=exif)
    assert read_metadata(tmp_path / "a.jpg") is None


def test_a_png_carries_the_parameters_that_viewers_read(tmp_path: Path) -> None:
    save_image(noise(), tmp_path / "a.png", METADATA)
    *prompt, last = Image.open(tmp_path / "a.png").info["parameters"].split("\n")
    assert "\n".join(prompt) == METADATA["prompt"]
    # The pattern of AUTOMATIC1111's modules/infotext_utils.py.
    pairs = dict(re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last))
    assert (pairs["Seed"], pairs["Size"], pairs["CFG scale"]) == ("7", "64x64", "3.0")
    assert len(pairs) >= 3


def test_values_with_commas_are_quoted_for_viewers(tmp_path: Path) -> None:
    save_image(noise(), tmp_path / "a.png", {**METADATA, "model": "one, two: three"})
    assert f"Model: {json.dumps('one, two: three')}" in Image.open(tmp_path / "a.png").info["parameters"]


def test_a_prompt_of_many_pages_fits_into_a_jpeg(tmp_path: Path) -> None:
    save_image(noise(), tmp_path / "a.jpg", {**METADATA, "prompt": "snow " * 100_000})
    found = read_metadata(tmp_path / "a.jpg")
    assert found is not None
    assert found["seed"] == 7


def test_png_pixels_come_back_as_they_were(tmp_path: Path) -> None:
    image = noise()
    save_image(image, tmp_path / "a.png", METADATA)
    assert open_image(tmp_path / "a.png").tobytes() == image.tobytes()
    assert Image.open(io.BytesIO(encode_image(image))).tobytes() == image.tobytes()


def test_an_ending_that_stands_for_no_format_is_misuse(tmp_path: Path) -> None:
    for name in ("a.gif", "a", "a.png.txt"):
        with pytest.raises(UsageError, match="format"):
            save_image(noise(), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    (tmp_path / "a.png").write_bytes(b"old")

    def fail(handle: int) -> None:
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((MmgenError, KeyboardInterrupt)) as caught:
        save_image(noise(), tmp_path / "a.png")
    if isinstance(caught.value, MmgenError):
        assert "no space left" in caught.value.message
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_file_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        save_image(noise(), tmp_path / "a.png")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_whether_a_folder_can_be_written_is_found_out_without_a_trace(tmp_path: Path) -> None:
    check_writable(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(MmgenError, match="no such folder"):
        check_writable(tmp_path / "none")
    with pytest.raises(MmgenError, match="cannot write"):
        check_writable(Path("/proc"))


# --- colours and orientation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", range(1, 9))
def test_all_eight_orientations_are_as_pillow_turns_them(tmp_path: Path, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    noise().save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as stored:
        upright = ImageOps.exif_transpose(stored).convert("RGB")
    assert open_image(tmp_path / "a.png").tobytes() == upright.tobytes()


def test_an_exif_tag_of_an_odd_kind_is_no_reason_to_refuse(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = TiffImagePlugin.IFDRational(1, 2)  # a description, which is text
    exif[0x0112] = 6
    with suppress(AttributeError, TypeError, struct.error):
        noise().save(tmp_path / "a.tif", exif=exif)
    block = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x0e\0\x05\0\0\0\x01\0\0\0\x1a\0\0\0\0\0\0\0\x01\0\0\0\x02"
    noise().save(tmp_path / "a.jpg", exif=block)
    assert open_image(tmp_path / "a.jpg").size == noise().size


def swapped_profile() -> bytes:
    """Make an ICC profile (ICC.1:2022) of sRGB whose primaries stand in another order: red means green."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(number, values))

    red, green, blue = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256))
    named = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags = {b"desc": named, b"cprt": b"text\0\0\0\0-\0", b"wtpt": xyz((0.9642, 1, 0.8249))}
    tags |= {b"rXYZ": xyz(green), b"gXYZ": xyz(blue), b"bXYZ": xyz(red)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    start, table, data = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    head = struct.pack(">I", start + len(data)) + bytes(4) + bytes([2, 64, 0, 0]) + b"mntrRGB XYZ "
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + number(0.9642) + number(1) + number(0.8249)
    return head + bytes(128 - len(head)) + table + data


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_profile_is_converted_to_srgb(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (8, 8), "blue").save(tmp_path / "a.png", icc_profile=swapped_profile())
    red, green, blue = open_image(tmp_path / "a.png").getpixel((3, 3))  # type: ignore[misc]  # of RGB there are three
    assert red > 240
    assert max(green, blue) < 40


@pytest.mark.parametrize("profile", [b"\0" * 300, b"junk"])
def test_a_damaged_profile_leaves_the_colours_as_they_are(tmp_path: Path, profile: bytes) -> None:
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "a.png", icc_profile=profile)
    assert open_image(tmp_path / "a.png").getpixel((3, 3)) == (0, 0, 255)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_large_text_or_a_large_profile_beside_the_pixels_is_no_reason_to_refuse(tmp_path: Path, mode: str) -> None:
    image = noise().convert(mode)
    beside = PngImagePlugin.PngInfo()
    beside.add_itxt("workflow", "x" * 1_200_000, zip=True)
    image.save(tmp_path / "text.png", pnginfo=beside)
    image.save(tmp_path / "profile.png", icc_profile=b"\0" * 1_200_000)
    image.save(tmp_path / "plain.png")
    plain = open_image(tmp_path / "plain.png").tobytes()
    assert open_image(tmp_path / "text.png").tobytes() == open_image(tmp_path / "profile.png").tobytes() == plain


@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:1", "socks5://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used_is_an_error(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(MmgenError) as raised:
        open_image("http://127.0.0.1:9/a.png")
    assert "ALL_PROXY" in raised.value.hint


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_lossy_files_have_the_parameters_that_viewers_read_as_a_user_comment(tmp_path: Path, ending: str) -> None:
    save_image(noise(), tmp_path / f"a.{ending}", METADATA)
    save_image(noise(), tmp_path / "a.png", METADATA)
    exif = Image.open(tmp_path / f"a.{ending}").info["exif"].removeprefix(b"Exif\0\0")
    assert exif[:4] == b"MM\0*"  # so that whoever reads text in the order of the file reads it as it is
    at = exif.index(b"\x92\x86")  # UserComment: 7 is UNDEFINED, then how many bytes there are, and where
    kind, n_bytes, start = struct.unpack(">HII", exif[at + 2 : at + 12])
    comment = exif[start : start + n_bytes]
    assert (kind, comment[:8]) == (7, b"UNICODE\0")
    assert comment[8:].decode("utf-16-be") == Image.open(tmp_path / "a.png").info["parameters"]
    found = Image.open(tmp_path / f"a.{ending}").getexif().get_ifd(0x8769)[0x9286]
    assert found == comment

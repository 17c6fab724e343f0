"""Pictures as users have them: opened from files and web addresses. Knows Pillow; refuses to know models."""

from __future__ import annotations

import io
import re
import struct
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps

from mmgen.errors import MmgenError, explained, reason
from mmgen.inputs.finding import check_file, is_url

MAX_PIXELS = 89_478_485  # where Pillow begins to warn of decompression bombs; 268 MB as RGB
MAX_BYTES = 100_000_000  # of a download
MAX_SECONDS = 60.0  # of a download, in all
QUIET_SECONDS = 15.0  # of a download, without a byte

_KNOWN = "give a picture: png, jpg, webp, gif, tiff, ..."

# What Pillow's decoders raise on broken files (found by flipping bytes).
_BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)


def open_image(source: str | Path) -> Image.Image:
    """Open a picture from a file or a web address: upright, RGB, on white where it was transparent, first frame.

    Raises:
        MmgenError: not there, not a picture, broken, or too large.
    """
    if is_url(source):
        return _decode(io.BytesIO(_download(str(source))), str(source))
    check_file(source)
    with explained("open", source, "check that it can be read"), Path(source).open("rb") as file:
        return _decode(file, str(source))


def read_header(file: IO[bytes], name: str) -> Image.Image:
    """Open a picture as far as its size and what is said of it; `name` is for errors."""
    if not file.read(1):
        raise MmgenError(f"{name} is empty", _KNOWN)
    file.seek(0)
    try:
        image = Image.open(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as failure:  # Pillow's own limit is higher
        raise _too_large(name, _size_beyond(file, failure)) from failure
    except _BROKEN as failure:
        raise MmgenError(f"{name} is not a picture that can be read", _KNOWN) from failure
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name, f"{image.width} x {image.height}")
    return image


def _size_beyond(file: IO[bytes], failure: Exception) -> str:
    """Say the size of a picture over Pillow's own limit, which belongs to the process: by the format's own reader."""
    file.seek(0)
    start = file.read(16)
    for reader, accepts in Image.OPEN.values():
        if accepts is not None and accepts(start) is True:
            file.seek(0)
            with suppress(*_BROKEN):  # some look at the limit themselves
                width_px, height_px = reader(file, "").size
                return f"{width_px} x {height_px}"
    return "".join(re.findall(r"\d+", str(failure))[:1])


def _too_large(name: str, size: str) -> MmgenError:
    return MmgenError(f"{name} is too large: {size} pixels", f"the limit is {MAX_PIXELS:,} pixels: scale it down")


def _decode(file: IO[bytes], name: str) -> Image.Image:
    image = read_header(file, name)
    try:
        return _on_white(ImageOps.exif_transpose(image))
    except _BROKEN as failure:
        raise MmgenError(f"{name} is broken: {reason(failure)}", "get a whole copy of the picture") from failure


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _to_8_bit(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale deep grey to 0..255, where Pillow's own conversion would clip it."""
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    else:  # 32 bits, of which only the file's maker knows the range: take the narrowest usual one that holds it
        least, most = (float(value) for value in image.getextrema() if not isinstance(value, tuple))
        usual = [1.0, 255.0, 65535.0] if image.mode == "F" else [255.0, 65535.0]
        ranges = [(0.0, top) for top in usual if least >= 0 and most <= top]
        low, high = ranges[0] if ranges else (least, most)
    scale = 255 / ((high - low) or 1)
    wide = image.convert("F")
    return wide.point(lambda value: value * scale + (0.5 - low * scale)).convert("L")


def _download(url: str) -> bytes:
    """Fetch a web address within limits of size and time."""
    import httpx2

    from mmgen import __version__

    hint = "download it yourself and give the file"
    deadline = time.monotonic() + MAX_SECONDS
    body = bytearray()
    too_large = MmgenError(f"{url} is too large: more than {MAX_BYTES:,} bytes", hint)
    try:
        headers = {"User-Agent": f"mmgen/{__version__}"}
        with httpx2.stream("GET", url, headers=headers, timeout=QUIET_SECONDS, follow_redirects=True) as response:
            if response.status_code >= 400:
                status = f"{response.status_code} {response.reason_phrase}".strip()
                raise MmgenError(f"cannot download {url}: {status}", "open the address in a browser to check it")
            if int(response.headers.get("content-length", "0")) > MAX_BYTES:
                raise too_large
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise too_large
                if time.monotonic() > deadline:
                    raise MmgenError(f"cannot download {url}: it took more than {MAX_SECONDS:.0f} seconds", hint)
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.CookieConflict) as failure:
        why = reason(failure) or type(failure).__name__
        raise MmgenError(f"cannot download {url}: {why}", "check the address and the network") from failure
    return bytes(body)

"""Open pictures as users have them, from files and web addresses. Knows Pillow; refuses to know models."""

from __future__ import annotations

import io
import struct
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from PIL import ExifTags, Image, ImageCms

from mmgen.errors import MmgenError, explained, first_line, reason
from mmgen.inputs.finding import check_file, is_url

MAX_PIXELS = 89_478_485  # where Pillow begins to warn of decompression bombs; 268 MB as RGB
MAX_BYTES = 100_000_000  # of a download
MAX_SECONDS = 60.0  # of a download, in all
QUIET_SECONDS = 15.0  # of a download, without a byte

_KNOWN = "give a picture: png, jpg, webp, gif, tiff, ..."

# Exceptions of Pillow's decoders on broken files (found by flipping bytes).
_BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)


# How to turn a picture upright, by its orientation (EXIF 2.32, tag 0x0112).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(source: str | Path) -> Image.Image:
    """Open a picture from a file or a web address: upright, RGB, on white where it was transparent, first frame.

    Raises:
        MmgenError: not there, not a picture, broken, or too large.
    """
    if not is_url(source):
        check_file(source)
    with (
        explained("open", source, "check that it can be read"),
        io.BytesIO(_download(str(source))) if is_url(source) else Path(source).open("rb") as file,
    ):
        image = read_header(file, str(source))
        try:
            image.load()
            return _on_white(_in_srgb(_upright(image)))
        except _BROKEN as failure:
            raise MmgenError(f"{source} is broken: {reason(failure)}", "get a whole copy of the picture") from failure


def read_header(file: IO[bytes], name: str) -> Image.Image:
    """Open a picture as far as its size and what is said of it; `name` is for errors."""
    if not file.read(1):
        raise MmgenError(f"{name} is empty", _KNOWN)
    file.seek(0)
    try:
        try:
            image = Image.open(file)
        except ValueError:  # of text or a profile beside the pixels, which is larger than Pillow likes
            image = Image.open(_pixels_alone(file))
        if image.width * image.height <= MAX_PIXELS:
            return image
        size = f"{image.width} x {image.height} pixels"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as failure:  # at a limit of the process
        size = _declared_size(file) or reason(failure)
    except _BROKEN as failure:
        raise MmgenError(f"{name} is not a picture that can be read", _KNOWN) from failure
    raise MmgenError(f"{name} is too large: {size}", f"the limit is {MAX_PIXELS:,} pixels: scale it down")


def _pixels_alone(file: IO[bytes]) -> IO[bytes]:
    """Copy a PNG without what stands beside its pixels: critical chunks and transparency (PNG, 3rd edition, 5.3)."""
    file.seek(0)
    kept = [file.read(8)]
    while len(head := file.read(8)) == 8:
        n_bytes, kind = struct.unpack(">I4s", head)
        chunk = file.read(n_bytes + 4)  # and its checksum
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept += [head, chunk]
    return io.BytesIO(b"".join(kept))


def _declared_size(file: IO[bytes]) -> str | None:
    """Ask the readers of the formats for the size of a picture that Pillow refuses without saying it."""
    file.seek(0)
    start = file.read(16)
    for reader, accepts in Image.OPEN.values():
        with suppress(*_BROKEN):  # some look at the limit themselves
            if accepts is not None and accepts(start) is True:
                file.seek(0)
                width_px, height_px = reader(file, "").size
                return f"{width_px} x {height_px} pixels"
    return None


def _upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF says, of which nothing else is read; where that is damaged the picture is as it is."""
    with suppress(AttributeError, *_BROKEN):
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        return image if turn is None else image.transpose(turn)
    return image


def _in_srgb(image: Image.Image) -> Image.Image:
    """Convert a picture with a colour profile of its own (ICC.1:2022) to sRGB, the colours that models were shown."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image
    mode = image.mode if image.mode in ("RGB", "RGBA") else "RGB"
    with suppress(ImageCms.PyCMSError, *_BROKEN):  # a damaged profile, or one of another kind of colours
        return (
            ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode=mode
            )
            or image
        )
    return image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _to_8_bit(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale deep grey to 0..255, where Pillow's own conversion would clip it."""
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    else:  # 32 bits, of which only the file's maker knows the range: take the narrowest usual one that holds it
        least, most = cast(tuple[float, float], image.getextrema())
        usual = [1.0, 255.0, 65535.0] if image.mode == "F" else [255.0, 65535.0]
        ranges = [(0.0, top) for top in usual if least >= 0 and most <= top]
        low, high = ranges[0] if ranges else (least, most)
    scale = 255 / ((high - low) or 1)
    return image.convert("F").point(lambda value: value * scale + (0.5 - low * scale)).convert("L")


def _download(url: str) -> bytes:
    """Fetch a web address within limits of size and time."""
    import httpx2

    from mmgen import __version__

    hint = "download it yourself and give the file"
    deadline = time.monotonic() + MAX_SECONDS
    headers = {"User-Agent": f"mmgen/{__version__}"}
    body = bytearray()
    try:
        with httpx2.stream("GET", url, headers=headers, timeout=QUIET_SECONDS, follow_redirects=True) as response:
            response.raise_for_status()
            n_claimed = int(response.headers.get("content-length", "0"))
            for chunk in response.iter_bytes():
                body += chunk
                if max(n_claimed, len(body)) > MAX_BYTES:
                    raise MmgenError(f"{url} is too large: more than {MAX_BYTES:,} bytes", hint)
                if time.monotonic() > deadline:
                    raise MmgenError(f"cannot download {url}: it took more than {MAX_SECONDS:.0f} seconds", hint)
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.CookieConflict) as failure:
        why = first_line(failure)
        raise MmgenError(f"cannot download {url}: {why}", "check the address and the network") from failure
    except (ImportError, ValueError) as failure:  # of a proxy in the environment that the client cannot use
        hint = "pip install socksio, for a proxy of socks5; or unset ALL_PROXY and HTTPS_PROXY"
        raise MmgenError(f"cannot download {url}: {first_line(failure)}", hint) from failure
    return bytes(body)

"""Open pictures as users have them, from files and web addresses. Knows Pillow; refuses to know models."""

from __future__ import annotations

import base64
import io
import logging
import math
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast
from urllib.parse import unquote_to_bytes

from PIL import ExifTags, Image, ImageChops, ImageCms

from mmgen.errors import MmgenError, OutOfMemoryError, explained, first_line, reason
from mmgen.inputs.finding import MAX_BYTES, check_file, is_url
from mmgen.inputs.selection import HEIF, JXL, is_installed

if TYPE_CHECKING:
    import httpx2

MAX_SECONDS = 60.0  # of a download, in all
_PAUSES = (0.5, 2.0)  # seconds between attempts
_BUSY = (408, 425, 429, 500, 502, 503, 504)  # statuses after which another attempt may help
QUIET_SECONDS = 15.0  # of a download, without a byte
_LARGE = 89_478_485  # pixels from which a JPEG is decoded smaller; 268 MB as RGB
_MISSING = 0.1  # share of its rows, the last ones, that a picture may lack

_LONG = 4096  # letters of a name; an address of data has more
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_KNOWN = "give a picture: png, jpg, webp, gif, tiff, ..."
_WHOLE = "get a whole copy of the picture"
_BROKEN = Exception  # decoders raise what they like

_log = logging.getLogger("mmgen")

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


def open_image(source: str | Path, *, strict: bool = False, name: str | None = None) -> Image.Image:
    """Open a picture from a file or an address: upright, sRGB, on white where it was transparent, first frame.

    One that lacks its last rows is what is there, unless `strict`. What is odd about it is reported (logging, "mmgen").

    Args:
        name: for errors, in place of the source.

    Raises:
        MmgenError: not there, not a picture, broken, or larger than Pillow's limit, twice Image.MAX_IMAGE_PIXELS.
    """
    with _opened(source) as file:
        return read_image(file, name or _shown(source), strict=strict)


@contextmanager
def _opened(source: str | Path) -> Iterator[IO[bytes]]:
    if not is_url(source):
        check_file(source)
    with (
        explained("open", source, "check that it can be read"),
        io.BytesIO(_fetched(str(source))) if is_url(source) else Path(source).open("rb") as file,
    ):
        yield file


def _shown(source: str | Path) -> str:
    return str(source) if len(str(source)) < _LONG else "the picture"


def open_unread(source: str | Path, name: str | None = None) -> Image.Image:
    """Open a picture as far as its size, with its file in memory as `fp`, for whoever reads it elsewhere.

    Raises:
        MmgenError: as open_image does of what stands at the file's beginning.
    """
    with _opened(source) as file:
        image = read_header(io.BytesIO(file.read()), name or _shown(source))
    image.filename = name or _shown(source)  # type: ignore[attr-defined]  # which all that come from files have
    return image


def read_image(file: IO[bytes], name: str, *, strict: bool = False) -> Image.Image:
    """Read a picture from an open file, as `open_image` does; `name` is for errors."""
    image = read_header(file, name)
    n_pixels = image.width * image.height
    if n_pixels > _LARGE and image.format == "JPEG":
        image.draft(None, (image.width // 2, image.height // 2))
        _log.warning("%s has %.0f megapixels: it is read at half its size", name, n_pixels / 1e6)
    try:
        image.load()
    except MemoryError as failure:
        raise OutOfMemoryError(f"{name} takes more memory than there is", "scale it down first") from failure
    except _BROKEN as failure:
        rows = None if strict else _first_rows(file)
        if rows is None:
            raise MmgenError(f"{name} is broken: {reason(failure)}", _WHOLE) from failure
        _log.warning("%s lacks its last %d rows of %d", name, image.height - rows.height, image.height)
        image = rows
    try:
        return _on_white(_in_srgb(_upright(image)))
    except _BROKEN as failure:
        raise MmgenError(f"{name} is broken: {reason(failure)}", _WHOLE) from failure


def read_header(file: IO[bytes], name: str) -> Image.Image:
    """Open a picture as far as its size and what is said of it; `name` is for errors."""
    start = file.read(16)
    if not start:
        raise MmgenError(f"{name} is empty", _KNOWN)
    file.seek(0)
    _register(start, name)
    try:
        try:
            return Image.open(file)
        except ValueError:  # of text or a profile beside the pixels, which is larger than Pillow likes
            return Image.open(_pixels_alone(file))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as failure:  # at a limit of the process
        size = _declared_size(file) or reason(failure)
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        hint = f"the limit is {most:,} pixels: scale it down, or raise it with --pixel-limit"
        raise MmgenError(f"{name} is too large: {size}", hint) from failure
    except _BROKEN as failure:
        raise MmgenError(f"{name} is not a picture that can be read", _KNOWN) from failure


def set_pixel_limit(n_pixels: int) -> None:
    """Let pictures have so many pixels, in all of this process: Pillow refuses those of twice its own limit."""
    Image.MAX_IMAGE_PIXELS = -(-n_pixels // 2)


def _register(start: bytes, name: str) -> None:
    """Let Pillow read HEIF (ISO 23008-12) or JPEG XL (ISO 18181-2), if that is how a file begins.

    Raises:
        MmgenError: the package is missing.
    """
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        kind, (module, package) = "HEIF", HEIF
    elif start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        kind, (module, package) = "JPEG XL", JXL
    else:
        return
    if not is_installed(module):
        raise MmgenError(f"{name} is {kind}, which takes a package to read", f"pip install {package}")
    plugin = import_module(module)  # which registers itself, or has a function for it
    if kind == "HEIF":
        plugin.register_heif_opener()


def _first_rows(file: IO[bytes]) -> Image.Image | None:
    """Decode the rows that are there of a file that ends too early; None: it is broken in some other way.

    Pillow leaves those it did not reach as they were, so each of two decodings begins with another colour.
    """
    found = []
    for colour in (0, 255):
        with suppress(_BROKEN):
            file.seek(0)
            image = Image.open(file)
            if image.info.get("interlace") or image.mode not in ("L", "RGB", "RGBA", "CMYK"):
                return None
            image.load_prepare()
            image.im.paste((colour,) * len(image.getbands()), (0, 0, *image.size))
            found.append(image)
            image.load()
    if len(found) < 2:
        return None
    for image in found:
        image.tile = []  # nothing is left to be loaded
    difference = ImageChops.difference(*found).convert("RGB").getbbox()
    if difference is None or difference[1] < (1 - _MISSING) * found[0].height:
        return None
    rows: Image.Image = found[0].crop((0, 0, found[0].width, difference[1]))
    return rows


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
        with suppress(_BROKEN):  # some look at the limit themselves
            if accepts is not None and accepts(start) is True:
                file.seek(0)
                width_px, height_px = reader(file, "").size
                return f"{width_px} x {height_px} pixels"
    return None


def _upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF says, of which nothing else is read; where that is damaged the picture is as it is."""
    with suppress(_BROKEN):
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        return image if turn is None else image.transpose(turn)
    return image


def _in_srgb(image: Image.Image) -> Image.Image:
    """Convert a picture with a colour profile of its own (ICC.1:2022) to sRGB, the colours that models were shown."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image
    mode = image.mode if image.mode in ("RGB", "RGBA") else "RGB"
    with suppress(_BROKEN):  # a damaged profile, or one of another kind of colours
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
    """Scale deep grey to 0..255, where Pillow's own conversion would clip it; what is no number is black."""
    if image.mode == "F" and not all(map(math.isfinite, cast(tuple[float, float], image.getextrema()))):
        import numpy as np

        values = np.asarray(image)
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        image = Image.fromarray(np.nan_to_num(values, nan=low, posinf=high, neginf=low))
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    else:  # 32 bits, of which only the file's maker knows the range: take the narrowest usual one that holds it
        least, most = cast(tuple[float, float], image.getextrema())
        usual = [1.0, 255.0, 65535.0] if image.mode == "F" else [255.0, 65535.0]
        ranges = [(0.0, top) for top in usual if least >= 0 and most <= top]
        low, high = ranges[0] if ranges else (least, most)
    scale = 255 / ((high - low) or 1)
    return image.convert("F").point(lambda value: value * scale + (0.5 - low * scale)).convert("L")


def _fetched(url: str) -> bytes:
    """Read what is in a `data:` address (RFC 2397), or fetch what is at another."""
    if url[:5].lower() != "data:":
        return download(url)
    head, _, data = url.partition(",")
    try:
        return base64.b64decode(unquote_to_bytes(data)) if head.endswith(";base64") else unquote_to_bytes(data)
    except ValueError as failure:
        raise MmgenError("the data: address is damaged", "it looks like data:image/png;base64,iVBORw0…") from failure


def download(url: str, transport: httpx2.BaseTransport | None = None) -> bytes:
    """Fetch a web address within limits of size and time; where a server is busy or breaks off, again.

    Args:
        transport: by which it is fetched, in place of the usual one, which goes by the environment's proxies.

    Raises:
        MmgenError: it cannot be fetched.
    """
    deadline = time.monotonic() + MAX_SECONDS
    for pause in _PAUSES:
        with suppress(_AgainError):
            return _download(url, transport, deadline)
        time.sleep(pause)
    try:
        return _download(url, transport, deadline)
    except _AgainError as failure:
        why = first_line(failure)
        raise MmgenError(f"cannot download {url}: {why}", "check the address and the network") from failure


class _AgainError(Exception):
    """An attempt failed in a way that another may not."""


def _download(url: str, transport: httpx2.BaseTransport | None, deadline: float) -> bytes:
    import httpx2

    from mmgen import __version__

    hint = "download it yourself and give the file"
    headers = {"User-Agent": f"mmgen/{__version__}"}
    body = bytearray()
    try:
        with (
            httpx2.Client(transport=transport, timeout=QUIET_SECONDS, follow_redirects=True) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
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
        is_busy = isinstance(failure, httpx2.HTTPStatusError) and failure.response.status_code in _BUSY
        if is_busy or isinstance(failure, httpx2.ReadError | httpx2.RemoteProtocolError):
            raise _AgainError(why) from failure
        raise MmgenError(f"cannot download {url}: {why}", "check the address and the network") from failure
    except (ImportError, ValueError) as failure:  # of a proxy in the environment that the client cannot use
        hint = "pip install socksio, for a proxy of socks5; or unset ALL_PROXY and HTTPS_PROXY"
        raise MmgenError(f"cannot download {url}: {first_line(failure)}", hint) from failure
    return bytes(body)

"""Pictures in and out: open what users have (files, web addresses), save with a note of how it was made.

Knows Pillow and the file system; refuses to know models.
"""

from __future__ import annotations

import io
import json
import re
import struct
import tempfile
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO, TypedDict, cast

from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from mmgen.errors import MmgenError, UsageError, explained, reason
from mmgen.files import whole_file
from mmgen.finding import check_file, is_url
from mmgen.streams import from_json

MAX_PIXELS = 89_478_485  # where Pillow begins to warn of decompression bombs; 268 MB as RGB
MAX_BYTES = 100_000_000  # of a download
MAX_SECONDS = 60.0  # of a download, in all
QUIET_SECONDS = 15.0  # of a download, without a byte

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

_KNOWN = "give a picture: png, jpg, webp, gif, tiff, ..."

# What Pillow's decoders raise on broken files (found by flipping bytes).
_BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)


class Metadata(TypedDict):
    """How a picture was made, as it stands in its file. Never a path."""

    mmgen: str  # version
    prompt: str
    model: str
    revision: str | None
    seed: int
    sampling: dict[str, dict[str, float | int | str | None]]  # by kind: what ImageSampling and TextSampling held


# Opening


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


def _header(file: IO[bytes], name: str) -> Image.Image:
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
    image = _header(file, name)
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


# Saving


def format_of(path: str | Path) -> str:
    """Give the format that a file's extension stands for.

    Raises:
        UsageError: none that can be written.
    """
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise UsageError(f"cannot tell a picture's format from {path}", "end its name in .png, .jpg or .webp")
    return kind


def save_image(image: Image.Image, path: str | Path, metadata: Metadata | None = None) -> None:
    """Save a picture in the format of its extension. A reader sees the whole file or none."""
    data = encode_image(image, format_of(path), metadata)
    with whole_file(path) as file:
        file.write(data)


def encode_image(image: Image.Image, kind: str = "PNG", metadata: Metadata | None = None) -> bytes:
    """Encode a picture as PNG, JPEG or WEBP, with a note of how it was made."""
    buffer = io.BytesIO()
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        if metadata is not None:
            info.add_itxt("mmgen", json.dumps(metadata, ensure_ascii=False))
            info.add_itxt("parameters", _parameters(metadata, image.size))
        image.save(buffer, kind, pnginfo=info)
        return buffer.getvalue()
    exif = Image.Exif()
    if metadata is not None:
        # EXIF 2.3, UserComment: eight bytes that name the character set, then the text.
        comment = b"UNICODE\0" + json.dumps(_fitting(metadata), ensure_ascii=False).encode("utf-16-be")
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    if kind == "JPEG":
        image.convert("RGB").save(buffer, kind, quality=95, subsampling=0, exif=exif)
    else:
        image.save(buffer, kind, quality=95, method=6, exif=exif)
    return buffer.getvalue()


def _fitting(metadata: Metadata) -> Metadata:
    """Cut a prompt of many pages: a JPEG has room for 64 KB of EXIF."""
    prompt = metadata["prompt"]
    room = 20_000
    return metadata if len(prompt) <= room else {**metadata, "prompt": prompt[:room] + " …"}


def _parameters(metadata: Metadata, size: tuple[int, int]) -> str:
    """Say it as AUTOMATIC1111's web interface does (its modules/infotext_utils.py): many viewers read that."""
    sampling = metadata["sampling"].get("image", {})
    pairs = {
        "Steps": 0,  # viewers look for it; tokens are drawn once
        "Sampler": "autoregressive",
        "CFG scale": sampling.get("guidance"),
        "Seed": metadata["seed"],
        "Size": f"{size[0]}x{size[1]}",
        "Model": metadata["model"],
        "Version": f"mmgen {metadata['mmgen']}",
    }
    lines = [metadata["prompt"].strip()]
    if sampling.get("negative_prompt"):
        lines.append(f"Negative prompt: {sampling['negative_prompt']}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in pairs.items() if value is not None))
    return "\n".join(lines)


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(letter in text for letter in ',:\n"') else text


def read_metadata(path: str | Path) -> Metadata | None:
    """Read how a picture was made, where mmgen wrote it down."""
    check_file(path)
    with explained("open", path, "check that it can be read"), Path(path).open("rb") as file:
        image = _header(file, str(path))
        text = image.info.get("mmgen")
        if text is None:
            comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")
            if not isinstance(comment, bytes) or not comment.startswith(b"UNICODE\0"):
                return None
            text = comment[8:].decode("utf-16-be", errors="replace")
    found = from_json(text)
    return cast(Metadata, found) if found is not None and "mmgen" in found else None


def check_writable(folder: Path) -> None:
    """Check, by trying, that a file can be made in a folder. Leaves nothing behind."""
    if not folder.is_dir():
        raise MmgenError(f"no such folder: {folder}", f"make it first: mkdir -p {folder}")
    with explained("write into", folder, "choose another place with -o"):
        tempfile.TemporaryFile(prefix=".mmgen-", dir=folder).close()

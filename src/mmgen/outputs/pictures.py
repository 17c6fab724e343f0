"""Pictures into files, with a note of how each was made. Knows Pillow; refuses to know models."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TypedDict, cast

from PIL import ExifTags, Image, PngImagePlugin

from mmgen import __version__
from mmgen.errors import UsageError, explained
from mmgen.files import whole_file
from mmgen.inputs.finding import check_file
from mmgen.inputs.images import read_header
from mmgen.outputs.records import Record, plain_name
from mmgen.request import Picture
from mmgen.text import from_json

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_EXIF_LETTERS = 20_000  # of a prompt of many pages: a JPEG has room for 64 KB of EXIF
_UNICODE = b"UNICODE\0"


class Metadata(TypedDict):
    """How a picture was made, as it stands in its file. Never a path."""

    mmgen: str  # version
    prompt: str
    model: str
    revision: str | None
    seed: int
    sampling: dict[str, dict[str, float | int | str | None]]  # by kind: what ImageSampling and TextSampling held


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


def encode(picture: Picture, path: Path, record: Record | None) -> bytes:
    """Encode a picture in the format of its file's ending, with a note of how it was made: of paths, none.

    Args:
        path: `-` is a PNG.
        record: of the item; None leaves the note out.
    """
    note: Metadata | None = None
    if record is not None:
        note = {
            "mmgen": __version__,
            "prompt": record["prompt"],
            "model": plain_name(record["model"]["name"]),
            "revision": record["model"]["revision"],
            "seed": picture.seed,
            "sampling": record["sampling"],
        }
    return encode_image(picture.image, "PNG" if str(path) == "-" else format_of(path), note)


def encode_image(image: Image.Image, kind: str = "PNG", metadata: Metadata | None = None) -> bytes:
    """Encode a picture as PNG, JPEG or WEBP, with a note of how it was made."""
    buffer, exif, info = io.BytesIO(), Image.Exif(), PngImagePlugin.PngInfo()
    if metadata is not None:
        info.add_itxt("mmgen", json.dumps(metadata, ensure_ascii=False))
        info.add_itxt("parameters", _parameters(metadata, image.size))
        if len(metadata["prompt"]) > _EXIF_LETTERS:
            metadata = {**metadata, "prompt": metadata["prompt"][:_EXIF_LETTERS] + " …"}
        # EXIF 2.3, UserComment: eight bytes that name the character set, then the text.
        comment = _UNICODE + json.dumps(metadata, ensure_ascii=False).encode("utf-16-be")
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    match kind:
        case "PNG":
            image.save(buffer, kind, pnginfo=info)
        case "JPEG":
            image.convert("RGB").save(buffer, kind, quality=95, subsampling=0, exif=exif)
        case _:
            image.save(buffer, kind, quality=95, method=6, exif=exif)
    return buffer.getvalue()


def _parameters(metadata: Metadata, size: tuple[int, int]) -> str:
    """Say it as AUTOMATIC1111's web interface does (its modules/infotext_utils.py): many viewers read that."""
    sampling, model, (width, height) = metadata["sampling"]["image"], metadata["model"], size
    lines = [metadata["prompt"].strip()]
    if sampling["negative_prompt"]:
        lines.append(f"Negative prompt: {sampling['negative_prompt']}")
    if any(letter in model for letter in ',:\n"'):
        model = json.dumps(model, ensure_ascii=False)
    lines.append(  # viewers look for steps; tokens are drawn once
        f"Steps: 0, Sampler: autoregressive, CFG scale: {sampling['guidance']}, Seed: {metadata['seed']}, "
        f"Size: {width}x{height}, Model: {model}, Version: mmgen {metadata['mmgen']}"
    )
    return "\n".join(lines)


def read_metadata(path: str | Path) -> Metadata | None:
    """Read how a picture was made, where mmgen wrote it down."""
    check_file(path)
    with explained("open", path, "check that it can be read"), Path(path).open("rb") as file:
        image = read_header(file, str(path))
        text = image.info.get("mmgen")
        if text is None:
            comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
            if isinstance(comment, bytes):
                text = comment.removeprefix(_UNICODE).decode("utf-16-be", errors="replace")
    found = from_json(text or "")
    return cast(Metadata, found) if found and "mmgen" in found else None

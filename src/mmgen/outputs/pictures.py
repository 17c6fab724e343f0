"""Pictures into files, with a note of how each was made. Knows Pillow; refuses to know models."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypedDict, cast

from PIL import ExifTags, Image, PngImagePlugin

from mmgen import __version__
from mmgen.codes import codes_in, digest, note_of
from mmgen.errors import UsageError, explained
from mmgen.files import whole_file
from mmgen.inputs.finding import check_file
from mmgen.inputs.images import open_image, read_header
from mmgen.outputs.records import Record, plain_name
from mmgen.outputs.xmp import made
from mmgen.request import Picture

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_LETTERS = 3_500  # of a prompt of many pages in a JPEG, which has room for 64 KB of XMP, and of EXIF


class _Metadata(TypedDict):
    mmgen: str  # version
    prompt: str
    model: str
    revision: str | None
    seed: int
    sampling: dict[str, dict[str, Any]]  # by kind: what ImageSampling and TextSampling held


class Metadata(_Metadata, total=False):
    """How a picture was made, as it stands in its file. Never a path."""

    command: str
    edit: dict[str, Any]  # of one made of another's codes: see request.Edit
    kept: int  # codes of the other that it has at their places
    score: float  # of the best of several: see request.Picture
    source: list[str]  # of pictures that it was made from: SHA-256 of their files
    dtype: str  # this and the next two: see codes.Maker
    quantize: str | None
    window: int | None
    grid: list[int]  # rows and columns of its codes
    n_codes: int  # of the codebook
    codes: str  # see codes.pack
    codebook: str  # this and the next: digests, see codes.Maker
    decoder: str
    pixels: str  # digest of what the file decodes to
    decoded: str  # digest of what the codes decode to, where the format changes that


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


def encode(picture: Picture, path: Path, record: Record | None, sources: Sequence[str] = ()) -> bytes:
    """Encode a picture in the format of its file's ending, with a note of how it was made: of paths, none.

    Args:
        path: `-` is a PNG.
        record: of the item; None leaves the note out.
        sources: of pictures that it was made from.
    """
    note = None if record is None else made_of(picture, record, sources)
    return encode_image(picture.image, "PNG" if str(path) == "-" else format_of(path), note)


def made_of(picture: Picture, record: Record, sources: Sequence[str] = ()) -> Metadata:
    """Say how a picture was made, as it stands in its file."""
    note: Metadata = {
        "mmgen": __version__,
        "prompt": record["prompt"] if picture.prompt is None else picture.prompt,
        "model": plain_name(record["model"]["name"]),
        "revision": record["model"]["revision"],
        "seed": picture.seed,
        "sampling": record["sampling"],
        "command": record["command"],
    }
    if "edit" in record:
        note["edit"] = record["edit"]
    if picture.kept is not None:
        note["kept"] = picture.kept
    if picture.score is not None:
        note["score"] = picture.score
    if sources:
        note["source"] = [_digest_of(source) for source in sources]
    return cast(Metadata, {**(note_of(picture.image.info) or {}), **note})


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
    ways: dict[str, Any] = {"quality": 95, **({"subsampling": 0} if kind == "JPEG" else {"method": 6})}
    image = image.convert("RGB") if kind == "JPEG" else image
    if metadata is not None:
        if kind == "JPEG":
            metadata = _cut(metadata)
        if "codes" in metadata:  # by what it becomes, which nothing beside the pixels changes
            image.save(buffer, kind, **ways)
            with Image.open(buffer) as lossy:
                metadata = {**metadata, "pixels": digest(lossy), "decoded": metadata["pixels"]}
            buffer = io.BytesIO()
        ways["xmp"] = made(json.dumps(metadata, ensure_ascii=False))
        ways["exif"] = _exif(_parameters(metadata, image.size))
    image.save(buffer, kind, **ways)
    return buffer.getvalue()


def _cut(metadata: Metadata) -> Metadata:
    """Leave out what has no room in a JPEG: the rest of a prompt of many pages."""

    def cut(text: str) -> str:
        return text if len(text) <= _LETTERS else text[:_LETTERS] + " …"

    sampling = {
        kind: {name: cut(value) if isinstance(value, str) else value for name, value in values.items()}
        for kind, values in metadata["sampling"].items()
    }
    return {**metadata, "prompt": cut(metadata["prompt"]), "sampling": sampling}


def _exif(comment: str) -> bytes:
    """Write EXIF of a UserComment alone (EXIF 2.32, 4.6.5): undefined bytes, of which eight name the character set.

    The order of bytes is that of the text, UTF-16, as some readers go by the one and some by the other.
    """
    text = b"UNICODE\0" + comment.encode("utf-16-be")
    exif_ifd = struct.pack(">HHHIII", 1, ExifTags.Base.UserComment, 7, len(text), 44, 0)  # its text is behind it
    return b"Exif\0\0MM\0*" + struct.pack(">IHHHIII", 8, 1, ExifTags.IFD.Exif, 4, 1, 26, 0) + exif_ifd + text


def _digest_of(source: str) -> str:
    """Digest a file; of one that cannot be read, such as an address, its name."""
    try:
        return sha256(Path(source).read_bytes()).hexdigest()
    except (OSError, ValueError):
        return sha256(os.fsencode(source)).hexdigest()


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
        return cast("Metadata | None", note_of(read_header(file, str(path)).info))


def describe(path: str) -> dict[str, Any]:
    """Say what a picture's file says of it: its format and size, and how it was made, where that is written in it.

    Of codes it says how many there are, and whether the pixels are still theirs.
    """
    check_file(path)
    with explained("open", path, "check that it can be read"), Path(path).open("rb") as file:
        image = read_header(file, path)
        said: dict[str, Any] = {"image": path, "format": image.format, "size": [image.width, image.height]}
        note, others = note_of(image.info), image.info.get("parameters")
    if note is None:
        return {**said, "parameters": others} if isinstance(others, str) else said
    first = {name: note[name] for name in ("command", "prompt", "model", "seed") if name in note}
    hidden = ("codes", "pixels", "decoded", "n_codes")
    said |= {name: value for name, value in (first | note).items() if name not in hidden}
    if "codes" in note:
        is_whole = codes_in(note) is not None and digest(open_image(path)) == note.get("pixels")
        said["codes"] = "as drawn" if is_whole else "of other pixels: the picture was changed"
    return said

"""A picture's codes beside its pixels: packed for its file, and found again in a picture that is as it was written.

Knows what a file says of its picture as text; refuses to know Pillow, files and models.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias

from mmgen.text import from_json

if TYPE_CHECKING:
    from PIL import Image

Rows: TypeAlias = tuple[tuple[int, ...], ...]  # codes as they lie in a picture

_RECORD = re.compile(rb"<mmgen:record>(.*?)</mmgen:record>", re.DOTALL)


@dataclass(frozen=True)
class Maker:
    """With what a picture was made.

    Attributes:
        codebook, decoder: digests of the tensors, 16 hex digits each.
        n_codes: of the codebook.
        dtype, quantize: of the language model's weights (see request.Loading).
        window: as given (see request.Loading); the one that is chosen goes by how many pictures are drawn at once.
    """

    codebook: str
    decoder: str
    n_codes: int
    dtype: str
    quantize: str | None = None
    window: int | None = None


def carry(image: Image.Image, codes: Sequence[int], n_rows: int, maker: Maker) -> None:
    """Let a picture that was just decoded say its codes, as if it had been opened from its file."""
    said = {**asdict(maker), "grid": [n_rows, len(codes) // n_rows], "codes": pack(codes, maker.n_codes)}
    image.info["mmgen"] = json.dumps({"mmgen": "", **said, "pixels": digest(image)})


def pack(codes: Sequence[int], n_codes: int) -> str:
    """Write codes in base64: each in the fewest bits that hold the codebook's size, the first bit first."""
    width = _width(n_codes)
    bits = "".join(f"{code:0{width}b}" for code in codes)
    n_bytes = math.ceil(len(bits) / 8)
    return base64.b64encode(int(bits.ljust(8 * n_bytes, "0") or "0", 2).to_bytes(n_bytes)).decode()


def unpack(text: str, n: int, n_codes: int) -> tuple[int, ...] | None:
    """Read `n` codes that `pack` wrote; None: it did not."""
    width = _width(n_codes)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(data) != math.ceil(n * width / 8):
        return None
    bits = f"{int.from_bytes(data):0{8 * len(data)}b}"
    codes = tuple(int(bits[at : at + width], 2) for at in range(0, n * width, width))
    return codes if all(code < n_codes for code in codes) else None


def note_of(info: Mapping[Any, Any]) -> dict[str, Any] | None:
    """Read how a picture was made from its `info`: a text chunk of a PNG, or the XMP of others."""
    text, packet = info.get("mmgen"), info.get("xmp")
    if isinstance(packet, bytes) and (found := _RECORD.search(packet)):
        text = html.unescape(found[1].decode(errors="replace"))
    note = from_json(text) if isinstance(text, str) else None
    return note if note and "mmgen" in note else None


def codes_in(note: Mapping[str, Any]) -> Rows | None:
    """Read the codes that a file has, whatever its pixels are by now."""
    match note:
        case {"codes": str(text), "grid": [int(rows), int(columns)], "n_codes": int(n_codes)}:
            if min(rows, columns) < 1 or rows * columns > 2**20 or not 1 < n_codes <= 2**24:
                return None
            codes = unpack(text, rows * columns, n_codes)
            return None if codes is None else tuple(codes[at : at + columns] for at in range(0, len(codes), columns))
    return None


def stored(image: Image.Image, codebook: str) -> Rows | None:
    """Give the codes that a picture was opened with, if they are of this codebook and its pixels as they were written.

    Args:
        image: as it is to be encoded.
    """
    note = note_of(image.info)
    if note is None or note.get("codebook") != codebook or note.get("pixels") != digest(image):
        return None
    return codes_in(note)


def digest(image: Image.Image) -> str:
    """Digest a picture's pixels: SHA-256 of its RGB values, row by row."""
    return sha256(image.convert("RGB").tobytes()).hexdigest()


def _width(n_codes: int) -> int:
    return max(1, (n_codes - 1).bit_length())

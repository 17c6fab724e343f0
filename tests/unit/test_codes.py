"""Codes beside pixels: packed as small as can be, found again only where the pixels are those that were written."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mmgen.codes import Maker, carry, codes_in, note_of, pack, stored, unpack
from mmgen.inputs.images import open_image
from mmgen.outputs.pictures import encode, read_metadata
from mmgen.outputs.records import Record
from mmgen.request import Picture

MAKER = Maker("0123456789abcdef", "fedcba9876543210", 1000, "float32", None, 16)
CODES = tuple((97 * place) % 1000 for place in range(24))
RECORD: Record = {
    "command": "draw",
    "model": {"name": "demo", "revision": None},
    "prompt": "a <b> & “c”",
    "sampling": {"image": {"guidance": 3.0, "negative_prompt": None}},
}
ENDINGS = ("png", "jpg", "webp")


def saved(folder: Path, ending: str) -> Path:
    """A picture of 4 x 6 codes in a file."""
    image = Image.effect_noise((48, 32), 80).convert("RGB")
    carry(image, CODES, 4, MAKER)
    path = folder / f"a.{ending}"
    path.write_bytes(encode(Picture(image, 7, CODES), path, RECORD))
    return path


@given(st.integers(2, 70_000), st.data())
def test_codes_come_back_from_the_fewest_bits_that_hold_the_codebook(n_codes: int, data: st.DataObject) -> None:
    codes = tuple(data.draw(st.lists(st.integers(0, n_codes - 1), max_size=40)))
    text = pack(codes, n_codes)
    assert unpack(text, len(codes), n_codes) == codes
    fewest = next(bits for bits in range(1, 18) if 2**bits >= n_codes)
    assert len(base64.b64decode(text)) == -(-len(codes) * fewest // 8)


def test_a_picture_of_1024_codes_of_8192_takes_1664_bytes() -> None:
    assert len(base64.b64decode(pack(range(1024), 8192))) == 1664


@pytest.mark.parametrize("text", ["", "AAAA", "no base64!", "/" * 40])
def test_what_no_codes_were_packed_into_is_none(text: str) -> None:
    assert unpack(text, 24, 1000) is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_codes_are_found_again_in_every_format(tmp_path: Path, ending: str) -> None:
    path = saved(tmp_path, ending)
    rows = stored(open_image(path), MAKER.codebook)
    assert rows == tuple(CODES[at : at + 6] for at in range(0, 24, 6))
    said = read_metadata(path)
    assert said is not None
    assert said["prompt"] == RECORD["prompt"]
    assert (said["decoder"], said["dtype"], said["window"], said["grid"]) == (MAKER.decoder, "float32", 16, [4, 6])


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_changed_picture_has_no_codes(tmp_path: Path, ending: str) -> None:
    image = open_image(saved(tmp_path, ending))
    for changed in (
        image.resize((24, 16)),
        image.crop((0, 0, 48, 31)),
        ImageOps.flip(image),
        ImageOps.invert(image),
    ):
        changed.info = image.info
        assert stored(changed, MAKER.codebook) is None
    again = tmp_path / "again.jpg"  # by a program that keeps what it does not know
    image.save(again, quality=50, xmp=Image.open(saved(tmp_path, "jpg")).info["xmp"])
    assert note_of(Image.open(again).info) is not None
    assert stored(open_image(again), MAKER.codebook) is None


def test_codes_of_another_codebook_are_never_used(tmp_path: Path) -> None:
    assert stored(open_image(saved(tmp_path, "png")), "0" * 16) is None


def test_a_picture_that_was_just_drawn_has_its_codes() -> None:
    image = Image.new("RGB", (8, 8), "red")
    carry(image, (1, 2, 3, 4), 2, replace(MAKER, n_codes=5))
    assert stored(image, MAKER.codebook) == ((1, 2), (3, 4))
    image.putpixel((0, 0), (0, 0, 0))
    assert stored(image, MAKER.codebook) is None


@pytest.mark.parametrize(
    "change",
    [{"codes": "AAAA"}, {"grid": [4]}, {"grid": [0, 6]}, {"grid": [-4, -6]}, {"n_codes": 10}, {"grid": [9**9, 9**9]}],
)
def test_damaged_codes_are_none(tmp_path: Path, change: dict[str, object]) -> None:
    note = note_of(open_image(saved(tmp_path, "png")).info)
    assert note is not None
    assert codes_in(note) is not None
    assert codes_in(note | change) is None


def test_a_file_without_a_note_has_no_codes(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8))
    carry(image, (1,), 1, MAKER)
    path = tmp_path / "a.png"
    path.write_bytes(encode(Picture(image, 7, (1,)), path, None))
    assert note_of(open_image(path).info) is None
    assert json.dumps(MAKER.codebook).encode() not in path.read_bytes()

"""Pictures that were drawn and come back: looked at by their codes, verified, and drawn again like them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

import mmgen
from mmgen import tasks
from mmgen.codes import note_of
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.inputs.images import open_image
from mmgen.request import Loading
from tests.support.opening import opened
from tests.support.scripted import run
from tools.demo.judge import fresh_renders

PROMPT = "a red cat on the grass"


@pytest.fixture(scope="module")
def model() -> AutoregressiveModel:
    model = opened("demo", Loading(dtype="float32"))
    assert isinstance(model, AutoregressiveModel)
    return model


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    for ending in ("png", "jpg", "webp"):
        assert run("draw", PROMPT, "--seed", "7", "-o", str(folder / f"a.{ending}")).code == 0
    return folder


def said(path: Path, **changes: object) -> Path:
    """A copy of a picture whose file says something else."""
    image = Image.open(path)
    note = note_of(image.info)
    assert note is not None
    info = PngImagePlugin.PngInfo()
    info.add_itxt("mmgen", json.dumps(note | changes))
    other = path.with_name(f"changed-{'-'.join(changes)}.png")
    image.save(other, pnginfo=info)
    return other


def image_ids(model: AutoregressiveModel, image: Image.Image) -> tuple[int, ...]:
    [prompt] = model.prompts([tasks.ask("what is it?", [image])])
    return prompt.images[0][1:-1]


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_drawn_picture_is_looked_at_by_the_codes_it_was_drawn_from(
    model: AutoregressiveModel, drawn: Path, ending: str
) -> None:
    [picture] = mmgen.draw(model, PROMPT, seed=7)
    code_ids = model.prompter.vocabulary.code_ids
    assert image_ids(model, open_image(drawn / f"a.{ending}")) == tuple(code_ids[code] for code in picture.codes or ())
    assert image_ids(model, picture.image) == image_ids(model, open_image(drawn / "a.png"))


def test_other_pictures_and_edited_ones_are_encoded(model: AutoregressiveModel, drawn: Path) -> None:
    edited = open_image(drawn / "a.png")
    edited.paste("white", (0, 0, 40, 40))
    [render] = fresh_renders(1, seed=7)[1]
    for image in (edited, render):
        plain = image.copy()
        plain.info.clear()
        assert image_ids(model, image) == image_ids(model, plain)


def test_encode_leaves_the_codes_of_the_file_alone(drawn: Path) -> None:
    model = opened("demo", Loading(dtype="float32", encode=True))
    assert isinstance(model, AutoregressiveModel)
    image = open_image(drawn / "a.jpg")
    plain = image.copy()
    plain.info.clear()
    assert image_ids(model, image) == image_ids(model, plain)


def test_what_was_looked_at_is_said_to_who_asked(drawn: Path) -> None:
    said = "1 of 1 pictures are looked at by the codes in their files"
    assert said in run("caption", str(drawn / "a.png"), "-v").err
    assert said not in run("caption", str(drawn / "a.png")).err
    assert said not in run("caption", str(drawn / "a.png"), "-v", "--encode").err


def test_pictures_are_verified_by_drawing_them_again(drawn: Path) -> None:
    names = [str(drawn / f"a.{ending}") for ending in ("png", "jpg", "webp")]
    result = run("verify", *names)
    assert (result.code, result.out) == (0, "".join(f"{name}\tequal\n" for name in names))


def test_a_changed_record_or_code_is_found_at_its_place(drawn: Path) -> None:
    seed = said(drawn / "a.png", seed=8)
    result = run("verify", str(seed))
    assert result.code == 1
    assert result.out.startswith(f"{seed}\tdeparts at code 1 of 144")
    codes = note_of(Image.open(drawn / "a.png").info)["codes"]  # type: ignore[index]
    # The 31st letter has the bits 180 to 185 of ten a code: the last two of them are the 19th code's first ones' end.
    other = said(drawn / "a.png", codes=codes[:30] + ("A" if codes[30] != "A" else "B") + codes[31:])
    result = run("verify", str(other))
    assert result.code == 1
    assert result.out.startswith(f"{other}\tdeparts at code 19 of 144 (row 2, column 7), where another code is better")


def test_what_cannot_be_verified_is_refused_by_name(drawn: Path, tmp_path: Path) -> None:
    varied, foreign = tmp_path / "varied.png", tmp_path / "foreign.png"
    assert run("vary", str(drawn / "a.png"), "--seed", "1", "-o", str(varied)).code == 0
    Image.new("RGB", (8, 8)).save(foreign)
    edited = tmp_path / "edited.png"
    info = PngImagePlugin.PngInfo()
    image = Image.open(drawn / "a.png")
    info.add_itxt("mmgen", image.info["mmgen"])
    image.transpose(Image.Transpose.ROTATE_180).save(edited, pnginfo=info)
    result = run("verify", str(varied), str(foreign), str(edited), str(drawn / "a.png"))
    assert result.code == 1
    assert f"{varied} is a variation of a picture" in result.err
    assert f"{foreign} does not say how it was made" in result.err
    assert result.out.splitlines() == [
        f"{edited}\twas edited: its codes are equal, and its pixels are not what was written",
        f"{drawn / 'a.png'}\tequal",
    ]


def test_a_picture_of_another_model_is_not_taken_for_this_ones(drawn: Path) -> None:
    result = run("verify", str(said(drawn / "a.png", codebook="0" * 16)))
    assert result.code == 1
    assert "was drawn by another model" in result.out


def test_a_file_is_the_same_whoever_else_was_drawn_beside_it(tmp_path: Path) -> None:
    together, alone = ("draw", "a cat", "-n", "6", "--seed", "3"), ("draw", "a cat", "--seed")
    assert run(*together, "-o", str(tmp_path / "{seed}.png")).code == 0
    for seed in (3, 8):
        assert run(*alone, str(seed), "-o", str(tmp_path / "one.png"), "--force").code == 0
        assert (tmp_path / "one.png").read_bytes() == (tmp_path / f"{seed}.png").read_bytes()


def test_a_picture_is_drawn_again_like_another_but_for_what_is_said(drawn: Path, tmp_path: Path) -> None:
    like = ("draw", "--like", str(drawn / "a.jpg"))
    assert run(*like, "-o", str(tmp_path / "same.png")).code == 0
    assert (tmp_path / "same.png").read_bytes() == (drawn / "a.png").read_bytes()
    assert run(*like, "--seed", "8", "--guidance", "1.5", "-o", str(tmp_path / "other.png")).code == 0
    note = note_of(Image.open(tmp_path / "other.png").info) or {}
    assert (note["prompt"], note["seed"], note["sampling"]["image"]["guidance"]) == (PROMPT, 8, 1.5)
    assert run("draw", "--like", str(drawn / "no.png")).code == 1


def test_info_says_how_pictures_were_made(drawn: Path, tmp_path: Path) -> None:
    result = run("info", str(drawn / "a.webp"), "--json")
    record = json.loads(result.out)
    assert (record["format"], record["prompt"], record["seed"], record["codes"]) == ("WEBP", PROMPT, 7, "as drawn")
    Image.new("RGB", (8, 8)).save(tmp_path / "foreign.png")
    result = run("info", str(tmp_path / "foreign.png"), str(tmp_path / "no.png"))
    assert result.code == 1
    assert run("info", str(tmp_path / "foreign.png")).out.splitlines()[1:] == ["  format    PNG", "  size      8 x 8"]

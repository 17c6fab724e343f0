"""Python as people use it: lists, settings by their names, pictures that save themselves, folders with a journal."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image

import mmgen
from mmgen import tasks
from mmgen.inputs.images import open_image
from mmgen.model import Model
from mmgen.outputs.pictures import read_metadata
from mmgen.request import ImageSampling, TextSampling
from tests.support.scripted import Scripted, colour, install, run


@pytest.fixture(scope="module")
def demo() -> Model:
    return mmgen.load("demo")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    monkeypatch.chdir(tmp_path)
    for name, shade in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (8, 8), shade).save(name)
    return Scripted()


def test_the_settings_that_functions_take_are_those_of_the_command_line() -> None:
    assert list(tasks.TextFields.__annotations__) == [each.name for each in fields(TextSampling)]
    assert list(tasks.ImageFields.__annotations__) == [each.name for each in fields(ImageSampling)]


def test_settings_are_given_by_their_names_or_as_one_value(model: Scripted) -> None:
    mmgen.caption(model, "a.png", temperature=0.5, max_tokens=9)
    mmgen.caption(model, "a.png", text=TextSampling(top_k=3), temperature=0.5)
    mmgen.draw(model, "a", guidance=1.5, seed=1)
    assert [request.text for request in model.requests[:2]] == [
        TextSampling(temperature=0.5, max_tokens=9),
        TextSampling(temperature=0.5, top_k=3),
    ]
    assert model.requests[2].image == ImageSampling(guidance=1.5)
    with pytest.raises(TypeError):
        mmgen.caption(model, "a.png", warmth=1)  # type: ignore[call-overload]


def test_a_list_gives_a_list_and_one_picture_one_answer(model: Scripted) -> None:
    assert mmgen.caption(model, "a.png") == "A snowman."
    assert mmgen.caption(model, ["a.png"]) == ["A snowman."]
    assert mmgen.caption(model, [Path("a.png"), open_image("b.png")]) == ["A snowman.", "A snowman."]
    assert mmgen.caption(model, []) == []


def test_a_picture_saves_itself_with_how_it_was_made(demo: Model, tmp_path: Path) -> None:
    [picture] = mmgen.draw(demo, "a red cat on the grass", seed=7, guidance=2.5)
    assert repr(picture) == "<Picture 96 x 96, seed 7>"
    assert repr(demo) == "<Model demo: caption, ask, draw, vary, interleave>"
    assert picture.save(tmp_path / "a.jpg") == tmp_path / "a.jpg"
    note = read_metadata(tmp_path / "a.jpg")
    assert note is not None
    assert (note["prompt"], note["seed"], note["sampling"]["image"]["guidance"]) == ("a red cat on the grass", 7, 2.5)
    assert run("verify", str(picture.save(tmp_path / "a.png"))).out == f"{tmp_path / 'a.png'}\tequal\n"
    assert picture._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(mmgen.MmgenError):
        picture.save(tmp_path / "a.gif")


def test_a_model_gives_its_memory_back_and_can_be_asked_again(demo: Model) -> None:
    with mmgen.load("demo") as model:
        [first] = mmgen.draw(model, "a snowman", seed=3)
    assert model.model is None  # type: ignore[attr-defined]
    assert mmgen.draw(model, "a snowman", seed=3)[0].codes == first.codes


def test_many_pictures_are_captioned_with_errors_as_values_and_a_journal(model: Scripted) -> None:
    Path("c.png").write_text("broken")
    names = ["a.png", "c.png", Path("b.png")]
    for n_asked in (2, 2):
        first, wrong, last = mmgen.caption_all(model, names, journal="j.jsonl", progress=False)
        assert (first, last) == ("A snowman.", "A snowman.")
        assert isinstance(wrong, mmgen.MmgenError)
        assert "c.png is not a picture" in wrong.message
        assert len(model.requests) == n_asked
    assert mmgen.caption_all(model, ["a.png"]) == ["A snowman."]
    assert mmgen.caption_all(model, []) == []


def test_the_journal_is_that_of_the_command(demo: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), "red").save("a.png")
    assert run("caption", "a.png", "--jsonl", "j.jsonl").code == 0
    mmgen.caption_all(demo, ["a.png"], journal="j.jsonl", progress=False)
    assert len([json.loads(line) for line in Path("j.jsonl").read_text().splitlines()]) == 1


def test_many_pictures_are_drawn_into_a_folder_and_gone_on_with(model: Scripted) -> None:
    for n_asked in (2, 2):
        found = mmgen.draw_all(model, ["a cat", "a dog"], "out", seed=7, progress=False)
        assert found == [Path("out/0001.png"), Path("out/0002.png")]
        assert [request.seed for request in model.requests] == [7] * n_asked
    assert open_image("out/0001.png").getpixel((0, 0)) == colour(7)
    Path("out/0001.png").write_text("mine")
    first, _ = mmgen.draw_all(model, ["another cat", "a dog"], "out", seed=7, progress=False)
    assert isinstance(first, mmgen.MmgenError)
    assert Path("out/0001.png").read_text() == "mine"


def test_the_command_line_is_not_disturbed(model: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = install(monkeypatch)
    mmgen.caption_all(model, ["a.png"], progress=False)
    assert run("caption", "a.png").out == "A snowman.\n"
    assert len(scripted.requests) == 1

"""Items, their records, and writers: results out, whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mmgen.errors import MmgenError
from mmgen.outputs.pictures import read_metadata
from mmgen.outputs.records import Item, Origin, Record, Result, in_order, key_of
from mmgen.outputs.stories import Stories
from mmgen.outputs.terminal import Notes
from mmgen.outputs.writers import Lines, PictureFiles, Writer
from mmgen.request import BOTH, PICTURES, WORDS, ImageSampling, Kind, Picture, Request, TextSampling
from mmgen.text import as_line, clean
from tests.support.scripted import picture

ORIGIN = Origin("caption", "demo", "abc")
WARM = TextSampling(temperature=0.5)


def item(want: frozenset[Kind] = WORDS, source: str | None = "0.png", output: str | None = None, **more: Any) -> Item:
    return Item(Request(parts=("what?",), want=want, seed=7, **more), "what?", image=source, output=output)


def written(writer: Writer, one: Item, *pieces: str | Picture, origin: Origin = ORIGIN) -> Record:
    """Write an item's result and return its record."""
    record = origin.record(one)
    with writer.stage(one, Result(list(pieces)), record, None):
        pass
    return record


def streamed(writer: Writer, one: Item, pieces: Sequence[str | Picture | BaseException]) -> None:
    """Take the pieces of the only item, as the engine does."""
    try:
        for piece in pieces:
            if isinstance(piece, BaseException):
                raise piece
            writer.take(one, piece, ORIGIN.record(one))
        with writer.stage(one, Result([each for each in pieces if isinstance(each, str | Picture)]), {}, None):
            pass
    except BaseException as failure:
        writer.end_early(failure)
        raise


def test_control_characters_are_dropped_all_but_newline_and_tab() -> None:
    assert clean("a\x1b[31mb\tc\n\r\x07\x9bd\x7fé🐈") == "a[31mb\tc\nd\u00e9🐈"


def test_an_answer_is_written_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    writer, seen = Lines(streamed=True), []
    for piece in (" A", " snow\x1bman", ".", " \n\n"):
        writer.take(item(), piece, {})
        seen.append(capsys.readouterr().out)
    with writer.stage(item(), Result([" A", " snowman", ".", " \n\n"]), {}, None):
        pass
    assert [*seen, capsys.readouterr().out] == ["A", " snowman", ".", "", "\n"]


def test_text_that_is_continued_keeps_its_space(capsys: pytest.CaptureFixture[str]) -> None:
    streamed(Lines(streamed=True), item(completion=True), [" upon", " a time "])
    assert capsys.readouterr().out == " upon a time \n"


def test_an_answer_that_breaks_off_ends_its_line_and_raises(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MmgenError, match="off"):
        streamed(Lines(streamed=True), item(), ["A sno", MmgenError("off")])
    assert capsys.readouterr().out == "A sno\n"
    with pytest.raises(MmgenError, match="early"):
        streamed(Lines(streamed=True), item(), [MmgenError("early")])
    assert capsys.readouterr().out == ""


def test_a_line_is_folded_and_its_record_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    record = written(Lines(), item(), "two\nlines\t", "of it ")
    assert capsys.readouterr().out == "0.png\ttwo lines of it\n"
    assert record["text"] == "two\nlines\tof it"


def test_a_record_has_the_documented_keys_in_order() -> None:
    record = ORIGIN.record(item(text=WARM)) | {"text": "one", "seconds": 1.235}
    found = json.loads(as_line(in_order(record)))
    keys = ["version", "command", "model", "image", "prompt", "text", "seed", "sampling", "seconds"]
    assert list(found) == keys
    assert found["model"] == {"name": "demo", "revision": "abc"}
    assert (found["version"], found["command"], found["image"], found["prompt"]) == (1, "caption", "0.png", "what?")
    assert (found["text"], found["seed"], found["sampling"]["text"]["temperature"]) == ("one", 7, 0.5)


def test_a_record_has_a_seed_where_something_is_random_alone() -> None:
    cold = {"text": TextSampling(), "image": ImageSampling(temperature=0)}
    assert "seed" not in ORIGIN.record(item(WORDS, **cold))
    assert "seed" not in ORIGIN.record(item(BOTH, **cold))
    assert ORIGIN.record(item(PICTURES))["seed"] == 7
    assert ORIGIN.record(item(BOTH, text=WARM, image=cold["image"]))["seed"] == 7


def test_an_option_that_is_new_is_in_a_key_only_where_it_is_not_its_default() -> None:
    """Keys of today's options are those of the first journals: tests/reference/keys.json was written by them."""
    reference = json.loads((Path(__file__).parents[1] / "reference" / "keys.json").read_text())
    for case in reference:
        text, image = TextSampling(**case["text"]), ImageSampling(**case["image"])
        one = item(frozenset(case["want"]), text=text, image=image, completion=case["completion"])
        one = replace(one, number=case["number"], own_seed=case["own_seed"])
        assert key_of("caption", "id", one.depends_on(["00"])) == case["key"]


def test_a_file_name_that_is_not_utf_8_still_makes_a_record() -> None:
    line = as_line(in_order(ORIGIN.record(item(source="\udcff.png"))))
    assert json.loads(line.encode())["image"] == "\udcff.png"
    assert "é" in as_line(in_order(ORIGIN.record(item(source="é"))))


def test_a_file_s_note_names_a_model_s_folder_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name, noted in ((str(tmp_path / "mine"), "mine"), ("GAIR/Anole-7b-v0.1", "GAIR/Anole-7b-v0.1")):
        one = item(PICTURES, output=str(tmp_path / "0.png"))
        written(PictureFiles(overwrite=True), one, picture(3), origin=Origin("draw", name, None))
        found = read_metadata(tmp_path / "0.png")
        assert found is not None
        assert (found["model"], found["seed"]) == (noted, 3)


def test_pictures_are_in_place_when_their_path_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "new" / "0.png")
    record = written(PictureFiles(), item(PICTURES, output=path), picture(7))
    assert (record["output"], record["seed"]) == (path, 7)
    assert record["written"] == sha256(Path(path).read_bytes()).hexdigest()
    assert capsys.readouterr().out == path + "\n"
    with pytest.raises(MmgenError, match="without a picture"):
        written(PictureFiles(), item(PICTURES, output=str(tmp_path / "1.png")))


def test_a_picture_is_not_in_place_before_it_is_recorded(tmp_path: Path) -> None:
    one = item(PICTURES, output=str(tmp_path / "0.png"))
    with PictureFiles().stage(one, Result([picture(7)]), ORIGIN.record(one), None) as replaced:
        assert replaced == tmp_path / "0.png"
        assert not replaced.exists()
    assert replaced.exists()


def test_a_story_is_markdown_with_its_pictures_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my story"
    pieces = [" First", " roll a ball.", picture(7), "\n", "Then", " another.\n", picture(8)]
    streamed(Stories(streamed=True), item(BOTH, output=str(folder)), pieces)
    text = "First roll a ball.\n\n![picture 1](001.png)\n\nThen another.\n\n![picture 2](002.png)\n"
    assert (folder / "index.md").read_text() == text
    shown = capsys.readouterr().out
    assert shown.rstrip() + "\n" == text.replace("](", f"](<{folder}/").replace(".png)", ".png>)")
    assert sorted(path.name for path in folder.iterdir()) == ["001.png", "002.png", "index.md"]


def test_a_story_that_is_interrupted_keeps_what_is_finished(tmp_path: Path) -> None:
    one = item(BOTH, output=str(tmp_path / "a"))
    with pytest.raises(KeyboardInterrupt):
        streamed(Stories(streamed=True), one, ["First.", picture(7), KeyboardInterrupt()])
    assert (tmp_path / "a" / "index.md").read_text() == "First.\n\n![picture 1](001.png)\n"


def test_a_story_that_never_begins_is_an_error_and_leaves_no_folder(tmp_path: Path) -> None:
    one = item(BOTH, output=str(tmp_path / "a"))
    with pytest.raises(MmgenError, match="without a word"):
        written(Stories(), one)
    with pytest.raises(MmgenError, match="early"):
        streamed(Stories(streamed=True), one, [MmgenError("early")])
    assert not (tmp_path / "a").exists()


def test_a_story_s_parts_are_in_order(tmp_path: Path) -> None:
    record = written(Stories(), item(BOTH, output=str(tmp_path)), "One ", "two.", picture(7), "Three.")
    assert record["parts"] == [
        {"text": "One two."},
        {"image": str(tmp_path / "001.png"), "seed": 7, "passes": None},
        {"text": "Three."},
    ]


def test_notes_are_one_line_each_and_quiet_leaves_errors(capsys: pytest.CaptureFixture[str]) -> None:
    Notes(quiet=True).say("seed: 7")
    Notes(quiet=True).error(MmgenError("two\nlines\x1b[31m"))
    assert capsys.readouterr().err == "error: two lines[31m\n"

"""Items, their records, and sinks: results out, whole."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mmgen.errors import MmgenError
from mmgen.outputs.live import Answer, Story
from mmgen.outputs.records import Item, Job, Outcome
from mmgen.outputs.terminal import Notes
from mmgen.outputs.writers import Lines, PictureFiles
from mmgen.request import BOTH, PICTURES, WORDS, Kind, Request
from mmgen.text import as_line, clean
from tests.support.scripted import picture

JOB = Job("caption", "demo", "abc")


def item(want: frozenset[Kind] = WORDS, image: str | None = "0.png", output: str | None = None) -> Item:
    return Item(Request(parts=("what?",), want=want, seed=7), "what?", image=image, output=output)


def story(folder: Path) -> Story:
    return Story(JOB, item(BOTH), str(folder))


def test_control_characters_are_dropped_all_but_newline_and_tab() -> None:
    assert clean("a\x1b[31mb\tc\n\r\x07\x9bd\x7fé🐈") == "a[31mb\tc\nd\u00e9🐈"


def test_an_answer_is_written_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    with Answer() as answer:
        for piece in (" A", " snow\x1bman", ".", " \n\n"):
            answer.take(piece)
            seen.append(capsys.readouterr().out)
    assert [*seen, capsys.readouterr().out] == ["A", " snowman", ".", "", "\n"]


def test_text_that_is_continued_keeps_its_space(capsys: pytest.CaptureFixture[str]) -> None:
    with Answer(as_is=True) as answer:
        for piece in (" upon", " a time "):
            answer.take(piece)
    assert capsys.readouterr().out == " upon a time \n"


def test_an_answer_that_breaks_off_ends_its_line_and_raises(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MmgenError, match="off"), Answer() as answer:  # noqa: PT012
        answer.take("A sno")
        raise MmgenError("off")
    assert capsys.readouterr().out == "A sno\n"
    with pytest.raises(MmgenError, match="early"), Answer():
        raise MmgenError("early")
    assert capsys.readouterr().out == ""


def test_a_line_is_folded_and_its_record_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    kept: list[object] = []
    Lines(shown=True).write(item(), Outcome(["two\nlines\t", "of it "]), None, kept.append)
    assert capsys.readouterr().out == "0.png\ttwo lines of it\n"
    assert kept == [{"text": "two\nlines\tof it"}]


def test_a_record_has_the_documented_keys() -> None:
    record = json.loads(as_line(JOB.record(item(), 1.23456, {"text": "one"})))
    assert list(record) == ["command", "model", "image", "prompt", "text", "seed", "sampling", "seconds"]
    assert record["model"] == {"name": "demo", "revision": "abc"}
    assert (record["command"], record["image"], record["prompt"]) == ("caption", "0.png", "what?")
    assert (record["text"], record["seed"], record["sampling"]["text"]["temperature"]) == ("one", 7, 0)
    assert record["seconds"] == 1.235


def test_a_file_name_that_is_not_utf_8_still_makes_a_record() -> None:
    line = as_line(JOB.record(item(image="\udcff.png"), 0, {"text": "é"}))
    assert json.loads(line.encode())["image"] == "\udcff.png"
    assert "é" in as_line(JOB.record(item(), 0, {"text": "é"}))


def test_a_file_s_note_names_a_model_s_folder_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name, noted in ((str(tmp_path / "mine"), "mine"), ("GAIR/Anole-7b-v0.1", "GAIR/Anole-7b-v0.1")):
        assert Job("draw", name, None).metadata(item(PICTURES), picture(3))["model"] == noted


def test_pictures_are_in_place_when_their_path_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "new" / "0.png")
    sink = PictureFiles(JOB)
    kept: list[Any] = []
    sink.write(item(PICTURES, output=path), Outcome([picture(7)]), None, kept.append)
    assert (kept[0]["output"], kept[0]["seed"]) == (path, 7)
    assert kept[0]["written"] == sha256(Path(path).read_bytes()).hexdigest()
    assert capsys.readouterr().out == path + "\n"
    with pytest.raises(MmgenError, match="without a picture"):
        sink.write(item(PICTURES, output=str(tmp_path / "1.png")), Outcome(), None, kept.append)


def test_a_story_is_markdown_with_its_pictures_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my story"
    with story(folder) as pages:
        for piece in (" First", " roll a ball.", picture(7), "\n", "Then", " another.\n", picture(8)):
            pages.take(piece)
    text = "First roll a ball.\n\n![picture 1](001.png)\n\nThen another.\n\n![picture 2](002.png)\n"
    assert (folder / "index.md").read_text() == text
    shown = capsys.readouterr().out
    assert shown.rstrip() + "\n" == text.replace("](", f"](<{folder}/").replace(".png)", ".png>)")
    assert sorted(path.name for path in folder.iterdir()) == ["001.png", "002.png", "index.md"]


def test_a_story_that_is_interrupted_keeps_what_is_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), story(tmp_path / "a") as pages:  # noqa: PT012
        pages.take("First.")
        pages.take(picture(7))
        raise KeyboardInterrupt
    assert (tmp_path / "a" / "index.md").read_text() == "First.\n\n![picture 1](001.png)\n"


def test_a_story_that_never_begins_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MmgenError, match="without a word"), story(tmp_path / "a"):
        pass
    assert not (tmp_path / "a").exists()


def test_a_story_of_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MmgenError, match="early"), story(tmp_path / "a"):
        raise MmgenError("early")
    assert not (tmp_path / "a").exists()


def test_a_story_s_parts_are_in_order(tmp_path: Path) -> None:
    with story(tmp_path) as pages:
        for piece in ("One ", "two.", picture(7), "Three."):
            pages.take(piece)
    assert pages.parts == [
        {"text": "One two."},
        {"image": str(tmp_path / "001.png"), "seed": 7, "passes": None},
        {"text": "Three."},
    ]


def test_notes_are_one_line_each_and_quiet_leaves_errors(capsys: pytest.CaptureFixture[str]) -> None:
    Notes(quiet=True).say("seed: 7")
    Notes(quiet=True).error(MmgenError("two\nlines\x1b[31m"))
    assert capsys.readouterr().err == "error: two lines[31m\n"

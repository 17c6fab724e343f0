"""Sinks: pieces in, results out, whole and in order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmgen.errors import MmgenError
from mmgen.output import Answer, Answers, Item, Job, PictureFiles, Story
from mmgen.request import BOTH, PICTURES, WORDS, Done, Kind, Progress, Request
from mmgen.streams import Notes, clean
from tests.scripted import picture


def job(n: int = 1, want: frozenset[Kind] = WORDS, as_json: bool = False, completion: bool = False) -> Job:
    request = Request(parts=("what?",), want=want, seed=7, completion=completion)
    return Job("caption", "demo", "abc", [Item(request, "what?", image=f"{i}.png") for i in range(n)], as_json)


def test_control_characters_are_dropped_all_but_newline_and_tab() -> None:
    assert clean("a\x1b[31mb\tc\n\r\x07\x9bd\x7fé🐈") == "a[31mb\tc\nd\u00e9🐈"


def test_an_answer_is_written_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Answer(job(), Notes())
    seen = []
    for piece in (" A", " snow\x1bman", ".", " \n\n", Done()):
        sink.take(0, piece)
        seen.append(capsys.readouterr().out)
    assert seen == ["A", " snowman", ".", "", "\n"]


def test_text_that_is_continued_keeps_its_space(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Answer(job(completion=True), Notes())
    for piece in (" upon", " a time ", Done()):
        sink.take(0, piece)
    assert capsys.readouterr().out == " upon a time \n"


def test_an_answer_that_breaks_off_ends_its_line_and_raises(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Answer(job(), Notes())
    sink.take(0, "A sno")
    with pytest.raises(MmgenError, match="off"):
        sink.take(0, MmgenError("off"))
    assert capsys.readouterr().out == "A sno\n"


def test_answers_come_in_order_each_as_soon_as_it_can(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Answers(job(3), Notes())
    sink.take(1, "two\nlines\tof it ")
    sink.take(0, "one")
    sink.take(1, Done())
    assert capsys.readouterr().out == ""
    sink.take(0, Done())
    assert capsys.readouterr().out == "0.png\tone\n1.png\ttwo lines of it\n"
    sink.take(2, MmgenError("broken", "mend it"))
    assert capsys.readouterr() == ("", "error: 2.png: broken\nhint: mend it\n")
    assert sink.failed == 1


def test_a_record_has_the_documented_keys(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Answers(job(2, as_json=True), Notes())
    for piece in ("one ", Done()):
        sink.take(0, piece)
    sink.take(1, MmgenError("broken"))
    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert good["model"] == {"name": "demo", "revision": "abc"}
    assert (good["command"], good["image"], good["prompt"]) == ("caption", "0.png", "what?")
    assert (good["text"], good["seed"], good["sampling"]["text"]["temperature"]) == ("one", 7, 0)
    assert good["seconds"] >= 0
    assert set(good) - set(bad) == {"text"}
    assert set(bad) - set(good) == {"error"}


def test_a_file_name_that_is_not_utf_8_still_makes_a_record() -> None:
    work = job()
    item = Item(work.items[0].request, "what?", image="\udcff.png")
    assert json.loads(work.record(item, 0, {"text": "é"}))["image"] == "\udcff.png"


def test_a_file_s_note_names_a_model_s_folder_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name, noted in ((str(tmp_path / "mine"), "mine"), ("GAIR/Anole-7b-v0.1", "GAIR/Anole-7b-v0.1")):
        work = Job("draw", name, None, job(want=PICTURES).items)
        assert work.metadata(work.items[0], picture(3))["model"] == noted


def test_pictures_are_in_place_when_their_path_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(tmp_path / f"{i}.png") for i in range(2)]
    sink = PictureFiles(job(2, PICTURES), Notes(), paths)
    sink.take(0, Progress(1, 2))
    sink.take(0, picture(7))
    assert capsys.readouterr() == (paths[0] + "\n", "")
    assert Path(paths[0]).is_file()
    sink.take(0, Done())
    sink.take(1, Done())
    assert sink.failed == 1
    assert "without a picture" in capsys.readouterr().err


def test_a_story_is_markdown_with_its_pictures_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my story"
    with Story(job(want=BOTH), Notes(), str(folder)) as sink:
        for piece in (" First", " roll a ball.", picture(7), "\n", "Then", " another.\n", picture(8), Done()):
            sink.take(0, piece)
    text = "First roll a ball.\n\n![picture 1](001.png)\n\nThen another.\n\n![picture 2](002.png)\n"
    assert (folder / "index.md").read_text() == text
    shown = capsys.readouterr().out
    assert shown.rstrip() + "\n" == text.replace("](", f"](<{folder}/").replace(".png)", ".png>)")
    assert sorted(path.name for path in folder.iterdir()) == ["001.png", "002.png", "index.md"]


def test_a_story_that_is_interrupted_keeps_what_is_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Story(job(want=BOTH), Notes(), str(tmp_path / "a")) as sink:  # noqa: PT012
        sink.take(0, "First.")
        sink.take(0, picture(7))
        raise KeyboardInterrupt
    assert (tmp_path / "a" / "index.md").read_text() == "First.\n\n![picture 1](001.png)\n"


def test_a_story_that_never_begins_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MmgenError, match="without a word"), Story(job(want=BOTH), Notes(), str(tmp_path / "a")) as sink:
        sink.take(0, Done())
    assert not (tmp_path / "a").exists()


def test_a_story_of_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MmgenError, match="early"), Story(job(want=BOTH), Notes(), str(tmp_path / "a")) as sink:
        sink.take(0, MmgenError("early"))
    assert not (tmp_path / "a").exists()


def test_a_story_s_record_has_its_parts_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Story(job(want=BOTH, as_json=True), Notes(), str(tmp_path)) as sink:
        for piece in ("One ", "two.", picture(7), "Three.", Done()):
            sink.take(0, piece)
    record = json.loads(capsys.readouterr().out)
    assert record["parts"] == [
        {"text": "One two."},
        {"image": str(tmp_path / "001.png"), "seed": 7},
        {"text": "Three."},
    ]
    assert record["output"] == str(tmp_path)


def test_notes_are_one_line_each_and_quiet_leaves_errors(capsys: pytest.CaptureFixture[str]) -> None:
    Notes(quiet=True).say("seed: 7")
    Notes(quiet=True).error(MmgenError("two\nlines\x1b[31m"))
    assert capsys.readouterr().err == "error: two lines[31m\n"

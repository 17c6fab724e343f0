"""caption and ask, as people use them. With a scripted model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from mmgen.errors import MmgenError
from mmgen.limits import GROUP
from mmgen.request import Done, Piece, Request
from mmgen.tasks import ASK, CAPTION
from tests.support.scripted import Scripted, install, run


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    """A scripted model, in a folder with three pictures."""
    monkeypatch.chdir(tmp_path)
    for name, colour in (("a.png", "red"), ("b.png", "blue"), ("c.png", "green")):
        Image.new("RGB", (8, 8), colour).save(name)
    return install(monkeypatch)


def test_a_caption_is_printed_and_nothing_else(model: Scripted) -> None:
    result = run("caption", "a.png")
    assert (result.code, result.out, result.err) == (0, "A snowman.\n", "")
    assert CAPTION in model.requests[0].parts


def test_several_captions_stand_behind_their_paths_in_order_each_once(model: Scripted) -> None:
    model.scripts = [["one\n", "two"], ["three"], ["four"]]
    out = run("caption", "b.png", "./a.png", "b.png", "c.png").out
    assert out == "b.png\tone two\n./a.png\tthree\nc.png\tfour\n"


def test_a_broken_picture_among_many_fails_alone(model: Scripted) -> None:
    Path("bad.jpg").write_text("hello")
    result = run("caption", "a.png", "bad.jpg", "b.png")
    assert (result.code, result.out) == (1, "a.png\tA snowman.\nb.png\tA snowman.\n")
    assert result.err.startswith("error: bad.jpg is not a picture")
    assert len(model.requests) == 2
    rows = [json.loads(line) for line in run("caption", "a.png", "bad.jpg", "b.png", "--json").out.splitlines()]
    assert [row["image"] for row in rows] == ["a.png", "bad.jpg", "b.png"]
    assert ["error" in row for row in rows] == [False, True, False]


def test_a_request_that_fails_among_many_fails_alone(model: Scripted) -> None:
    model.scripts = [["one"], [MmgenError("too long", "shorten it")], ["three"]]
    result = run("caption", "a.png", "b.png", "c.png")
    assert (result.code, result.out) == (1, "a.png\tone\nc.png\tthree\n")
    error, hint, summary = result.err.splitlines()
    assert (error, hint) == ("error: b.png: too long", "hint: shorten it")
    assert summary.startswith("2 done, 0 skipped, 1 failed in ")


def test_many_pictures_are_opened_a_few_at_a_time(model: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmgen.inputs import images

    n_open = 0
    open_image = images.open_image

    def counted(source: str, **ways: bool) -> Image.Image:
        nonlocal n_open
        n_open += 1
        assert n_open <= len(model.requests) + 4 * GROUP
        return open_image(source, **ways)

    names = [f"{number}.png" for number in range(10 * GROUP)]
    for name in names:
        shutil.copy("a.png", name)
    monkeypatch.setattr(images, "open_image", counted)
    assert run("caption", *names).out == "".join(f"{name}\tA snowman.\n" for name in names)


def test_every_caption_has_the_seed_that_it_would_have_alone(model: Scripted) -> None:
    result = run("caption", "a.png", "b.png", "--seed", "5", "--temperature", "1", "--top-p", "0.5", "--top-k", "3")
    assert [request.seed for request in model.requests] == [5, 5]
    assert (model.requests[0].text.temperature, model.requests[0].text.top_p, model.requests[0].text.top_k) == (
        1,
        0.5,
        3,
    )
    assert result.err == ""
    drawn = run("caption", "a.png", "--temperature", "1")
    assert drawn.err == f"seed: {model.requests[-1].seed}\n"


def test_a_question_is_answered_about_pictures_in_their_order(model: Scripted) -> None:
    assert run("ask", "what?", "--image", "a.png", "--image", "b.png").out == "A snowman.\n"
    first, second, words = model.requests[0].parts
    assert [part.getpixel((0, 0)) for part in (first, second)] == [(255, 0, 0), (0, 0, 255)]  # type: ignore[union-attr]
    assert words == "what?"


def test_marks_say_where_pictures_stand(model: Scripted) -> None:
    run("ask", "is <image> like this?", "--image", "a.png")
    assert [type(part) is str for part in model.requests[0].parts] == [True, False, True]
    run("ask", "what is <image>?")
    assert model.requests[1].parts == ("what is <image>?",)


def test_without_a_question_the_default_one_is_asked(model: Scripted) -> None:
    assert run("ask", "--image", "a.png").code == 0
    assert ASK in model.requests[0].parts


def test_text_can_be_continued(model: Scripted) -> None:
    model.scripts = [[" a time"]]
    assert run("ask", "Once upon", "--complete").out == " a time\n"
    assert model.requests[0].completion


def test_an_answer_as_json_is_one_object(model: Scripted) -> None:
    result = run("ask", "what?", "--image", "a.png", "--json", "--seed", "3", "--temperature", "1")
    record = json.loads(result.out)
    assert (record["command"], record["images"], record["prompt"]) == ("ask", ["a.png"], "what?")
    assert (record["text"], record["seed"], record["sampling"]["text"]["max_tokens"]) == ("A snowman.", 3, 256)


def test_a_failed_answer_as_json_says_its_error(model: Scripted) -> None:
    model.scripts = [[MmgenError("too long", "shorten it")]]
    result = run("ask", "what?", "--json")
    assert (result.code, json.loads(result.out)["error"]) == (1, "too long")
    assert result.err == "error: too long\nhint: shorten it\n"


def test_of_a_folder_one_picture_has_its_path_before_it_on_a_terminal_too(model: Scripted) -> None:
    Path("one").mkdir()
    shutil.copy("a.png", "one/a.png")
    for terminal in (False, True):
        assert run("caption", "one", terminal=terminal).out.endswith("one/a.png\tA snowman.\n")


class InTurn(Scripted):
    """Answers two requests a few words at a time, in turn."""

    def replies(self, requests: Iterable[Request | None]) -> Iterator[tuple[int, Piece | Done]]:
        assert len([request for request in requests if request is not None]) == 2
        yield from [(1, "two"), (0, "o"), (0, "ne"), (0, Done()), (1, "!"), (1, Done())]


def test_answers_that_come_in_turn_are_told_apart(model: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, InTurn())
    assert run("caption", "a.png", "b.png").out == "a.png\tone\nb.png\ttwo!\n"

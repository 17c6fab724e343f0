"""Many prompts in one file: what each line says, and how ask --prompts answers them. With a scripted model."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmgen.errors import MmgenError
from mmgen.inputs.prompts import PromptLine, read_prompts
from mmgen.limits import GROUP
from mmgen.request import MAX_SEED
from tests.support.scripted import Result, Scripted, install, run


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    """A scripted model, in a folder with two pictures and an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name, tint in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (8, 8), tint).save(name)
    Path("talks").mkdir()
    return install(monkeypatch)


def read(data: bytes) -> dict[int, PromptLine | MmgenError]:
    """Read prompts from stdin."""
    with mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(data))):
        return dict(read_prompts("-"))


# Plain text


def test_plain_text_is_a_prompt_a_line() -> None:
    data = '\ufeff\r\n a red cat \r\n\r\n{"prompt": "no JSON here"}\n\t\nünïcode 🐈'.encode()
    assert read(data) == {
        2: PromptLine("a red cat"),
        4: PromptLine('{"prompt": "no JSON here"}'),
        6: PromptLine("ünïcode 🐈"),
    }


def test_a_line_that_is_no_text_fails_alone() -> None:
    found = read(b"good\n\xff\xfe\ngood")
    assert [isinstance(each, PromptLine) for each in found.values()] == [True, False, True]
    assert "UTF-8" in str(found[2])


# JSON lines


def test_json_lines_say_pictures_seed_and_output() -> None:
    rows = [
        {"prompt": "a", "images": ["x.png", "http://h/y.png", "/z.png"], "seed": MAX_SEED, "output": "out/a.png"},
        {"output": "/tmp/b.png", "prompt": "\u2028b"},
        {"prompt": "c", "images": None, "seed": None, "output": None},
    ]
    found = read("\ufeff\n".encode() + "\r\n".join(map(json.dumps, rows)).encode())
    assert found == {
        2: PromptLine("a", ("x.png", "http://h/y.png", "/z.png"), "", MAX_SEED, "out/a.png"),
        3: PromptLine("\u2028b", output="/tmp/b.png"),
        4: PromptLine("c"),
    }


def test_pictures_are_looked_up_from_the_folder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text('{"prompt": "a", "images": ["x.png", "http://h/y.png", "/z.png"]}')
    ((_, prompt),) = read_prompts(str(path))
    assert isinstance(prompt, PromptLine)
    assert prompt.sources() == [str(tmp_path / "x.png"), "http://h/y.png", "/z.png"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "a"', "not JSON"),
        ('{"prompt": "a", "seed": ' + "9" * 5000 + "}", "not JSON"),
        ("plain words", "not JSON"),
        ('{"seed": 7}', "no prompt"),
        ('{"prompt": " \\n"}', "empty"),
        ('{"prompt": "a", "out": "a.png"}', 'unknown key "out"'),
        ('{"prompt": "a", "\\ud800": 1}', "unknown key"),
        ('{"prompt": "a", "images": {}, "seed": "7"}', "seed"),
        ('{"prompt": "a", "images": [""]}', "images"),
        ('{"prompt": "a", "seed": -1}', "seed -1"),
        ('{"prompt": "a", "seed": 4294967296}', "seed 4294967296"),
        *(
            (f'{{"prompt": "a", "output": {output}}}', "output")
            for output in ('""', "7", "[]", '"folder/"', '"."', '"a/.."', '"a\\u0000.png"', '"\\ud800.png"')
        ),
    ],
)
def test_a_wrong_line_is_an_error_in_its_place(line: str, said: str) -> None:
    good = '{"prompt": "good"}'
    found = read("\n".join([good, line, good]).encode())
    assert (found[1], found[3]) == (PromptLine("good"), PromptLine("good"))
    error = found[2]
    assert isinstance(error, MmgenError)
    assert said in error.message
    assert error.hint


@settings(deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_whatever_a_file_holds_each_line_is_a_prompt_or_an_error(data: bytes, as_json: bool) -> None:
    head = b'{"prompt": "a"}\n' if as_json else b"a\n"
    found = read(head + data)
    assert found.pop(1) == PromptLine("a")
    assert all(data.split(b"\n")[number - 2].strip() for number in found)
    assert len(found) == sum(bool(line.strip()) for line in data.split(b"\n"))


# The file


def test_prompts_come_before_the_file_ends() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stdin, mock.patch.object(sys, "stdin", io.TextIOWrapper(stdin)):
        found: Iterator[tuple[int, PromptLine | MmgenError]] = read_prompts("-")
        os.write(writing, b"one\n")
        assert next(found) == (1, PromptLine("one"))
        os.close(writing)
        assert list(found) == []


@pytest.mark.parametrize("data", [b"", b"\n \r\n", b"\xef\xbb\xbf", b"[\n{}\n]", b'[{"prompt": "a"}]'])
def test_a_file_without_lines_of_prompts_is_one_error(data: bytes) -> None:
    with pytest.raises(MmgenError) as caught:
        read(data)
    assert caught.value.hint


# ask --prompts


def ask_many(*lines: str | dict[str, object], flags: tuple[str, ...] = ()) -> Result:
    rows = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    Path("many.jsonl").write_text("\n".join(rows) + "\n")
    return run("ask", "--prompts", "many.jsonl", *flags)


def test_many_questions_are_answered_in_order_by_one_model(model: Scripted) -> None:
    model.scripts = [["Red\nit is."], ["Both."], ["None."]]
    result = ask_many(
        {"prompt": "what\tcolor?", "images": ["a.png"]},
        {"prompt": "<image> or <image>?", "images": ["a.png", "b.png"], "seed": 9},
        "",
        {"prompt": "and without?"},
        flags=("--seed", "5"),
    )
    answers = "what color?\tRed it is.\n<image> or <image>?\tBoth.\nand without?\tNone.\n"
    assert (result.code, result.out, result.err) == (0, answers, "")
    assert len(model.opened) == 1
    assert [request.seed for request in model.requests] == [5, 9, 5]
    assert [sum(not isinstance(part, str) for part in request.parts) for request in model.requests] == [1, 2, 0]


def test_answers_as_json_carry_line_pictures_and_seed(model: Scripted) -> None:
    result = ask_many(
        {"prompt": "a?", "images": ["a.png"], "seed": 9}, "", {"prompt": "b?"}, flags=("--json", "--temperature", "0.5")
    )
    one, two = map(json.loads, result.out.splitlines())
    assert (one["line"], one["images"], one["seed"], one["prompt"]) == (1, ["a.png"], 9, "a?")
    assert (two["line"], two["images"], two["prompt"], two["text"]) == (3, [], "b?", "A snowman.")


BAD = [
    ("nope", "not JSON"),
    ('{"prompt": "a", "output": "a.png"}', "output"),
    ("[" * 100_000, "not JSON"),
    ("[]", "not JSON"),
    ('{"prompt": 7}', "no prompt"),
    ('{"prompt": ""}', "empty"),
    ('{"prompt": "\\ud800"}', "surrogate"),
    ('{"prompt": "a", "image": "a.png"}', 'unknown key "image"'),
    ('{"prompt": "a", "images": "a.png"}', "images"),
    ('{"prompt": "a", "images": [7]}', "images"),
    ('{"prompt": "a", "seed": 1.5}', "seed"),
    ('{"prompt": "a", "seed": true}', "seed"),
    ('{"prompt": "a", "seed": -1}', "seed -1"),
    ('{"prompt": "a", "images": ["none.png"]}', "none.png"),
    ('{"prompt": "a", "images": ["bad.png"]}', "bad.png"),
    ('{"prompt": "<image><image>", "images": ["a.png"]}', "marks"),
]


def test_a_line_that_is_wrong_fails_alone(model: Scripted) -> None:
    Path("bad.png").write_text("no picture")
    good = '{"prompt": "good?"}'
    lines = [line for bad, _ in BAD for line in (good, bad)]
    result = ask_many(*lines)
    assert (result.code, result.out) == (1, "good?\tA snowman.\n" * len(BAD))
    errors = [line for line in result.err.splitlines() if line.startswith("error")]
    for number, (error, (_, said)) in enumerate(zip(errors, BAD, strict=True), 1):
        assert error.startswith(f"error: line {2 * number}: ")
        assert said in error
    rows = [json.loads(line) for line in ask_many(*lines, flags=("--json",)).out.splitlines()]
    assert [row["line"] for row in rows] == list(range(1, len(lines) + 1))
    assert ["error" in row for row in rows] == [False, True] * len(BAD)


def test_a_question_that_the_model_refuses_fails_alone(model: Scripted) -> None:
    model.scripts = [["One."], [MmgenError("too long", "shorten it")], ["Three."]]
    result = ask_many(*({"prompt": word} for word in ("one", "two", "three")))
    assert (result.code, result.out) == (1, "one\tOne.\nthree\tThree.\n")
    assert result.err.startswith("error: line 2: too long\nhint: shorten it\n2 done, 0 skipped, 1 failed in ")


def test_if_no_line_is_right_nothing_is_loaded(model: Scripted) -> None:
    result = ask_many('{"prompt"')
    assert (result.code, result.out, model.opened) == (1, "", [])
    assert result.err.startswith("error: line 1: not JSON")


def test_questions_may_be_plain_text(model: Scripted) -> None:
    model.scripts = [["Yes."], ["No."]]
    assert ask_many("is it?", "", "is it not?").out == "is it?\tYes.\nis it not?\tNo.\n"


def test_questions_come_through_a_pipe_too(model: Scripted) -> None:
    lines = '\ufeff{"prompt": "a", "images": ["a.png"]}\r\n{"prompt": "\u2028b"}'
    assert run("ask", "--prompts", "-", stdin=lines.encode()).out == "a\tA snowman.\nb\tA snowman.\n"


def test_pictures_are_looked_up_from_the_file_s_folder(model: Scripted) -> None:
    Path("talks/many.jsonl").write_text('{"prompt": "a", "images": ["../a.png"]}')
    assert run("ask", "--prompts", "talks/many.jsonl").code == 0


def test_pictures_are_opened_a_few_at_a_time(model: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmgen.inputs import images

    n_open = 0
    open_image = images.open_image

    def counted(source: str, **ways: bool) -> Image.Image:
        nonlocal n_open
        n_open += 1
        assert n_open <= len(model.requests) + 4 * GROUP
        return open_image(source, **ways)

    monkeypatch.setattr(images, "open_image", counted)
    n = 10 * GROUP
    said = ask_many(*({"prompt": f"a{number}", "images": ["a.png"]} for number in range(n))).out
    assert said == "".join(f"a{number}\tA snowman.\n" for number in range(n))


@pytest.mark.parametrize("flags", ["what?", "--image a.png", "--history talk.json", "--seed -1"])
def test_prompts_come_alone(model: Scripted, flags: str) -> None:
    assert ask_many({"prompt": "a"}, flags=tuple(flags.split())).code == 2
    assert not model.opened


@pytest.mark.parametrize("path", ["none.jsonl", "empty.jsonl", "talks"])
def test_a_file_without_questions_is_an_error(model: Scripted, path: str) -> None:
    Path("empty.jsonl").write_text("\n \n")
    result = run("ask", "--prompts", path)
    assert (result.code, result.out, model.opened) == (1, "", [])
    assert [line.partition(":")[0] for line in result.err.splitlines()] == ["error", "hint"]

"""A batch as a page, a table or a data set: what stands there, that records cannot break it, what a browser shows."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import shlex
import socket
import subprocess
import tracemalloc
from collections.abc import Sequence
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmgen import tasks
from mmgen.errors import MmgenError
from mmgen.outputs.export import Export, rerun
from mmgen.outputs.reading import Records
from mmgen.outputs.terminal import Notes
from mmgen.request import ImageSampling, TextSampling
from tests.support.browser import CHROMIUM, browsing
from tests.support.scripted import install, run
from tools.demo.render import render
from tools.demo.scene import ALL_SCENES

TEXT, IMAGE = asdict(TextSampling()), asdict(ImageSampling())
HOSTILE = "<script>document.title='hacked'</script>"


def record(command: str = "caption", **fields: object) -> dict[str, object]:
    kind = {"draw": {"image": IMAGE}, "vary": {"image": IMAGE}}.get(command, {"text": TEXT})
    if command == "interleave":
        kind = {"text": asdict(tasks.INTERLEAVE_TEXT), "image": IMAGE}
    prompt = {"caption": tasks.CAPTION, "vary": tasks.VARY}.get(command, "a cat")
    shared = {"command": command, "model": {"name": "demo", "revision": None}, "prompt": prompt, "seed": 7}
    return {**shared, "sampling": kind, "seconds": 0.5, **fields}


class Page(HTMLParser):
    """A page as an HTML parser reads it: its elements, and the text of each card."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cards: list[str] = []
        self.text = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "article":
            self.cards.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.cards:
            self.cards[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def write_records(
    records: Sequence[dict[str, object]], out: Path, title: str, folder: Path = Path(), notes: Notes | None = None
) -> None:
    Export(records, out, title, folder, notes or Notes(quiet=True)).write()


def page_of(tmp_path: Path, *records: dict[str, object], title: str = "a batch", **options: Any) -> Page:
    write_records(records, tmp_path / "report.html", title, **options)
    return Page(tmp_path / "report.html")


def table_of(tmp_path: Path, *records: dict[str, object]) -> list[dict[str, str]]:
    write_records(records, tmp_path / "table.csv", "a batch")
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def data_set_of(tmp_path: Path, *records: dict[str, object], **options: Any) -> list[dict[str, str]]:
    write_records(records, tmp_path / "metadata.jsonl", "a batch", **options)
    return [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text("utf-8").splitlines()]


def picture(path: Path, size: tuple[int, int] = (640, 480)) -> str:
    Image.linear_gradient("L").resize(size).convert("RGB").save(path)
    return str(path)


def embedded(image: dict[str, str | None]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode((image["src"] or "").partition("base64,")[2])))


# What stands on it


def test_the_head_says_what_ran_and_how_it_went(tmp_path: Path) -> None:
    other = {"name": "anole-7b", "revision": "0123456789abcdef"}
    page = page_of(
        tmp_path,
        record("caption", text="A cat.", seconds=59),
        record("draw", error="out of memory", seconds=66, model=other),
        record("caption", text="A dog.", seconds=float("nan")),
        title="my pictures",
    )
    head = " ".join(page.text.partition("my pictures")[2].split("a cat")[0].split())
    for said in ("my pictures", "caption", "draw", "demo", "anole-7b", "0123456789ab", "done2", "failed1", "2 min 5 s"):
        assert said in head


def test_a_card_has_picture_words_seed_and_name(tmp_path: Path) -> None:
    source = picture(tmp_path / "cat.png")
    page = page_of(tmp_path, record(image=source, text="A grey cat."), record("ask", images=[source], text="Grey."))
    assert [thumbnail.size for thumbnail in map(embedded, page.all("img"))] == [(320, 240)] * 2
    assert all(said in page.cards[0] for said in ("A grey cat.", "seed 7", source))
    assert tasks.CAPTION not in page.cards[0]
    assert "a cat" in page.cards[1]


def test_a_drawn_picture_stands_with_its_prompt_and_a_variation_beside_its_origin(tmp_path: Path) -> None:
    given, made = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", (100, 100))
    page = page_of(tmp_path, record("draw", output=made), record("vary", image=given, output=made, prompt="bluer"))
    assert [embedded(image).size for image in page.all("img")] == [(100, 100), (320, 240), (100, 100)]
    assert "a cat" in page.cards[0]
    assert "bluer" in page.cards[1]


def test_a_story_s_words_and_pictures_come_in_turn(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "1.png", (30, 20)), picture(tmp_path / "2.png", (20, 30))
    parts = [{"text": "One."}, {"image": first, "seed": 7}, {"text": "Two."}, {"image": second, "seed": 8}]
    page_of(tmp_path, record("interleave", images=[], output=str(tmp_path), parts=parts))
    text = (tmp_path / "report.html").read_text().partition("<main>")[2]
    places = [text.index(mark) for mark in ("One.", 'width="30"', "Two.", 'width="20"')]
    assert places == sorted(places)


def test_a_failed_item_shows_its_error_and_a_lost_picture_why(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    os.mkfifo(tmp_path / "pipe")
    page = page_of(
        tmp_path,
        record(image=str(tmp_path / "bad.png"), error="bad.png is not a picture"),
        record(image=str(tmp_path / "bad.png"), text="What was it?"),
        record(image=str(tmp_path / "pipe"), text="A pipe."),
        record("draw", output=str(tmp_path / "gone.png")),
    )
    assert [card["class"] for card in page.all("article")] == ["card failed", "card", "card", "card"]
    wanted = ("bad.png is not a picture", "bad.png is not a picture", "pipe is not a regular file", "no such file")
    assert all(reason in card for reason, card in zip(wanted, page.cards, strict=True))


def test_an_address_is_a_link_and_nothing_is_fetched(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.png"
        page = page_of(tmp_path, record(image=address, text="A cat."))
        server.settimeout(0)
        with pytest.raises(BlockingIOError):  # nobody has called
            server.accept()
    assert [link["href"] for link in page.all("a")] == [address]
    assert not page.all("img")


def test_pictures_are_found_where_the_record_says_or_beside_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("journal", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    beside, moved = record(image="a.png"), record(image="b.png", files=[{"path": picture(tmp_path / "b.png", (9, 9))}])
    picture(tmp_path / "journal" / "a.png", (7, 7))
    page = page_of(tmp_path, beside, moved, folder=tmp_path / "journal")
    assert [embedded(image).size for image in page.all("img")] == [(7, 7), (9, 9)]


def test_a_thumbnail_carries_nothing_of_the_camera_s_notes(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg", exif=exif)
    (image,) = page_of(tmp_path, record(image=str(tmp_path / "a.jpg"))).all("img")
    assert not embedded(image).getexif()


def test_a_caption_in_a_sidecar_stands_with_its_picture_alone(tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    page = page_of(tmp_path, record(image=source, text="A cat.", output=str(tmp_path / "a.txt")))
    assert len(page.all("figure")) == len(page.all("img")) == 1


# A table


@pytest.mark.parametrize("text", ["=1+1", "-x", "@a", 'a "b", c', "two\r\nlines\n", "\x00\x1b", " é 🐈‍⬛ ", HOSTILE])
def test_a_cell_is_what_the_record_says(tmp_path: Path, text: str) -> None:
    (row,) = table_of(tmp_path, record("draw", prompt=text, output=text))
    assert (row["command"], row["model"], row["prompt"], row["output"]) == ("draw", "demo", text, text)
    assert (row["seed"], row["seconds"], row["error"]) == ("7", "0.5", "")


def test_a_name_that_is_not_utf_8_is_spelled_in_a_table(tmp_path: Path) -> None:
    (row,) = table_of(tmp_path, record(image=os.fsdecode(b"\xff.png")))
    assert row["images"] == "\\udcff.png"


def test_a_row_has_all_pictures_and_all_words(tmp_path: Path) -> None:
    parts = [{"text": "One."}, {"image": "1.png", "seed": 7}, {"text": "Two."}]
    asked, told = table_of(
        tmp_path, record("ask", images=["a.png", "b.png"], text="Grey."), record("interleave", parts=parts, output="x")
    )
    assert (asked["images"], asked["text"]) == ("a.png\nb.png", "Grey.")
    assert (told["images"], told["text"], told["output"]) == ("", "One.\n\nTwo.", "x")


# A data set


def test_a_data_set_has_what_has_a_picture_of_its_own_and_one_note_says_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_, linked = tmp_path / "set", tmp_path / "linked"
    (set_ / "below").mkdir(parents=True)
    linked.symlink_to(set_)
    a, b, outside = picture(set_ / "a.png"), picture(set_ / "below" / "b.png"), picture(tmp_path / "c.png")
    (set_ / "d.png").symlink_to(outside)
    monkeypatch.chdir(set_ / "below")
    write_records(
        [
            record(image=a, text="A."),
            record("ask", images=["b.png"], text="B."),
            record("vary", image=outside, output=b, prompt="bluer"),
            record(image=str(linked / "d.png"), text="D.", output="d.txt"),
            record(image="x.png", text="moved", files=[{"path": str(linked / "a.png")}]),
            record(image=a, error="failed"),
            # These are left out.
            record("ask", images=[a, b], text="two pictures"),
            record("ask", images=[], text="none"),
            record("interleave", images=[a], output="story", parts=[{"text": "a story"}]),
            record(image=outside, text="elsewhere"),
            record(image=str(set_ / "below" / ".." / ".." / "c.png"), text="elsewhere"),
            record(image="https://example.org/a.png", text="on the web"),
            record("draw", output=str(set_ / "gone.png")),
            record("draw", output=str(set_ / "below")),
            record("draw", output="x" * 9999),
            record("draw", output="a\0.png"),
            record("draw", output=picture(set_ / os.fsdecode(b"\xff.png"))),
        ],
        linked / "metadata.jsonl",
        "a batch",
        notes=Notes(),
    )
    assert [json.loads(line) for line in (set_ / "metadata.jsonl").read_text("utf-8").splitlines()] == [
        {"file_name": "a.png", "text": "A."},
        {"file_name": "below/b.png", "text": "B."},
        {"file_name": "below/b.png", "text": "bluer"},
        {"file_name": "d.png", "text": "D."},
        {"file_name": "a.png", "text": "moved"},
    ]
    note = f"note: 11 left out: no picture of their own in {linked} or below\n"
    assert capsys.readouterr().err == note


def test_pictures_of_a_data_set_are_found_beside_the_journal(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    picture(tmp_path / "photos" / "a.png")
    found = data_set_of(tmp_path, record(image="a.png", text="A."), folder=tmp_path / "photos")
    assert found == [{"file_name": "photos/a.png", "text": "A."}]


# Records are not trusted


STRANGE = [HOSTILE, "\"'><img src=x onerror=alert(1)>", "{{ 7 * 6 }}{% raw %}", "\x07\x1b[31m\x9b", "</style></main>"]
STRANGE += ["a\u202egnp.exe\u2066", os.fsdecode(b"\xff\xfe.png"), "\ud800", "]]>-->", "é 日本 🐈‍⬛"]


@pytest.mark.parametrize("text", STRANGE, ids=ascii)
def test_whatever_a_record_says_is_text(tmp_path: Path, text: str) -> None:
    def page_saying(text: str) -> Page:
        said = {
            "image": text,
            "prompt": text,
            "text": text,
            "error": text,
            "model": {"name": text, "revision": text},
            "files": [{"path": text}],
        }
        parts = [{"text": text}, {"image": text}]
        story = record("interleave", images=[text], output=text, parts=parts, model=said["model"])
        return page_of(
            tmp_path, record("ask", **said), record(text, output=text, model=said["model"]), story, title=text
        )

    strange, plain = page_saying(text), page_saying("plain")
    expected = [(tag, set(attributes)) for tag, attributes in plain.elements]
    if text == "\ud800":  # which no shell can say, so there is no command to copy
        expected = [each for each in expected if each[0] != "button"]
    assert [(tag, set(attributes)) for tag, attributes in strange.elements] == expected
    raw = (tmp_path / "report.html").read_bytes().decode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", raw)
    if text.isprintable():
        assert text in strange.cards[0]


@pytest.mark.parametrize("junk", [None, 5, "x", [1, [2]], {"a": {}}, True, 1e300, float("inf")], ids=str)
def test_fields_of_a_wrong_kind_are_passed_over(tmp_path: Path, junk: object) -> None:
    keys = ("model", "image", "images", "prompt", "text", "output", "parts", "seed", "sampling", "seconds", "files")
    records = [record(command, **{key: junk}) for key in keys for command in ("caption", "vary", "ask", "interleave")]
    records.append(record(**dict.fromkeys(keys, junk)))
    assert len(page_of(tmp_path, *records).cards) == len(records)
    assert len(table_of(tmp_path, *records)) == len(records)
    assert data_set_of(tmp_path, *records) == []


def test_the_page_forbids_itself_everything_but_its_own(tmp_path: Path) -> None:
    page = page_of(tmp_path, record(text="A cat."))
    (policy,) = (meta["content"] or "" for meta in page.all("meta") if "http-equiv" in meta)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
    assert all(re.fullmatch(r"'sha256-[\w+/]{43}='", rules[kind]) for kind in ("script-src", "style-src"))
    addresses = [value for _, each in page.elements for key, value in each.items() if key in ("src", "href")]
    assert not addresses


# Writing it


@pytest.mark.slow
def test_memory_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    Image.effect_noise((320, 320), 90).save(tmp_path / "noise.png")
    records = [record(image=str(tmp_path / "noise.png"), text="Noise.")] * 150
    page_of(tmp_path, records[0])  # what is imported and compiled once
    tracemalloc.start()
    try:
        write_records(records, tmp_path / "many.html", "many")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "many.html").stat().st_size > 4e6
    assert most < 2e6


def test_a_report_that_breaks_off_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(source: str) -> None:
        raise KeyboardInterrupt

    (tmp_path / "report.html").write_text("old")
    monkeypatch.setattr("mmgen.outputs.export.open_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        page_of(tmp_path, *[record(text="A cat.")] * 50, record(image="a.png"))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "old"


# Reading records


def lines(*records: dict[str, object]) -> str:
    return "".join(json.dumps(each) + "\n" for each in records)


def test_of_each_place_the_last_record_counts_and_a_torn_line_does_not(tmp_path: Path) -> None:
    first = [record(text="a", place="1"), record(error="b", place="2"), record(text="c"), record(text="c")]
    journal = tmp_path / "a.jsonl"
    journal.write_text(lines(*first, record(text="b", place="2")) + '\n{"command": "capt')
    assert [each.get("text") for each in Records(journal)] == ["a", "c", "c", "b"]


@pytest.mark.parametrize("data", [b"", b"hello\n", b"\xff\xd8\xff", b"[1]\n", b'{"a": 1}\n', b"[" * 99999, None])
def test_a_file_that_is_no_batch_is_an_error(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "a.jsonl").write_bytes(data)
    with pytest.raises(MmgenError, match=r"a\.jsonl") as caught:
        Records(tmp_path / "a.jsonl")
    assert caught.value.hint


# The command that makes an item again


def again(fields: dict[str, object]) -> list[str]:
    """Write the command and read it as bash does."""
    command = rerun(fields)
    listed = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    return [os.fsdecode(word) for word in listed.split(b"\0")[:-1]]


def test_the_command_has_what_differs_from_the_defaults() -> None:
    assert again(record(image="a.png")) == ["mmgen", "caption", "a.png", "--seed", "7"]
    asked = record(
        "ask",
        images=["a.png", "b.png"],
        model={"name": "org/x", "revision": "abc"},
        sampling={"text": TEXT | {"max_tokens": 9}},
    )
    words = "mmgen ask|a cat|--image a.png --image b.png --seed 7 -m org/x --revision abc --max-tokens 9"
    first, prompt, rest = words.split("|")
    assert again(asked) == [*first.split(), prompt, *rest.split()]
    drawn = record("draw", sampling={"image": IMAGE | {"guidance": 5.0, "ratio": "16:9"}})
    assert again(drawn)[3:] == ["--seed", "7", "--guidance", "5.0", "--ratio", "16:9"]
    assert again(record("vary", image="a.png")) == ["mmgen", "vary", "a.png", "--seed", "7"]
    told = record("interleave", output="out/story", sampling={"text": TEXT, "image": IMAGE | {"temperature": 0.5}})
    assert again(told)[3:7] == ["-o", "story-again", "--seed", "7"]
    assert again(told)[7:] == ["--temperature", "0.0", "--image-temperature", "0.5"]


@pytest.mark.parametrize("text", ["it's $HOME `x` \\ !", "-o x", "two\nlines\ttab", "\x1b[201~", "\u202e", "é 🐈‍⬛"])
def test_any_words_come_through_a_shell_as_they_were_and_none_unseen(text: str) -> None:
    name = text + os.fsdecode(b"\xff")
    asked = record("ask", prompt=text, images=[name])
    assert {text, name} <= set(again(asked))
    assert rerun(asked).isprintable()


def test_what_no_command_can_make_has_none() -> None:
    assert rerun(record("models")) == ""
    assert [rerun(record("draw", prompt=prompt)) for prompt in ("a\0b", "\ud800", "")] == ["", "", ""]


def test_the_command_makes_the_same_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    model = install(monkeypatch)
    picture(tmp_path / "-a b.png")
    for command in (
        "caption './-a b.png' --temperature 0.3 --seed 3",
        "ask -q 'what is it?' --image './-a b.png' --top-k 4 --temperature 1 --seed 1",
        "draw --negative-prompt blur --seed 9 --guidance 2 -- --a",
        "vary './-a b.png' --image-guidance 2 --top-p 0.5 --seed 4",
        "interleave 'a tale' -o tale --temperature 0.2 --seed 5",
    ):
        program, *words = shlex.split(command)
        printed = run(program, "--json", *words)
        assert printed.code == 0, printed.err
        made = json.loads(printed.out)
        for path in tmp_path.glob("a-*.png"):
            path.unlink()
        assert run(*shlex.split(rerun(made))[1:], "-f" if program in ("draw", "vary") else "-q").code == 0
        first, second = model.requests[-2:]
        assert (first.want, first.text, first.image, first.seed) == (
            second.want,
            second.text,
            second.image,
            second.seed,
        )
        assert [type(part) for part in first.parts] == [type(part) for part in second.parts]


# The command line


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    path = tmp_path / "captions.jsonl"
    path.write_text(lines(record(image="a.png", text="A cat."), record(image="b.png", error="no such file: b.png")))
    return path


@pytest.mark.parametrize("command", ["export", "report"])
def test_it_writes_a_page_beside_the_file_and_prints_its_path(journal: Path, command: str) -> None:
    result = run(command, "captions.jsonl")
    assert (result.code, result.out, result.err) == (0, "captions.html\n", "")
    page = Page(Path("captions.html"))
    assert len(page.cards) == 2
    assert len(page.all("img")) == 1


@pytest.mark.parametrize("command", ["export", "report"])
def test_the_examples_of_its_help_run(journal: Path, command: str) -> None:
    examples = run(command, "--help").out.rstrip().splitlines()[-3:]
    assert examples[0].strip() == "Examples:"
    for line in examples[1:]:
        result = run(*shlex.split(line.strip().removeprefix("$ mmgen ")))
        assert (result.code, result.out != "") == (0, True), result.err


@pytest.mark.parametrize("command", ["export", "report"])
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("captions.jsonl", 2, "captions.html exists"),
        ("captions.jsonl -o captions.jsonl -f", 2, "captions.jsonl is the file that"),
        ("captions.jsonl -o a.png -f", 2, "a.png is not a name for a page"),
        ("captions.jsonl -o -", 2, "- is not a name"),
        ("captions.jsonl -o folder.html -f", 2, "folder.html is a folder"),
        ("captions.jsonl -o none/a.html", 1, "no such folder: none"),
        ("captions.html -f", 2, "is the file that the page is made from"),
        ("none.jsonl", 1, "none.jsonl"),
        ("a.png", 1, "a.png"),
        ("", 2, "FILE"),
    ],
)
def test_what_is_wrong_is_said_in_two_lines_and_nothing_written(
    journal: Path, command: str, words: str, code: int, said: str
) -> None:
    Path("captions.html").write_text("mine")
    Path("folder.html").mkdir()
    before = sorted(Path().iterdir())
    result = run(command, *words.split())
    assert (result.code, result.out) == (code, "")
    assert [line.partition(":")[0] for line in result.err.splitlines()] == ["error", "hint"]
    assert said in result.err
    assert sorted(Path().iterdir()) == before
    assert Path("captions.html").read_text() == "mine"


def test_an_unknown_ending_lists_those_that_there_are(journal: Path) -> None:
    assert "hint: end it in one of .html, .htm, .csv, .jsonl" in run("export", "captions.jsonl", "-o", "a.txt").err


def test_force_overwrites_a_page(journal: Path) -> None:
    Path("captions.html").write_text("old")
    assert run("report", "captions.jsonl", "-f").code == 0
    assert "A cat." in Path("captions.html").read_text()


def test_a_data_set_has_what_stands_around_the_words_in_sidecars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("my cat.png")
    kept = {**record(image="my cat.png", text="A cat."), "prefix": "sks {stem}, ", "suffix": " (photo)"}
    Path("c.jsonl").write_text(json.dumps(kept) + "\n")
    assert run("export", "c.jsonl", "-o", "metadata.jsonl").code == 0
    written = json.loads(Path("metadata.jsonl").read_text())
    assert written == {"file_name": "my cat.png", "text": "sks my cat, A cat. (photo)"}


# In a browser


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, as in: apt-get install chromium")
@pytest.mark.timeout(300)
def test_a_browser_shows_every_picture_and_filters(tmp_path: Path) -> None:
    scenes = ALL_SCENES[::8]
    for seed, scene in enumerate(scenes):
        render(scene, seed)[0].save(tmp_path / f"{seed}.png")
    pairs = [(seed, scene.caption) for seed, scene in enumerate(scenes)] * 10
    records = [record(image=str(tmp_path / f"{seed}.png"), text=caption) for seed, caption in pairs]
    assert len(records) == 500
    records[3] |= {"text": HOSTILE}
    for lost in records[10:17]:
        lost["error"] = f"ran out of memory over {lost.pop('text')}"
    write_records(records, tmp_path / "report.html", "500 pictures")

    with browsing(tmp_path / "profile") as browser:
        browser.open(tmp_path / "report.html")
        count = "document.querySelector('#count').textContent"
        visible = "[...document.querySelectorAll('.card')].filter(card => card.checkVisibility()).length"
        assert browser.run(count) == "500 of 500"
        shown = """Promise.all([...document.images].map(async image => {
            image.loading = "eager";  // without scrolling to it
            if (!image.complete) await new Promise(done => { image.onload = image.onerror = done; });
            return image.naturalWidth;
        }))"""
        assert browser.run(shown) == [96] * 500
        assert browser.run("document.title") == "500 pictures"
        assert browser.run("document.querySelectorAll('.body p')[3].textContent") == HOSTILE

        browser.press("/", 191)
        browser.type("Red CAT")
        wanted = sum("red" in text and "cat" in text for text in (str(each).lower() for each in words(records)))
        assert browser.run(count) == f"{wanted} of 500"
        assert browser.run(visible) == wanted > 0
        browser.run("document.querySelector('#words').select()")
        browser.type("no such words")
        assert browser.run(visible) == 0
        assert "Nothing matches" in browser.run("document.body.innerText")
        browser.press("Escape", 27)
        assert browser.run(visible) == 500
        browser.run("document.querySelector('#failed').focus()")
        browser.press(" ", 32)
        assert browser.run(count) == "7 of 500"

        browser.press(" ", 32)

        lengths = "[...document.querySelectorAll('.body p')].map(each => each.textContent.length)"
        names = "[...document.querySelectorAll('.name')].map(each => each.textContent)"
        choose = "order.value = '{}'; order.dispatchEvent(new Event('change'))"
        browser.run(choose.format("length"))
        assert browser.run(lengths) == sorted(browser.run(lengths), reverse=True)
        browser.run(choose.format("name"))
        assert browser.run(names) == sorted(browser.run(names), key=lambda name: int(Path(name).stem))
        browser.run(choose.format(""))
        assert browser.run(names) == [each["image"] for each in records]

        asked = [each["request"]["url"] for each in browser.events("Network.requestWillBeSent")]
        assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
        assert len([url for url in asked if url.startswith("file:")]) == 1
        assert (
            browser.run("document.querySelectorAll('.card')[5].querySelector('a').href")
            == (tmp_path / "5.png").as_uri()
        )
        assert not browser.events("Log.entryAdded") + browser.events("Runtime.exceptionThrown")


def words(records: list[dict[str, object]]) -> list[str]:
    """What the filter looks at."""
    return [" ".join(str(each.get(key, "")) for key in ("image", "text", "error")) for each in records]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, as in: apt-get install chromium")
def test_a_browser_copies_commands_and_runs_no_script_of_a_record(tmp_path: Path) -> None:
    prompt = 'it\'s "quoted" <b>\x1b\n& more'
    write_records([record("draw", prompt=prompt), record(text=HOSTILE)], tmp_path / "report.html", "a batch")
    with browsing(tmp_path / "profile") as browser:
        browser.open(tmp_path / "report.html")
        browser.run("navigator.clipboard.writeText = async text => { window.copied = text; }")
        browser.run("document.querySelector('.copy').focus()")
        browser.press("Enter", 13)
        assert browser.run("window.copied") == rerun(record("draw", prompt=prompt))
        assert browser.run("document.querySelector('.copy').textContent") == "copied"
        # Even one that got into the page would not run.
        browser.run("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
        assert browser.run("window.ran") is None
        assert browser.run("document.title") == "a batch"

"""Where a batch could lose, spoil or repeat something: kills at the wrong moment, names that clash, odd flags."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmgen.checkpoints.catalog import Checkpoint
from mmgen.errors import CannotGoOnError, MmgenError
from mmgen.jobs import Job
from mmgen.limits import Limits
from mmgen.outputs.records import Item, Origin
from mmgen.outputs.terminal import Notes
from mmgen.outputs.writers import Lines
from mmgen.request import WORDS, Kind, Loading, Request
from tests.support.scripted import Result, Scripted, colour, install, picture, run
from tests.unit.test_batch import Seeing, rows


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    """A model that sees, in a folder with `photos` of three colours."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(f"photos/{number}.png")
    return install(monkeypatch, Seeing())


def caption(*more: str) -> Result:
    return run("caption", "photos", *more)


def seeds_of(folder: str) -> dict[str, int]:
    """By name of each picture in a folder, the seed that its colour tells."""
    shown = {}
    for path in sorted(Path(folder).glob("*.png")):
        with Image.open(path) as image:
            pixel: Any = image.getpixel((0, 0))
        shown[path.name] = next(seed for seed in range(256) if colour(seed) == pixel)
    return shown


def lines(*prompts: tuple[str, int]) -> None:
    """Write a list of prompts, each with its seed."""
    Path("prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": text, "seed": seed}) + "\n" for text, seed in prompts)
    )


def test_lines_that_changed_places_have_their_own_pictures(model: Scripted) -> None:
    draw = ("draw", "--prompts", "prompts.jsonl", "-o", "out/{index:04d}.png")
    lines(("a cat", 1), ("a dog", 2), ("a fish", 3))
    assert run(*draw).code == 0
    lines(("a dog", 2), ("a cat", 1), ("a fish", 3))
    assert run(*draw).code == 0
    assert seeds_of("out") == {"0001.png": 2, "0002.png": 1, "0003.png": 3}
    lines(("a bird", 9), ("a dog", 2), ("a cat", 1), ("a fish", 3))
    assert run(*draw).code == 0
    assert seeds_of("out") == {"0001.png": 9, "0002.png": 2, "0003.png": 1, "0004.png": 3}
    assert run(*draw).out == ""


def test_a_foreign_picture_stays_however_often_it_is_tried(model: Scripted) -> None:
    draw = ("draw", "--prompts", "prompts.jsonl", "-o", "out/{index}.png")
    lines(("a cat", 1), ("a dog", 2))
    Path("out").mkdir()
    Path("out/1.png").write_text("mine")
    for _ in range(2):
        result = run(*draw)
        assert result.code == 1
        assert "error: line 1: out/1.png exists" in result.err
        assert Path("out/1.png").read_text() == "mine"
    assert len(model.requests) == 1  # nothing is drawn that cannot be written


def test_a_picture_that_was_changed_by_hand_stays(model: Scripted) -> None:
    draw = ("draw", "--prompts", "prompts.jsonl", "-o", "out/{index}.png")
    lines(("a cat", 1))
    run(*draw)
    Path("out/1.png").write_text("retouched")
    lines(("a dog", 2))
    assert run(*draw).code == 1
    assert Path("out/1.png").read_text() == "retouched"


def test_a_foreign_story_stays_however_often_it_is_tried(model: Scripted) -> None:
    Path("prompts.txt").write_text("a cat\n")
    Path("out/a-cat-4").mkdir(parents=True)
    Path("out/a-cat-4/index.md").write_text("mine")
    for _ in range(2):
        assert run("interleave", "--prompts", "prompts.txt", "-o", "out/", "--seed", "4").code == 1
        assert Path("out/a-cat-4/index.md").read_text() == "mine"


class Killed(BaseException):
    """The process ends."""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "command",
    [
        ("caption", "photos", "--temperature", "1", "--sidecar", "--jsonl", "out/mmgen.jsonl"),
        ("draw", "--prompts", "prompts.txt", "-o", "out/{index}.png"),
        ("interleave", "--prompts", "prompts.txt", "-o", "out/{index}"),
    ],
    ids=["sidecars", "pictures", "stories"],
)
@pytest.mark.parametrize("is_stale", [False, True], ids=["new", "stale"])
def test_a_kill_around_the_record_leaves_nothing_half_done(
    model: Scripted, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], moment: str, is_stale: bool
) -> None:
    from mmgen.outputs import journal

    Path("out").mkdir()
    Path("prompts.txt").write_text("a cat\na dog\n")
    if is_stale:
        run(*command)
        Path("prompts.txt").write_text("a bird\na fish\n")
        for number in range(3):
            Image.new("RGB", (8, 8), (number, 9, 9)).save(f"photos/{number}.png")
    real = journal.Journal.append

    def append(self: journal.Journal, record: Any) -> None:
        if moment == "after":
            real(self, record)
        raise Killed

    monkeypatch.setattr(journal.Journal, "append", append)
    with pytest.raises(Killed):
        run(*command)
    monkeypatch.setattr(journal.Journal, "append", real)
    assert run(*command).code == 0
    found = rows("out/mmgen.jsonl")
    assert len(found) == len({row["place"] for row in found}) == (3 if command[0] == "caption" else 2)
    assert not any("error" in row for row in found)
    assert len({row["seed"] for row in found}) == 1
    for row in found:
        if command[0] == "caption":
            assert Path(row["output"]).read_text() == row["text"] + "\n"
        assert Path(row["output"]).exists()
    assert run(*command).out == ""


def test_one_new_picture_does_not_hold_up_what_is_done(model: Scripted) -> None:
    most = 0

    def items() -> Iterator[Item]:
        nonlocal most
        shape = Request(("what?",), WORDS)
        yield Item(shape, "what?", image="good")
        for number in range(1000):
            most = max(most, number - job.counts.total())
            yield Item(shape, "", image=str(number), error=MmgenError("bad"))

    origin = Origin("caption", "demo", None)
    job = Job(origin, Lines(shown=False), Notes(quiet=True), lambda requests: model, Limits(batch_size=4))
    counts = job.run(items())
    assert counts == {"done": 1, "failed": 1000}
    assert most < 20


def test_a_shard_has_its_part_of_the_errors_too(model: Scripted) -> None:
    for number in range(12):
        Path(f"photos/{number}.png").unlink(missing_ok=True)
        Path(f"photos/{number}.png").symlink_to("nowhere")
    for number in (1, 2, 3):
        run("caption", "photos", "--jsonl", f"{number}.jsonl", "--shard", f"{number}/3")
    names = [
        row["image"] for number in (1, 2, 3) if Path(f"{number}.jsonl").exists() for row in rows(f"{number}.jsonl")
    ]
    assert sorted(names) == sorted(f"photos/{number}.png" for number in range(12))


def test_fail_fast_does_not_wait_for_a_group(model: Scripted) -> None:
    Path("photos/1.png").write_text("no picture")
    assert caption("--fail-fast", "--jsonl", "out.jsonl").code == 1
    assert [row["image"] for row in rows()] == ["photos/0.png", "photos/1.png"]
    assert len(model.requests) == 1


def test_ctrl_c_while_the_model_loads_stops_at_once(model: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    real = model.open

    def opened(*arguments: Any) -> Scripted:
        os.kill(os.getpid(), 2)
        return real(*arguments)

    monkeypatch.setattr("mmgen.families.open_model", opened)
    assert caption("--jsonl", "out.jsonl").code == 130
    assert not model.requests
    assert not Path("out.jsonl").exists()


def test_one_prompt_with_too_many_pictures_is_not_all_that_have_its_words(
    model: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = model.open

    def opened(
        found: Checkpoint, loading: Loading, want: frozenset[Kind], requests: Sequence[Request], *_: object
    ) -> Scripted:
        asked.append(len(requests))
        return real(found, loading, want, requests)

    monkeypatch.setattr("mmgen.families.open_model", opened)
    Path("prompts.jsonl").write_text(
        json.dumps({"prompt": "what?", "images": ["photos/0.png"]})
        + "\n"
        + json.dumps({"prompt": "what?", "images": ["photos/0.png", "photos/1.png"]})
    )
    assert run("ask", "--prompts", "prompts.jsonl").code == 0
    assert asked == [0]


def test_an_error_does_not_make_a_sidecar_foreign(model: Scripted) -> None:
    both = ("--sidecar", "--jsonl", "out.jsonl")
    caption(*both)
    Path("photos/1.png").write_text("broken")
    assert caption(*both).code == 1
    Image.new("RGB", (8, 8), (201, 0, 0)).save("photos/1.png")
    assert caption(*both).code == 0
    assert "(201, 0, 0)" in Path("photos/1.txt").read_text()


def test_two_pictures_do_not_share_a_sidecar(model: Scripted) -> None:
    Image.new("RGB", (8, 8), (99, 0, 0)).save("photos/1.jpg")
    result = caption("--sidecar", "--jsonl", "out.jsonl")
    assert result.code == 1
    assert "photos/1.txt is another picture's already" in result.err
    assert len(rows()) == 4
    before = Path("photos/1.txt").read_text()
    n_asked = len(model.requests)
    assert caption("--sidecar", "--jsonl", "out.jsonl").code == 1
    assert len(model.requests) == n_asked
    assert Path("photos/1.txt").read_text() == before


def test_a_sidecar_is_never_a_picture_nor_beside_an_address(model: Scripted) -> None:
    before = Path("photos/1.png").read_bytes()
    assert caption("--sidecar", "--ext", "png", "--existing", "overwrite").code == 2
    Path("photos/x.dat").write_bytes(before)
    over = ("--sidecar", "--ext", "dat", "--existing", "overwrite", "--include", "*.dat")
    assert "is the picture itself" in caption(*over).err
    assert Path("photos/1.png").read_bytes() == Path("photos/x.dat").read_bytes() == before
    assert "error: nothing can stand beside http" in run("caption", "http://127.0.0.1:1/a.png", "--sidecar").err
    assert not Path("http:").exists()


def test_a_list_that_can_be_read_once_is_read_once(model: Scripted) -> None:
    os.mkfifo("list")
    if os.fork() == 0:
        Path("list").write_text("photos/0.png\nphotos/1.png\n")
        os._exit(0)
    result = run("caption", "--files-from", "list", terminal=True)
    os.wait()
    assert len(result.out.splitlines()) == 2


def test_a_name_in_the_list_and_on_the_command_line_is_one(model: Scripted) -> None:
    Path("list").write_text("photos/0.png\nphotos/1.png\n")
    assert len(run("caption", "photos/0.png", "--files-from", "list").out.splitlines()) == 2


def test_a_list_of_nothing_is_an_error(model: Scripted) -> None:
    result = run("caption", "--files-from", "-", stdin=b"")
    assert (result.code, result.err.splitlines()[0]) == (1, "error: no pictures in stdin")


@pytest.mark.parametrize("flags", [("--plan",), ("--jsonl", "out.jsonl"), ("--json", "--shard", "1/2")])
def test_a_conversation_is_no_batch(model: Scripted, flags: tuple[str, ...]) -> None:
    Path("talk.json").write_text('[{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]')
    before = Path("talk.json").read_bytes()
    assert run("ask", "and now?", "--history", "talk.json", *flags).code == 2
    assert Path("talk.json").read_bytes() == before


def test_a_page_does_not_overwrite_what_is_no_page(model: Scripted) -> None:
    before = Path("photos/1.png").read_bytes()
    assert caption("--html", "photos/1.png").code == 2
    assert Path("photos/1.png").read_bytes() == before
    Path("mine.html").write_text("<p>mine")
    assert caption("--html", "mine.html").code == 2
    assert caption("--html", "page.html").code == caption("--html", "page.html").code == 0
    assert len(model.requests) == 6


def test_names_that_cannot_be_written_are_refused_before_anything_is_drawn(model: Scripted) -> None:
    named = [{"prompt": "a", "output": name} for name in ("../x.png", "/tmp/x.png", "x.txt")]
    Path("prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in named))
    assert run("draw", "--prompts", "prompts.jsonl", "-o", "out/{slug}").code == 2
    result = run("draw", "--prompts", "prompts.jsonl", "-o", "out/")
    assert result.code == 1
    assert [line.split(":")[1] for line in result.err.splitlines() if line.startswith("error")] == [
        " line 1",
        " line 2",
        " line 3",
    ]
    assert not model.requests


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("caption", "photos", "--jsonl", "photos/1.png/out.jsonl"), 1),
        (("caption", "photos", "--sidecar", "--prefix", "\udcff"), 2),
        (("vary", "-", "--files-from", "-", "-o", "out/"), 2),
        (("ask", "-", "--each", "--files-from", "-"), 2),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(model: Scripted, arguments: tuple[str, ...], code: int) -> None:
    result = run(*arguments, stdin=b"photos/1.png\n")
    assert result.code == code
    assert result.err.startswith("error: ")
    assert not model.opened


def test_a_line_s_picture_that_no_system_knows_is_an_error_of_its_own(model: Scripted) -> None:
    named = [["a\0b"], ["\ud800"], ["photos/1.png"]]
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": "a", "images": names}) + "\n" for names in named))
    assert run("ask", "--prompts", "prompts.jsonl", "--jsonl", "out.jsonl").code == 1
    assert ["error" in row for row in rows()] == [True, True, False]


def test_lines_that_ask_the_same_have_a_row_each_and_are_asked_once(model: Scripted) -> None:
    named = [{"prompt": "a", "seed": 1}, {"prompt": "a", "seed": 2}, {"prompt": "b"}, {"prompt": "b"}]
    Path("prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in named))
    ask = ("ask", "--prompts", "prompts.jsonl", "--jsonl", "out.jsonl", "--temperature", "1")
    for _ in range(2):
        assert run(*ask).code == 0
        assert [row["prompt"] for row in rows()] == ["a", "a", "b", "b"]
        assert len(model.requests) == 3


def test_a_story_that_lost_a_picture_is_told_again(model: Scripted) -> None:
    Path("prompts.txt").write_text("tell of a cat\n")
    tell = ("interleave", "--prompts", "prompts.txt", "-o", "stories/", "--seed", "4")
    model.scripts = [["A cat. ", picture(1)], ["A cat. ", picture(1)]]
    run(*tell)
    lost = next(Path("stories").rglob("001.png"))
    lost.unlink()
    assert run(*tell).code == 0
    assert lost.is_file()
    assert run(*tell).out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("draw", "--prompts", "prompts.txt", "-o", "many.png"), "-o many.png is one file"),
        (("caption", "photos", "--jsonl", "-"), "--jsonl keeps results in a file"),
        (("caption", "photos", "--jsonl", "none/out.jsonl"), "no such folder: none"),
    ],
)
def test_outputs_that_mean_something_else_are_refused(model: Scripted, arguments: tuple[str, ...], said: str) -> None:
    Path("prompts.txt").write_text("a cat\n")
    result = run(*arguments)
    assert (result.code, result.out) != (0, "")
    assert result.err.startswith(f"error: {said}")
    assert not Path("none").exists()
    assert model.opened == []


def test_a_picture_is_no_list_of_names(model: Scripted) -> None:
    result = run("caption", "--files-from", "photos/1.png")
    assert (result.code, result.out) == (1, "")
    assert "photos/1.png is not a list of names" in result.err


def test_a_full_disk_leaves_the_picture_that_was_to_be_replaced(
    model: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmgen.outputs import journal

    Path("prompts.txt").write_text("a cat\n")
    draw = ("draw", "--prompts", "prompts.txt", "-o", "out/{index}.png", "--seed", "7")
    run(*draw)
    before = Path("out/1.png").read_bytes()
    Path("prompts.txt").write_text("a dog\n")

    def full(self: journal.Journal, record: object) -> None:
        raise CannotGoOnError("cannot write out/mmgen.jsonl: no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "append", full)
        assert run(*draw).code == 1
    assert Path("out/1.png").read_bytes() == before
    assert sorted(path.name for path in Path("out").iterdir()) == ["1.png", "mmgen.jsonl"]
    assert run(*draw).code == 0
    assert Path("out/1.png").read_bytes() != before

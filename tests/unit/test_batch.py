"""Folders of pictures and lists of prompts, as people run them: what is done again, and what is not. Scripted model."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from mmgen.outputs.terminal import pace
from mmgen.request import Done, Piece, Progress, Request
from tests.support.scripted import Scripted, install, picture, run


class Seeing(Scripted):
    """Says of a picture which colour it has; draws by the seed. Counts."""

    def _default(self, request: Request) -> list[Piece]:
        shown = [part for part in request.parts if not isinstance(part, str)]
        words = " ".join(part for part in request.parts if isinstance(part, str))
        colour = shown[0].getpixel((0, 0)) if shown else ""
        return [f"{words} {colour} {request.seed}"] if "text" in request.want else [picture(request.seed)]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    """A model that sees, in a folder with `photos` of twenty colours."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number in range(20):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(f"photos/{number}.png")
    return install(monkeypatch, Seeing())


def rows(path: str = "out.jsonl") -> list[dict[str, Any]]:
    """The records of a journal: of each place the last line."""
    lines = [json.loads(line) for line in Path(path).read_bytes().splitlines()]
    last = {line.get("place", number): number for number, line in enumerate(lines)}
    return [lines[number] for number in sorted(last.values())]


def caption(*more: str) -> Any:
    """Caption the folder into the journal."""
    return run("caption", "photos", "--jsonl", "out.jsonl", *more)


def colour(path: str, red: int) -> None:
    """Paint a picture."""
    Image.new("RGB", (8, 8), (red, 0, 0)).save(path)


def test_a_folder_is_captioned_in_natural_order_into_the_journal(model: Scripted) -> None:
    result = caption()
    assert (result.code, result.out) == (0, "")
    assert [row["image"] for row in rows()] == [f"photos/{number}.png" for number in range(20)]
    assert [f"({number}, 0, 0)" in row["text"] for number, row in enumerate(rows())] == [True] * 20
    assert result.err.splitlines()[-1].startswith("20 done, 0 skipped, 0 failed in ")


def test_the_same_command_again_does_nothing_and_loads_nothing(model: Scripted) -> None:
    caption()
    before, n_opened = Path("out.jsonl").read_bytes(), len(model.opened)
    result = caption()
    assert (result.code, len(model.requests), len(model.opened)) == (0, 20, n_opened)
    assert Path("out.jsonl").read_bytes() == before
    assert result.err.splitlines()[-1].startswith("0 done, 20 skipped, 0 failed")


def test_what_failed_is_tried_again_and_nothing_else(model: Scripted) -> None:
    Path("photos/3.png").write_text("no picture")
    result = caption()
    assert result.code == 1
    assert "photos/3.png is not a picture" in result.err
    assert [row["image"] for row in rows() if "error" in row] == ["photos/3.png"]
    assert caption().code == 1
    assert len(model.requests) == 19
    colour("photos/3.png", 99)
    assert caption().code == 0
    assert len(model.requests) == 20
    assert not any("error" in row for row in rows())
    assert sorted(row["image"] for row in rows()) == sorted(f"photos/{number}.png" for number in range(20))


def test_renamed_touched_and_copied_pictures_cost_nothing(model: Scripted) -> None:
    caption()
    texts = {row["image"]: row["text"] for row in rows()}
    Path("photos/0.png").rename("photos/renamed.png")
    os.utime("photos/1.png", (1, 1))
    shutil.copy("photos/2.png", "photos/copy.png")
    assert caption().code == 0
    assert len(model.requests) == 20
    after = {row["image"]: row["text"] for row in rows()}
    assert after["photos/renamed.png"] == texts["photos/0.png"]
    assert after["photos/copy.png"] == texts["photos/2.png"]


def test_identical_copies_have_a_row_each_from_one_computation(model: Scripted) -> None:
    for number in range(40):
        shutil.copy("photos/5.png", f"photos/copy{number}.png")
    caption()
    assert len(model.requests) == 20
    assert len(rows()) == 60
    assert len({row["text"] for row in rows() if row["key"] == rows()[5]["key"]}) == 1


def test_a_changed_picture_is_done_again_alone(model: Scripted) -> None:
    caption()
    colour("photos/7.png", 200)
    caption()
    assert len(model.requests) == 21
    assert len(rows()) == 20
    assert next(row["text"] for row in rows() if row["image"] == "photos/7.png").startswith("Describe")
    assert "(200, 0, 0)" in next(row["text"] for row in rows() if row["image"] == "photos/7.png")


def test_another_prompt_is_asked_about_all(model: Scripted) -> None:
    ask = ("ask", "--each", "--image", "photos", "--jsonl", "out.jsonl")
    run(*ask, "what is it?")
    run(*ask, "what color is it?")
    assert len(model.requests) == 40
    assert [row["prompt"] for row in rows()] == ["what color is it?"] * 20


def test_other_sampling_is_another_result_but_the_seed_of_a_greedy_answer_is_not(model: Scripted) -> None:
    caption()
    caption("--seed", "5")
    assert len(model.requests) == 20
    caption("--temperature", "1", "--seed", "5")
    assert len(model.requests) == 40
    caption("--temperature", "1", "--seed", "6")
    assert len(model.requests) == 60


def test_a_seed_that_was_drawn_is_kept_for_the_rest(model: Scripted) -> None:
    caption("--temperature", "1", "--limit", "5")
    assert len(rows()) == 5
    caption("--temperature", "1")
    assert len(rows()) == 20
    assert len({request.seed for request in model.requests}) == 1
    assert len({row["drawn_seed"] for row in rows()}) == 1


def test_a_plan_counts_and_loads_nothing(model: Scripted) -> None:
    assert caption("--plan").out == "new 20, done 0, stale 0, failed 0\n"
    assert not Path("out.jsonl").exists()
    Path("photos/3.png").write_text("no picture")
    caption("--limit", "9")
    colour("photos/0.png", 150)
    assert caption("--plan").out == "new 10, done 8, stale 1, failed 1\n"
    assert len(model.opened) == 1


def test_shards_are_parts_of_the_whole_that_do_not_meet(model: Scripted) -> None:
    for number in (1, 2, 3):
        run("caption", "photos", "--jsonl", f"{number}.jsonl", "--shard", f"{number}/3")
    parts = [[row["image"] for row in rows(f"{number}.jsonl")] for number in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(f"photos/{number}.png" for number in range(20))
    assert all(parts)


def test_a_place_is_what_the_first_journals_called_it(model: Scripted) -> None:
    caption()
    assert [row["place"] for row in rows()] == [f"photos/{number}.png" for number in range(20)]
    Path("prompts.txt").write_text("a cat\na dog\na cat\n")
    run("draw", "--prompts", "prompts.txt", "-n", "2", "-o", "drawn/{index}-{n}.png")
    drawn = [f"drawn/{index}-{n}.png" for index in (1, 2, 3) for n in (1, 2)]
    assert [row["place"] for row in rows("drawn/mmgen.jsonl")] == drawn
    run("ask", "--prompts", "prompts.txt", "--jsonl", "asked.jsonl")
    assert [row["place"] for row in rows("asked.jsonl")] == ["a cat", "a dog", "a cat\0" + "1"]


def test_one_question_uses_the_seed_that_its_journal_began_with(model: Scripted) -> None:
    for question in ("what?", "where?"):
        assert run("ask", question, "--temperature", "1", "--jsonl", "asked.jsonl").code == 0
    seeds = {row["seed"] for row in rows("asked.jsonl")}
    assert seeds == {row["drawn_seed"] for row in rows("asked.jsonl")}
    assert len(seeds) == 1


def test_a_folder_in_the_place_of_a_picture_is_left_alone(model: Scripted) -> None:
    Path("prompts.txt").write_text("a cat\na dog\n")
    Path("out/1.png").mkdir(parents=True)
    result = run("draw", "--prompts", "prompts.txt", "-o", "out/{index}.png", "-f")
    assert result.code == 1
    assert "out/1.png is a folder" in result.err
    assert sorted(path.name for path in Path("out").iterdir()) == ["1.png", "2.png", "mmgen.jsonl"]


def test_fail_fast_stops_at_the_first(model: Scripted) -> None:
    Path("photos/3.png").write_text("no picture")
    assert caption("--fail-fast", "--batch-size", "1").code == 1
    assert len(rows()) == 4


def test_two_runs_do_not_write_one_journal(model: Scripted) -> None:
    from mmgen.outputs.journal import Journal

    with Journal("out.jsonl"):
        result = caption()
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: another run is writing out.jsonl")


def test_sidecars_stand_beside_their_pictures_or_mirrored(model: Scripted) -> None:
    Path("photos/deep").mkdir()
    shutil.move("photos/19.png", "photos/deep/19.png")
    assert run("caption", "photos", "-r", "--sidecar", "--prefix", "sks, ", "--suffix", "!").code == 0
    text = Path("photos/4.txt").read_text()
    assert text.startswith("sks, Describe")
    assert text.endswith("!\n")
    run("caption", "photos", "-r", "--sidecar", "--outdir", "texts", "--ext", "caption")
    assert sorted(path.relative_to("texts").as_posix() for path in Path("texts").rglob("*.caption")) == sorted(
        [f"{number}.caption" for number in range(19)] + ["deep/19.caption"]
    )


def test_other_words_around_captions_are_written_without_a_model_and_a_persons_are_left(model: Scripted) -> None:
    both = ("caption", "photos", "--sidecar", "--jsonl", "out.jsonl")
    run(*both)
    n_asked = len(model.requests)
    names = sorted(Path("photos").glob("*.txt"))
    names[0].write_text("written by hand")
    again = (*both, "--prefix", "sks, ")
    assert run(*again, "--plan").out == f"new 0, done 0, stale 0, failed 0, left 1, rewrite {len(names) - 1}\n"
    assert run(*again).code == 0
    assert len(model.requests) == n_asked
    assert names[0].read_text() == "written by hand"
    assert all(name.read_text().startswith("sks, ") for name in names[1:])
    assert run(*again, "--plan").out == f"new 0, done {len(names) - 1}, stale 0, failed 0, left 1\n"
    run(*again, "--existing", "overwrite")
    assert len(model.requests) == n_asked
    assert names[0].read_text().startswith("sks, ")


def test_a_plan_counts_as_done_only_what_costs_nothing(model: Scripted) -> None:
    Path("prompts.txt").write_text("a red cat")
    draw = ("draw", "--prompts", "prompts.txt", "-o", "out/{index}.png", "--seed")
    run(*draw, "1")
    run(*draw, "2", "-f")
    assert run(*draw, "1", "--plan").out == "new 0, done 0, stale 1, failed 0\n"  # its file was drawn over
    tell = ("interleave", "--prompts", "prompts.txt", "-o", "stories/", "--seed", "1")
    run(*tell)
    next(Path("stories").rglob("index.md")).unlink()
    assert run(*tell, "--plan").out == "new 0, done 0, stale 1, failed 0\n"


def test_a_sidecar_edited_by_hand_is_never_touched(model: Scripted) -> None:
    both = ("caption", "photos", "--sidecar", "--jsonl", "out.jsonl")
    Path("photos/0.txt").write_text("mine, from before")
    run(*both)
    assert len(model.requests) == 19
    Path("photos/1.txt").write_text("mended by hand")
    colour("photos/1.png", 101)
    colour("photos/2.png", 102)
    run(*both)
    assert Path("photos/0.txt").read_text() == "mine, from before"
    assert Path("photos/1.txt").read_text() == "mended by hand"
    assert "(102, 0, 0)" in Path("photos/2.txt").read_text()
    Path("photos/3.txt").unlink()
    n_asked = len(model.requests)
    run(*both)
    assert len(model.requests) == n_asked
    assert "(3, 0, 0)" in Path("photos/3.txt").read_text()
    run(*both, "--existing", "overwrite")
    assert "(101, 0, 0)" in Path("photos/1.txt").read_text()


def test_prompts_are_drawn_into_a_folder_and_only_what_is_missing_again(model: Scripted) -> None:
    Path("prompts.txt").write_text("a cat\na dog\n\na cat\n")
    draw = ("draw", "--prompts", "prompts.txt", "-n", "2", "-o", "pictures/", "--seed", "7")
    result = run(*draw)
    names = ["a-cat-7.png", "a-cat-8.png", "a-dog-7.png", "a-dog-8.png", "a-cat-7-2.png", "a-cat-8-2.png"]
    assert result.out.splitlines() == [f"pictures/{name}" for name in names]
    assert len(model.requests) == 4  # the same prompt again is the same picture
    before = Path("pictures/a-cat-8.png").read_bytes()
    Path("pictures/a-cat-8.png").unlink()
    Path("prompts.txt").write_text("a cat\na dog\na cat\na fish\n")
    assert run(*draw).code == 0
    assert len(model.requests) == 6  # two fish; of the lost picture there is an equal one
    assert Path("pictures/a-cat-8.png").read_bytes() == before


def test_a_foreign_file_in_the_folder_is_not_overwritten(model: Scripted) -> None:
    Path("pictures").mkdir()
    Path("pictures/a-cat-7.png").write_text("mine")
    Path("prompts.txt").write_text("a cat\na dog\n")
    draw = ("draw", "--prompts", "prompts.txt", "-o", "pictures/", "--seed", "7")
    result = run(*draw)
    assert (result.code, result.out) == (1, "pictures/a-dog-7.png\n")
    assert "pictures/a-cat-7.png exists" in result.err
    assert Path("pictures/a-cat-7.png").read_text() == "mine"
    assert run(*draw, "-f").code == 0
    assert Image.open("pictures/a-cat-7.png").size


def test_lines_say_seed_and_output_of_their_own(model: Scripted) -> None:
    lines = [{"prompt": "a cat", "seed": 3, "output": "first.jpg"}, {"prompt": "a dog"}, {"prompt": ""}]
    Path("prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    result = run("draw", "--prompts", "prompts.jsonl", "-o", "out/{index:02d}-{slug}.png", "--seed", "9")
    assert result.code == 1
    assert result.out.splitlines() == ["out/first.jpg", "out/02-a-dog.png"]
    assert "error: line 3: the prompt is empty" in result.err
    assert [request.seed for request in model.requests] == [3, 9]


def test_a_folder_is_varied_into_another_of_the_same_shape(model: Scripted) -> None:
    Path("photos/deep").mkdir()
    shutil.move("photos/19.png", "photos/deep/19.png")
    result = run("vary", "photos", "make it blue", "-r", "-o", "blue/", "--seed", "1", "--limit", "30")
    assert result.code == 0
    assert sorted(path.relative_to("blue").as_posix() for path in Path("blue").rglob("*.png")) == sorted(
        [f"{number}.png" for number in range(19)] + ["deep/19.png"]
    )
    assert run("vary", "photos", "make it blue", "-r", "-o", "blue/", "--seed", "1").out == ""
    assert len(model.requests) == 20


def test_stories_have_a_folder_each(model: Scripted) -> None:
    model.scripts = [["A cat. ", picture(1)], ["A dog. ", picture(2)]]
    Path("prompts.txt").write_text("tell of a cat\ntell of a dog\n")
    result = run("interleave", "--prompts", "prompts.txt", "-o", "stories/", "--seed", "4")
    assert result.out.splitlines() == ["stories/tell-of-a-cat-4/index.md", "stories/tell-of-a-dog-4/index.md"]
    assert "A dog." in Path("stories/tell-of-a-dog-4/index.md").read_text()
    assert run("interleave", "--prompts", "prompts.txt", "-o", "stories/", "--seed", "4").out == ""


def test_names_come_from_a_list_with_any_bytes(model: Scripted) -> None:
    strange = [b"photos/with space.png", b"photos/new\nline.png", b"photos/-dash.png", b"photos/\xff\xfe.png"]
    for name in strange:
        shutil.copy(b"photos/1.png", name)
    Path("list").write_bytes(b"\0".join(strange))
    result = run("caption", "--files-from", "list", "-0", "--jsonl", "out.jsonl")
    assert result.code == 0
    assert [os.fsencode(row["image"]) for row in rows()] == strange
    assert run("caption", "--files-from", "list", "-0", "--jsonl", "out.jsonl").code == 0
    assert len(model.requests) == 1


def test_an_item_of_a_batch_is_what_the_command_alone_gives(model: Scripted) -> None:
    caption("--temperature", "1", "--seed", "3")
    alone = run("caption", "photos/11.png", "--temperature", "1", "--seed", "3").out
    assert alone == rows()[11]["text"] + "\n"


def test_a_page_of_the_batch_is_written(model: Scripted) -> None:
    assert run("caption", "photos", "--html", "page.html").code == 0
    assert "photos/11.png" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("caption",), "missing IMAGE"),
        (("caption", "photos", "-0"), "-0 says"),
        (("caption", "photos", "--shard", "5"), "--shard 5 is not I/N"),
        (("caption", "photos", "--shard", "5/4"), "--shard 5/4 is out of range"),
        (("caption", "photos", "--limit", "0"), "--limit 0 is out of range"),
        (("caption", "photos", "--batch-size", "0"), "--batch-size 0 is out of range"),
        (("caption", "photos", "--outdir", "x"), "--outdir, --prefix"),
        (("vary", "photos"), "no folder for the pictures"),
        (("draw",), "missing PROMPT"),
        (("draw", "a cat", "--prompts", "x"), "prompts both"),
        (("draw", "a cat", "-o", "{nothing}.png"), "-o has an unknown field"),
        (("draw", "a cat", "-o", "{index:q}.png"), "-o {index:q}.png cannot be filled in"),
        (("ask", "what?", "--image", "photos/1.png", "--sidecar"), "one question about every picture apart"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_loads(
    model: Scripted, arguments: tuple[str, ...], message: str
) -> None:
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {message}")
    assert model.opened == []


def test_a_record_that_cannot_be_written_stops_the_batch(model: Scripted) -> None:
    """A limit on a file's size (setrlimit(2)) fails as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        result = caption()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.code == 1
    assert "error: cannot write out.jsonl: file too large" in result.err
    data = Path("out.jsonl").read_bytes()  # whole lines, as many as there is room for
    *_, longest = sorted(map(len, data.splitlines(keepends=True)))
    assert data.endswith(b"\n")
    assert 2000 - longest - len("photos/10.png") < len(data) <= 2000
    assert len(rows()) == data.count(b"\n") > 2
    assert Path("out.jsonl").read_bytes().endswith(b"}\n")


def test_ctrl_c_keeps_what_is_finished(model: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = model.answer, 0

    def answer(request: Request) -> Iterator[Piece]:
        nonlocal asked
        asked += 1
        if asked == 6:
            os.kill(os.getpid(), 2)
        return real(request)

    monkeypatch.setattr(model, "answer", answer)
    result = caption("--batch-size", "4")
    assert result.code == 130
    assert len(rows()) == 6  # what the model has in hand is finished
    monkeypatch.setattr(model, "answer", real)
    assert caption().code == 0
    assert len(rows()) == 20
    assert len(model.requests) == 20


def test_pictures_are_those_of_the_seeds(model: Scripted) -> None:
    run("draw", "a cat", "-n", "3", "--seed", "7", "-o", "cat.png")
    run("draw", "a cat", "--seed", "8", "-o", "alone.png")
    with Image.open("cat-2.png") as one, Image.open("alone.png") as other:
        assert one.tobytes() == other.tobytes()


class SideBySide(Scripted):
    """Draws all pictures at once: after nine of ten seconds each is at nine tenths."""

    now = 0.0

    def replies(self, requests: Iterable[Request | None]) -> Iterator[tuple[int, Piece | Done]]:
        pulled = [request for request in requests if request is not None]
        SideBySide.now += 9
        yield from ((number, Progress(9, 10)) for number in range(len(pulled)))
        SideBySide.now += 1
        for number, request in enumerate(pulled):
            yield number, picture(request.seed)
            yield number, Done()


def test_the_time_left_counts_pictures_under_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    install(monkeypatch, SideBySide())
    monkeypatch.setattr("mmgen.jobs.time", SimpleNamespace(monotonic=lambda: SideBySide.now))
    shown = run("draw", "a cat", "-n", "4", "--seed", "1", terminal=True)
    assert "1 of 4, 0.37 a second, 1 s left" in shown.err
    assert re.search(r"4 of 4, 0.4 a second\W", shown.err)


@pytest.mark.parametrize(("per_second", "words"), [(0.0371, "0.037"), (3.68, "3.7"), (27.4, "27"), (612.3, "612")])
def test_a_rate_is_written_as_people_say_it(per_second: float, words: str) -> None:
    assert pace(per_second) == f"{words} a second"

"""draw, vary and interleave, as people use them. With a scripted model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mmgen.cli.naming import slug
from mmgen.errors import MmgenError
from mmgen.inputs.images import open_image
from mmgen.outputs.pictures import read_metadata
from mmgen.tasks import VARY
from tests.support.scripted import Scripted, colour, install, picture, run


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    """A scripted model, in a folder with a picture."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), "red").save("a.png")
    return install(monkeypatch)


@pytest.mark.parametrize("name", ["out.png", "out.webp", "out.jpg", "OUT.JPEG"])
def test_a_picture_is_written_and_its_path_printed(model: Scripted, name: str) -> None:
    result = run("draw", "a snowman", "-o", name, "--seed", "7")
    assert (result.code, result.out, result.err) == (0, f"{name}\n", "")
    metadata = read_metadata(name)
    assert metadata is not None
    assert (metadata["prompt"], metadata["model"], metadata["seed"]) == ("a snowman", "demo", 7)
    assert metadata["sampling"]["image"]["guidance"] == 3.0


def test_a_file_can_be_without_metadata(model: Scripted) -> None:
    run("draw", "a", "-o", "out.png", "--no-metadata")
    assert read_metadata("out.png") is None


def test_several_pictures_are_numbered_and_seeded_one_by_one(model: Scripted) -> None:
    result = run("draw", "a", "-n", "3", "--seed", "7", "-o", "out.png")
    assert result.out == "out-1.png\nout-2.png\nout-3.png\n"
    assert [open_image(name).getpixel((0, 0)) for name in result.out.split()] == [colour(7), colour(8), colour(9)]
    assert [request.seed for request in model.requests] == [7, 8, 9]


def test_names_come_from_prompt_and_seed(model: Scripted) -> None:
    assert run("draw", "A snowman!", "a red cat", "--seed", "7").out == "a-snowman-7.png\na-red-cat-7.png\n"
    assert run("draw", "a dog", "a dog", "A dog?", "--seed", "7").out == "a-dog-7.png\na-dog-7-2.png\na-dog-7-3.png\n"
    assert run("vary", "a.png", "--seed", "7").out == "variation-7.png\n"
    assert run("vary", "a.png", "make <image> blue", "--seed", "7").out == "make-blue-7.png\n"


def test_names_are_short_and_plain() -> None:
    assert slug("../../etc/passwd") == "etc-passwd"
    assert slug("🐈!") == "picture"
    assert slug("Con") == "con-"  # which would be a device on Windows
    assert slug("雪だるま") == "雪だるま"
    assert len(slug("x" * 500)) == 40
    assert slug("a very long prompt about a snowman that goes on") == "a-very-long-prompt-about-a-snowman-that"


def test_a_seed_that_was_drawn_is_said_and_noted(model: Scripted) -> None:
    result = run("draw", "a", "-n", "2", "-o", "out.png", "--json")
    seed = model.requests[0].seed
    assert result.err == f"seed: {seed}\n"
    records = [json.loads(line) for line in result.out.splitlines()]
    assert [(record["output"], record["seed"]) for record in records] == [("out-1.png", seed), ("out-2.png", seed + 1)]
    assert (read_metadata("out-2.png") or {})["seed"] == seed + 1  # type: ignore[typeddict-item]


def test_what_exists_is_overwritten_only_by_force(model: Scripted) -> None:
    Path("out-2.png").write_text("mine")
    assert run("draw", "a", "-n", "2", "-o", "out.png").code == 2
    assert not Path("out-1.png").exists()
    assert Path("out-2.png").read_text() == "mine"
    assert run("draw", "a", "-n", "2", "-o", "out.png", "-f").code == 0
    assert open_image("out-2.png").size == (8, 8)


def test_a_picture_goes_through_a_pipe(model: Scripted) -> None:
    result = run("draw", "a", "-o", "-")
    assert result.out_bytes.startswith(b"\x89PNG")
    assert result.out_bytes.endswith(b"IEND\xaeB`\x82")
    assert run("vary", "a.png", "-o", "-").out_bytes.startswith(b"\x89PNG")
    assert run("draw", "a", "-o", "-", terminal=True).code == 2


def test_a_picture_that_fails_among_many_fails_alone(model: Scripted) -> None:
    model.scripts = [[picture(7)], [MmgenError("too long", "shorten it")], [], [picture(9)]]
    result = run("draw", "a", "b", "c", "d", "--seed", "7")
    assert (result.code, result.out) == (1, "a-7.png\nd-7.png\n")
    assert "error: b: too long\nhint: shorten it\n" in result.err
    assert "error: c: the model ended without a picture\n" in result.err


def test_sampling_reaches_the_model(model: Scripted) -> None:
    run(*["draw", "a", "--temperature", "0.5", "--top-p", "0.8", "--top-k", "9", "--guidance", "2"])
    sampling = model.requests[0].image
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.guidance) == (0.5, 0.8, 9, 2)
    run(*["vary", "a.png", "--image-guidance", "2"])
    assert model.requests[1].image.image_guidance == 2
    run(*["draw", "a", "--negative-prompt", "blur", "--ratio", "16:9"])
    run(*["draw", "b"], MMGEN_NEGATIVE_PROMPT="blur", MMGEN_RATIO="16:9")
    for request in model.requests[2:]:
        assert (request.image.negative_prompt, request.image.ratio) == ("blur", "16:9")


def test_a_window_reaches_the_model_and_changes_no_key(model: Scripted) -> None:
    assert run("draw", "a", "--window", "4", "-o", "a.png", "-f").code == 0
    assert run("draw", "b", "-o", "b.png", MMGEN_WINDOW="8").code == 0
    assert run("draw", "c", "-o", "c.png").code == 0
    assert [loading.window for _, loading, _ in model.opened] == [4, 8, None]
    refused = run("draw", "a", "--window", "0")
    assert refused.code == 2
    assert "error: window 0 is out of range" in refused.err
    again = ["draw", "d", "--seed", "1", "-o", "d.png", "--jsonl", "done.jsonl"]
    assert run(*again, "--window", "4").code == 0
    assert "0 done, 1 skipped" in run(*again, "--window", "1").err


def test_what_a_picture_took_is_told_to_those_who_ask(model: Scripted) -> None:
    took = replace(picture(7), codes=tuple(range(144)), passes=36)
    model.scripts = [[took], [took], [took], ["Once.", took]]
    assert "passes" not in run("draw", "a", "--seed", "7", "-o", "1.png").err
    assert "seed 7: 144 image tokens in 36 passes, 4.0 each\n" in run("draw", "a", "-v", "-o", "2.png").err
    assert json.loads(run("draw", "a", "--json", "-o", "3.png").out)["passes"] == 36
    assert "144 image tokens in 36 passes" in run("interleave", "a", "--verbose", "-o", "story").err


def test_a_picture_is_varied_by_words_or_without(model: Scripted) -> None:
    assert run("vary", "a.png", "-o", "b.png", "-n", "2", "--seed", "7", "--json").code == 0
    assert run("vary", "a.png", "blue", "-o", "c.png", "-q").out == "c.png\n"
    assert VARY.removesuffix("<image>") in model.requests[0].parts
    assert "blue" in model.requests[2].parts
    assert (read_metadata("c.png") or {})["prompt"] == "blue"  # type: ignore[typeddict-item]
    assert b"a.png" not in Path("c.png").read_bytes()


def test_a_story_is_told_in_markdown_and_kept_in_a_folder(model: Scripted) -> None:
    result = run("interleave", "build a snowman", "-o", "story/", "--seed", "7")
    assert (result.code, result.err) == (0, "")
    assert result.out.strip() == "A snowman.\n\n![picture 1](story/001.png)"
    assert Path("story/index.md").read_text() == "A snowman.\n\n![picture 1](001.png)\n"
    assert (read_metadata("story/001.png") or {})["prompt"] == "build a snowman"  # type: ignore[typeddict-item]
    again = run("interleave", "build a snowman", "-o", "story", "-f", "--json", "--seed", "7")
    assert json.loads(again.out)["parts"] == [
        {"text": "A snowman."},
        {"image": "story/001.png", "seed": 7, "passes": None},
    ]


def test_words_and_pictures_of_a_story_have_their_own_temperature(model: Scripted) -> None:
    run(*["interleave", "a", "-o", "b", "--temperature", "0.3", "--image-temperature", "0.9", "--image", "a.png"])
    assert (model.requests[0].text.temperature, model.requests[0].image.temperature) == (0.3, 0.9)
    assert len(model.requests[0].parts) == 2
    run(*["interleave", "a", "-o", "c"])
    assert (model.requests[1].text.temperature, model.requests[1].image.temperature) == (0.7, 0.7)


def test_a_list_that_is_not_there_leaves_no_folder(model: Scripted) -> None:
    result = run("draw", "--prompts", "none.txt", "-o", "new/")
    assert result.code == 1
    assert result.err.startswith("error: cannot open none.txt")
    assert not Path("new").exists()

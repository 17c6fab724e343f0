"""`ask --choices`: only these answers come out, and the record says how likely each was. With the built-in model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.scripted import run
from tools.demo.judge import fresh_renders


@pytest.fixture(scope="module")
def renders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Pictures by their paths, with the colours they show."""
    folder = tmp_path_factory.mktemp("renders")
    scenes, images = fresh_renders(6, seed=31)
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png")
    return {str(folder / f"{number}.png"): scene.colour for number, scene in enumerate(scenes)}


def test_every_answer_is_one_of_the_choices(renders: dict[str, str], tmp_path: Path) -> None:
    folder, colours = str(Path(next(iter(renders))).parent), sorted({*renders.values(), "black", "brown"})
    given = ("ask", "--each", "what color is it?", "--image", folder)
    journal = ("--jsonl", str(tmp_path / "j.jsonl"))
    result = run(*given, "--choices", ", ".join(colours), "--json", *journal)
    assert result.code == 0
    for record in map(json.loads, result.out.splitlines()):
        assert record["text"] == renders[record["image"]]
        assert list(record["chances"]) == colours
        assert sum(record["chances"].values()) == pytest.approx(1)
    assert "0 done, 6 skipped" in run(*given, "--choices", ",".join(colours), *journal).err
    assert "6 done, 0 skipped" in run(*given, "--choices", "black,brown", *journal).err


def test_one_answer_is_one_of_the_choices(renders: dict[str, str]) -> None:
    image = next(iter(renders))
    assert run("ask", "what color is it?", "--image", image, "--choices", "black,brown").out in ("black\n", "brown\n")


@pytest.mark.parametrize("choices", ["", "red", "red,", "red,red", "Red., red"])
def test_what_is_no_choice_is_misuse(choices: str) -> None:
    assert run("ask", "what?", "--choices", choices).code == 2

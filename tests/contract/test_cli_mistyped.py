"""What newcomers type: foreign flags, missing quotes, pictures in the wrong place; and what is said once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import mmgen
from mmgen.files import cache_folder, said_lately
from tests.support.scripted import Scripted, install, run


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    monkeypatch.chdir(tmp_path)
    return install(monkeypatch)


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ("draw a --cfg 3", "no such option: --cfg", "--guidance"),
        ("draw a --steps 3", "no such option: --steps", "there are no steps"),
        ("draw a --size 512", "no such option: --size", "the model says how large"),
        ("draw a --count 3", "no such option: --count", "-n N"),
        ("draw a --num-images 3", "no such option: --num-images", "-n N"),
        ("draw a --negative b", "no such option: --negative", "--negative-prompt"),
        ("ask cat.png what?", "a picture stands beside the question", "pictures go after --image"),
        ("ask what? cat.png", "a picture stands beside the question", "pictures go after --image"),
        ("ask what color is it", "the question is several words", "quote it"),
        ("draw a --temperature warm", "--temperature warm is not a number", "see mmgen draw --help"),
        ("draw a --seed=1.5", "--seed 1.5 is not a whole number", "see mmgen draw --help"),
        ("draw a -nx", "-n x is not a whole number", "see mmgen draw --help"),
        ("draw a --dtype int3", "--dtype int3 is unknown", "one of auto, bfloat16, float16, float32"),
        ("drew a", "no such command 'drew'. Did you mean 'draw'?", "see mmgen --help"),
        ("help drew", "no such command: drew", "one of caption, ask, draw"),
    ],
)
def test_what_is_meant_is_said(model: Scripted, words: str, error: str, hint: str) -> None:
    result = run(*words.split())
    first, second = result.err.splitlines()
    assert (result.code, result.out) == (2, "")
    assert first.startswith(f"error: {error}")
    assert second.startswith(f"hint: {hint}")
    assert not model.opened


def test_a_variable_of_the_environment_is_named(model: Scripted) -> None:
    assert run("draw", "a", MMGEN_GUIDANCE="much").err.splitlines()[0] == "error: MMGEN_GUIDANCE much is not a number"


def test_prompts_of_one_word_each_are_drawn_with_a_note(model: Scripted) -> None:
    result = run("draw", "a", "red", "cat", "--seed", "7")
    assert result.out == "a-7.png\nred-7.png\ncat-7.png\n"
    assert result.err.splitlines()[0].endswith('quote them: "a red cat"')
    assert "quote" not in run("draw", "a red cat", "a dog", "--seed", "7").err
    assert "quote" not in run("draw", "snowman", "--seed", "7").err


def test_help_and_version_go_by_several_names(model: Scripted) -> None:
    assert run("-V").out == run("--version").out == f"mmgen {mmgen.__version__}\n"
    assert run("help", "draw").out == run("draw", "--help").out
    assert run("help").out == run("--help").out


def test_the_note_of_a_model_is_said_once_an_hour(model: Scripted) -> None:
    model.note = "small and built in"
    assert [run("draw", "a", "--seed", str(seed)).err.count("note: small") for seed in (1, 2)] == [1, 0]
    [stamp] = cache_folder().iterdir()
    before = time.time() - 3601
    os.utime(stamp, (before, before))
    assert run("draw", "a", "--seed", "3").err.count("note: small") == 1


def test_a_note_is_said_each_time_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MMGEN_CACHE", str(tmp_path / "file"))
    assert [said_lately("a"), said_lately("a")] == [False, False]

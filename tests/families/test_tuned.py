"""A model that is tuned to its processor draws what one draws that is not; tuned once, it is so the next time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

import mmgen
from mmgen import tasks
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.families.in_memory import in_threads
from mmgen.request import ImageSampling, Loading, Picture, Request
from tests.support.every_family import DRAWING, FAMILIES
from tests.support.near_ties import assert_same, chosen
from tests.support.opening import opened


def load() -> AutoregressiveModel:
    model = mmgen.load("demo", loading=Loading(dtype="float32"))
    assert isinstance(model, AutoregressiveModel)
    return model


def drawn(model: AutoregressiveModel, requests: list[Request]) -> list[Picture]:
    found = {index: piece for index, piece in model.replies(requests) if isinstance(piece, Picture)}
    return [found[index] for index in range(len(requests))]


@pytest.fixture
def requests() -> list[Request]:
    sampling = ImageSampling(guidance=2)
    return [tasks.draw(prompt, image=sampling, seed=7) for prompt in ("a snowman", "a red cat", "a blue house")]


def test_tuned_models_choose_the_same_codes_and_the_same_each_time(
    monkeypatch: pytest.MonkeyPatch, requests: list[Request], caplog: pytest.LogCaptureFixture
) -> None:
    plain = load()
    before = drawn(plain, requests)
    caplog.set_level(logging.INFO, "mmgen")
    monkeypatch.delenv("MMGEN_TUNE")
    first = drawn(load(), requests)
    said = [message for message in caplog.messages if "as measured on this processor" in message]
    assert {message.partition(", as measured")[0] for message in said} >= {
        "threads, lanes, threads alone, microseconds of passes"
    }
    again = drawn(load(), requests)
    assert [each.image.tobytes() for each in again] == [each.image.tobytes() for each in first]
    assert [message for message in caplog.messages if "as measured" in message] == 2 * said
    alone = [chosen(plain, request, one.codes or ()) for request, one in zip(requests, before, strict=True)]
    assert_same(alone, [picture.codes or () for picture in first])


@pytest.mark.parametrize("family", DRAWING)
def test_every_drawing_family_can_be_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    monkeypatch.delenv("MMGEN_TUNE")
    folder = FAMILIES[family].make(tmp_path / "model")
    model = opened(folder, Loading(dtype="float32"))
    [picture] = drawn(model, [tasks.draw("a cat", seed=3)])
    assert picture.codes


def test_pixels_are_the_same_in_any_number_of_threads_and_lanes(requests: list[Request]) -> None:
    found: list[tuple[Sequence[int] | None, bytes]] = []
    with in_threads(2):
        model = load()
        for model.n_threads, model.n_lanes in ((0, 0), (1, 0), (1, 2)):
            found += [(each.codes, each.image.tobytes()) for each in drawn(model, requests)]
    pixels = dict(found)
    assert all(pixels[codes] == bytes_ for codes, bytes_ in found)

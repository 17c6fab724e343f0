"""What mmgen promises of model types is what its tests run, and what transformers lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from mmgen import families
from mmgen.checkpoints import catalog
from mmgen.errors import MmgenError
from mmgen.families.standing import OTHERS, PACKAGES, TESTED, UNASKED, standing
from mmgen.request import Loading
from tests.families.test_captioner import SNIPPETS
from tests.support.every_family import FAMILIES
from tests.support.many_types import CHATS, build, row
from tests.support.scripted import run
from tools import models_table

LISTED = set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)


def test_what_is_called_tested_is_what_the_tests_run() -> None:
    assert {*FAMILIES, *(row(name)["config"]["model_type"] for name in [*CHATS, *SNIPPETS])} == TESTED
    assert len(TESTED & LISTED) >= 30


def test_no_type_has_two_standings() -> None:
    assert not TESTED & PACKAGES.keys()
    assert not TESTED & OTHERS.keys()
    assert not PACKAGES.keys() & OTHERS.keys()
    assert not UNASKED & (TESTED | PACKAGES.keys() | OTHERS.keys())
    assert PACKAGES.keys() | OTHERS.keys() | UNASKED <= LISTED


def test_types_whose_images_only_torchvision_prepares_say_so() -> None:
    kinds = {name: IMAGE_PROCESSOR_MAPPING_NAMES.get(name, {"pil": "?"}) for name in LISTED}
    only = {name for name, kind in kinds.items() if not kind.get("pil")}
    assert only <= PACKAGES.keys() | OTHERS.keys()


def test_the_page_is_up_to_date() -> None:
    assert models_table.PAGE.read_text() == models_table.text(), "python -m tools.models_table writes it anew"


@pytest.mark.parametrize("model_type", OTHERS)
def test_what_is_no_chat_about_pictures_is_refused_by_name(tmp_path: Path, model_type: str) -> None:
    folder = build("llava", tmp_path / "llava")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": model_type}))
    with pytest.raises(MmgenError, match=OTHERS[model_type]):
        families.open_model(catalog.find(str(folder)), Loading())


@pytest.mark.parametrize("name", ["llava", "kosmos2"])
def test_models_says_what_is_known_of_a_type(tmp_path: Path, name: str) -> None:
    result = run("models", str(build(name, tmp_path / name)), "--device-map", "cpu")
    assert result.code == 0
    assert standing(row(name)["config"]["model_type"]) in result.out


@pytest.mark.parametrize(
    ("name", "can"), [("pix2struct", "caption"), ("git", "caption, ask"), ("llava", "caption, ask")]
)
def test_models_says_whether_a_model_takes_questions(tmp_path: Path, name: str, can: str) -> None:
    out = run("models", str(build(name, tmp_path / name)), "--device-map", "cpu").out
    assert [line.split(maxsplit=1)[1] for line in out.splitlines() if line.startswith("can:")] == [can]

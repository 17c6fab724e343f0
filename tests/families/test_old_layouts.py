"""Checkpoints as older versions of transformers wrote them, and with less in them: they answer the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from mmgen import tasks
from mmgen.errors import MmgenError
from mmgen.request import Loading, TextSampling
from tests.support.many_types import PICTURES, QUESTION, build, row
from tests.support.opening import opened
from tests.support.replies import said


def read(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.read_text())
    return found


def template_in_json(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))


def template_of_the_tokenizer(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(read(config) | {"chat_template": template}))


def image_processor_apart(folder: Path) -> None:
    """In a file of its own; of the other nothing stays but numbers that the processor needs, where it needs any."""
    processor = read(folder / "processor_config.json")
    images, name = processor.pop("image_processor"), processor.pop("processor_class")
    assert isinstance(images, dict)
    (folder / "preprocessor_config.json").write_text(json.dumps(images | {"processor_class": name}))
    processor.pop("video_processor", None)
    if processor:
        (folder / "processor_config.json").write_text(json.dumps(processor))
    else:
        (folder / "processor_config.json").unlink()


def generation_config_without_fields(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{}")
    config = folder / "config.json"
    config.write_text(json.dumps(read(config) | {"eos_token_id": row(folder.name)["generation"]["eos_token_id"]}))


@pytest.mark.parametrize("name", ["qwen2_vl", "llava_next", "internvl"])
@pytest.mark.parametrize(
    "older", [template_in_json, template_of_the_tokenizer, image_processor_apart, generation_config_without_fields]
)
def test_an_older_layout_answers_the_same(tmp_path: Path, name: str, older: Callable[[Path], None]) -> None:
    asked = [tasks.ask(QUESTION, PICTURES[case], text=TextSampling(max_tokens=10), seed=0) for case in ("one", "two")]
    folder = build(name, tmp_path / name)
    loading = Loading(dtype="float32", device_map="cpu")
    before = said(opened(folder, loading), asked)
    older(folder)
    model = opened(folder, loading)
    model.model.generation_config.eos_token_id = row(name)["generation"]["eos_token_id"]
    if older is generation_config_without_fields:  # a penalty stands in that file, too
        model.model.generation_config.repetition_penalty = row(name)["generation"].get("repetition_penalty")
    assert said(model, asked) == before


def test_a_package_that_a_vision_tower_needs_is_named_before_weights_are_read(tmp_path: Path) -> None:
    folder = build("llava", tmp_path / "llava")
    config = folder / "config.json"
    tower = {"model_type": "timm_wrapper", "architecture": "resnet18"}
    config.write_text(json.dumps(read(config) | {"vision_config": tower}))
    with pytest.raises(MmgenError, match="requires the timm library") as raised:
        opened(folder)
    torch_version = version("torch")
    assert raised.value.hint.startswith(f"pip install timm torchvision torch=={torch_version}")  # torch stays as it is

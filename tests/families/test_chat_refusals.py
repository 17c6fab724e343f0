"""What checkpoints with a chat template refuse, and when: before the weights are read, where that can be."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoProcessor, Idefics3Processor

from mmgen import tasks
from mmgen.errors import MmgenError
from mmgen.families import chat
from mmgen.families.chat import Chat
from mmgen.request import Request, Turn
from tests.support.chat_checkpoints import MAKERS
from tests.support.chat_replies import SHORT, copied, gathered, image, opened


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


@pytest.fixture(scope="module", params=list(MAKERS))
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


@pytest.fixture(scope="module")
def model(folder: Path) -> Chat:
    return opened(folder)


def refusal(folder: Path, *requests: Request) -> MmgenError:
    with pytest.raises(MmgenError) as caught:
        opened(folder, *requests)
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


def without_weights(folder: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy a checkpoint and make sure that its weights are never read."""
    monkeypatch.setattr(chat, "load_model", lambda *_, **__: pytest.fail("the weights were read"))
    return copied(folder, new)


def test_another_kind_of_model_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    error = refusal(copied(folders["mllama"], tmp_path / "new", model_type="bert"))
    assert 'of model type "bert", which mmgen does not know' in error.message


def test_drawing_is_refused_before_torch_is_imported(folders: dict[str, Path]) -> None:
    code = (
        "import sys; from mmgen.errors import MmgenError; from tests.support.opening import opened\n"
        f"try: opened({str(folders['mllama'])!r}, want=frozenset(['image']))\n"
        "except MmgenError as error: print(error.message, '|', error.hint, '|', 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    refused, hint, with_torch = done.stdout.split(" | ")
    assert "cannot draw" in refused
    assert "-m demo" in hint
    assert with_torch == "False\n"


def test_pictures_that_are_too_many_are_refused_before_the_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = MAKERS["idefics3"](tmp_path / "short", positions=100)
    unread = without_weights(short, tmp_path / "new", monkeypatch)
    assert "tokens too long" in refusal(unread, tasks.ask("what are they?", [image(i) for i in range(5)])).message


def test_control_tokens_that_a_user_types_are_refused(
    folder: Path, model: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = model.prompter.tokenizer
    unread = without_weights(folder, tmp_path / "new", monkeypatch)
    for token in {*tokenizer.all_special_tokens, AutoProcessor.from_pretrained(folder).image_token}:
        error = refusal(unread, tasks.ask(f"what is {token}?"))
        assert f"the prompt says {token}, which is a control token" in error.message
    earlier = replace(tasks.ask("hi"), history=(Turn("user", (tokenizer.bos_token,)),))
    assert "control token" in refusal(unread, earlier).message


def test_an_earlier_answer_may_hold_a_control_token(model: Chat) -> None:
    answer = f"It ends with {model.prompter.tokenizer.eos_token} then."  # as some checkpoints spell it in their answers
    request = replace(tasks.ask("hi", text=SHORT), history=(Turn("user", ("why?",)), Turn("assistant", (answer,))))
    assert isinstance(gathered(model, [request])[0], str)


def test_a_template_that_refuses_a_conversation_is_quoted(folders: dict[str, Path], tmp_path: Path) -> None:
    strict = copied(folders["gemma3"], tmp_path / "new")
    (strict / "chat_template.jinja").write_text("{{ raise_exception('one turn only') }}")
    assert "one turn only" in refusal(strict, tasks.ask("hi")).message


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (
            ImportError("SmolVLMVideoProcessor requires the Torchvision library but it was not found"),
            f"pip install torchvision torch=={version('torch')}",  # which leaves torch as it is
        ),
        (
            ValueError("Llama4ImageProcessor requires `torchvision` to be installed."),
            f"pip install torchvision torch=={version('torch')}",
        ),
        (ImportError("Package `num2words` is required to run SmolVLM processor."), "pip install num2words"),
    ],
)
def test_a_package_that_a_processor_needs_is_named(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, error: Exception, command: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Idefics3Processor, "from_pretrained", fail)
    found = refusal(folders["idefics3"])
    assert f"needs the package {command.split()[2]}" in found.message
    assert found.hint.partition(" --index-url ")[0] == command


def test_a_checkpoint_without_a_processor_is_refused(folder: Path, tmp_path: Path) -> None:
    error = refusal(copied(folder, tmp_path / "new", without="processor_config.json"))
    assert "nothing to prepare pictures with" in error.message


def test_a_config_that_does_not_fit_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    config = json.loads((folders["idefics3"] / "config.json").read_text())
    wide = config["text_config"] | {"hidden_size": "wide"}
    assert "hidden_size" in refusal(copied(folders["idefics3"], tmp_path / "new", text_config=wide)).message


def test_a_tensor_that_is_missing_is_never_random(folders: dict[str, Path], tmp_path: Path) -> None:
    config = json.loads((folders["idefics3"] / "config.json").read_text())
    deeper = config["text_config"] | {"num_hidden_layers": 3}
    assert "lacks 9 tensor(s)" in refusal(copied(folders["idefics3"], tmp_path / "new", text_config=deeper)).message


def test_no_code_of_a_checkpoint_is_run(folders: dict[str, Path], tmp_path: Path) -> None:
    auto_map = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoProcessor": "evil.Processor"}
    evil = copied(folders["gemma3"], tmp_path / "new", auto_map=auto_map)
    (evil / "evil.py").write_text("raise SystemExit('ran')")
    processor = json.loads((evil / "processor_config.json").read_text()) | {"auto_map": auto_map}
    (evil / "processor_config.json").write_text(json.dumps(processor))
    assert isinstance(gathered(opened(evil), [tasks.ask("hi", text=SHORT)])[0], str)

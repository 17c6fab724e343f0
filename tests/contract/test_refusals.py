"""Every way in which a checkpoint can be wrong: one line, one hint, exit 1, nothing on stdout, and no code run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.support.chat_checkpoints import MAKERS
from tests.support.checkpoints import make_checkpoint
from tests.support.drawing_checkpoints import make_emu3, make_janus
from tests.support.scripted import run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "whole")


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "sharded", n_shards=2)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def refusal(name: str | Path, *flags: str) -> str:
    """Ask a model that cannot be opened; return what is said on stderr."""
    result = run("ask", "hello", "-m", str(name), "--max-tokens", "1", *flags)
    assert (result.code, result.out) == (1, "")
    assert [line.partition(":")[0] for line in result.err.splitlines()] == ["error", "hint"]
    return result.err


def configure(**changes: Any) -> Callable[[Path], None]:
    """Change the config; None takes an entry out."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    return change


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: void((folder / name).write_text(text))


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut(n_bytes: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / "model.safetensors", n_bytes)


def reshape(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Change the stored tensors."""

    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def void(_: object) -> None:
    return None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("photos/model", "photos/model is not on this machine"),  # a relative path, or a Hub id
        ("./photos/model", "no such folder: photos/model"),
        ("/nowhere/model", "no such folder: /nowhere/model"),
        ("model", "unknown model: model"),
        ("", "unknown model: (empty)"),
        ("org/na me", "unknown model: org/na me"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refusal(name, "--offline")


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (remove("config.json"), "has no config.json"),
    "no model type": (configure(model_type=None), "names no model_type"),
    "unknown type": (configure(model_type="nonesuch"), 'model type "nonesuch", which mmgen does not know'),
    "unknown type with code": (
        configure(model_type="nonesuch", auto_map={"AutoModelForImageTextToText": "evil.Model"}),
        'model type "nonesuch", which mmgen does not know',
    ),
    "broken config": (write("config.json", "{"), "config.json is not valid JSON"),
    "binary config": (write("config.json", "\0\xff"), "config.json is not valid JSON"),
    "broken companion": (write("generation_config.json", "{"), "generation_config.json is not valid JSON"),
    "list for a companion": (write("processor_config.json", "[]"), "processor_config.json holds no JSON object"),
    "word for a width": (configure(hidden_size="wide"), "hidden_size"),
    "width that heads do not divide": (configure(num_attention_heads=3), "config.json of"),
    "no vocabulary map": (configure(vocabulary_map=None), "no vocabulary_map"),
    "list for a vocabulary map": (configure(vocabulary_map=[]), "no vocabulary_map"),
    "word for another width": (configure(intermediate_size="wide"), "intermediate_size"),
    "no codec": (configure(vq_config=None), ""),
    "word for a codec": (configure(vq_config="none"), "vq_config cannot be 'none'"),
    "word for a length": (configure(max_position_embeddings="long"), "max_position_embeddings cannot be 'long'"),
    "no weights": (remove("model.safetensors"), "no model.safetensors"),
    "empty weights": (cut(0), "truncated"),
    "cut weights": (cut(1000), "truncated"),
    "lfs pointer": (write("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "a tensor too few": (
        reshape(lambda tensors: tensors.pop("model.norm.weight")),
        "lacks 1 tensor(s), model.norm.weight first",
    ),
    "a tensor misshapen": (
        reshape(lambda tensors: tensors.update({"model.norm.weight": torch.zeros(3)})),
        "1 tensor(s) of another shape: model.norm.weight, (3,)",
    ),
    "a tensor too many": (reshape(lambda tensors: tensors.update({"model.extra": torch.zeros(3)})), "model.extra"),
    "no tokenizer": (remove("tokenizer.json"), "no tokenizer.json"),
    "empty tokenizer": (write("tokenizer.json", ""), "empty, cut off, or no tokenizer"),
    "tokenizer of nothing": (write("tokenizer.json", "{}"), "tokenizer.json is no tokenizer"),
    "tokenizer of no kind": (write("tokenizer.json", '{"model": {}}'), "tokenizer.json is no tokenizer"),
    "tokenizer without words": (
        write("tokenizer.json", '{"model": {"type": "BPE", "vocab": {}, "merges": []}}'),
        "has no words in it",
    ),
    "no processor": (remove("processor_config.json"), "nothing to prepare pictures with"),
    "processor of nothing": (write("processor_config.json", "{}"), "nothing to prepare pictures with"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_folder_that_is_no_whole_checkpoint(folder: Path, case: str) -> None:
    spoil, said = SPOILT[case]
    spoil(folder)
    assert said in refusal(folder)


# --- the same of other families, whose own readers come first ------------------------------------------------------


def configure_text(**changes: Any) -> Callable[[Path], None]:
    """Change the part of a config that is about words."""

    def change(folder: Path) -> None:
        text = json.loads((folder / "config.json").read_text())["text_config"]
        configure(text_config=text | changes)(folder)

    return change


def shrink(tensors: dict[str, torch.Tensor]) -> None:
    name = sorted(tensors)[0]
    tensors[name] = torch.zeros(3)


ROWS: dict[str, tuple[Callable[[Path], None], str]] = {  # as in SPOILT, by what goes wrong in transformers
    "no config": (remove("config.json"), "has no config.json"),
    "no model type": (configure(model_type=None), "names no model_type"),
    "broken config": (write("config.json", "{"), "config.json is not valid JSON"),
    "word for a width": (configure_text(intermediate_size="wide"), "intermediate_size"),
    "code": (
        configure(model_type="nonesuch", auto_map={"AutoModelForImageTextToText": "evil.Model"}),
        'model type "nonesuch", which mmgen does not know',
    ),
    "no weights": (remove("model.safetensors"), "no model.safetensors"),
    "cut weights": (cut(1000), "truncated"),
    "empty weights": (cut(0), "truncated"),
    "lfs pointer": (write("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "a tensor too few": (reshape(lambda tensors: tensors.pop(sorted(tensors)[0])), "lacks 1 tensor(s)"),
    "a tensor misshapen": (reshape(shrink), "1 tensor(s) of another shape"),
    "a tensor too many": (reshape(lambda tensors: tensors.update(extra=torch.zeros(3))), "extra"),
    "no tokenizer": (remove("tokenizer.json"), "no tokenizer.json"),
    "tokenizer of nothing": (write("tokenizer.json", "{}"), "tokenizer.json is no tokenizer"),
    "no processor": (remove("processor_config.json"), "nothing to prepare pictures with"),
    "no template": (remove("chat_template.jinja"), "no chat template"),
}
OTHERS: dict[str, Callable[[Path], Path]] = {**MAKERS, "janus": make_janus, "emu3": make_emu3}


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: make(tmp_path_factory.mktemp(family)) for family, make in OTHERS.items()}


@pytest.mark.parametrize("case", ROWS)
@pytest.mark.parametrize("family", OTHERS)
def test_a_folder_of_another_family_that_is_no_whole_checkpoint(
    others: dict[str, Path], tmp_path: Path, family: str, case: str
) -> None:
    folder = Path(shutil.copytree(others[family], tmp_path / "model"))
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    spoil, said = ROWS[case]
    spoil(folder)
    # With a picture, because a model of words alone, where there is one, leaves what is stored for pictures lying.
    assert said in refusal(folder, "--image", str(tmp_path / "a.png"))


# --- what is spread over files, and what this machine lacks --------------------------------------------------------


def test_a_shard_that_is_missing(sharded: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sharded, tmp_path / "model"))
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors is missing" in refusal(folder)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--device-map cuda", "no CUDA device"),
        ("--device-map cuda:9", "device"),
        ("--device-map none.json", "none.json"),
        ("--attn flash_attention_2", "flash_attention_2"),
        ("--dtype float16", "float16"),
    ],
)
def test_what_this_machine_or_model_cannot(whole: Path, flags: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert said in refusal(whole, *flags.split())


# --- pickles ------------------------------------------------------------------------------------------------------


class Evil:
    """Leaves a trace if it is ever unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "adapter_model.bin"])
def test_a_planted_pickle_is_never_opened(folder: Path, tmp_path: Path, name: str) -> None:
    trace = tmp_path / "trace"
    (folder / name).write_bytes(pickle.dumps(Evil(trace)))
    assert run("ask", "hello", "-m", str(folder), "--max-tokens", "1").code == 0
    (folder / "model.safetensors").unlink()
    assert f"only pickled weights ({name})" in refusal(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
    assert f"names {name}, which is no safetensors file" in refusal(folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil(trace)))
    assert "truncated, or has a broken safetensors header" in refusal(folder)
    assert not trace.exists()


_WATCHED = """
import sys
from pathlib import Path
from mmgen.cli import main
planted, opened = set(sys.argv[2:]), []
def watch(event, given):
    if event == "open" and Path(str(given[0])).name in planted:
        opened.append(given[0])
sys.addaudithook(watch)
code = main(["ask", "hello", "-m", sys.argv[1], "--max-tokens", "1"])
assert not opened
sys.exit(code)
"""


@pytest.mark.parametrize("family", ["chameleon", "idefics2"])
def test_a_planted_pickle_is_not_so_much_as_opened(
    whole: Path, others: dict[str, Path], tmp_path: Path, family: str
) -> None:
    folder = Path(shutil.copytree(others.get(family, whole), tmp_path / "model"))
    trace = tmp_path / "trace"
    names = ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "tokenizer.pkl", "training_args.bin", "x.ckpt"]
    for name in names:
        (folder / name).write_bytes(pickle.dumps(Evil(trace)))
    for code, shown in ((0, ""), (1, "only pickled weights")):
        command = [sys.executable, "-c", _WATCHED, str(folder), *names]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == code, done.stderr
        assert shown in done.stderr
        assert bool(done.stdout) == (code == 0)
        (folder / "model.safetensors").unlink(missing_ok=True)
    assert not trace.exists()


def test_no_code_of_a_checkpoint_is_run(folder: Path) -> None:
    configure(auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})(folder)
    for name in ("processor_config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        content["auto_map"] = {"AutoProcessor": "evil.Processor", "AutoTokenizer": ["evil.Tokenizer", None]}
        (folder / name).write_text(json.dumps(content))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    assert run("ask", "hello", "-m", str(folder), "--max-tokens", "1").code == 0

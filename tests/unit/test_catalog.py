"""Names to checkpoints: folders good and bad, aliases, and a Hub on this machine."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from mmgen.checkpoints import aliases, catalog
from mmgen.errors import MmgenError, UsageError
from tests.support.checkpoints import make_checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "whole")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def refusal(name: str | Path) -> MmgenError:
    """Return the error of a name that is refused; it has one line, and a hint."""
    with pytest.raises(MmgenError) as caught:
        catalog.find(str(name))
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


def test_a_folder_tells_its_type_tensors_and_size(whole: Path) -> None:
    found = catalog.find(str(whole))
    assert (found.name, found.folder, found.revision, found.note) == (str(whole), whole, None, None)
    assert found.model_type == "chameleon"
    assert found.tensors["lm_head.weight"].shape == [found.config["vocab_size"], 64]
    assert found.tensors["lm_head.weight"].dtype == "F32"
    assert "model.vqmodel.decoder.conv_in.weight" in found.tensors
    assert 0 < (whole / "model.safetensors").stat().st_size - found.n_bytes < 100_000  # the header


def test_shards_are_read_through_their_index(whole: Path, tmp_path: Path) -> None:
    sharded, one = (catalog.find(str(each)) for each in (make_checkpoint(tmp_path / "sharded", n_shards=3), whole))
    assert sharded.n_bytes == one.n_bytes
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in sharded.tensors.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in one.tensors.items()
    }


def test_a_folder_is_found_within_fifty_milliseconds(whole: Path) -> None:
    start = time.perf_counter()
    catalog.find(str(whole))
    assert time.perf_counter() - start < 0.05


def test_a_checkpoint_never_prints_its_config(whole: Path) -> None:
    assert len(repr(catalog.find(str(whole)))) < 500


@pytest.mark.parametrize(
    ("front", "note"),
    [
        ("---\nlicense: mit\nmmgen_note: draws cartoons\n---\n# Card\n", "draws cartoons"),
        ('---\nmmgen_note: "a: b, it\'s"\n---\n', "a: b, it's"),
        ("---\nlicense: mit\n---\nmmgen_note: not in the front matter\n", None),
        ("# Card\n\nmmgen_note: no\n", None),
        ("---\nmmgen_note: >\n  draws\n  cartoons\n---\n", "draws cartoons"),
        ("---\nmmgen_note: [1]\n---\n", None),
        ("---\nmmgen_note: a: b\n---\n", None),
        ("---\n- mmgen_note\n---\n", None),
        ("---\nmmgen_note: \xff\n---\n", None),
        ("---\n---\n", None),
        ("", None),
    ],
)
def test_the_note_comes_from_the_front_matter(folder: Path, front: str, note: str | None) -> None:
    (folder / "README.md").write_text(front, "latin-1")
    assert catalog.find(str(folder)).note == note


def test_an_alias_names_the_builtin_model() -> None:
    assert aliases.ALIASES[aliases.DEFAULT].target == Path(catalog.__file__).parent / "demo"


def test_an_existing_folder_may_have_a_plain_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert catalog.find("model").model_type == "chameleon"


def test_an_unknown_word_gets_the_closest_alias() -> None:
    error = refusal("anole7b")
    assert "unknown model: anole7b" in error.message
    assert "did you mean anole-7b?" in error.hint
    assert all(alias in refusal("x").hint for alias in aliases.ALIASES)
    assert "unknown model" in refusal("long" * 100).message
    assert "unknown model: (empty)" in refusal("").message


@pytest.mark.parametrize(
    "name",
    ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "~nobody-here/x", "./" + "long" * 100, "a/b/c", "nowhere/"],
)
def test_what_looks_like_a_path_is_never_looked_up_on_the_hub(name: str) -> None:
    assert "no such folder" in refusal(name).message


def test_a_folder_has_no_revisions(whole: Path) -> None:
    with pytest.raises(UsageError, match="no revision v1"):
        catalog.find(str(whole), revision="v1")


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    assert "has no config.json" in refusal(tmp_path).message


def test_a_file_is_refused(whole: Path) -> None:
    assert "not a checkpoint folder but a file" in refusal(whole / "model.safetensors").message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "no JSON object"),
        ("{}", "no model_type"),
        ('{"model_type": 3}', "no model_type"),
    ],
)
def test_a_broken_config_is_refused(folder: Path, text: str, said: str) -> None:
    (folder / "config.json").write_text(text)
    assert said in refusal(folder).message


def test_a_missing_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert "no tokenizer.json" in refusal(folder).message


@pytest.mark.parametrize("text", ["", "  ", '{"model": {"vocab": {"a"', "version https://git-lfs.github.com/spec/v1\n"])
def test_an_empty_or_broken_tokenizer_is_refused(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(MmgenError, match="is no tokenizer") as caught:
        catalog.check_tokenizer(catalog.find(str(folder)))
    assert "empty, cut off" in caught.value.hint


def test_a_missing_processor_is_refused(folder: Path) -> None:
    (folder / "processor_config.json").unlink()
    assert "nothing to prepare pictures with" in refusal(folder).message


@pytest.mark.parametrize("name", ["generation_config.json", "processor_config.json", "tokenizer_config.json"])
def test_a_broken_companion_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text('{"a": ')
    assert f"{name} is not valid JSON" in refusal(folder).message


@pytest.mark.parametrize("file", ["../elsewhere.safetensors", "/etc/passwd", "pytorch_model.bin", 3])
def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path, file: object) -> None:
    folder = make_checkpoint(tmp_path / "sharded", n_shards=2)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": file}}))
    assert f"names {file}, which is no safetensors file beside it" in refusal(folder).message


def test_a_header_with_gaps_is_refused(folder: Path) -> None:
    header = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}'
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert "broken safetensors header" in refusal(folder).message


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no model.safetensors" in refusal(folder).message


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "only pickled weights (pytorch_model.bin)" in refusal(folder).message


@pytest.mark.parametrize("n_bytes", [0, 7, 100, -1])
def test_truncated_weights_are_refused(folder: Path, n_bytes: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:n_bytes])
    assert "truncated" in refusal(folder).message


def test_a_git_lfs_pointer_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "git lfs pull" in refusal(folder).hint


@pytest.mark.parametrize("header", [b"{}}", b"[1]", b'{"a": {"dtype": "F32"}}', b'{"a": 1}', b"\xff\xff"])
def test_a_broken_header_is_refused(folder: Path, header: bytes) -> None:
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "broken safetensors header" in refusal(folder).message


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "sharded", n_shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors is missing" in refusal(folder).message

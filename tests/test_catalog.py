"""Names to checkpoints: folders good and bad, aliases, and a Hub on this machine."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from mmgen import catalog
from mmgen.errors import MmgenError, UsageError
from tests.checkpoints import make_checkpoint
from tests.hub import COMMIT, Hub, serve


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
    assert found.tensors["lm_head.weight"].shape == (found.config["vocab_size"], 64)
    assert found.tensors["lm_head.weight"].dtype == "F32"
    assert "model.vqmodel.decoder.conv_in.weight" in found.tensors
    assert 0 < (whole / "model.safetensors").stat().st_size - found.n_bytes < 100_000  # the header


def test_shards_are_read_through_their_index(whole: Path, tmp_path: Path) -> None:
    sharded = catalog.find(str(make_checkpoint(tmp_path / "sharded", n_shards=3)))
    assert sharded.tensors == catalog.find(str(whole)).tensors


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
        ("", None),
    ],
)
def test_the_note_comes_from_the_front_matter(folder: Path, front: str, note: str | None) -> None:
    (folder / "README.md").write_text(front)
    assert catalog.find(str(folder)).note == note


def test_an_alias_names_the_builtin_model() -> None:
    assert catalog.ALIASES[catalog.DEFAULT] == Path(catalog.__file__).parent / "checkpoints" / "demo"


def test_an_existing_folder_may_have_a_plain_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert catalog.find("model").model_type == "chameleon"


def test_an_unknown_word_gets_the_closest_alias() -> None:
    error = refusal("anole7b")
    assert "unknown model: anole7b" in error.message
    assert "did you mean anole-7b?" in error.hint
    assert all(alias in refusal("x").hint for alias in catalog.ALIASES)
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


def test_an_index_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "sharded", n_shards=2)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.extra"] = "model-00001-of-00002.safetensors"
    path.write_text(json.dumps(index))
    assert "model.extra" in refusal(folder).message


# --- the Hub: in a process of its own, because huggingface_hub reads its environment once ---------------------------

_FIND = """
import json, sys
from mmgen import catalog
from mmgen.errors import MmgenError
try:
    found = catalog.find(sys.argv[1], **json.loads(sys.argv[2]))
except MmgenError as error:
    print(json.dumps([error.message, error.hint]))
else:
    print(json.dumps([found.model_type, found.revision, sorted(p.name for p in found.folder.iterdir())]))
"""


@pytest.fixture
def hub(folder: Path) -> Iterator[Hub]:
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    (folder / "README.md").write_text("# Card\n")
    with serve(folder) as running:
        yield running


def find_on(hub: Hub | str, home: Path, name: str = "org/tiny", **arguments: object) -> list[str]:
    """Run `catalog.find` against a Hub; return what it found, or the message and the hint."""
    url = hub if isinstance(hub, str) else hub.url
    environment = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _FIND, name, json.dumps(arguments)],
        env={k: v for k, v in os.environ.items() if not k.startswith("HF_")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return list(json.loads(done.stdout))


def test_a_hub_id_is_fetched_without_pickles_and_resolved_to_a_commit(hub: Hub, tmp_path: Path) -> None:
    model_type, revision, files = find_on(hub, tmp_path)
    assert (model_type, revision) == ("chameleon", COMMIT)
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(files)
    assert "pytorch_model.bin" not in files


def test_what_was_fetched_is_found_offline_without_a_request(hub: Hub, tmp_path: Path) -> None:
    online = find_on(hub, tmp_path)
    hub.requested.clear()
    assert find_on(hub, tmp_path, offline=True) == online
    assert not hub.requested


def test_offline_and_never_fetched_is_refused(hub: Hub, tmp_path: Path) -> None:
    message, hint = find_on(hub, tmp_path, offline=True)
    assert "not on this machine" in message
    assert "network on" in hint
    assert not hub.requested


def test_an_unreachable_hub_is_refused(tmp_path: Path) -> None:
    message, hint = find_on("http://127.0.0.1:9", tmp_path)
    assert "cannot reach the Hub for org/tiny" in message
    assert "--offline" in hint


def test_a_repository_that_does_not_exist_is_refused(hub: Hub, tmp_path: Path) -> None:
    message, _ = find_on(hub, tmp_path, name="org/other")
    assert "no model org/other on the Hub" in message


def test_a_revision_that_does_not_exist_is_refused(hub: Hub, tmp_path: Path) -> None:
    message, _ = find_on(hub, tmp_path, revision="v9")
    assert "org/tiny has no revision v9" in message


def test_a_gated_repository_says_where_to_ask(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    message, hint = find_on(hub, tmp_path)
    assert "gated" in message
    assert f"{hub.url}/org/tiny" in hint
    assert "hf auth login" in hint


def test_a_cache_that_cannot_be_written_is_refused(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    message, hint = find_on(hub, tmp_path / "file")
    assert "cannot write" in message
    assert "HF_HOME" in hint


def test_a_download_that_breaks_off_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.cut = True
    message, hint = find_on(hub, tmp_path)
    assert "fetching org/tiny failed" in message
    assert "goes on where it stopped" in hint


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fill)
    error = refusal("org/tiny")
    assert "the disk is full" in error.message
    assert "HF_HOME" in error.hint

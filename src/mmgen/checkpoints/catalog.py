"""From a model's name to a checkpoint: a folder, its config, and the names and shapes of its tensors.

Reads no weights and imports no torch, so that what cannot work is refused at once. Knows no family.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.checkpoints import hub
from mmgen.checkpoints.aliases import ALIASES
from mmgen.checkpoints.headers import read_header, stored_bytes
from mmgen.errors import MmgenError, UsageError, first_line

if TYPE_CHECKING:
    from huggingface_hub.utils import TensorInfo

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PROCESSOR = "processor_config.json"
_SMALL_JSON = (  # what transformers reads beside config.json; tokenizer.json is large, and is looked at by its ends
    "generation_config.json",
    _PROCESSOR,
    "preprocessor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.json",
)
_SECTIONS = ("text_config", "vision_config", "vq_config", "quantization_config")  # of a config: never words
_NUMBERS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "num_image_tokens",
)
_MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A model that has passed the checks which need no weights.

    Attributes:
        name: what the user called it.
        folder: where its files are.
        revision: the Hub's commit; None for a folder.
        config: config.json; may hold maps of 65,536 entries.
        tensors: what is known of its weights.
        note: one line for its users, from the front matter of its README.md.
        repo: where it comes from, if it comes from the Hub.
        missing: files of weights that are still on the Hub; `fetch` gets them.
        missing_bytes: bytes of the tensors in those.
    """

    name: str
    folder: Path
    revision: str | None
    config: dict[str, Any] = field(repr=False)
    tensors: Mapping[str, TensorInfo] = field(repr=False)
    note: str | None = None
    repo: str | None = None
    missing: tuple[str, ...] = ()
    missing_bytes: int = 0

    @property
    def model_type(self) -> str:
        """The architecture, as the config names it."""
        return str(self.config["model_type"])

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors as they are stored."""
        return sum(map(stored_bytes, self.tensors.values()))

    def read_json(self, name: str) -> dict[str, Any]:
        """Read one of the small files beside the weights; one that is not there says nothing."""
        path = self.folder / name
        return _read_json(path) if path.is_file() else {}


def find(name: str, *, revision: str | None = None, offline: bool = False) -> Checkpoint:
    """Find a checkpoint by alias, folder or Hub id, and check what can be checked without weights.

    What looks like a path or exists is a folder; an alias comes before a folder of the same name. Of a checkpoint on
    the Hub everything but the weights is fetched, and of those their headers: see `fetch`.

    Args:
        name: `demo`, `./folder`, `org/name`.
        revision: branch, tag or commit; for the Hub only.
        offline: use only what is on this machine.

    Raises:
        MmgenError: there is no such model, it cannot be fetched, or it is not a whole checkpoint.
    """
    target = ALIASES[name].target if name in ALIASES else name
    if isinstance(target, str) and (folder := _as_folder(target)) is not None:
        target = folder
    if isinstance(target, str):
        if _HUB_ID.fullmatch(target) is None:
            raise _unknown(name)
        return _find_on_hub(name, target, revision, offline)
    if revision is not None:
        raise UsageError(f"{name} is a folder on this machine: it has no revision {revision}", "leave --revision out")
    if name in ALIASES and not target.is_dir():
        raise MmgenError(
            f"the model {name} is missing from this installation", "install mmgen again; in a clone, `make checkpoint`"
        )
    return _find_in_folder(name, target)


def identity(checkpoint: Checkpoint) -> str:
    """Say which weights these are: the Hub's commit, or of a folder a digest.

    The digest is of config.json and of each file of weights its name, its size and its first and last megabyte: cheap,
    and neither the folder's place nor the files' times count.
    """
    if checkpoint.revision is not None:
        return f"{checkpoint.repo}@{checkpoint.revision}"
    found = sha256((checkpoint.folder / "config.json").read_bytes())
    for path in sorted(checkpoint.folder.glob("*.safetensors")):
        n_bytes = path.stat().st_size
        found.update(f"{path.name} {n_bytes}".encode())
        with path.open("rb") as file:
            found.update(file.read(_MEGABYTE))
            file.seek(max(0, n_bytes - _MEGABYTE))
            found.update(file.read(_MEGABYTE))
    return found.hexdigest()


def is_here(name: str) -> bool:
    """Whether a checkpoint is on this machine, and whole, without asking the network."""
    try:
        find(name, offline=True)
    except MmgenError:
        return False
    return True


def fetch(checkpoint: Checkpoint) -> Checkpoint:
    """Fetch the weights that are not on this machine yet, and check that they are whole."""
    if not checkpoint.missing:
        return checkpoint
    assert checkpoint.repo is not None
    assert checkpoint.revision is not None
    hub.fetch(checkpoint.repo, checkpoint.revision, checkpoint.missing, checkpoint.missing_bytes)
    for file in checkpoint.missing:
        read_header(checkpoint.folder / file)
    return replace(checkpoint, missing=(), missing_bytes=0)


def _as_folder(name: str) -> Path | None:
    """Return the folder that a name means, whether or not it exists, or None where the name is no path."""
    written_as_path = name.startswith((".", "/", "~", "\\")) or name.endswith("/") or name.count("/") > 1
    path = os.path.expanduser(name)  # noqa: PTH111 -- pathlib raises on ~nobody, and on names that are too long
    if name and (written_as_path or "\\" in name or os.path.exists(path)):  # noqa: PTH110
        return Path(path)
    return None


def _unknown(name: str) -> MmgenError:
    import difflib  # costs 5 ms, and only a mistake needs it

    close = difflib.get_close_matches(name.lower(), ALIASES, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    known = ", ".join(ALIASES)
    return MmgenError(
        f"unknown model: {name or '(empty)'}", f"{guess}There are {known}; a Hub id is org/name, a folder ./name"
    )


# --- a folder -----------------------------------------------------------------------------------------------------


def _find_in_folder(name: str, folder: Path) -> Checkpoint:
    if not os.path.exists(folder):  # noqa: PTH110
        raise MmgenError(f"no such folder: {folder}", "check the path; a Hub id is org/name")
    if not folder.is_dir():
        raise MmgenError(f"not a checkpoint folder but a file: {folder}", "name the folder that holds config.json")
    config = _read_config(folder)
    index = _read_index(folder)
    tensors: dict[str, TensorInfo] = {}
    for shard in sorted(set(index.values())) or [_SINGLE]:
        if not (folder / shard).is_file():
            if not index:
                raise _no_weights(str(folder), [path.name for path in folder.iterdir()])
            raise MmgenError(f"{shard} is missing from {folder}", "fetch the missing file")
        tensors |= read_header(folder / shard)
    _check_index(index, tensors)
    _check_companions(folder)
    return Checkpoint(name, folder, None, config, tensors, _read_note(folder / "README.md"))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    config = _read_json(path)
    if not isinstance(config.get("model_type"), str):
        raise MmgenError(f"{path} names no model_type", "use a checkpoint in transformers' format")
    for section in (config, *(config.get(name) for name in _SECTIONS)):
        values = section if isinstance(section, dict) else {}
        words = [name for name in (*_SECTIONS, *_NUMBERS) if isinstance(values.get(name), str)]
        if words:
            raise MmgenError(f"{path}: {words[0]} cannot be {values[words[0]]!r}", "fetch the file again")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise MmgenError(
            f"not a checkpoint folder: {path.parent} has no {path.name}",
            "name a folder in transformers' format, or a Hub id",
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MmgenError(f"{path} is not valid JSON: {error}", "fetch the file again") from error
    except OSError as error:
        raise MmgenError(f"cannot read {path}: {error.strerror}", "check its permissions") from error
    if not isinstance(value, dict):
        raise MmgenError(f"{path} holds no JSON object", "fetch the file again")
    return value


def _read_index(folder: Path) -> dict[str, str]:
    """Read which tensor is in which file; nothing, where there is no index or one file for all."""
    index = folder / _INDEX
    if (folder / _SINGLE).is_file() or not index.is_file():
        return {}
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise MmgenError(f"{index} has no weight_map", "fetch the file again")
    for file in weight_map.values():
        if not isinstance(file, str) or not file.endswith(".safetensors") or Path(file).name != file:
            raise MmgenError(f"{index} names {file}, which is no safetensors file beside it", "use another checkpoint")
    return weight_map


def _check_index(index: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> None:
    lost = sorted(set(index) - set(tensors))
    if lost:
        raise MmgenError(f"{len(lost)} tensor(s) of the index are in no file, {lost[0]} first", "fetch it again")


def _check_companions(folder: Path) -> None:
    """Check the files beside the weights: without them transformers would make up an empty tokenizer, or fail late."""
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise MmgenError(f"no tokenizer.json in {folder}", "copy the tokenizer's files beside the weights")
    try:
        with tokenizer.open("rb") as file:
            start = file.read(64).lstrip()
            file.seek(max(0, tokenizer.stat().st_size - 64))
            end = file.read().rstrip()
    except OSError as error:
        raise MmgenError(f"cannot read {tokenizer}: {error.strerror}", "check its permissions") from error
    if not (start.startswith(b"{") and end.endswith(b"}")):
        raise MmgenError(f"{tokenizer} is empty, cut off, or no tokenizer", "fetch the file again")
    companions = {name: _read_json(folder / name) for name in _SMALL_JSON if (folder / name).is_file()}
    if "preprocessor_config.json" not in companions and not companions.get(_PROCESSOR, {}).get("image_processor"):
        raise MmgenError(
            f"{folder} has nothing to prepare pictures with: no preprocessor_config.json, and nothing in {_PROCESSOR}",
            "copy the processor's files beside the weights",
        )


def check_tokenizer(checkpoint: Checkpoint) -> None:
    """Refuse a tokenizer that is none, or has no words: it would make nothing of any prompt."""
    from tokenizers import Tokenizer

    path = checkpoint.folder / "tokenizer.json"
    try:
        n_words = Tokenizer.from_file(str(path)).get_vocab_size()
    except Exception as error:  # tokenizers raises no other type for a file that it cannot read
        raise MmgenError(f"{path} is no tokenizer: {first_line(error)}", "fetch the file again") from error
    if n_words < 2:
        raise MmgenError(f"{path} has no words in it", "fetch the file again")


def _no_weights(where: str, files: list[str]) -> MmgenError:
    pickles = sorted(file for file in files if file.endswith(_PICKLES))
    if pickles:
        return MmgenError(
            f"{where} has only pickled weights ({pickles[0]}), which may run code when opened",
            "use a checkpoint with .safetensors files, or convert this one where you trust it",
        )
    return MmgenError(f"no {_SINGLE} in {where}", "fetch the weights, with git lfs if it is a git clone")


def _read_note(card: Path) -> str | None:
    """Return `mmgen_note` of a model card, on one line: from its front matter, if that is YAML and says so."""
    if not card.is_file():
        return None
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    try:
        note = (metadata_load(card) or {}).get("mmgen_note")
    except (OSError, ValueError, YAMLError):  # a card has no say in whether its model works
        return None
    return " ".join(note.split()) or None if isinstance(note, str) else None


# --- the Hub ------------------------------------------------------------------------------------------------------


def _find_on_hub(name: str, repo: str, revision: str | None, offline: bool) -> Checkpoint:
    """Read what is here, and the rest from the Hub."""
    folder = hub.describe(repo, revision, offline)
    commit = folder.name
    config = _read_config(folder)
    _check_companions(folder)
    index = _read_index(folder)
    shards = sorted(set(index.values())) or [_SINGLE]
    missing = tuple(shard for shard in shards if not (folder / shard).is_file())
    tensors: dict[str, TensorInfo] = {}
    for shard in set(shards) - set(missing):
        tensors |= read_header(folder / shard)
    lacking: dict[str, TensorInfo] = {}
    if missing:
        if offline or hub.is_offline():
            raise hub.absent(repo, offline=True)
        files = hub.list_files(repo, commit)
        lost = sorted(set(missing) - set(files))
        if lost == [_SINGLE]:
            raise _no_weights(repo, files)
        if lost:
            raise MmgenError(f"{lost[0]} is missing from {repo}", "tell its owner, or try another revision")
        lacking = hub.read_headers(repo, commit, missing)
    tensors |= lacking
    _check_index(index, tensors)
    n_lacking = sum(map(stored_bytes, lacking.values()))
    return Checkpoint(name, folder, commit, config, tensors, _read_note(folder / "README.md"), repo, missing, n_lacking)

"""From a model's name to a checkpoint: a folder, its config, and the names and shapes of its tensors.

Reads no weights and imports no torch, so that what cannot work is refused at once. Knows no family.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.checkpoints import hub
from mmgen.checkpoints.aliases import ALIASES
from mmgen.errors import MmgenError, UsageError, explained, refused

if TYPE_CHECKING:
    from huggingface_hub.utils import TensorInfo

_PATH = re.compile(r"[./~]|.*\\|.*/$|.*/.*/")  # how a name begins that is a folder's, whether it exists or not
_NEVER_WORDS = re.compile(r".*_(config|size|layers|heads|dim|embeddings|tokens)")  # entries of a config
_MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A model that has passed the checks which need no weights."""

    name: str  # as the user called it
    folder: Path
    revision: str | None  # the Hub's commit; None for a folder
    config: dict[str, Any] = field(repr=False)  # may hold maps of 65,536 entries
    tensors: Mapping[str, TensorInfo] = field(repr=False)  # all of them, from the headers of their files
    note: str | None = None  # one line for its users, from the front matter of its README.md
    repo: str | None = None  # on the Hub, if it comes from there
    missing: tuple[str, ...] = ()  # files of weights that are still on the Hub; `fetch` gets them
    missing_bytes: int = 0  # of the tensors in those

    @property
    def model_type(self) -> str:
        """The architecture, as the config names it."""
        return str(self.config["model_type"])

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors as they are stored."""
        return stored_bytes(*self.tensors.values())

    def read_json(self, name: str) -> dict[str, Any]:
        """Read one of the small files beside the weights; one that is not there says nothing."""
        path = self.folder / name
        return read_json(path) if path.is_file() else {}


def stored_bytes(*tensors: TensorInfo) -> int:
    """Add up the bytes that tensors take in their files."""
    return sum(end - start for start, end in (tensor.data_offsets for tensor in tensors))


def find(name: str, *, revision: str | None = None, offline: bool = False) -> Checkpoint:
    """Find a checkpoint by alias, folder or Hub id, and check what can be checked without weights.

    A name that looks like a path or exists is a folder; an alias comes before a folder of the same name. Of a
    checkpoint on the Hub everything but the weights is fetched, and of those their headers: see `fetch`.

    Args:
        name: `demo`, `./folder`, `org/name`.
        revision: branch, tag or commit; for the Hub only.
        offline: use only what is on this machine.

    Raises:
        MmgenError: there is no such model, it cannot be fetched, or it is not a whole checkpoint.
    """
    hub.check_environment()
    # 1) Where its files are
    target = ALIASES[name].target if name in ALIASES else name
    path = os.path.expanduser(target)  # noqa: PTH111 -- pathlib raises on ~nobody, and on names that are too long
    is_folder = isinstance(target, Path) or bool(name and (_PATH.match(target) or os.path.exists(path)))  # noqa: PTH110 -- likewise
    if is_folder and revision is not None:
        raise UsageError(f"{name} is a folder on this machine: it has no revision {revision}", "leave --revision out")
    if not is_folder and "/" not in path:
        raise _unknown(name)
    folder = Path(path) if is_folder else hub.describe(path, revision, offline)

    # 2) Its small files, and which files its weights are in
    config = _read_config(folder)
    shards = _list_shards(folder)
    missing = tuple(shard for shard in shards if not (folder / shard).is_file())
    if missing and is_folder:
        raise hub.no_weights(missing[0], folder, [each.name for each in folder.iterdir()])
    _check_companions(folder)

    # 3) The headers of its weights
    tensors = hub.read_headers(path, folder.name, missing, offline) if missing else {}
    missing_bytes = stored_bytes(*tensors.values())
    for shard in set(shards) - set(missing):
        tensors |= read_header(folder / shard)
    note = _read_note(folder / "README.md")
    repo, commit = (None, None) if is_folder else (path, folder.name)
    return Checkpoint(name, folder, commit, config, tensors, note, repo, missing, missing_bytes)


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
            for start in (0, max(0, n_bytes - _MEGABYTE)):
                file.seek(start)
                found.update(file.read(_MEGABYTE))
    return found.hexdigest()


def is_here(name: str) -> bool:
    """Whether a checkpoint is on this machine, and whole, without asking the network."""
    with suppress(MmgenError):
        return bool(find(name, offline=True))
    return False


def fetch(checkpoint: Checkpoint) -> Checkpoint:
    """Fetch the weights that are not on this machine yet, and check that they are whole."""
    if checkpoint.repo and checkpoint.revision and checkpoint.missing:
        hub.fetch(checkpoint.repo, checkpoint.revision, checkpoint.missing, checkpoint.missing_bytes)
    for file in checkpoint.missing:
        read_header(checkpoint.folder / file)
    return replace(checkpoint, missing=(), missing_bytes=0)


def check_tokenizer(checkpoint: Checkpoint) -> None:
    """Refuse a tokenizer that is none, or has no words: it would make nothing of any prompt."""
    from tokenizers import Tokenizer

    path = checkpoint.folder / "tokenizer.json"
    hint = "if it is empty, cut off, or no tokenizer, fetch it again"
    with refused(f"{path} is no tokenizer", hint, Exception):  # tokenizers raises no other type
        n_words = Tokenizer.from_file(str(path)).get_vocab_size()
    if n_words < 2:
        raise MmgenError(f"{path} has no words in it", "fetch the file again")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object."""
    with explained("read", path, "check the path, and its permissions"):
        text = path.read_bytes()
    with refused(f"{path} is not valid JSON", "fetch the file again", ValueError, RecursionError):
        value = json.loads(text)
    if not isinstance(value, dict):
        raise MmgenError(f"{path} holds no JSON object", "fetch the file again")
    return value


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Read what a safetensors file says of its tensors.

    Raises:
        MmgenError: the file is truncated, a stand-in left by git lfs, or no safetensors at all.
    """
    from huggingface_hub import parse_local_safetensors_file_metadata
    from safetensors import SafetensorError, safe_open

    hint = "fetch the file again; in a git clone, run `git lfs pull`"
    with (
        refused(f"{path} is truncated, or has a broken safetensors header", hint, SafetensorError),
        explained("read", path, "check its permissions"),
        safe_open(path, "np"),  # checks that it is whole
    ):
        return parse_local_safetensors_file_metadata(path).tensors


# --- what find reads and checks -----------------------------------------------------------------------------------


def _unknown(name: str) -> MmgenError:
    import difflib  # costs 5 ms, and only a mistake needs it

    guess = "".join(f"did you mean {each}? " for each in difflib.get_close_matches(name.lower(), ALIASES, n=1))
    known = f"There are {', '.join(ALIASES)}; a Hub id is org/name, a folder ./name"
    return MmgenError(f"unknown model: {name or '(empty)'}", guess + known)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not os.path.exists(folder):  # noqa: PTH110 -- Path raises on names that are too long
        raise MmgenError(f"no such folder: {folder}", "check the path; a Hub id is org/name")
    if not path.is_file():
        what = f": {folder} has no config.json" if folder.is_dir() else f" but a file: {folder}"
        raise MmgenError(f"not a checkpoint folder{what}", "name a folder in transformers' format, or a Hub id")
    config = read_json(path)
    if not isinstance(config.get("model_type"), str):
        raise MmgenError(f"{path} names no model_type", "use a checkpoint in transformers' format")
    for section in (config, *config.values()):
        for name, value in section.items() if isinstance(section, dict) else ():
            if isinstance(value, str) and _NEVER_WORDS.fullmatch(name):
                raise MmgenError(f"{path}: {name} cannot be {value!r}", "fetch the file again")
    return config


def _list_shards(folder: Path) -> list[str]:
    """List the files of its weights: those of the index, where there is one and not one file for all."""
    index = folder / "model.safetensors.index.json"
    if (folder / hub.SINGLE).is_file() or not index.is_file():
        return [hub.SINGLE]
    with refused(f"{index} has no weight_map", "fetch the file again", KeyError, AttributeError, TypeError):
        shards = sorted(set(read_json(index)["weight_map"].values()))
    for file in shards or ["nothing"]:
        if re.fullmatch(r"[^/\\]+\.safetensors", str(file)) is None:
            raise MmgenError(f"{index} names {file}, which is no safetensors file beside it", "use another checkpoint")
    return shards


def _check_companions(folder: Path) -> None:
    """Check the files beside the weights: without them transformers would make up an empty tokenizer, or fail late."""
    hint = "copy the files of the tokenizer and the processor beside the weights"
    if not (folder / "tokenizer.json").is_file():
        raise MmgenError(f"no tokenizer.json in {folder}", hint)
    companions = {path.name: read_json(path) for path in folder.glob("*_config.json")}
    processor = companions.get("processor_config.json", {})
    if "preprocessor_config.json" not in companions and not processor.get("image_processor"):
        raise MmgenError(f"{folder} has nothing to prepare pictures with: no preprocessor_config.json", hint)


def _read_note(card: Path) -> str | None:
    """Return `mmgen_note` of a model card, on one line: from its front matter, if that is YAML and says so."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    with suppress(OSError, ValueError, YAMLError):  # a card has no say in whether its model works
        note = (metadata_load(card) or {}).get("mmgen_note")
        return " ".join(note.split()) or None if isinstance(note, str) else None
    return None

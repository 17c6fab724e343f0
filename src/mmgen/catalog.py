"""From a model's name to a checkpoint: a folder, its config, and the names and shapes of its tensors.

Reads no weights and imports no torch, so that what cannot work is refused at once. Knows no family.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmgen.errors import MmgenError, UsageError

# Short names: a folder of the package, or a repository on the Hub.
ALIASES: Mapping[str, Path | str] = {
    "demo": Path(__file__).parent / "checkpoints" / "demo",
    "anole-7b": "leloy/Anole-7b-v0.1-hf",
    "chameleon-7b": "facebook/chameleon-7b",
    "chameleon-30b": "facebook/chameleon-30b",
}
DEFAULT = "demo"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_WANTED_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md"]
_UNWANTED_FILES = ["original/*", "onnx/*", "*/*.safetensors", "consolidated*"]  # second copies of the weights
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_MOST_HEADER_BYTES = 100_000_000  # the safetensors format's own limit
_NOTE = re.compile(r"^mmgen_note:[ \t]*(.+?)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class TensorHeader:
    """What is known of a tensor without reading it."""

    dtype: str  # as safetensors calls it: F32, BF16, …
    shape: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """A model folder that has passed the checks which need no weights."""

    name: str  # what the user called it
    folder: Path
    revision: str | None  # the Hub's commit; None for a folder
    config: dict[str, Any] = field(repr=False)  # config.json; may hold maps of 65,536 entries
    tensors: Mapping[str, TensorHeader] = field(repr=False)
    note: str | None = None  # one line for its users, from the front matter of its README.md

    @property
    def model_type(self) -> str:
        """The architecture, as the config names it."""
        return str(self.config["model_type"])

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors as they are stored."""
        return sum(tensor.n_bytes for tensor in self.tensors.values())


def find(name: str, *, revision: str | None = None, offline: bool = False) -> Checkpoint:
    """Find a checkpoint by alias, folder or Hub id, and check what can be checked without weights.

    What looks like a path or exists is a folder; an alias comes before a folder of the same name.

    Args:
        name: `demo`, `./folder`, `org/name`.
        revision: branch, tag or commit; for the Hub only.
        offline: use only what is on this machine.

    Raises:
        MmgenError: there is no such model, it cannot be fetched, or it is not a whole checkpoint.
    """
    target = ALIASES.get(name, name)
    if isinstance(target, str) and (folder := _as_folder(target)) is not None:
        target = folder
    if isinstance(target, str):
        if _HUB_ID.fullmatch(target) is None:
            raise _unknown(name)
        folder = _download(target, revision, offline)
        return _read(name, folder, revision=folder.name)
    if revision is not None:
        raise UsageError(f"{name} is a folder on this machine: it has no revision {revision}", "leave --revision out")
    if name in ALIASES and not target.is_dir():
        raise MmgenError(
            f"the model {name} is missing from this installation", "install mmgen again; in a clone, `make checkpoint`"
        )
    return _read(name, target, revision=None)


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


def _read(name: str, folder: Path, *, revision: str | None) -> Checkpoint:
    if not os.path.exists(folder):  # noqa: PTH110
        raise MmgenError(f"no such folder: {folder}", "check the path; a Hub id is org/name")
    if not folder.is_dir():
        raise MmgenError(f"not a checkpoint folder but a file: {folder}", "name the folder that holds config.json")
    config = _read_json(folder / "config.json", "not a checkpoint folder")
    if not isinstance(config.get("model_type"), str):
        raise MmgenError(f"{folder / 'config.json'} names no model_type", "use a checkpoint in transformers' format")
    tensors = _read_tensors(folder)
    if not (folder / "tokenizer.json").is_file():
        raise MmgenError(f"no tokenizer.json in {folder}", "copy the tokenizer's files beside the weights")
    return Checkpoint(name, folder, revision, config, tensors, _read_note(folder / "README.md"))


def _read_json(path: Path, without_it: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise MmgenError(
            f"{without_it}: {path.parent} has no {path.name}", "name a folder in transformers' format, or a Hub id"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MmgenError(f"{path} is not valid JSON: {error}", "fetch the file again") from error
    except OSError as error:
        raise MmgenError(f"cannot read {path}: {error.strerror}", "check its permissions") from error
    if not isinstance(value, dict):
        raise MmgenError(f"{path} holds no JSON object", "fetch the file again")
    return value


def _read_tensors(folder: Path) -> dict[str, TensorHeader]:
    """Read the headers of all weight files: one, or those that the index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return read_header(single)
    if not index.is_file():
        raise _no_weights(folder)
    weight_map = _read_json(index, "no weights").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise MmgenError(f"{index} has no weight_map", "fetch the file again")
    tensors: dict[str, TensorHeader] = {}
    for shard in sorted(set(weight_map.values())):
        if not (folder / shard).is_file():
            raise MmgenError(f"{shard} is missing from {folder}", "fetch the missing file")
        tensors |= read_header(folder / shard)
    lost = sorted(set(weight_map) - set(tensors))
    if lost:
        raise MmgenError(f"{len(lost)} tensor(s) of the index are in no file, {lost[0]} first", "fetch it again")
    return tensors


def _no_weights(folder: Path) -> MmgenError:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        return MmgenError(
            f"{folder} has only pickled weights ({pickles[0]}), which may run code when opened",
            "use a checkpoint with .safetensors files, or convert this one where you trust it",
        )
    return MmgenError(f"no model.safetensors in {folder}", "fetch the weights, with git lfs if it is a git clone")


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Read what a safetensors file says of its tensors, and check that the file is whole.

    Format: 8 bytes of header length (little-endian), the header in JSON, the data
    (github.com/huggingface/safetensors, README).

    Raises:
        MmgenError: the file is truncated, a stand-in left by git lfs, or no safetensors at all.
    """
    n_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        n_header = int.from_bytes(start, "little")
        if start == b"version ":
            raise MmgenError(f"{path} is only a git lfs pointer to the weights", "run `git lfs pull` in its folder")
        if len(start) < 8 or n_header > min(_MOST_HEADER_BYTES, n_bytes - 8):
            raise MmgenError(f"{path} is truncated or no safetensors file ({n_bytes} bytes)", "fetch the file again")
        raw = file.read(n_header)
    try:
        entries = {name: entry for name, entry in json.loads(raw).items() if name != "__metadata__"}
        tensors = {name: _header(entry) for name, entry in entries.items()}
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # each a way in which the header is not one
        raise MmgenError(f"{path} has a broken safetensors header", "fetch the file again") from error
    if 8 + n_header + end != n_bytes:
        raise MmgenError(f"{path} is truncated: {n_bytes} of {8 + n_header + end} bytes", "fetch the file again")
    return tensors


def _header(entry: dict[str, Any]) -> TensorHeader:
    start, end = entry["data_offsets"]
    return TensorHeader(str(entry["dtype"]), tuple(entry["shape"]), end - start)


def _read_note(card: Path) -> str | None:
    """Return `mmgen_note` of a model card: one line, plain or in quotes, in the front matter between `---` lines."""
    if not card.is_file():
        return None
    _, start, rest = card.read_text("utf-8", errors="replace").partition("---\n")
    front, end, _ = rest.partition("\n---")
    found = _NOTE.search(front) if start and end else None
    return found.group(1).strip("\"'") if found else None


# --- the Hub ------------------------------------------------------------------------------------------------------


def _download(repo: str, revision: str | None, offline: bool) -> Path:
    """Fetch what a checkpoint needs into the Hub's cache; return its folder, which bears the commit's name."""
    import logging
    import sys

    import httpx2
    from huggingface_hub import constants, errors, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what goes wrong is raised, and said once below
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                local_files_only=offline,
                allow_patterns=_WANTED_FILES,
                ignore_patterns=_UNWANTED_FILES,
            )
        )
    except errors.GatedRepoError as error:  # a kind of RepositoryNotFoundError: it comes first
        raise MmgenError(
            f"{repo} is gated, and you have no access to it",
            f"ask for access at {constants.ENDPOINT}/{repo}, then `hf auth login` or set HF_TOKEN",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise MmgenError(
            f"no model {repo} on the Hub, nor such a folder here",
            "check the spelling; if it is private, `hf auth login` or set HF_TOKEN",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise MmgenError(f"{repo} has no revision {revision}", f"see {constants.ENDPOINT}/{repo}/commits") from error
    except errors.LocalEntryNotFoundError as error:
        raise _absent(repo, offline or constants.HF_HUB_OFFLINE, error) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise MmgenError(f"the Hub refused {repo} (HTTP {status})", "try later, or log in") from error
    except (httpx2.HTTPError, errors.XetDownloadError) as error:
        raise MmgenError(
            f"fetching {repo} failed: {_first_line(error)}", "try again: it goes on where it stopped"
        ) from error
    except errors.HFValidationError as error:
        raise MmgenError(f"not a Hub id: {repo}", "a Hub id is org/name") from error
    except OSError as error:
        raise _disk_error(error, constants.HF_HUB_CACHE) from error


def _absent(repo: str, offline: bool, error: Exception) -> MmgenError:
    if offline:
        return MmgenError(
            f"{repo} is not on this machine, or not all of it, and the network is off (--offline or HF_HUB_OFFLINE)",
            "fetch it once with the network on",
        )
    cause = _first_line(error.__cause__ or error)
    return MmgenError(f"cannot reach the Hub for {repo}: {cause}", "check the network; --offline uses what is here")


def _disk_error(error: OSError, cache: str) -> MmgenError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MmgenError(f"the disk is full: {cache}", "make room, or set HF_HOME to a folder on another disk")
    return MmgenError(f"cannot write to {cache}: {_first_line(error)}", "set HF_HOME to a folder you can write to")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

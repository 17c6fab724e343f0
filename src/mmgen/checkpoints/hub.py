"""The Hub, through its own client: the description of a repository, the headers of its weights, the weights.

Knows files and failures; refuses to know what a checkpoint is. The HF_… variables mean what they mean everywhere.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.errors import MmgenError, first_line
from mmgen.files import raise_on_interrupt

if TYPE_CHECKING:
    from huggingface_hub.utils import TensorInfo

SINGLE = "model.safetensors"  # where all weights are in one file
_SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "README.md"]
_SECOND_COPIES = ["original/*", "onnx/*", "consolidated*"]  # of the same model, in other formats
_PROXY_HINT = "pip install socksio, for one of socks5; or unset ALL_PROXY and HTTPS_PROXY"
_ELSEWHERE = "make room there, or set HF_HOME to a folder on another disk"


def describe(repo: str, revision: str | None, offline: bool) -> Path:
    """Fetch all of a repository but its weights into the Hub's cache.

    Returns:
        Its folder there, which bears the commit's name. Weights that were fetched before are in it too.
    """
    with _explained(repo, revision):
        from huggingface_hub import snapshot_download

        raise_on_interrupt()
        folder = snapshot_download(
            repo,
            revision=revision,
            local_files_only=offline,
            allow_patterns=_SMALL_FILES,
            ignore_patterns=_SECOND_COPIES,
            tqdm_class=_silent_bar(),
        )
        _remove_leftovers(Path(folder).parents[1])
        return Path(folder)


def read_headers(repo: str, commit: str, files: Sequence[str], offline: bool) -> dict[str, TensorInfo]:
    """Read the safetensors headers of files that are still on the Hub, by ranged requests: no weights come along."""
    with _explained(repo, commit):
        from huggingface_hub import HfApi, errors

        def read(file: str) -> dict[str, TensorInfo]:
            try:
                return HfApi().parse_safetensors_file_metadata(repo, file, revision=commit).tensors
            except errors.EntryNotFoundError as error:
                raise no_weights(file, repo, HfApi().list_repo_files(repo, revision=commit)) from error
            except (errors.SafetensorsParsingError, ValueError, TypeError, AttributeError) as error:
                raise MmgenError(f"{file} of {repo} has a broken safetensors header", "tell its owner") from error

        if offline:
            raise errors.OfflineModeIsEnabled
        with ThreadPoolExecutor(8) as pool:
            return {name: tensor for tensors in pool.map(read, files) for name, tensor in tensors.items()}


def no_weights(file: str, where: str | Path, files: Sequence[str]) -> MmgenError:
    """Say that a file of weights is not among the files of a repository or a folder."""
    if file != SINGLE:
        return MmgenError(f"{file} is missing from {where}", "fetch it again, or try another revision")
    if pickles := sorted(other for other in files if other.endswith((".bin", ".pt", ".pth", ".ckpt"))):
        return MmgenError(
            f"{where} has only pickled weights ({pickles[0]}), which may run code when opened",
            "use a checkpoint with .safetensors files, or convert this one where you trust it",
        )
    return MmgenError(f"no {file} in {where}", "fetch the weights, with git lfs if it is a git clone")


def fetch(repo: str, commit: str, files: Sequence[str], n_bytes: int) -> None:
    """Fetch files into the Hub's cache, with progress on a terminal. A whole file is kept, whatever comes after it.

    One after the other, and in the caller's thread: so Ctrl-C ends whatever is being waited for, another process that
    fetches the same file too. Xet fetches the parts of a file side by side.

    Args:
        n_bytes: about what they have together, for the progress and for the room they need.
    """
    with _explained(repo, commit):
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.file_download import repo_folder_name

        raise_on_interrupt()
        cache = Path(constants.HF_HUB_CACHE)
        _remove_leftovers(storage := cache / repo_folder_name(repo_id=repo, repo_type="model"))
        free = shutil.disk_usage(cache).free
        if n_bytes > free:
            too_full = f"the disk is too full for {n_bytes / 1e9:.1f} GB of weights: {free / 1e9:.1f} GB free in"
            raise MmgenError(f"{too_full} {cache}", _ELSEWHERE)
        with _progress(repo, n_bytes) as bar_class:
            for file in files:
                hf_hub_download(repo, file, revision=commit, tqdm_class=bar_class)
        _remove_leftovers(storage)  # of a process that we waited for


def _remove_leftovers(storage: Path) -> None:
    """Remove what killed downloads left. A download under way holds the lock of the Hub's client for its file."""
    from huggingface_hub.utils import WeakFileLock

    for left in storage.glob("blobs/*.incomplete"):
        blob = left.name.rsplit(".", 2)[0]  # BLOB.1234abcd.incomplete, or BLOB.incomplete of older clients
        lock = storage.parent / ".locks" / storage.name / f"{blob}.lock"
        with suppress(OSError), WeakFileLock(lock, timeout=0.1):  # a time-out, or another user's
            left.unlink(missing_ok=True)


def check_environment() -> None:
    """Check that the Hub's client can be imported, which reads its settings as it is.

    Raises:
        MmgenError: one of them is of no use.
    """
    try:
        import_module("huggingface_hub.constants")
    except ValueError as failure:  # it reads numbers from the environment as it is imported
        raise MmgenError(
            f"a setting of the Hub's client cannot be used: {first_line(failure)}",
            "look at the variables of the environment that begin with HF_",
        ) from failure


@contextmanager
def _progress(repo: str, n_bytes: int) -> Iterator[Any]:
    """Show one bar for all files, if stderr is a terminal and nobody asked for silence; give the client its class."""
    silent = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "").upper() in ("1", "ON", "YES", "TRUE")
    if silent or not sys.stderr.isatty():
        yield _silent_bar()
        return
    from huggingface_hub.utils import tqdm
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    sys.stderr.write("\r\x1b[K")  # a line that says what is being done may stand here
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(f"fetching {repo}", total=n_bytes)

        class Bar(tqdm):
            """The client's bar of one file, with the last two methods for Xet: what came, beside what is written."""

            def __init__(self, *_: object, **__: object) -> None:
                super().__init__(disable=True)  # type: ignore[no-untyped-call]  # the client has no types there

            def update(self, n: float | None = 1) -> None:
                shown.advance(task, n or 0)

            def update_transfer(self, n: float | None = 1) -> None:
                return

            def set_transfer_postfix_str(self, *_: object, **__: object) -> None:
                return

        yield Bar


def _silent_bar() -> Any:
    from huggingface_hub.utils import tqdm

    return partial(tqdm, disable=True)


@contextmanager
def _explained(repo: str, revision: str | None) -> Iterator[None]:
    """Turn what the Hub's client raises into an error that says what to do."""
    import httpx2
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repo}"
    log_in = "`hf auth login` or set HF_TOKEN"
    try:
        yield
    except (
        *(OSError, RuntimeError, httpx2.HTTPError, httpx2.InvalidURL),  # hf_xet raises RuntimeError
        *(errors.HFValidationError, errors.XetDownloadError),
        *(ImportError, ValueError),  # of a proxy in the environment that the client cannot use
    ) as error:
        cause = first_line(error.__cause__ or error)
        match error:
            case errors.GatedRepoError():  # a kind of RepositoryNotFoundError: it comes first
                said = (
                    f"{repo} is gated, and you have no access to it",
                    f"ask for access at {page}; once you have it, {log_in}",
                )
            case errors.RepositoryNotFoundError() | errors.HFValidationError():
                said = (
                    f"unknown model: {repo} is neither on the Hub nor a folder here",
                    f"check the spelling, as in org/name; if it is private, {log_in}",
                )
            case errors.RevisionNotFoundError():
                said = f"{repo} has no revision {revision}", f"see {page}/commits"
            case (
                errors.OfflineModeIsEnabled()
                | errors.LocalEntryNotFoundError(__cause__=None | errors.OfflineModeIsEnabled())
            ):
                said = (
                    f"{repo} is not on this machine, or not all of it, and the network is off",
                    "fetch it once with the network on: without --offline and HF_HUB_OFFLINE",
                )
            case ImportError() | ValueError() if "proxy" in cause.lower():
                said = f"the proxy that the environment names cannot be used: {cause}", _PROXY_HINT
            case UnicodeEncodeError():
                said = "the token for the Hub is not ASCII text", "set HF_TOKEN anew, or `hf auth login`"
            case json.JSONDecodeError():
                said = (
                    f"{constants.ENDPOINT} answered with a page that is not the Hub's",
                    "log in to the network, perhaps in a browser; or check HF_ENDPOINT",
                )
            case OSError(errno=int(), strerror=reason):  # of the disk: the client's own have no number
                said = f"cannot write to {constants.HF_HUB_CACHE}: {reason}", _ELSEWHERE
            case _:
                said = (
                    f"fetching {repo} failed: {cause}",
                    f"check the network, and try again: what is whole is kept; --offline uses it; else {log_in}",
                )
        raise MmgenError(*said) from error

"""The Hub, through its own client: what a repository says of itself, the headers of its weights, the weights.

Knows files and failures; refuses to know what a checkpoint is. The HF_… variables mean what they mean everywhere.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.checkpoints.headers import NO_HEADER
from mmgen.errors import MmgenError, first_line
from mmgen.signals import raise_on_interrupt

if TYPE_CHECKING:
    from huggingface_hub.utils import TensorInfo

_SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "README.md"]
_SECOND_COPIES = ["original/*", "onnx/*", "consolidated*"]  # of the same model, in other formats


def describe(repo: str, revision: str | None, offline: bool) -> Path:
    """Fetch all of a repository but its weights into the Hub's cache.

    Returns:
        Its folder there, which bears the commit's name. Weights that were fetched before are in it too.
    """
    with _explained(repo, revision, offline):
        from huggingface_hub import snapshot_download

        raise_on_interrupt()
        with _xet_explained(repo):
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


def is_offline() -> bool:
    """Whether the Hub's own variables keep off the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def read_headers(repo: str, commit: str, files: Sequence[str]) -> dict[str, TensorInfo]:
    """Read the safetensors headers of files that are still on the Hub, by ranged requests: no weights come along."""
    with _explained(repo, commit, offline=False):
        from huggingface_hub import HfApi
        from huggingface_hub.errors import SafetensorsParsingError

        def read(file: str) -> dict[str, TensorInfo]:
            try:
                return HfApi().parse_safetensors_file_metadata(repo, file, revision=commit).tensors
            except (SafetensorsParsingError, *NO_HEADER) as error:
                raise MmgenError(f"{file} of {repo} has a broken safetensors header", "tell its owner") from error

        with ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(read, files))
        return {name: tensor for part in parts for name, tensor in part.items()}


def list_files(repo: str, commit: str) -> list[str]:
    """List the files of a repository."""
    with _explained(repo, commit, offline=False):
        from huggingface_hub import HfApi

        return HfApi().list_repo_files(repo, revision=commit)


# --- weights ------------------------------------------------------------------------------------------------------


def fetch(repo: str, commit: str, files: Sequence[str], n_bytes: int) -> None:
    """Fetch files into the Hub's cache, with progress on a terminal. What is whole is kept, whatever comes between.

    One after the other, and in the caller's thread: so Ctrl-C ends whatever is being waited for, another process that
    fetches the same file too. Xet fetches the parts of a file side by side.

    Args:
        n_bytes: about what they have together, for the progress and for the room they need.
    """
    with _explained(repo, commit, offline=False):
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.file_download import repo_folder_name

        raise_on_interrupt()
        storage = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")
        _remove_leftovers(storage)
        _check_room(storage.parent, n_bytes)
        with _progress(repo, n_bytes) as bar:
            for file in files:
                with _xet_explained(repo):
                    hf_hub_download(repo, file, revision=commit, tqdm_class=bar)
        _remove_leftovers(storage)  # of whom we waited for


def _remove_leftovers(storage: Path) -> None:
    """Remove what killed downloads left. What is under way has its lock, which the Hub's client holds meanwhile."""
    from huggingface_hub.utils import WeakFileLock

    for left in storage.glob("blobs/*.incomplete"):
        blob = left.name.rsplit(".", 2)[0]  # BLOB.1234abcd.incomplete, or BLOB.incomplete of older clients
        lock = storage.parent / ".locks" / storage.name / f"{blob}.lock"
        with suppress(OSError), WeakFileLock(lock, timeout=0.1):  # a time-out, or another user's
            left.unlink(missing_ok=True)


def _check_room(cache: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(cache).free
    if n_bytes > free:
        raise MmgenError(
            f"the disk is too full for {n_bytes / 1e9:.1f} GB of weights: {free / 1e9:.1f} GB free in {cache}",
            "make room, or set HF_HOME to a folder on another disk",
        )


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
                super().__init__(disable=True)  # type: ignore[no-untyped-call]

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


# --- failures -----------------------------------------------------------------------------------------------------


@contextmanager
def _xet_explained(repo: str) -> Iterator[None]:
    """Turn what hf_xet raises into an error: it has no type of its own for most of what can go wrong."""
    try:
        yield
    except RuntimeError as error:
        raise _broken_off(repo, error) from error


@contextmanager
def _explained(repo: str, revision: str | None, offline: bool) -> Iterator[None]:
    """Turn what the Hub's client raises into an error that says what to do."""
    import httpx2
    from huggingface_hub import constants, errors, get_token

    page = f"{constants.ENDPOINT}/{repo}"
    log_in = "`hf auth login` or set HF_TOKEN"
    try:
        yield
    except errors.GatedRepoError as error:  # a kind of RepositoryNotFoundError: it comes first
        then = "your token is known, so access is all that lacks" if get_token() else f"then {log_in}"
        raise MmgenError(
            f"{repo} is gated, and you have no access to it", f"ask for access at {page}; {then}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise MmgenError(
            f"no model {repo} on the Hub, nor such a folder here", f"check the spelling; if it is private, {log_in}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise MmgenError(f"{repo} has no revision {revision}", f"see {page}/commits") from error
    except errors.RemoteEntryNotFoundError as error:
        raise MmgenError(f"{repo} has no such file: {first_line(error)}", f"see {page}/tree/main") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise absent(repo, offline or is_offline(), error) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = log_in if status in (401, 403) else "try again later"
        raise MmgenError(f"the Hub refused {repo} (HTTP {status})", hint) from error
    except (httpx2.ConnectError, httpx2.ProxyError, httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise absent(repo, False, error) from error
    except (httpx2.HTTPError, errors.XetDownloadError) as error:
        raise _broken_off(repo, error) from error
    except errors.HFValidationError as error:
        raise MmgenError(f"not a Hub id: {repo}", "a Hub id is org/name") from error
    except OSError as error:
        if error.errno is None:  # the client's own, of a file that came too short
            raise _broken_off(repo, error) from error
        raise _disk_error(error, constants.HF_HUB_CACHE) from error


def absent(repo: str, offline: bool, error: BaseException | None = None) -> MmgenError:
    """Say that a repository is not here, and why it cannot be fetched."""
    if offline or error is None:
        return MmgenError(
            f"{repo} is not on this machine, or not all of it, and the network is off (--offline or HF_HUB_OFFLINE)",
            "fetch it once with the network on",
        )
    cause = first_line(error.__cause__ or error)
    return MmgenError(f"cannot reach the Hub for {repo}: {cause}", "check the network; --offline uses what is here")


def _broken_off(repo: str, error: BaseException) -> MmgenError:
    return MmgenError(f"fetching {repo} failed: {first_line(error)}", "try again: what is whole is kept")


def _disk_error(error: OSError, cache: str) -> MmgenError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MmgenError(f"the disk is full: {cache}", "make room, or set HF_HOME to a folder on another disk")
    return MmgenError(f"cannot write to {cache}: {first_line(error)}", "set HF_HOME to a folder you can write to")

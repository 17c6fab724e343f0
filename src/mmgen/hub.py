"""The Hub, through its own client: what a repository says of itself, the headers of its weights, the weights.

Knows files and failures; refuses to know what a checkpoint is. The HF_… variables mean what they mean everywhere.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mmgen.errors import MmgenError
from mmgen.headers import TensorHeader

_SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "README.md"]
_SECOND_COPIES = ["original/*", "onnx/*", "consolidated*"]  # of the same model, in other formats
_AT_ONCE = 4  # files on their way
_LOOK_SECONDS = 0.5  # how often what waits for another process looks whether it shall stop


def describe(repo: str, revision: str | None, offline: bool) -> Path:
    """Fetch all of a repository but its weights into the Hub's cache.

    Returns:
        Its folder there, which bears the commit's name. Weights that were fetched before are in it too.
    """
    with _explained(repo, revision, offline):
        from huggingface_hub import constants, snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
            disable_progress_bars()  # of the small files; the weights have their own, below
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                local_files_only=offline,
                allow_patterns=_SMALL_FILES,
                ignore_patterns=_SECOND_COPIES,
            )
        )


def is_offline() -> bool:
    """Whether the Hub's own variables keep off the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def read_headers(repo: str, commit: str, files: Sequence[str]) -> dict[str, TensorHeader]:
    """Read the safetensors headers of files that are still on the Hub, by ranged requests: no weights come along."""
    with _explained(repo, commit, offline=False):
        from huggingface_hub import HfApi
        from huggingface_hub.errors import SafetensorsParsingError

        def read(file: str) -> dict[str, TensorHeader]:
            try:
                found = HfApi().parse_safetensors_file_metadata(repo, file, revision=commit).tensors
            except SafetensorsParsingError as error:
                raise MmgenError(f"{file} of {repo} has a broken safetensors header", "tell its owner") from error
            return {
                name: TensorHeader(tensor.dtype, tuple(tensor.shape), tensor.data_offsets[1] - tensor.data_offsets[0])
                for name, tensor in found.items()
            }

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
    """Fetch files into the Hub's cache, with progress on a terminal. What was cut off goes on where it stopped.

    The Hub's client would start a file again from nothing, in another process: so what is not whole yet is kept
    here, beside the blobs, and is taken over by the client once it is.

    Args:
        n_bytes: about what they have together, for the progress and for the room they need.
    """
    with _explained(repo, commit, offline=False):
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        cache = Path(constants.HF_HUB_CACHE)
        storage = cache / repo_folder_name(repo_id=repo, repo_type="model")
        (storage / "blobs").mkdir(parents=True, exist_ok=True)
        _check_room(cache, n_bytes - sum(path.stat().st_size for path in storage.glob("blobs/*.partial")))
        stop = threading.Event()
        with _progress(repo, n_bytes, stop) as bar:
            pool = ThreadPoolExecutor(_AT_ONCE)
            try:
                jobs: list[Future[None]] = [
                    pool.submit(_fetch_file, repo, commit, file, cache, bar, stop) for file in files
                ]
                for job in as_completed(jobs):
                    job.result()
            finally:  # what fails, and Ctrl-C, ends the others too
                stop.set()
                pool.shutdown(cancel_futures=True)


def _fetch_file(repo: str, commit: str, file: str, cache: Path, bar: type[_Bar], stop: threading.Event) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = hf_hub_url(repo, file, revision=commit)
    about = get_hf_file_metadata(url)
    if about.etag is not None and about.size is not None:
        name = repo_folder_name(repo_id=repo, repo_type="model")
        blob = cache / name / "blobs" / about.etag
        lock = cache / ".locks" / name / f"{about.etag}.lock"  # the one that the Hub's client takes
        lock.parent.mkdir(parents=True, exist_ok=True)
        with _alone(lock, stop):
            if not blob.exists():
                partial = blob.with_name(f"{about.etag}.partial")
                n_before = partial.stat().st_size if partial.exists() else 0
                if n_before > about.size:
                    partial.unlink()
                    n_before = 0
                with partial.open("ab") as out:
                    headers: dict[str, Any] = build_hf_headers()
                    http_get(
                        url,
                        out,
                        resume_size=n_before,
                        headers=headers,
                        expected_size=about.size,
                        tqdm_class=bar,
                    )
                if n_before:
                    _check_digest(partial, about.etag, file)
                partial.replace(blob)
    hf_hub_download(repo, file, revision=commit)


@contextmanager
def _alone(lock: Path, stop: threading.Event) -> Iterator[None]:
    """Wait until no other process fetches a file, and keep others waiting."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    with ExitStack() as held:
        while True:
            try:
                held.enter_context(WeakFileLock(lock, timeout=_LOOK_SECONDS))
                break
            except TimeoutError:
                if stop.is_set():
                    raise _StoppedError from None
        yield


def _check_digest(path: Path, etag: str, file: str) -> None:
    """Check a file that was put together in several runs; the Hub calls large files by their SHA-256."""
    if len(etag) != 64:
        return
    with path.open("rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
    if found != etag:
        path.unlink()
        raise MmgenError(f"{file} came broken: its checksum is another", "try again: it is fetched anew")


def _check_room(cache: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(cache).free
    if n_bytes > free:
        raise MmgenError(
            f"the disk is too full for {n_bytes / 1e9:.1f} GB of weights: {free / 1e9:.1f} GB free in {cache}",
            "make room, or set HF_HOME to a folder on another disk",
        )


# --- progress -----------------------------------------------------------------------------------------------------


class _Bar:
    """What the Hub's client takes for a tqdm bar of one file: it counts, and can stop the download."""

    stop: threading.Event | None = None

    def __init__(self, *args: object, initial: float = 0, **_: object) -> None:
        self.advance(initial)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def update(self, n: float | None = 1) -> None:
        if self.stop is not None and self.stop.is_set():
            raise _StoppedError
        self.advance(n or 0)

    def advance(self, n: float) -> None:
        """Count bytes."""


class _StoppedError(Exception):
    """Another file failed, or the user has had enough."""


@contextmanager
def _progress(repo: str, n_bytes: int, stop: threading.Event) -> Iterator[type[_Bar]]:
    """Show one bar for all files, if stderr is a terminal and nobody asked for silence; give the bar's class."""
    silent = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "").upper() in ("1", "ON", "YES", "TRUE")
    if silent or not sys.stderr.isatty():
        yield type("SilentBar", (_Bar,), {"stop": stop})
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    sys.stderr.write("\r\x1b[K")  # a line that says what is being done may stand here
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(f"fetching {repo}", total=n_bytes)

        class ShownBar(_Bar):
            def advance(self, n: float) -> None:
                shown.advance(task, n)

        ShownBar.stop = stop
        yield ShownBar


# --- failures -----------------------------------------------------------------------------------------------------


@contextmanager
def _explained(repo: str, revision: str | None, offline: bool) -> Iterator[None]:
    """Turn what the Hub's client raises into an error that says what to do."""
    import httpx2
    from huggingface_hub import constants, errors, get_token

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what goes wrong is raised, and said once below
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
        raise MmgenError(f"{repo} has no such file: {_first_line(error)}", f"see {page}/tree/main") from error
    except errors.LocalEntryNotFoundError as error:
        raise absent(repo, offline or is_offline(), error) from error
    except errors.OfflineModeIsEnabled as error:
        raise absent(repo, True, error) from error
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
    cause = _first_line(error.__cause__ or error)
    return MmgenError(f"cannot reach the Hub for {repo}: {cause}", "check the network; --offline uses what is here")


def _broken_off(repo: str, error: BaseException) -> MmgenError:
    return MmgenError(f"fetching {repo} failed: {_first_line(error)}", "try again: it goes on where it stopped")


def _disk_error(error: OSError, cache: str) -> MmgenError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MmgenError(f"the disk is full: {cache}", "make room, or set HF_HOME to a folder on another disk")
    return MmgenError(f"cannot write to {cache}: {_first_line(error)}", "set HF_HOME to a folder you can write to")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

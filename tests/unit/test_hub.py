"""The Hub's real client against a Hub on this machine: what is fetched, when, and what is said if it cannot be.

Each in a process of its own, because huggingface_hub reads its environment once.
"""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from filelock import FileLock

from mmgen.checkpoints import catalog
from mmgen.checkpoints.catalog import read_header, stored_bytes
from mmgen.checkpoints.hub import fetch
from mmgen.errors import MmgenError
from tests.support.checkpoints import make_checkpoint
from tests.support.hub import COMMIT, Hub, etag, serve, write_hollow

HEADER = "bytes=0-100000"  # what the client asks for at first to read a header
CHUNK = 10 * 2**20  # what it writes at a time

_FIND = """
import json, sys
from mmgen.checkpoints import catalog
from mmgen.errors import MmgenError
name, arguments, fetch = json.loads(sys.argv[1])
try:
    found = catalog.find(name, **arguments)
    if fetch:
        found = catalog.fetch(found)
except MmgenError as error:
    print(json.dumps([error.message, error.hint]))
else:
    assert "torch" not in sys.modules
    print(json.dumps([found.revision, found.n_bytes, found.missing, sorted(p.name for p in found.folder.iterdir())]))
"""

_SMALL_DISK = """
import shutil, types
shutil.disk_usage = lambda path: types.SimpleNamespace(free={free})
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "sharded", n_shards=2)
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    (folder / "README.md").write_text("# Card\n")
    return folder


@pytest.fixture
def hub(whole: Path, tmp_path: Path) -> Iterator[Hub]:
    with serve(Path(shutil.copytree(whole, tmp_path / "served"))) as running:
        yield running


def environment(hub: Hub | str, home: Path, **more: str) -> dict[str, str]:
    url = hub if isinstance(hub, str) else hub.url
    ours = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_VERBOSITY": "error"}
    return {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | ours | more


def call(
    hub: Hub | str,
    home: Path,
    name: str = "org/tiny",
    fetch: bool = False,
    env: dict[str, str] | None = None,
    free: int | None = None,
    **how: object,
) -> list[object]:
    """Run `catalog.find`, and `fetch` if wanted; return what it found, or the message and the hint.

    Args:
        free: bytes that the disk is to have, if not its own.
    """
    code = _FIND if free is None else _SMALL_DISK.format(free=free) + _FIND
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([name, how, fetch])],
        env=environment(hub, home, **(env or {})),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not done.stderr
    return list(json.loads(done.stdout))


def refusal(hub: Hub | str, home: Path, **arguments: object) -> tuple[str, str]:
    message, hint = call(hub, home, **arguments)  # type: ignore[arg-type]
    assert isinstance(message, str)
    assert isinstance(hint, str)
    assert hint
    assert "\n" not in message + hint
    return message, hint


# --- what is fetched, and when ------------------------------------------------------------------------------------


def test_to_find_a_checkpoint_no_weights_are_fetched_but_their_headers(hub: Hub, tmp_path: Path) -> None:
    revision, n_bytes, missing, files = call(hub, tmp_path)
    local = catalog.find(str(hub.folder))
    assert (revision, n_bytes) == (COMMIT, local.n_bytes)
    assert missing == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert isinstance(files, list)
    assert {"config.json", "tokenizer.json", "README.md"} <= set(files)
    assert not [name for name in files if name.endswith((".safetensors", ".bin"))]
    assert [asked.range for asked in hub.weights()] == [HEADER, HEADER]


def test_weights_come_without_pickles_and_once(hub: Hub, tmp_path: Path) -> None:
    first = call(hub, tmp_path, fetch=True)
    assert first[2] == []
    assert isinstance(first[3], list)
    assert "model-00002-of-00002.safetensors" in first[3]
    assert not [path for path in hub.requested if path.endswith(".bin")]
    hub.asked.clear()
    assert call(hub, tmp_path, fetch=True) == first
    assert not [path for path in hub.requested if path.endswith(".safetensors")]
    assert len(hub.asked) == 1  # which commit `main` is


def test_what_was_fetched_is_found_offline_without_a_request(hub: Hub, tmp_path: Path) -> None:
    online = call(hub, tmp_path, fetch=True)
    hub.asked.clear()
    assert call(hub, tmp_path, offline=True) == online
    assert call(hub, tmp_path, env={"HF_HUB_OFFLINE": "1"}) == online
    assert not hub.asked
    assert call("http://127.0.0.1:9", tmp_path) == online  # and when the Hub is out of reach


def test_a_commit_is_kept_to(hub: Hub, tmp_path: Path) -> None:
    assert call(hub, tmp_path, revision=COMMIT)[0] == COMMIT
    hub.asked.clear()
    assert call(hub, tmp_path, revision=COMMIT, fetch=True)[0] == COMMIT
    assert not [path for path in hub.requested if "main" in path]


def test_a_cache_folder_of_one_s_own_is_used(hub: Hub, tmp_path: Path) -> None:
    call(hub, tmp_path / "home", fetch=True, env={"HF_HUB_CACHE": str(tmp_path / "cache")})
    assert list((tmp_path / "cache").glob("models--org--tiny/snapshots/*/model-*"))


@pytest.fixture
def heavy(hub: Hub) -> Path:
    """One file of 50 MB for all weights."""
    for path in hub.folder.glob("model*"):
        path.unlink()
    path = hub.folder / "model.safetensors"
    write_hollow(path, {"w": ("F32", (1250, 10_000))})
    return path


def test_a_connection_that_is_cut_is_taken_up_where_it_was(hub: Hub, heavy: Path, tmp_path: Path) -> None:
    hub.cuts = 2
    assert call(hub, tmp_path, fetch=True)[2] == []
    assert hub.cuts == 0
    starts = [asked.range for asked in hub.weights()][1:]
    assert starts == [None, f"bytes={2 * CHUNK}-", f"bytes={3 * CHUNK}-"]


def test_what_is_stored_in_xet_comes_through_it(hub: Hub, heavy: Path, tmp_path: Path) -> None:
    hub.xet = True
    code, shown = on_a_terminal(hub, tmp_path)
    assert code == 0
    assert "fetching org/tiny" in shown
    assert not re.search(r"(5[1-9]|[6-9]\d|1\d\d)\.\d/50\.0 MB", shown)  # what came is not added to what was written
    assert (blobs(tmp_path) / etag(heavy)).read_bytes() == heavy.read_bytes()
    assert [path for path in hub.requested if path.startswith("/xet/piece/")]
    assert len(hub.weights()) == 1  # the header alone


def test_ctrl_c_ends_a_download_through_xet(hub: Hub, heavy: Path, tmp_path: Path) -> None:
    hub.xet, hub.pause = True, 1
    process = start(hub, tmp_path)
    while sum(asked.path.startswith("/xet/") for asked in hub.asked) < 3:  # a token, and where the pieces are
        time.sleep(0.01)  # before, while it sets up, hf_xet may lose an interruption
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) != 0
    assert not list(blobs(tmp_path).glob("*.incomplete"))


def blobs(home: Path) -> Path:
    return home / "hub" / "models--org--tiny" / "blobs"


def start(hub: Hub, home: Path) -> subprocess.Popen[bytes]:
    """Begin to fetch, slowly, and return when the weights are on their way."""
    hub.pause = hub.pause or 0.1
    process = subprocess.Popen(
        [sys.executable, "-c", _FIND, json.dumps(["org/tiny", {}, True])],
        env=environment(hub, home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    weights = tuple(etag(path) for path in hub.folder.glob("*.safetensors"))  # small files come before, side by side
    while not any(
        left.name.startswith(weights) and (left.stat().st_size or hub.xet) for left in blobs(home).glob("*.incomplete")
    ):
        assert process.poll() is None
        time.sleep(0.01)
    return process


def test_what_a_killed_download_left_is_removed_by_the_next(hub: Hub, heavy: Path, tmp_path: Path) -> None:
    process = start(hub, tmp_path)
    process.kill()
    process.wait()
    assert list(blobs(tmp_path).glob("*.incomplete"))
    with serve(hub.folder) as anew:  # one that the killed process never asked: it may still be busy with that
        assert call(anew, tmp_path, fetch=True)[2] == []
    assert not list(blobs(tmp_path).glob("*.incomplete"))
    assert (blobs(tmp_path) / etag(heavy)).read_bytes() == heavy.read_bytes()


def test_what_others_are_fetching_is_waited_for_and_not_touched(hub: Hub, heavy: Path, tmp_path: Path) -> None:
    other = start(hub, tmp_path)
    (under_way,) = blobs(tmp_path).glob("*.incomplete")
    waiting = subprocess.Popen(
        [sys.executable, "-c", _FIND, json.dumps(["org/tiny", {}, True])],
        env=environment(hub, tmp_path),
        stdout=subprocess.DEVNULL,
    )
    while sum(asked.method == "HEAD" and asked.path.endswith(heavy.name) for asked in hub.asked) < 2:
        time.sleep(0.01)
    assert under_way.exists()
    other.kill()
    other.wait()
    hub.pause = 0
    assert waiting.wait(60) == 0
    assert [path.name for path in blobs(tmp_path).iterdir() if path.name.startswith(etag(heavy))] == [etag(heavy)]


def test_ctrl_c_ends_the_wait_for_another_process_that_fetches_the_same(hub: Hub, heavy: Path, tmp_path: Path) -> None:
    locks = tmp_path / "hub" / ".locks" / "models--org--tiny"
    locks.mkdir(parents=True)
    with FileLock(locks / f"{etag(heavy)}.lock"):
        process = subprocess.Popen(
            [sys.executable, "-c", _FIND, json.dumps(["org/tiny", {}, True])],
            env=environment(hub, tmp_path),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not [asked for asked in hub.asked if asked.method == "HEAD" and asked.path.endswith(heavy.name)]:
                time.sleep(0.01)
            time.sleep(1)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(5) != 0
        finally:
            process.kill()
            process.wait()


_STATE = """
import logging, os
from huggingface_hub.utils import are_progress_bars_disabled, logging as _
def state():
    levels = [logging.getLogger(name).level for name in (None, "huggingface_hub")]
    return levels, dict(os.environ), are_progress_bars_disabled()
"""


def test_the_caller_s_process_stays_as_it_is(hub: Hub, tmp_path: Path) -> None:
    code = f"{_STATE}\nbefore = state()\n{_FIND}\nassert state() == before"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(["org/tiny", {}, True])],
        env=environment(hub, tmp_path, HF_HUB_VERBOSITY="info"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- what is said if it cannot be ---------------------------------------------------------------------------------


def test_offline_and_never_fetched_is_refused(hub: Hub, tmp_path: Path) -> None:
    for arguments in ({"offline": True}, {"env": {"HF_HUB_OFFLINE": "1"}}):
        message, hint = refusal(hub, tmp_path, **arguments)
        assert "not on this machine" in message
        assert "network on" in hint
    assert not hub.asked


def test_offline_and_without_the_weights_is_refused(hub: Hub, tmp_path: Path) -> None:
    call(hub, tmp_path)
    assert "or not all of it" in refusal(hub, tmp_path, offline=True)[0]


def test_an_unreachable_hub_is_refused(tmp_path: Path) -> None:
    message, hint = refusal("http://127.0.0.1:9", tmp_path)
    assert "fetching org/tiny failed: " in message
    assert "--offline" in hint


@pytest.mark.parametrize("url", ["nonsense", "http://no host", "ftp://127.0.0.1"])
def test_an_endpoint_that_is_none_is_refused(url: str, tmp_path: Path) -> None:
    assert "fetching org/tiny failed: " in refusal(url, tmp_path)[0]


def test_a_repository_that_does_not_exist_is_refused(hub: Hub, tmp_path: Path) -> None:
    message, hint = refusal(hub, tmp_path, name="photos/model")
    assert "unknown model: photos/model is neither on the Hub nor a folder" in message
    assert "spelling" in hint


def test_a_private_repository_opens_with_a_token(hub: Hub, tmp_path: Path) -> None:
    hub.token = "hf_secret"
    message, hint = refusal(hub, tmp_path)
    assert "unknown model: org/tiny" in message
    assert "hf auth login" in hint
    assert call(hub, tmp_path, fetch=True, env={"HF_TOKEN": "hf_secret"})[2] == []


def test_a_revision_that_does_not_exist_is_refused(hub: Hub, tmp_path: Path) -> None:
    assert "org/tiny has no revision v9" in refusal(hub, tmp_path, revision="v9")[0]


def test_a_gated_repository_says_where_to_ask_and_how_to_log_in(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    message, hint = refusal(hub, tmp_path)
    assert "gated" in message
    assert f"ask for access at {hub.url}/org/tiny" in hint
    assert "hf auth login" in hint
    assert "HF_TOKEN" in hint


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_hub_that_refuses_is_said(hub: Hub, tmp_path: Path, status: int) -> None:
    hub.status = status
    assert str(status) in refusal(hub, tmp_path)[0]


def test_a_repository_of_pickles_is_refused_and_none_is_fetched(hub: Hub, tmp_path: Path) -> None:
    for path in hub.folder.glob("model*"):
        path.unlink()
    assert "only pickled weights (pytorch_model.bin)" in refusal(hub, tmp_path, fetch=True)[0]
    assert not [path for path in hub.requested if path.endswith(".bin")]


def test_a_shard_that_is_not_on_the_hub_is_named(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors is missing from org/tiny" in refusal(hub, tmp_path)[0]


def test_a_broken_header_on_the_hub_is_refused(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "model-00002-of-00002.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "broken safetensors header" in refusal(hub, tmp_path)[0]


def test_a_download_that_breaks_off_for_good_is_refused(hub: Hub, tmp_path: Path) -> None:
    call(hub, tmp_path)
    hub.cuts = 1000
    message, hint = refusal(hub, tmp_path, fetch=True)
    assert "fetching org/tiny failed" in message
    assert "what is whole is kept" in hint
    assert not list(blobs(tmp_path).glob("*.incomplete"))


@pytest.mark.parametrize("status", [403, 404])
def test_a_download_that_xet_refuses_is_said(hub: Hub, tmp_path: Path, status: int) -> None:
    hub.xet = status
    message, hint = refusal(hub, tmp_path, fetch=True)
    assert "fetching org/tiny failed" in message
    assert str(status) in message
    assert "what is whole is kept" in hint


def test_a_cache_that_cannot_be_written_is_refused(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    message, hint = refusal(hub, tmp_path / "file")
    assert "cannot write" in message
    assert "HF_HOME" in hint


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fill)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fill)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for find in (lambda: catalog.find("org/tiny"), lambda: fetch("org/tiny", COMMIT, ["model.safetensors"], 1)):
        with pytest.raises(MmgenError, match="No space left on device") as caught:
            find()
        assert "HF_HOME" in caught.value.hint


def test_a_disk_without_room_is_said_before_anything_is_fetched(hub: Hub, tmp_path: Path) -> None:
    for path in hub.folder.glob("model*"):
        path.unlink()
    write_hollow(hub.folder / "model.safetensors", {"w": ("F32", (4 * 10**12 // 4,))})
    message, hint = refusal(hub, tmp_path, fetch=True)
    assert "the disk is too full for 4000.0 GB" in message
    assert "HF_HOME" in hint


def without_the_second_shard(hub: Hub, home: Path) -> int:
    """Fetch all, and take the second file of the weights away again; return the bytes of its tensors."""
    call(hub, home, fetch=True)
    (link,) = (home / "hub").glob("models--org--tiny/snapshots/*/model-00002-of-00002.safetensors")
    n_bytes = stored_bytes(*read_header(link).values())
    link.resolve().unlink()
    link.unlink()
    return n_bytes


def test_room_is_asked_for_what_is_missing_alone(hub: Hub, tmp_path: Path) -> None:
    n_bytes = without_the_second_shard(hub, tmp_path)
    assert "too full" in refusal(hub, tmp_path, fetch=True, free=n_bytes - 1)[0]
    assert (
        call(hub, tmp_path, fetch=True, free=n_bytes + 100_000)[2] == []
    )  # with the header, of which the client warns


# --- on a terminal ------------------------------------------------------------------------------------------------


def on_a_terminal(hub: Hub, home: Path, *, interrupt: bytes | None = None, **more: str) -> tuple[int, str]:
    """Fetch with stderr on a terminal of its own; return the exit code and what was shown."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    process = subprocess.Popen(
        [sys.executable, "-c", _FIND, json.dumps(["org/tiny", {}, True])],
        env=environment(hub, home, TERM="xterm", COLUMNS="120", **more),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
            if interrupt and interrupt in shown:
                process.send_signal(signal.SIGINT)
                interrupt = None
    except OSError:  # Linux says so at the end
        pass
    os.close(ours)
    return process.wait(30), shown.decode()


def test_progress_shows_on_a_terminal_unless_the_hub_s_variable_forbids(hub: Hub, tmp_path: Path) -> None:
    code, shown = on_a_terminal(hub, tmp_path / "a")
    assert code == 0
    assert "fetching org/tiny" in shown
    assert "MB" in shown
    assert on_a_terminal(hub, tmp_path / "b", HF_HUB_DISABLE_PROGRESS_BARS="1") == (0, "")


def test_progress_ends_at_what_was_missing(hub: Hub, tmp_path: Path) -> None:
    n_bytes = without_the_second_shard(hub, tmp_path)
    _, shown = on_a_terminal(hub, tmp_path)
    assert set(re.findall(r"/([\d.]+ [kM]B)", shown)) == {f"{n_bytes / 1e3:.1f} kB"}


def test_an_interrupted_download_ends_at_once_and_leaves_nothing(hub: Hub, heavy: Path, tmp_path: Path) -> None:
    hub.pause = 0.3
    start = time.perf_counter()
    code, _ = on_a_terminal(hub, tmp_path, interrupt=b"10.5/50.0 MB")
    assert code != 0
    assert time.perf_counter() - start < 10
    assert not [path for path in blobs(tmp_path).iterdir() if path.name.startswith(etag(heavy))]


@pytest.mark.parametrize("variable", ["HF_HUB_DOWNLOAD_TIMEOUT=soon", "HF_ENDPOINT=http://[no"])
def test_a_setting_that_the_client_cannot_use_is_said_in_a_line(tmp_path: Path, variable: str) -> None:
    name, _, value = variable.partition("=")
    command = [sys.executable, "-m", "mmgen", "draw", "a", "-o", "a.png"]
    done = subprocess.run(
        command, env=dict(os.environ) | {name: value}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: a setting of the Hub's client cannot be used: ")
    assert done.stderr.endswith("hint: look at the variables of the environment that begin with HF_\n")


class _Page(BaseHTTPRequestHandler):
    """Whatever is asked for, the page of a hotel."""

    def do_GET(self) -> None:
        page = b"<html>Log in to our network</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page if self.command == "GET" else b"")

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("token", "message"), [("tök", "the token for the Hub is not ASCII text"), ("", "a page that is not the Hub's")]
)
def test_a_network_that_answers_for_the_hub_and_a_strange_token_are_said_in_a_line(
    tmp_path: Path, token: str, message: str
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        own = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path), "HF_TOKEN": token}
        done = subprocess.run(
            [sys.executable, "-m", "mmgen", "models", "org/name"],
            env=dict(os.environ) | own, capture_output=True, text=True, check=False,
        )  # fmt: skip
        server.shutdown()
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) == 2

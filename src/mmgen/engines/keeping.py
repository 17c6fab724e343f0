"""Servers in the background that keep a model loaded from one command to the next: found again, started, stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path

from mmgen import __version__
from mmgen.errors import MmgenError, UsageError, explained
from mmgen.files import alone_in, cache_folder
from mmgen.request import Loading
from mmgen.text import from_json

_TIME = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smh]?)", re.ASCII)
_SECONDS = 60.0  # for a server to listen; loading comes after
_LONGEST = 100  # bytes of a socket's path, about (sun_path, unix(7))


@dataclass(frozen=True)
class Server:
    """A server in the background.

    Attributes:
        socket: the path that it listens at.
    """

    model: str
    pid: int
    socket: str
    version: str

    def stop(self) -> None:
        """Have it end, once it has answered what is under way."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


def running() -> list[Server]:
    """List the servers that listen; what those left that have ended is taken away."""
    with alone_in(_folder(), wait=False) as is_alone:
        return _listed(sweeps=is_alone)


def _listed(*, sweeps: bool) -> list[Server]:
    """List the servers; sweeps: no other is being started, so what does not listen has ended."""
    found = []
    for note in sorted(_folder().glob("*.json")):
        path = str(note.with_suffix(".sock"))
        if _connects(path):
            said = from_json(note.read_text()) or {}
            found.append(Server(str(said.get("model")), int(said.get("pid", 0)), path, str(said.get("version"))))
        elif sweeps:
            for ending in (".json", ".log", ".sock"):
                note.with_suffix(ending).unlink(missing_ok=True)
    return found


def ensure(model: str, loading: Loading, idle: str) -> str:
    """Give the path of the socket of a server of this model, loaded so; it is started if there is none.

    Args:
        idle: time after which it ends, as in 10m.

    Raises:
        MmgenError: it cannot be started.
    """
    name = os.path.abspath(model) if os.path.exists(model) and "/" in model else model  # noqa: PTH100, PTH110 -- as named
    key = sha256(json.dumps([__version__, sys.executable, name, asdict(loading)]).encode()).hexdigest()[:16]
    path = str(_folder() / f"{key}.sock")
    if len(os.fsencode(path)) > _LONGEST:
        raise MmgenError(f"{path} is too long for a socket", "set XDG_RUNTIME_DIR to a shorter folder")
    if _connects(path):
        return path
    with alone_in(_folder()):  # two commands at once start one
        if not _connects(path):
            for server in _listed(sweeps=True):
                if server.version != __version__:
                    server.stop()
            _start(path, [*_flags(name, loading), "--socket", path, "--idle", idle], model)
    return path


def _start(path: str, arguments: Sequence[str], model: str) -> None:
    """Start a server, and wait until it listens."""
    import subprocess  # not on the way to one that is there

    log = Path(path).with_suffix(".log")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MMGEN_")}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "mmgen", "serve", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, cwd="/", env=environment,
            start_new_session=True,
        )  # fmt: skip
    Path(path).with_suffix(".json").write_text(json.dumps({"model": model, "pid": process.pid, "version": __version__}))
    deadline = time.monotonic() + _SECONDS
    while not _connects(path):
        if process.poll() is not None:
            raise _failure(path)
        if time.monotonic() > deadline:
            process.kill()
            raise MmgenError(f"no server of {model} within {_SECONDS:.0f} s", f"{log} says how far it came")
        time.sleep(0.02)


def _failure(path: str) -> MmgenError:
    """Say why a server ended, from what it wrote."""
    lines = Path(path).with_suffix(".log").read_text(errors="replace").splitlines()
    said = {kind: text for kind, _, text in (line.partition(": ") for line in lines)}
    return MmgenError(said.get("error", f"the server ended: {(lines or [''])[-1]}"), said.get("hint", ""))


def seconds_of(text: str, flag: str) -> float:
    """Read a time, as in 90, 90s, 10m or 1h, in seconds.

    Raises:
        UsageError: it is none.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise UsageError(f"{flag} {text} is no time", "as in 90s, 10m or 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def _flags(name: str, loading: Loading) -> Iterator[str]:
    """Write what is loaded, and how, as the flags of `mmgen serve`."""
    yield from ("--quiet", "--model", name)
    for each in fields(Loading):
        value, flag = getattr(loading, each.name), (*each.metadata["flags"], f"--{each.name.replace('_', '-')}")[0]
        if value != each.default:
            yield from (flag,) if isinstance(value, bool) else (flag, str(value))


def _connects(path: str) -> bool:
    """Whether somebody listens at a socket."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked, suppress(OSError):
        asked.connect(path)
        return True
    return False


def _folder() -> Path:
    """Give the folder of the sockets, which is ours alone."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "mmgen" if runtime else cache_folder() / "run"
    with explained("make", folder, "set XDG_RUNTIME_DIR to a folder of yours"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    return folder

"""The server as a process: where it listens, how it ends, and how long it bears with connections that say nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.middleware.cors import CORSMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from mmgen.errors import MmgenError, UsageError, reason
from mmgen.serve.app import Served, make_app
from mmgen.serve.fetching import open_url
from mmgen.serve.guard import Guard, Rules
from mmgen.serve.scheduler import Scheduler

_MOST_CONNECTIONS = 500
_HEAD_SECONDS = 20.0  # for the head of a request to come, from the first or the last of a connection
_BACKLOG = 128


class _Patient(H11Protocol):
    """HTTP/1.1 by h11, which drops who connects and asks nothing, and who comes when there are too many."""

    def connection_made(self, transport: Any) -> None:
        """Take a connection."""
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            transport.abort()
            return
        self.loop.call_later(_HEAD_SECONDS, self._look, None)

    def _look(self, before: Any) -> None:
        """Drop the connection if no request came since the last look; before: the last one by then."""
        if self.transport.is_closing():
            return
        is_answered = self.cycle is None or self.cycle.response_complete
        if is_answered and self.cycle is before:
            self.transport.abort()
            return
        self.loop.call_later(_HEAD_SECONDS, self._look, self.cycle if is_answered else None)


class Server(uvicorn.Server):
    """uvicorn, which answers what is under way before it ends, and refuses what comes meanwhile."""

    def __init__(
        self,
        guard: Guard,
        scheduler: Scheduler,
        say: Callable[[str], None],
        place: Place,
        idle: float | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                guard,
                http=_Patient,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=int(_HEAD_SECONDS),
                backlog=_BACKLOG,
            )
        )
        self._guard, self._scheduler, self._say, self._place, self._idle = guard, scheduler, say, place, idle

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end it, twice at once; that is no failure. Only a main thread hears of them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def end(self) -> None:
        """Begin to end: answer what is under way, and refuse what comes."""
        self._guard.is_ending = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end, or end at once."""
        if self._guard.is_ending:
            self.force_exit = True
            self._scheduler.close(at_once=True)
            self.leave()
            return
        self.end()
        if self._guard.n_open:
            self._say("ending: what is under way is finished; once more stops at once")

    def leave(self) -> None:
        """Stop. The path of its socket goes first: a moment later it may be another's."""
        self._place.forget()
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Look ten times a second whether it is time to end."""
        since = self._scheduler.idle_since
        is_idle = self._guard.n_open == 0 and self._scheduler.model is not None
        if self._idle is not None and is_idle and since is not None and time.monotonic() - since > self._idle:
            self._guard.is_ending = True
        if self._guard.is_ending and self._guard.n_open == 0:
            self.leave()
        return await super().on_tick(counter)


def build(
    served: Served,
    scheduler: Scheduler,
    place: Place,
    rules: Rules,
    *,
    say: Callable[[str], None] = lambda _: None,
    from_web: bool = False,
    idle: float | None = None,
) -> Server:
    """Put a server together.

    Args:
        say: is told a line of each request.
        from_web: pictures are fetched from the web, too.
        idle: seconds without work after which it ends.
    """
    guard = Guard(rules, say)
    app = make_app(served, scheduler, partial(open_url, from_web=from_web), guard.seen)
    if rules.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=rules.origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    guard.app = app
    return Server(guard, scheduler, say, place, idle)


@dataclass(frozen=True)
class Place:
    """Where a server listens.

    Attributes:
        name: an address, or the path of a socket.
        inode: of the socket at that path.
    """

    socket: socket.socket
    name: str
    inode: int | None = None

    def forget(self) -> None:
        """Take the path away, if it is not another's by now."""
        with contextlib.suppress(OSError):
            if self.inode is not None and Path(self.name).stat().st_ino == self.inode:
                Path(self.name).unlink()


def listen(host: str, port: int, path: str | None) -> Place:
    """Listen at a port, or at a socket that only its owner can open.

    Raises:
        MmgenError: that cannot be.
    """
    if path is not None:
        return _listen_at(Path(path))
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
        opened.listen(_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as failure:
        opened.close()
        raise MmgenError(f"cannot listen at {host}, port {port}: {reason(failure)}", "choose another --port") from None
    shown = f"[{host}]" if ":" in host else host
    return Place(opened, f"http://{shown}:{opened.getsockname()[1]}/v1")


def _listen_at(path: Path) -> Place:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
            opened.connect(str(path))
            raise UsageError(f"somebody listens at {path} already", "mmgen serve --list shows who")
        if path.is_socket():  # of one that died
            path.unlink()
        before = os.umask(0o177)
        try:
            opened.bind(str(path))
        finally:
            os.umask(before)
        opened.listen(_BACKLOG)
        return Place(opened, str(path), path.stat().st_ino)
    except OSError as failure:
        opened.close()
        raise MmgenError(f"cannot listen at {path}: {reason(failure)}", "choose another --socket") from None

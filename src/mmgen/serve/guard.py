"""What stands before the application: who may ask, and how much they may send. Knows no schema but that of errors."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmgen.errors import MmgenError
from mmgen.serve.errors import BusyError, EndingError, RefusedError, error_body, status_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MOST_BYTES = 140_000_000  # of a body: a picture of 100 MB in base64, and what stands beside it
_MOST_HELD = 560_000_000  # of all bodies that are being read
_SECONDS = 60.0  # for a body to come, or for a part of the answer to be read
_LOCAL = {"localhost", "127.0.0.1", "[::1]"}
_PATHS = {"/health", "/metrics", "/v1/models", "/v1/chat/completions"}
_PATHS |= {f"/v1/images/{name}" for name in ("generations", "edits", "variations")}
_OPEN = {"/health"}  # to whoever has no key


@dataclass(frozen=True)
class Rules:
    """Who may ask.

    Attributes:
        key: that every request has to bring; None: none.
        hosts: names by which the server may be called; None: any.
        origins: of pages whose scripts may ask.
    """

    key: str | None = None
    hosts: frozenset[str] | None = frozenset(_LOCAL)
    origins: Sequence[str] = ()


class Guard:
    """An application that passes on to another what may be asked, and says a line of each request.

    Attributes:
        app: the other.
        is_ending: new requests are refused.
        seen: how many requests there were, by path and status.
        n_open: requests that are being answered.
    """

    app: ASGIApp

    def __init__(self, rules: Rules, say: Callable[[str], None]) -> None:
        self._rules, self._say = rules, say
        self.is_ending = False
        self.seen: Counter[tuple[str, int]] = Counter()
        self.n_open = self._n_held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it (ASGI 3.0)."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        began, status, n_read, is_begun, has_body = time.monotonic(), 499, 0, False, False
        failure: MmgenError | None = None  # over the body

        async def counted() -> Message:
            nonlocal n_read, failure
            if n_read < 0:  # the body is there: what comes now is that they have gone
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, began + _SECONDS - time.monotonic()))
                n = len(message.get("body", b""))
                n_read, self._n_held = n_read + n, self._n_held + n
                self._check_size(n_read)
            except TimeoutError:
                failure = RefusedError(408, f"the body took more than {_SECONDS:.0f} s", "send it faster")
                raise failure from None
            except MmgenError as error:
                failure = error
                raise
            if not message.get("more_body"):
                self._n_held -= n_read
                n_read = -1
            return message

        async def noted(message: Message) -> None:
            nonlocal status, is_begun
            if failure is not None and not is_begun:
                return  # it says that the body is off, and is told below why
            if message["type"] == "http.response.start":
                status, is_begun = message["status"], True
                if has_body and n_read >= 0:  # what is left of the body is not read
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            try:
                await asyncio.wait_for(send(message), _SECONDS)
            except TimeoutError:
                raise RefusedError(499, "the answer is not read") from None

        async def refuse(error: MmgenError) -> None:
            nonlocal failure
            failure = None
            for message in _refusal(error):
                await noted(message)

        self.n_open += 1
        try:
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            claimed = headers.get(b"content-length", "0")
            has_body = claimed != "0" or b"transfer-encoding" in headers
            try:
                self._check(scope, headers)
                self._check_size(int(claimed) if claimed.isdecimal() else 0)
                await self.app(scope, counted, noted)
                if failure is not None and not is_begun:
                    await refuse(failure)
            except MmgenError as error:
                if not is_begun:
                    await refuse(error)
        finally:
            self.n_open -= 1
            self._n_held -= max(0, n_read)
            path = scope["path"] if scope["path"] in _PATHS else "other"  # whatever is asked, lines and counts stay few
            self.seen[path, status] += 1
            client = scope["client"][0] if scope.get("client") else "local"
            self._say(f"{client} {scope['method'][:10]} {path} {status} {time.monotonic() - began:.2f} s")

    def _check(self, scope: Scope, headers: dict[bytes, str]) -> None:
        """Refuse who may not ask.

        Raises:
            RefusedError: with its status.
        """
        rules, host = self._rules, headers.get(b"host", "").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and ":" in host else host
        if rules.hosts is not None and name not in rules.hosts:  # a name that leads here by DNS rebinding
            raise RefusedError(403, f"this server is not called {host[:100]!r}", "use the address that it says")
        origin = headers.get(b"origin")
        if origin is not None and origin not in rules.origins and origin.partition("://")[2] != host:
            raise RefusedError(403, "pages of other origins may not ask", "allow one with --cors ORIGIN")
        if rules.key is not None and scope["path"] not in _OPEN and scope["method"] != "OPTIONS":
            given = headers.get(b"authorization", "").removeprefix("Bearer ").encode()
            if not secrets.compare_digest(given, rules.key.encode()):
                raise RefusedError(401, "the API key is missing or wrong", "send it as Authorization: Bearer KEY")
        if self.is_ending:
            raise EndingError

    def _check_size(self, n_bytes: int) -> None:
        if n_bytes > _MOST_BYTES:
            raise RefusedError(413, f"the body has more than {_MOST_BYTES:,} bytes", "send smaller pictures")
        if n_bytes + self._n_held > _MOST_HELD:
            raise BusyError("too much is being sent just now")


def names_of(host: str) -> frozenset[str]:
    """Give the names by which a server that listens at a host may be called."""
    return frozenset({*_LOCAL, host.lower(), f"[{host.lower()}]"})


def _refusal(error: MmgenError) -> list[Message]:
    """Write an error as a whole response."""
    body, status = json.dumps(error_body(error)).encode(), status_of(error)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status in (429, 503):
        headers.append((b"retry-after", b"1"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return [
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": body},
    ]

"""Servers on loopback: mmgen's own with any model, and one of OpenAI's schema that fails as it is told."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from mmgen.model import Model
from mmgen.serve import running
from mmgen.serve.app import Served
from mmgen.serve.guard import Rules
from mmgen.serve.scheduler import Scheduler


@dataclass
class Running:
    """A server of mmgen's under way."""

    address: str
    server: running.Server
    scheduler: Scheduler
    thread: threading.Thread
    lines: list[str]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def end(self) -> None:
        self.server.end()
        self.thread.join(30)
        assert not self.thread.is_alive(), "the server did not end"


@contextmanager
def serving(model: Model, rules: Rules | None = None, queue: int = 256, **how: Any) -> Iterator[Running]:
    """Serve a model that is in this process."""
    scheduler, lines = Scheduler(lambda: model, queue), list[str]()
    place = running.listen("127.0.0.1", 0, None)
    identity = getattr(model, "identity", "") if isinstance(getattr(model, "identity", None), str) else ""
    served = Served(model.name, model.revision, identity, model.abilities, model.note)
    server = running.build(served, scheduler, place, rules or Rules(), say=lines.append, **how)
    scheduler.start()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[place.socket])), daemon=True)
    thread.start()
    under_way = Running(place.name.removesuffix("/v1"), server, scheduler, thread, lines)
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield under_way
    finally:
        scheduler.close(at_once=True)
        under_way.end()


@dataclass
class Foreign:
    """A server of another's making.

    Attributes:
        behave: is asked before each answer, given the number of the request: a status to fail with, `cut` to break off
            in the middle, `stall` to send nothing more, None to answer.
        asked: bodies of the requests, with their paths.
        answered: how often each question was answered to its end, by what it asked.
    """

    behave: Callable[[int], int | str | None] = lambda _: None
    models: tuple[str, ...] = ("stranger",)
    retry_after: str | None = None
    error: Any = None
    streams: bool = True
    asked: list[tuple[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def listening(self, port: int = 0) -> Iterator[str]:
        """Answer at a port, until this ends."""
        outer = self

        class Handler(_Handler):
            foreign = outer

        self.released.clear()
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            self.released.set()
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    foreign: Foreign
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.foreign.models]})

    def do_POST(self) -> None:
        foreign = self.foreign
        data = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(data) if "json" in self.headers["Content-Type"] else {"form": data}
        with foreign.lock:
            number = len(foreign.asked)
            foreign.asked.append((self.path, body))
            foreign.headers.append(dict(self.headers))
            foreign.under_way += 1
            foreign.most_under_way = max(foreign.most_under_way, foreign.under_way)
        try:
            self._answer(body, foreign.behave(number))
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with foreign.lock:
                foreign.under_way -= 1

    def _answer(self, body: dict[str, Any], how: int | str | None) -> None:
        foreign = self.foreign
        if isinstance(how, int):
            self._send(how, {"error": foreign.error or {"message": "it was told to fail", "type": "server_error"}})
            return
        if not self.path.endswith("chat/completions"):
            image = io.BytesIO()
            Image.new("RGB", (8, 8), "green").save(image, "PNG")
            self._send(200, {"created": 0, "data": [{"b64_json": base64.b64encode(image.getvalue()).decode()}]})
            return
        question = digest_of(body)
        if not foreign.streams:
            message = {"role": "assistant", "content": f"seen {question}"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._send(200, {"choices": [choice], "usage": {"completion_tokens": 2}})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for delta in ({"role": "assistant", "content": "seen "}, {"content": question}):
            self._event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            if how == "cut":
                self.close_connection = True
                return
            if how == "stall":
                foreign.released.wait(60)
                return
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True
        with foreign.lock:
            foreign.answered[question] += 1

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())
        self.wfile.flush()

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.foreign.retry_after is not None and status != 200:
            self.send_header("Retry-After", self.foreign.retry_after)
        self.end_headers()
        self.wfile.write(data)


def digest_of(body: dict[str, Any]) -> str:
    """Tell a chat completion's question by the colour of its first picture, else by its words."""
    content = body["messages"][-1]["content"]
    for part in content if isinstance(content, list) else []:
        if part["type"] == "image_url":
            data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            with Image.open(io.BytesIO(data)) as image:
                return image.convert("RGB").crop((0, 0, 1, 1)).tobytes().hex()
    return content if isinstance(content, str) else content[0]["text"]

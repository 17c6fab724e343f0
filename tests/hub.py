"""A Hub of our own on 127.0.0.1 that serves one folder as a repository, or refuses in the ways the real one does."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves `folder` under the name `repo`, at revisions `main` and COMMIT.

    Attributes:
        requested: every path that was asked for.
        gated: whether files are refused (the repository's description never is).
        cut: whether weights break off in the middle.
    """

    daemon_threads = True

    def __init__(self, folder: Path, repo: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.repo = folder, repo
        self.requested: list[str] = []
        self.gated = False
        self.cut = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requested.append(path)
        api, files = f"/api/models/{self.server.repo}", f"/{self.server.repo}/resolve/"
        if path.startswith(f"{api}/tree/"):
            names = sorted(self.server.folder.iterdir())
            self._answer(
                [
                    {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": p.name.ljust(40, "0")}
                    for p in names
                ]
            )
        elif path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            siblings = [{"rfilename": p.name} for p in sorted(self.server.folder.iterdir())]
            self._answer({"id": self.server.repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
        elif path.startswith(api):
            self._refuse(404, "RevisionNotFound")
        elif path.startswith(files):
            self._file(self.server.folder / path.removeprefix(files).partition("/")[2])
        else:
            self._refuse(404, "RepoNotFound")

    def _file(self, path: Path) -> None:
        if self.server.gated:
            return self._refuse(403, "GatedRepo")
        if not path.is_file():
            return self._refuse(404, "EntryNotFound")
        body = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
        sent = body[: len(body) // 2] if self.server.cut and path.suffix == ".safetensors" else body
        self._send(200, body if self.command == "HEAD" else sent, headers, n_bytes=len(body))
        return None

    def _answer(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str], n_bytes: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if n_bytes is None else n_bytes))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if n_bytes is not None and len(body) < n_bytes:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        return


@contextmanager
def serve(folder: Path, repo: str = "org/tiny") -> Iterator[Hub]:
    """Run a Hub for the length of a block."""
    hub = Hub(folder, repo)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()

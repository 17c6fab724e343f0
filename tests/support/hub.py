"""A Hub of our own on 127.0.0.1 that serves one folder as a repository, or refuses in the ways the real one does."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Asked:
    """One request that came."""

    method: str
    path: str
    range: str | None
    n_sent: int  # bytes of the answer's body


class Hub(ThreadingHTTPServer):
    """Serves `folder` under the name `repo`, at revisions `main` and COMMIT. Files may be sparse and huge.

    Attributes:
        asked: every request, with what was sent.
        gated: whether files are refused (the repository's description never is).
        token: without it in the request there is no such repository, if it is set.
        cuts: how many more answers with weights (not with headers alone) break off in the middle.
        xet: whether weights come through Xet, or how that refuses them (an HTTP status).
        pause: seconds that it waits after each megabyte.
        n_sent: bytes of bodies so far.
        status: answers everything with this HTTP status, if it is set.
    """

    daemon_threads = True

    def __init__(self, folder: Path, repo: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.repo = folder, repo
        self.asked: list[Asked] = []
        self.gated = False
        self.token: str | None = None
        self.cuts = 0
        self.xet: bool | int = False
        self.pause = 0.0
        self.n_sent = 0
        self.status: int | None = None

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the client may have had enough
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def requested(self) -> list[str]:
        """The paths of all requests."""
        return [asked.path for asked in self.asked]

    def weights(self) -> list[Asked]:
        """The requests that went for weights, and got something."""
        return [asked for asked in self.asked if asked.path.endswith(".safetensors") and asked.n_sent]


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        n_sent = self._answer_to(path)
        self.server.asked.append(Asked(self.command, path, self.headers.get("Range"), n_sent))

    def _answer_to(self, path: str) -> int:
        hub = self.server
        api, files = f"/api/models/{hub.repo}", f"/{hub.repo}/resolve/"
        if path.startswith("/xet/"):
            return self._xet(path)
        if hub.status is not None:
            return self._refuse(hub.status)
        if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._refuse(401, "RepoNotFound")
        if path.startswith(f"{api}/tree/"):
            names = sorted(hub.folder.iterdir())
            return self._json(
                [
                    {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": p.name.ljust(40, "0")}
                    for p in names
                ]
            )
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            siblings = [{"rfilename": p.name} for p in sorted(hub.folder.iterdir())]
            return self._json({"id": hub.repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
        if path.startswith(api):
            return self._refuse(404, "RevisionNotFound")
        if path.startswith(files):
            return self._file(hub.folder / path.removeprefix(files).partition("/")[2])
        return self._refuse(404, "RepoNotFound")

    def _file(self, path: Path) -> int:
        if self.server.gated:
            return self._refuse(403, "GatedRepo")
        if not path.is_file():
            return self._refuse(404, "EntryNotFound")
        size = path.stat().st_size
        start, end = _span(self.headers.get("Range"), size)
        headers = {"ETag": f'"{etag(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if self.server.xet and path.suffix == ".safetensors":
            headers |= {"X-Xet-Hash": etag(path), "X-Xet-Refresh-Route": f"{self.server.url}/xet/token"}
        if self.headers.get("Range"):
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self._head(206 if self.headers.get("Range") else 200, headers, end - start)
        if self.command == "HEAD":
            return 0
        stop = end
        whole = end == size  # not just a header
        if path.suffix == ".safetensors" and self.server.cuts and whole and end - start > 2:
            self.server.cuts -= 1
            stop = (start + end) // 2
            self.close_connection = True
        with path.open("rb") as file, suppress(ConnectionError):  # the client may have had enough
            file.seek(start)
            for at in range(start, stop, _CHUNK):
                self.wfile.write(file.read(min(_CHUNK, stop - at)))
                self.server.n_sent += min(_CHUNK, stop - at)
                time.sleep(self.server.pause)
        return stop - start

    def _xet(self, path: str) -> int:
        """Answer as Xet's server does, which has each file in one piece (huggingface.co/docs/xet)."""
        url = f"{self.server.url}/xet"
        if path == "/xet/token":
            self._head(
                200, {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "t", "X-Xet-Token-Expiration": "9999999999"}, 0
            )
            return 0
        if self.server.xet is not True or "/v2/" in path:
            return self._refuse(404 if self.server.xet is True else self.server.xet)
        name = path.rpartition("/")[2]
        (data,) = (p.read_bytes() for p in self.server.folder.glob("*.safetensors") if etag(p) == name)
        parts = [data[at : at + (1 << 16)] for at in range(0, len(data), 1 << 16)]
        if "/reconstructions/" in path:
            all_parts = {"start": 0, "end": len(parts)}
            piece = {
                "range": all_parts,
                "url": f"{url}/piece/{name}",
                "url_range": {"start": 0, "end": len(data) + 8 * len(parts) - 1},
            }
            term = {"hash": name, "unpacked_length": len(data), "range": all_parts}
            return self._json({"offset_into_first_range": 0, "terms": [term], "fetch_info": {name: [piece]}})
        sizes = [len(part).to_bytes(3, "little") for part in parts]  # packed, and not: they are not packed
        body = b"".join(b"\0" + n + b"\0" + n + part for n, part in zip(sizes, parts, strict=True))
        self._head(206, {"Content-Range": f"bytes 0-{len(body) - 1}/{len(body)}"}, len(body))
        for at in range(0, len(body), _CHUNK):
            self.wfile.write(body[at : at + _CHUNK])
            time.sleep(self.server.pause)
        return len(body)

    def _json(self, value: object) -> int:
        body = json.dumps(value).encode()
        self._head(200, {"Content-Type": "application/json"}, len(body))
        if self.command == "HEAD":
            return 0
        self.wfile.write(body)
        return len(body)

    def _refuse(self, status: int, code: str = "") -> int:
        self._head(status, {"X-Error-Code": code, "X-Error-Message": code} if code else {}, 0)
        return 0

    def _head(self, status: int, headers: dict[str, str], n_bytes: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(n_bytes))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        return


def _span(asked: str | None, size: int) -> tuple[int, int]:
    """Read `bytes=100-199` or `bytes=100-` as a start and an end."""
    if asked is None:
        return 0, size
    start, _, last = asked.removeprefix("bytes=").partition("-")
    return int(start), min(size, int(last) + 1 if last else size)


def etag(path: Path) -> str:
    """As on the real Hub, weights go by their SHA-256; a hollow file of gigabytes goes by its size."""
    if path.stat().st_size > 100_000_000:
        return f"{path.stat().st_size:040x}"
    return (hashlib.sha256 if path.suffix == ".safetensors" else hashlib.sha1)(path.read_bytes()).hexdigest()


def write_hollow(path: Path, tensors: Mapping[str, tuple[str, Sequence[int]]]) -> int:
    """Write a safetensors file of full size with nothing in it: a real header, and a hole where the data would be.

    Args:
        tensors: dtype (as safetensors calls it) and shape of each.

    Returns:
        Bytes of all tensors.
    """
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * int(dtype.lstrip("BFIU")) // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)
    return end


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

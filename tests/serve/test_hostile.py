"""What a server on a network has to bear: each is refused in its schema or dropped, and the next is answered."""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import httpx2
import psutil
import pytest

from mmgen.errors import MmgenError
from mmgen.model import Model
from mmgen.request import Done, Piece, Progress, Request
from mmgen.serve import fetching, guard, running
from mmgen.serve.guard import Rules
from tests.support.scripted import Scripted, picture
from tests.support.serving import Running, serving

MEGABYTE = 2**20


@pytest.fixture
def server() -> Iterator[Running]:
    with serving(Scripted()) as server:
        yield server


def post(server: Running, path: str, body: Any, **headers: str) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return httpx2.post(f"{server.address}/v1/{path}", content=content, headers=headers, timeout=60)


def ask(server: Running, **fields: Any) -> httpx2.Response:
    return post(server, "chat/completions", {"messages": [{"role": "user", "content": "why?"}], **fields})


def with_picture(url: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


def refusal(response: httpx2.Response, status: int) -> str:
    """Check that a request was refused in OpenAI's schema; give what was said."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "hint"}
    assert error["message"]
    assert "\n" not in error["message"]
    return str(error["message"])


def still_answers(server: Running) -> None:
    assert ask(server).json()["choices"][0]["message"]["content"] == "A snowman."
    assert server.scheduler.n_waiting == server.scheduler.n_under_way == 0


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8686", "127.0.0.1.evil.example", ""])
def test_another_name_for_this_machine_is_refused(server: Running, host: str) -> None:
    refusal(post(server, "chat/completions", {}, Host=host), 403)
    still_answers(server)


def test_scripts_of_other_pages_are_refused_but_those_that_are_allowed() -> None:
    with serving(Scripted(), Rules(origins=("https://mine.example",))) as server:
        body = {"messages": [{"role": "user", "content": "why?"}]}
        refusal(post(server, "chat/completions", body, Origin="https://evil.example"), 403)
        allowed = post(server, "chat/completions", body, Origin="https://mine.example")
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://mine.example"
        own = post(server, "chat/completions", body, Origin=server.address)
        assert own.status_code == 200


def test_a_body_of_a_gigabyte_is_refused_before_it_is_read(server: Running) -> None:
    before = psutil.Process().memory_info().rss
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 1000000000\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST /v1/images/edits HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nTransfer-Encoding: chunked\r\n"
        connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode())
        chunk = f"{MEGABYTE:x}\r\n".encode() + bytes(MEGABYTE) + b"\r\n"
        n_sent = 0
        try:
            while n_sent < 1000:
                connection.sendall(chunk)
                n_sent += 1
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert n_sent < 200
    assert psutil.Process().memory_info().rss - before < 400 * MEGABYTE
    still_answers(server)


def bomb(side: int) -> bytes:
    """Make a PNG of so many pixels to each side, of which nearly none are in the file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_a_picture_of_30000_pixels_is_refused(server: Running) -> None:
    data = base64.b64encode(bomb(30_000)).decode()
    said = refusal(post(server, "chat/completions", with_picture(f"data:image/png;base64,{data}")), 400)
    assert "too large" in said
    files = {"image": ("a.png", bomb(30_000), "image/png")}
    sent = httpx2.post(f"{server.address}/v1/images/edits", files=files, data={"prompt": "a"})
    assert "too large" in refusal(sent, 400)
    still_answers(server)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/health", "http://localhost:{port}/health", "http://[::1]/", "http://169.254.169.254/",
        "https://10.0.0.1/", "http://0.0.0.0/", "http://[::ffff:127.0.0.1]/", "http://2130706433/",
        "http://[fe80::1%25lo]/", "http://100.64.0.1/", "file:///etc/passwd", "/etc/passwd", "etc/passwd", "ftp://a/b",
        "\x00", "data:", "data:image/png;base64,%%%", "http://",
    ],
)  # fmt: skip
@pytest.mark.parametrize("from_web", [True, False])
def test_addresses_that_lead_here_or_nowhere_are_refused(url: str, from_web: bool) -> None:
    with serving(Scripted(), from_web=from_web) as server:
        refusal(post(server, "chat/completions", with_picture(url.format(port=server.port))), 400)
        still_answers(server)


def test_a_redirect_that_leads_here_is_refused(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address is let through, as if it were public; the one that it leads to is looked at anew."""
    looked_at = []

    def is_public(address: str) -> bool:
        looked_at.append(address)
        return len(looked_at) == 1

    monkeypatch.setattr(fetching, "is_public", is_public)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def redirect() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=redirect, daemon=True).start()
        with pytest.raises(MmgenError, match="not on the public internet"):
            fetching.open_url(f"http://127.0.0.1:{listening.getsockname()[1]}/a.png", from_web=True)
    assert len(looked_at) == 2


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_public_addresses_are_public(address: str) -> None:
    assert fetching.is_public(address)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"messages": 1}', b"[" * 100_000, b'{"messages": [{"role": "god"}]}',
        b'{"messages": [{"role": "user", "content": "a\\ud800"}]}', b'{"messages": [{"role": "user", "content": {}}]}',
        b'{"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}', b'{"n": 1e99, "messages": []}',
        b'{"messages": [{"role": "user", "content": "a"}], "seed": -1}',
        b'{"messages": [{"role": "user", "content": "a"}], "max_tokens": "many"}',
        b'{"messages": [{"role": "user", "content": "a"}], "n": 1000}',
        b'{"messages": [{"role": "user", "content": "a"}], "json_schema": "/etc/passwd"}',
        b'{"messages": [{"role": "user", "content": "a"}], "device_map": "cuda"}',
        b'{"messages": [{"role": "user", "content": "a"}], "../../etc": "x"}',
    ],
    ids=range(18),
)  # fmt: skip
def test_bodies_that_are_none_are_refused(server: Running, body: bytes) -> None:
    refusal(post(server, "chat/completions", body), 400)
    still_answers(server)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "\x00", "a\nb", "\x1b[31m", "x" * 100_000])
def test_names_like_paths_are_names_of_no_model(server: Running, name: str) -> None:
    refusal(ask(server, model=name), 404)
    assert not any("\x1b" in line or "\n" in line for line in server.lines)
    still_answers(server)


@pytest.mark.parametrize("path", ["/etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/v1/files", "/docs", "/v1/%00"])
def test_other_paths_are_not_there(server: Running, path: str) -> None:
    refusal(httpx2.get(f"{server.address}{path}"), 404)
    still_answers(server)


def test_whatever_is_asked_lines_and_counts_stay_few() -> None:
    with serving(Scripted(), Rules(key="right")) as server, httpx2.Client() as client:
        for number in range(50):
            refusal(client.get(f"{server.address}/%1b[31m{number}"), 401)
            refusal(client.request(f"METHOD{number}", f"{server.address}/v1/models"), 401)
        metrics = client.get(f"{server.address}/metrics", headers={"Authorization": "Bearer right"}).text
    assert sum(line.startswith("mmgen_requests_total") for line in metrics.splitlines()) == 2
    assert not any("\x1b" in line for line in server.lines)


def test_control_characters_are_words_like_others(server: Running) -> None:
    body = {"messages": [{"role": "user", "content": "a\x00\x1b[31mb\r\n"}]}
    assert post(server, "chat/completions", body).status_code == 200


def test_a_head_that_does_not_end_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_HEAD_SECONDS", 0.2)
    with serving(Scripted()) as server:
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nX-a: b\r\n")
            assert read_all(connection) == b""
        with socket.create_connection(("127.0.0.1", server.port)) as connection:  # after a request that was whole
            connection.sendall(f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\nGET /hea".encode())
            assert read_all(connection).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - began < 5
        still_answers(server)


def test_a_body_that_does_not_come_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_SECONDS", 0.2)
    with serving(Scripted()) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:{server.port}\r\nContent-Type: application/json"
            )
            connection.sendall(f"{head}\r\nContent-Length: 100\r\n\r\n{{".encode())
            assert read_all(connection).startswith(b"HTTP/1.1 408")
        still_answers(server)


def test_an_answer_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Scripted(scripts=[["x" * 10_000_000] * 4])) as server:
        monkeypatch.setattr(guard, "_SECONDS", 0.3)
        body = json.dumps({"messages": [{"role": "user", "content": "a"}], "stream": True})
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:{server.port}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(f"{head}{body}".encode())
            wait_until(lambda: server.lines)
        still_answers(server)


def read_all(connection: socket.socket) -> bytes:
    connection.settimeout(10)
    data = b""
    try:
        while chunk := connection.recv(10_000):
            data += chunk
    except ConnectionResetError:
        pass
    return data


def test_more_connections_than_it_bears_are_dropped(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_MOST_CONNECTIONS", 50)
    connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
    try:
        deadline = time.monotonic() + 10
        n_dropped = 0
        while n_dropped < 250 and time.monotonic() < deadline:
            n_dropped = sum(is_dropped(each) for each in connections)
        assert n_dropped >= 250
    finally:
        for each in connections:
            each.close()
    time.sleep(0.2)
    still_answers(server)


def is_dropped(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class Slow(Scripted):
    """Makes a step only when it is let; says of each request how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[str] = []
        self.gate = threading.Event()

    def replies(self, requests: Iterable[Request | None]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        asked = [request for request in requests if request is not None]
        for number, request in enumerate(asked):
            while not self.gate.is_set() and not request.cancelled.is_set():
                time.sleep(0.005)
                yield number, Progress(1, 2)
            reason = "cancelled" if request.cancelled.is_set() else "end"
            self.ended.append(reason)
            if reason == "end":
                yield number, picture(request.seed) if "image" in request.want else "A snowman."
            yield number, Done(reason)  # type: ignore[arg-type]  # one of them


def wait_until(met: Any) -> None:
    deadline = time.monotonic() + 10
    while not met():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["chat/completions", "images/generations"])
def test_whoever_goes_away_is_dropped_at_the_next_step(stream: bool, path: str) -> None:
    model = Slow()
    with serving(model) as server:
        body = json.dumps({"messages": [{"role": "user", "content": "a"}], "prompt": "a", "stream": stream})
        body = json.dumps(
            {
                key: v
                for key, v in json.loads(body).items()
                if (key == "prompt") == ("images" in path) or key == "stream"
            }
        )
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            head = f"POST /v1/{path} HTTP/1.1\r\nHost: localhost:{server.port}\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            wait_until(lambda: server.scheduler.n_under_way == 1)
        wait_until(lambda: server.scheduler.n_under_way == 0)
        assert model.ended == ["cancelled"]
        model.gate.set()
        still_answers(server)


def test_a_full_queue_says_when_to_come_again() -> None:
    model = Slow()
    with serving(model, queue=3) as server:
        threads = [threading.Thread(target=ask, args=(server,)) for _ in range(4)]
        for number, thread in enumerate(threads):
            thread.start()
            wait_until(lambda n=number: server.scheduler.n_waiting + server.scheduler.n_under_way == n + 1)
        refused = ask(server)
        refusal(refused, 429)
        assert int(refused.headers["Retry-After"]) >= 1
        model.gate.set()
        for thread in threads:
            thread.join()
        still_answers(server)


def test_what_is_under_way_is_finished_at_the_end_and_what_comes_is_refused() -> None:
    model = Slow()
    with serving(model) as server:
        answers: list[httpx2.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(server))) for _ in range(5)]
        for thread in threads:
            thread.start()
        wait_until(lambda: server.scheduler.n_waiting + server.scheduler.n_under_way == 5)
        server.server.end()
        refused = ask(server)
        refusal(refused, 503)
        assert refused.headers["Retry-After"]
        model.gate.set()
        for thread in threads:
            thread.join()
        assert [each.json()["choices"][0]["message"]["content"] for each in answers] == ["A snowman."] * 5
        server.thread.join(10)
        assert not server.thread.is_alive()


class Failing(Model):
    """Fails over what says so, and over all beside it."""

    name, revision, abilities = "failing", None, Scripted().abilities

    def replies(self, requests: Iterable[Request | None]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        asked = [request for request in requests if request is not None]
        if any("poison" in request.parts for request in asked):
            raise ZeroDivisionError("poison")
        for number, request in enumerate(asked):
            yield number, "".join(part for part in request.parts if isinstance(part, str))
            yield number, Done()


def test_one_request_over_which_the_model_fails_ends_no_other() -> None:
    with serving(Failing()) as server:
        said: dict[str, int] = {}

        def one(word: str) -> None:
            body = {"messages": [{"role": "user", "content": word}]}
            said[word] = post(server, "chat/completions", body).status_code

        words = [f"word {number}" for number in range(20)]
        words[7] = "poison"
        run_all(one, words)
        assert said == {word: 400 if word == "poison" else 200 for word in words}


def run_all(one: Any, given: Sequence[Any]) -> None:
    threads = [threading.Thread(target=one, args=(each,)) for each in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_a_thousand_requests_none_is_lost_or_doubled() -> None:
    model = Failing()
    with serving(model, queue=2000) as server, httpx2.Client() as client:
        said: list[tuple[str, str]] = []

        def some(first: int) -> None:
            for number in range(first, 1000, 32):
                body = {"messages": [{"role": "user", "content": f"word {number}"}], "stream": number % 2 == 0}
                answer = client.post(f"{server.address}/v1/chat/completions", json=body, timeout=60)
                said.append((f"word {number}", answer.text))

        run_all(some, range(32))
        assert len(said) == len({word for word, _ in said}) == 1000
        assert all(f'"content": "{word}"' in text or f'"content":"{word}"' in text for word, text in said)
        assert server.scheduler.n_waiting == server.scheduler.n_under_way == 0


def test_nothing_is_written_for_a_request(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    image = io.BytesIO()
    picture(1).image.resize((2000, 2000)).save(image, "BMP")  # 12 MB, which a form would put into a file
    files = {"image": ("a.bmp", image.getvalue(), "image/bmp")}
    sent = httpx2.post(f"{server.address}/v1/images/edits", files=files, data={"prompt": "a"}, timeout=60)
    assert sent.status_code == 200

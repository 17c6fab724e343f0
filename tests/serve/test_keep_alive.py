"""`--keep-alive` and `mmgen serve` as processes: found, started once, replaced, ended, and nothing left."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

import mmgen
from mmgen.engines import keeping
from mmgen.request import Loading

MMGEN = [sys.executable, "-m", "mmgen"]


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "snowman.png"
    with mmgen.load("demo") as model:
        mmgen.draw(model, "a white snowman", seed=7)[0].save(path)
    return path


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for sockets, whose path is short; what still runs there at the end is killed."""
    with tempfile.TemporaryDirectory(prefix="mm") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder) / "mmgen"
        for process in servers(Path(folder)):
            process.kill()
            process.wait(10)


def servers(folder: Path) -> list[psutil.Process]:
    """Find the servers that listen below a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "serve" in words and any(word.startswith(str(folder)) for word in words):
            found.append(process)
    return found


def caption(picture: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MMGEN, "caption", str(picture), "-q", *flags], capture_output=True, text=True, check=False, timeout=100
    )


def wait_until_gone(folder: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while servers(folder) or any(folder.glob("*.sock")):
        assert time.monotonic() < deadline, "the server is still there"
        time.sleep(0.1)


def test_two_first_commands_start_one_server_which_the_next_finds(picture: Path, sockets: Path) -> None:
    done: list[subprocess.CompletedProcess[str]] = []
    threads = [threading.Thread(target=lambda: done.append(caption(picture, "--keep-alive", "5m"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.append(caption(picture, "--keep-alive", "5m"))
    assert [each.stdout for each in done] == ["A white snowman in the snow.\n"] * 3, done
    (server,) = servers(sockets)
    # Only its owner can reach it
    (path,) = sockets.glob("*.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    # It can be listed, and stopped
    listed = subprocess.run([*MMGEN, "serve", "--list"], capture_output=True, text=True, check=True).stdout
    assert listed == f"demo\t{server.pid}\t{path}\n"
    stopped = subprocess.run([*MMGEN, "serve", "--stop"], capture_output=True, text=True, check=True).stdout
    assert stopped == listed
    wait_until_gone(sockets)
    assert subprocess.run([*MMGEN, "serve", "--list"], capture_output=True, text=True, check=True).stdout == ""
    assert not list(sockets.iterdir())


def test_it_leaves_when_idle_and_is_replaced_when_killed(picture: Path, sockets: Path) -> None:
    # A command substitution waits for whoever holds its pipe: the server must not
    began = time.monotonic()
    command = [*MMGEN, "caption", str(picture), "-q", "--keep-alive", "8s"]
    out = subprocess.run(
        ["sh", "-c", 'out=$("$@" 2>&1); echo "[$out]"', "sh", *command],
        capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    assert out.stdout == "[A white snowman in the snow.]\n"
    (server,) = servers(sockets)
    assert server.create_time() > time.time() - (time.monotonic() - began) - 1
    server.kill()
    server.wait(10)
    assert list(sockets.glob("*.sock"))  # nobody took it away
    assert caption(picture, "--keep-alive", "3s").stdout == "A white snowman in the snow.\n"
    assert servers(sockets)
    wait_until_gone(sockets)


def test_what_hinders_a_server_is_said_by_the_command(picture: Path, sockets: Path, tmp_path: Path) -> None:
    unknown = caption(picture, "--keep-alive", "1m", "-m", "nonesuch")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("error: unknown model: nonesuch\nhint: ")
    folder = caption(picture, "--keep-alive", "1m", "-m", f"{tmp_path}/")
    assert "no config.json" in folder.stderr
    assert not servers(sockets)


def test_a_server_of_another_version_is_replaced(sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "__version__", "0.0.1")
    old = keeping.ensure("demo", Loading(), "5m")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sockets.parent))
    new = keeping.ensure("demo", Loading(), "5m")
    assert new != old
    deadline = time.monotonic() + 60
    while Path(old).exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (server,) = keeping.running()
    assert server.socket == new
    server.stop()
    wait_until_gone(sockets)


def test_other_ways_of_loading_have_other_servers(sockets: Path) -> None:
    one = keeping.ensure("demo", Loading(), "5m")
    other = keeping.ensure("demo", Loading(max_pixels=1000, encode=True), "5m")
    assert one != other
    assert keeping.ensure("demo", Loading(), "5m") == one
    for server in keeping.running():
        server.stop()
    wait_until_gone(sockets)


# --- mmgen serve ---------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return int(opened.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[str]) -> None:
    """Wait until the model is loaded."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        assert process.poll() is None
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("it was not loaded")


def asked_for(port: int) -> float:
    """Count the requests that wait and those that are under way."""
    lines = httpx2.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(("mmgen_under_way ", "mmgen_waiting ")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_under_load_it_finishes_what_is_under_way_and_ends_with_0(number: int) -> None:
    port = free_port()
    process = subprocess.Popen([*MMGEN, "serve", "--port", str(port)], stderr=subprocess.PIPE, text=True)
    wait_for(port, process)
    answers: list[httpx2.Response] = []

    def draw() -> None:
        body = {"prompt": "a snowman", "n": 8, "guidance": 1}
        answers.append(httpx2.post(f"http://127.0.0.1:{port}/v1/images/generations", json=body, timeout=100))

    threads = [threading.Thread(target=draw) for _ in range(3)]
    for thread in threads:
        thread.start()
    while asked_for(port) < 24:
        time.sleep(0.01)
    process.send_signal(number)
    refused = httpx2.post(f"http://127.0.0.1:{port}/v1/images/generations", json={"prompt": "a cat"})
    assert refused.status_code == 503
    for thread in threads:
        thread.join()
    assert [len(each.json()["data"]) for each in answers] == [8, 8, 8]
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "ending" in err
    assert "Traceback" not in err


def test_a_second_signal_stops_at_once() -> None:
    port = free_port()
    process = subprocess.Popen([*MMGEN, "serve", "--port", str(port)], stderr=subprocess.PIPE, text=True)
    wait_for(port, process)
    body = {"prompt": "a snowman", "n": 64, "stream": True}
    with httpx2.stream("POST", f"http://127.0.0.1:{port}/v1/images/generations", json=body) as response:
        next(response.iter_lines())
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--host", "0.0.0.0"], "whoever reaches 0.0.0.0 could use this model"),
        (["--port", "70000"], "--port 70000 is out of range"),
        (["--idle", "soon"], "--idle soon is no time"),
        (["--queue", "0"], "--queue 0 is out of range"),
        (["-m", "nonesuch"], "unknown model: nonesuch"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_line(flags: list[str], says: str) -> None:
    done = subprocess.run([*MMGEN, "serve", *flags], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert done.stderr.count("\n") == 2


def test_a_port_that_is_taken_is_said_in_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port = str(opened.getsockname()[1])
        done = subprocess.run([*MMGEN, "serve", "--port", port], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"cannot listen at 127.0.0.1, port {port}" in done.stderr


def test_without_its_packages_the_command_says_which_to_install() -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'uvicorn' else find(name, *rest)\n"
        "from mmgen.cli import main; sys.exit(main(['serve']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'mmgen-cli[serve]'" in done.stderr


def test_no_other_command_imports_anything_of_the_server() -> None:
    code = (
        "import sys, json; from mmgen.cli import main; main(['caption', '--help']); main(['ask', 'why?', '-q']);"
        "rooms = ('mmgen.serve', 'mmgen.engines', 'fastapi', 'uvicorn');"
        "found = [name for name in sys.modules if name.startswith(rooms)];"
        "print(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_environment_of_the_caller_does_not_change_the_server(sockets: Path, picture: Path) -> None:
    """Variables of sampling are the command's, which sends what they say."""
    environment = {**os.environ, "MMGEN_MAX_TOKENS": "3", "MMGEN_KEEP_ALIVE": "1m", "MMGEN_PORT": "1"}
    command = [*MMGEN, "caption", str(picture), "-q"]
    short = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert short
    assert "A white snowman in the snow.".startswith(short.strip())
    assert caption(picture, "--keep-alive", "1m").stdout == "A white snowman in the snow.\n"
    assert len(servers(sockets)) == 1

"""A model that stays loaded, beside what there was: `python -m benchmarks.serve PART`, a part for each figure.

loop         `ask --image` in a shell loop: cold, by MMGEN_ENDPOINT, by MMGEN_KEEP_ALIVE; the answers compared
clients      captions of 16 clients at once, and one after the other; --chat SIZE: beside `transformers serve`
first-word   time to the first word of a caption while 16 pictures are drawn, beside that of an idle server
requests     10,000 requests of 64 clients to a scripted model: lost, doubled, memory
faults       2,000 pictures by --endpoint through a server that fails, stalls and is killed five times
connections  10,000 connections that say nothing, and one that asks
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import torch
from PIL import Image

from benchmarks.measures import environment
from mmgen.errors import MmgenError
from mmgen.model import Abilities, Model
from mmgen.request import Done, Piece, Request
from tools.demo.judge import fresh_renders

MMGEN = [sys.executable, "-m", "mmgen"]


def main() -> None:
    """Run the part that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "part", choices=["loop", "clients", "first-word", "requests", "faults", "connections", "_scripted"]
    )
    parser.add_argument("-n", type=int, help="pictures, requests or connections")
    parser.add_argument("--chat", choices=["tiny", "290m"], help="of clients: a chat checkpoint, random, and the peer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    if given.part == "_scripted":
        _serve_scripted(given.port)
        return
    machine = environment(torch.device("cpu"))
    print(", ".join(f"{name} {machine[name]}" for name in ("processor", "torch", "transformers") if name in machine))
    with tempfile.TemporaryDirectory(prefix="mm") as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        if given.part == "loop":
            loop(Path(folder), given.n or 100)
        elif given.part == "clients":
            clients(Path(folder), given.chat, given.n or 16, given.rounds)
        elif given.part == "first-word":
            first_word(Path(folder), given.rounds)
        elif given.part == "requests":
            requests(given.n or 10_000)
        elif given.part == "faults":
            faults(Path(folder), given.n or 2000)
        else:
            connections(given.n or 10_000)


def pictures(folder: Path, n: int) -> list[Path]:
    """Render pictures of the kind that the built-in model knows."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:05d}.png" for number in range(n)]
    for path, image in zip(paths, fresh_renders(n, seed=19)[1], strict=True):
        image.save(path)
    return paths


def free_port() -> int:
    """Find a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return int(opened.getsockname()[1])


@contextmanager
def started(command: Sequence[str], port: int, path: str = "health", stderr: Any = subprocess.DEVNULL) -> Iterator[Any]:
    """Run a server until it is ready, and while this is under way."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        wait_for(f"http://127.0.0.1:{port}/{path}", process)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(url: str, process: subprocess.Popen[Any] | None = None) -> None:
    """Wait until an address answers 200."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process is None or process.poll() is None, "the server ended"
        try:
            if httpx2.get(url).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.05)
    raise TimeoutError(url)


# --- loop ----------------------------------------------------------------------------------------------------------


def loop(folder: Path, n: int) -> None:
    """Ask about every picture in a shell loop, in three ways, and what `--help` takes."""
    paths = pictures(folder / "pictures", n)
    listed = folder / "list"
    listed.write_text("".join(f"{path}\n" for path in paths))
    mmgen = str(Path(sys.executable).parent / "mmgen")
    port = free_port()
    said: dict[str, bytes] = {}
    seconds: dict[str, float] = {}

    def run(way: str, **variables: str) -> None:
        script = f'while read -r f; do {mmgen} ask --image "$f" "what is it?" -q; done < {listed}'
        began = time.monotonic()
        done = subprocess.run(["bash", "-c", script], env=os.environ | variables, capture_output=True, check=True)
        seconds[way], said[way] = (time.monotonic() - began) / n, done.stdout

    with started([*MMGEN, "serve", "-q", "--port", str(port)], port):
        run("MMGEN_ENDPOINT", MMGEN_ENDPOINT=f"http://127.0.0.1:{port}")
        own = statistics.median(ask_once(port, path) for path in paths[:20])
    subprocess.run([mmgen, "ask", "why?", "-q", "--keep-alive", "1m"], check=True, capture_output=True)  # starts it
    run("MMGEN_KEEP_ALIVE", MMGEN_KEEP_ALIVE="1m")
    subprocess.run([mmgen, "serve", "--stop"], check=True, capture_output=True)
    run("cold")
    began = time.monotonic()
    for _ in range(20):
        subprocess.run([mmgen, "--help"], check=True, capture_output=True)
    help_ = (time.monotonic() - began) / 20
    print(f"--help {help_:.3f} s; the server's own time for an answer {own:.3f} s")
    for way, each in seconds.items():
        beyond = (each - own) / help_
        print(
            f"{way:17} {each:6.3f} s a call, cold {seconds['cold'] / each:5.1f} x that; "
            f"beyond the server's {beyond:.2f} x --help"
        )
    print(f"answers of {n} pictures: {'the same bytes' if len(set(said.values())) == 1 else 'THEY DIFFER'}")


def ask_once(port: int, path: Path) -> float:
    """Ask as the command does, on a connection that is there; in seconds."""
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}/v1", timeout=60) as client:
        client.get("models")
        began = time.monotonic()
        client.post("chat/completions", json=body_of(path, "what is it?", "demo")).raise_for_status()
        return time.monotonic() - began


def body_of(path: Path, words: str, model: str, **fields: Any) -> dict[str, Any]:
    """Write a question about a picture."""
    url = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": words}]
    return {"model": model, "messages": [{"role": "user", "content": parts}], "temperature": 0, **fields}


# --- clients -------------------------------------------------------------------------------------------------------


def clients(folder: Path, chat: str | None, n: int, rounds: int) -> None:
    """Caption pictures: all clients at once, and one after the other; in turn, round by round."""
    paths, model = pictures(folder / "pictures", 4 * n), "demo"
    if chat is not None:
        from benchmarks.chat_folder import make

        model = str(make(chat, folder / "chat"))
    ours, theirs = free_port(), free_port()
    name = Path(model).name
    ways = [("mmgen, at once", ours, name, n), ("mmgen, one after the other", ours, name, 1)]
    with ExitStack() as stack:
        stack.enter_context(started([*MMGEN, "serve", "-q", "-m", model, "--port", str(ours)], ours))
        if chat is not None:
            peer = [str(Path(sys.executable).parent / "transformers"), "serve", "--port", str(theirs)]
            stack.enter_context(started([*peer, "--device", "cpu", "--dtype", "float32"], theirs))
            ways.append(("transformers serve, at once", theirs, model, n))
        _rounds(ways, paths, rounds)


def _rounds(ways: Sequence[tuple[str, int, str, int]], paths: Sequence[Path], rounds: int) -> None:
    rates: dict[str, list[float]] = {way[0]: [] for way in ways}
    said: dict[str, list[str]] = {}
    for number in range(rounds + 1):
        for way, port, model, n_clients in ways:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}/v1", timeout=600) as client:

                def ask(path: Path, client: Any = client, model: str = model) -> str:
                    body = body_of(path, "Describe this picture.", model, max_tokens=16, stream=False)
                    return answer(client, body)

                began = time.monotonic()
                with ThreadPoolExecutor(n_clients) as pool:
                    said[way] = list(pool.map(ask, paths))
            if number:  # the first warms up
                rates[way].append(len(paths) / (time.monotonic() - began))
    first = next(iter(rates))
    for way, each in rates.items():
        ratio = statistics.median(ours / other for ours, other in zip(rates[first], each, strict=True))
        n_same = sum(one == other for one, other in zip(said[first], said[way], strict=True))
        print(
            f"{way:30} {statistics.median(each):7.1f} captions a second; {first}: {ratio:.2f} x that; "
            f"{n_same} of {len(paths)} answers the same"
        )


# --- first word ----------------------------------------------------------------------------------------------------


def first_word(folder: Path, rounds: int) -> None:
    """Ask for a caption, streamed, of an idle server, and of one that draws 16 pictures; in turn."""
    (path,) = pictures(folder / "pictures", 1)
    port = free_port()
    idle: list[float] = []
    busy: list[float] = []
    drawings: list[float] = []
    body = body_of(path, "Describe this picture.", "demo", stream=True)
    with started([*MMGEN, "serve", "-q", "--port", str(port)], port), httpx2.Client(timeout=600) as client:
        base = f"http://127.0.0.1:{port}/v1"

        def wait() -> float:
            began = time.monotonic()
            with client.stream("POST", f"{base}/chat/completions", json=body) as response:
                for line in response.iter_lines():
                    if line.startswith("data:") and json.loads(line[5:])["choices"][0]["delta"].get("content"):
                        return time.monotonic() - began
            raise AssertionError("nothing was said")

        def draw() -> None:
            began = time.monotonic()
            httpx2.post(f"{base}/images/generations", json={"prompt": "a red cat", "n": 16}, timeout=600)
            drawings.append(time.monotonic() - began)

        wait()
        for _ in range(rounds):
            idle.append(wait())
            thread = threading.Thread(target=draw)
            thread.start()
            while "mmgen_under_way 16" not in client.get(f"http://127.0.0.1:{port}/metrics").text:
                time.sleep(0.002)
            time.sleep(0.1)
            busy.append(wait())
            assert thread.is_alive(), "the drawing was over before the first word"
            thread.join()
    ratio = statistics.median(one / other for one, other in zip(busy, idle, strict=True))
    print(
        f"first word: idle {statistics.median(idle):.3f} s, "
        f"beside 16 drawings {statistics.median(busy):.3f} s: {ratio:.2f} x "
        f"(the drawings take {statistics.median(drawings):.2f} s)"
    )


# --- requests ------------------------------------------------------------------------------------------------------


class Echo(Model):
    """Says the words that it was asked, in two pieces."""

    name, revision, abilities, takes_turns = "echo", None, Abilities(), True

    def replies(self, requests: Iterable[Request | None]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        """Answer a batch, a piece of each in turn."""
        words = ["".join(p for p in request.parts if isinstance(p, str)) for request in requests if request is not None]
        for half in (0, 1):
            for number, each in enumerate(words):
                middle = len(each) // 2
                yield number, each[middle:] if half else each[:middle]
        for number in range(len(words)):
            yield number, Done(n_tokens=2)


def _serve_scripted(port: int) -> None:
    from mmgen.serve import running
    from mmgen.serve.app import Served
    from mmgen.serve.guard import Rules
    from mmgen.serve.scheduler import Scheduler

    model = Echo()
    scheduler = Scheduler(lambda: model, 256)
    place = running.listen("127.0.0.1", port, None)
    server = running.build(Served("echo", None, "echo", model.abilities), scheduler, place, Rules())
    scheduler.start()
    asyncio.run(server.serve(sockets=[place.socket]))


def requests(n: int) -> None:
    """Ask many times from 64 clients, streamed and not; some go away in the middle."""
    port = free_port()
    answers: Counter[str] = Counter()
    wrong: list[str] = []
    memory: list[int] = []
    with started([sys.executable, "-m", "benchmarks.serve", "_scripted", "--port", str(port)], port) as process:
        watched = psutil.Process(process.pid)

        def some(first: int) -> None:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}/v1", timeout=120) as client:
                for number in range(first, n, 64):
                    word = f"word-{number}"
                    body = {"messages": [{"role": "user", "content": word}], "stream": number % 2 == 0}
                    said = answer(client, body)
                    answers[word] += said == word
                    if said != word:
                        wrong.append(f"{word}: {said}")
                    if number % 100 == 0:
                        memory.append(watched.memory_info().rss)

        began = time.monotonic()
        with ThreadPoolExecutor(64) as pool:
            list(pool.map(some, range(64)))
        seconds = time.monotonic() - began
        counted = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
    n_counted = sum(
        float(line.rpartition(" ")[2])
        for line in counted.splitlines()
        if line.startswith('mmgen_requests_total{path="/v1/chat/completions"')
    )
    before, after = memory[len(memory) // 10], memory[-1]
    print(
        f"{n} requests of 64 clients in {seconds:.1f} s, {n / seconds:.0f} a second; "
        f"{n_counted:.0f} counted by the server"
    )
    print(
        f"answered right once: {sum(each == 1 for each in answers.values())}, wrong or lost: {len(wrong)} {wrong[:3]}"
    )
    print(f"memory of the server: {before / 2**20:.0f} MB after a tenth, {after / 2**20:.0f} MB at the end")


def answer(client: Any, body: dict[str, Any]) -> str:
    """Ask, and give the words."""
    if not body["stream"]:
        return str(client.post("chat/completions", json=body).json()["choices"][0]["message"]["content"])
    said = ""
    with client.stream("POST", "chat/completions", json=body) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                said += (json.loads(line[6:])["choices"] or [{"delta": {}}])[0]["delta"].get("content") or ""
    return said


# --- faults --------------------------------------------------------------------------------------------------------


def faults(folder: Path, n: int) -> None:
    """Caption pictures through a server that fails at random and is killed five times, and count what came."""
    from tests.support.serving import Foreign, digest_of

    images = folder / "pictures"
    images.mkdir()
    colours = [f"{number:06d}" for number in range(n)]
    for colour in colours:
        Image.new("RGB", (8, 8), f"#{colour}").save(images / f"{colour}.png")
    journal, port, chance = folder / "journal.jsonl", free_port(), random.Random(19)
    asked: Counter[str] = Counter()
    again: Counter[str] = Counter()
    foreign = Foreign()

    def behave(number: int) -> int | str | None:
        colour = digest_of(foreign.asked[number][1])
        again[colour] += foreign.answered[colour] > 0  # it was answered to its end before
        asked[colour] += 1
        time.sleep(0.02)
        return chance.choices([None, 429, 500, "cut", "stall"], [80, 6, 6, 6, 2])[0]

    foreign.behave = behave
    command = [*MMGEN, "caption", str(images), "--jsonl", str(journal), "--endpoint", f"http://127.0.0.1:{port}"]
    runs: list[int] = []
    began = time.monotonic()
    is_over = threading.Event()

    def drive() -> None:
        while not is_over.is_set():
            runs.append(
                subprocess.run([*command, "--item-timeout", "1", "-q"], check=False, capture_output=True).returncode
            )
            if runs[-1] == 0:
                is_over.set()

    thread = threading.Thread(target=drive)
    n_killed = 0
    while not is_over.is_set():
        with foreign.listening(port):
            if not thread.is_alive() and not is_over.is_set():
                thread.start()
            share = n * (n_killed + 1) / 6
            while not is_over.is_set() and (n_killed == 5 or foreign.answered.total() < share):
                time.sleep(0.02)
        n_killed += not is_over.is_set()
        time.sleep(40.0 if n_killed == 3 else 1.0)  # once so long that the command gives up
    thread.join()
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    good = Counter(row["place"] for row in rows if "error" not in row)
    right = sum(row.get("text") == f"seen {Path(row['image']).stem}" for row in rows if "error" not in row)
    print(
        f"{n} pictures, the server stopped {n_killed} times, {sum(asked.values())} requests, "
        f"{time.monotonic() - began:.0f} s"
    )
    print(f"runs of the command ended with {runs}")
    print(
        f"pictures with one good row: {sum(each == 1 for each in good.values())}, "
        f"with more: {sum(each > 1 for each in good.values())}; right: {right}"
    )
    print(f"asked again after the server had answered to the end: {sum(again.values())}")


# --- connections ---------------------------------------------------------------------------------------------------


def connections(n: int) -> None:
    """Open connections that say nothing, and ask meanwhile."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    port = free_port()
    held: list[socket.socket] = []
    with started([sys.executable, "-m", "benchmarks.serve", "_scripted", "--port", str(port)], port) as process:
        watched = psutil.Process(process.pid)
        before = watched.memory_info().rss
        n_refused = 0
        for _ in range(n):
            try:
                held.append(socket.create_connection(("127.0.0.1", port), timeout=5))
            except OSError:
                n_refused += 1
        n_open = len([each for each in watched.net_connections() if each.status == "ESTABLISHED"])
        after = watched.memory_info().rss
        print(f"{len(held)} connections made, {n_refused} refused; the server holds {n_open}")
        began = time.monotonic()
        while True:  # until those that say nothing are dropped
            try:
                body = {"messages": [{"role": "user", "content": "word"}]}
                httpx2.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=5).raise_for_status()
                break
            except httpx2.TransportError:
                time.sleep(0.5)
        print(f"a request is answered {time.monotonic() - began:.1f} s later")
        print(f"memory of the server: {before / 2**20:.0f} MB before, {after / 2**20:.0f} MB with them")
        os.kill(process.pid, signal.SIGTERM)
        print(f"SIGTERM: exit code {process.wait(60)}")
    for each in held:
        each.close()


if __name__ == "__main__":
    main()

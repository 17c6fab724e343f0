"""A model behind an address: what is sent, what comes back, and what is done where a server fails."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from mmgen.engines import endpoint
from tests.support.scripted import run
from tests.support.serving import Foreign, digest_of


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_PAUSES", (0.05, 0.1, 0.2, 0.4, 0.4, 0.4))


@pytest.fixture
def foreign() -> Foreign:
    return Foreign()


@pytest.fixture
def address(foreign: Foreign) -> Iterator[str]:
    with foreign.listening() as address:
        yield address


def pictures(folder: Path, n: int) -> list[str]:
    """Make pictures of different colours; give the colours."""
    folder.mkdir(exist_ok=True)
    colours = [f"{number:06d}" for number in range(n)]
    for colour in colours:
        Image.new("RGB", (2, 2), f"#{colour}").save(folder / f"{colour}.png")
    return colours


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_question_goes_as_a_chat_completion_with_its_pictures(address: str, foreign: Foreign, tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    image = str(tmp_path / "000002.png")
    result = run("ask", "what is it?", "--image", image, "--endpoint", address, "--system", "be brief", "--seed", "5")
    assert (result.code, result.out) == (0, "seen 000002\n")
    ((path, body),) = foreign.asked
    assert path == "/v1/chat/completions"
    assert body["model"] == "stranger"
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert [part["type"] for part in body["messages"][1]["content"]] == ["image_url", "text"]
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0, 5, 256)
    assert not {"top_k", "repetition_penalty", "min_p", "complete", "choices"} & set(body)


def test_what_openai_lacks_goes_under_the_options_name_if_it_was_given(address: str, foreign: Foreign) -> None:
    options = ["--top-k", "5", "--repetition-penalty", "1.2", "--template-arg", "enable_thinking=false"]
    assert run("ask", "why?", "--endpoint", address, *options).code == 0
    body = foreign.asked[0][1]
    assert (body["top_k"], body["repetition_penalty"]) == (5, 1.2)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_field_that_a_server_refuses_is_named_with_its_flag(foreign: Foreign) -> None:
    foreign.behave, foreign.error = lambda _: 400, {"message": "Unrecognized argument: top_k", "param": "top_k"}
    with foreign.listening() as address:
        result = run("ask", "why?", "--endpoint", address, "--top-k", "5")
    assert result.code == 1
    assert "Unrecognized argument: top_k" in result.err
    assert "leave out --top-k" in result.err
    assert len(foreign.asked) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "red?", "--choices", "yes,no"],
        ["ask", "red", "--complete"],
        ["draw", "a cat", "--best-of", "2", "-o", "x.png"],
        ["vary", "a.png", "a cat", "--strength", "0.5", "-o", "x.png"],
    ],
)
def test_what_takes_the_models_own_chances_is_refused_before_the_first_request(
    address: str, foreign: Foreign, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    result = run(*arguments, "--endpoint", address)
    assert result.code == 2
    assert "as it is not mmgen's" in result.err
    assert not foreign.asked
    assert not Path("x.png").exists()


def test_a_picture_comes_back_and_has_its_note(address: str, foreign: Foreign, tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    assert run("draw", "a cat", "-o", str(path), "--endpoint", address, "--seed", "7").code == 0
    assert foreign.asked[0][0] == "/v1/images/generations"
    assert foreign.asked[0][1]["seed"] == 7
    with Image.open(path) as image:
        assert image.getpixel((0, 0)) == (0, 128, 0)
        assert json.loads(image.info["mmgen"])["prompt"] == "a cat"


def test_a_seed_that_nobody_gave_is_kept_from_servers_that_may_refuse_it(
    address: str, foreign: Foreign, tmp_path: Path
) -> None:
    assert run("draw", "a cat", "-o", str(tmp_path / "a.png"), "--endpoint", address).code == 0
    assert "seed" not in foreign.asked[0][1]


def test_words_with_line_separators_come_whole(address: str) -> None:
    assert run("ask", "a\u2028b\u2029c", "--endpoint", address).out == "seen a\u2028b\u2029c\n"


def test_an_answer_that_is_not_streamed_is_taken_too(foreign: Foreign) -> None:
    foreign.streams = False
    with foreign.listening() as address:
        assert run("ask", "why?", "--endpoint", address).out == "seen why?\n"


def test_the_first_model_is_taken_unless_one_is_named(foreign: Foreign) -> None:
    foreign.models = ("one", "two")
    with foreign.listening() as address:
        assert json.loads(run("ask", "why?", "--endpoint", address, "--json").out)["model"]["name"] == "one"
        assert run("ask", "why?", "--endpoint", address, "-m", "two").code == 0
        wrong = run("ask", "why?", "--endpoint", address, "-m", "three")
    assert [body["model"] for _, body in foreign.asked] == ["one", "two"]
    assert wrong.code == 2
    assert "does not serve three" in wrong.err
    assert "it serves one, two" in wrong.err


def test_a_key_is_sent_and_never_printed_or_kept(address: str, foreign: Foreign, tmp_path: Path) -> None:
    pictures(tmp_path / "in", 2)
    journal = tmp_path / "j.jsonl"
    secret = address.replace("http://", "http://me:hunter2@")
    arguments = ["caption", str(tmp_path / "in"), "--jsonl", str(journal), "--endpoint", secret]
    result = run(*arguments, MMGEN_API_KEY="sk-secret")
    assert result.code == 0
    assert all(headers["Authorization"].startswith(("Bearer sk-secret", "Basic")) for headers in foreign.headers)
    broken = run("ask", "why?", "--endpoint", "http://me:hunter2@127.0.0.1:9", MMGEN_API_KEY="sk-secret")
    assert broken.code == 1
    for text in (result.out, result.err, broken.err, journal.read_text()):
        assert "hunter2" not in text
        assert "sk-secret" not in text


def test_nobody_there_is_one_line_at_once() -> None:
    before = time.monotonic()
    result = run("caption", __file__.replace("test_endpoint.py", "none.png"), "--endpoint", "http://127.0.0.1:9")
    assert result.code in (1, 2)
    result = run("ask", "why?", "--endpoint", "http://127.0.0.1:9")
    assert result.code == 1
    assert "cannot reach http://127.0.0.1:9" in result.err
    assert time.monotonic() - before < 30


def test_so_many_requests_are_under_way(foreign: Foreign, tmp_path: Path) -> None:
    foreign.behave = lambda _: time.sleep(0.05)
    pictures(tmp_path, 40)
    with foreign.listening() as address:
        arguments = ["caption", str(tmp_path), "--endpoint", address]
        assert run(*arguments, "--concurrency", "5").code == 0
        assert foreign.most_under_way == 5
        assert run(*arguments).code == 0
        assert 5 < foreign.most_under_way <= 8


def test_results_come_in_the_order_of_the_items(foreign: Foreign, tmp_path: Path) -> None:
    foreign.behave = lambda number: time.sleep(0.1 * (number % 3 == 0))
    colours = pictures(tmp_path, 20)
    with foreign.listening() as address:
        result = run("caption", str(tmp_path), "--endpoint", address)
    assert [line.rpartition("\t")[2] for line in result.out.splitlines()] == [f"seen {each}" for each in colours]


def test_failures_that_may_pass_are_tried_again_and_each_item_is_answered_once(
    foreign: Foreign, tmp_path: Path
) -> None:
    ways: list[list[int | str]] = [[429], [], [500, "cut"], ["cut"], [503, "stall", 429], ["stall"]]
    asked: Counter[str] = Counter()

    def behave(number: int) -> int | str | None:
        colour = digest_of(foreign.asked[number][1])
        asked[colour] += 1
        return dict(enumerate(ways[int(colour) % len(ways)], 1)).get(asked[colour])

    foreign.behave = behave
    colours = pictures(tmp_path / "in", 60)
    journal = tmp_path / "j.jsonl"
    with foreign.listening() as address:
        arguments = ["--jsonl", str(journal), "--endpoint", address, "--item-timeout", "0.3"]
        result = run("caption", str(tmp_path / "in"), *arguments)
    assert result.code == 0, result.err
    assert [row["text"] for row in rows(journal)] == [f"seen {each}" for each in colours]
    assert foreign.answered == dict.fromkeys(colours, 1)


def test_a_server_says_how_long_to_wait(foreign: Foreign) -> None:
    foreign.behave, foreign.retry_after = lambda number: 429 if number == 0 else None, "1"
    with foreign.listening() as address:
        before = time.monotonic()
        assert run("ask", "why?", "--endpoint", address).out == "seen why?\n"
    assert time.monotonic() - before >= 1


def test_one_that_fails_for_good_has_its_error_and_the_others_their_answers(foreign: Foreign, tmp_path: Path) -> None:
    pictures(tmp_path / "in", 6)
    journal = tmp_path / "j.jsonl"
    fails = {"000003": 500, "000004": 400}
    answer = foreign_answers(foreign, fails)
    with foreign.listening() as address:
        result = run("caption", str(tmp_path / "in"), "--jsonl", str(journal), "--endpoint", address)
    assert result.code == 1
    assert [("error" in row) for row in rows(journal)] == [False, False, False, True, True, False]
    assert answer["000004"] == 1  # which no other attempt would mend
    assert answer["000003"] == 7


def foreign_answers(foreign: Foreign, fails: dict[str, int]) -> dict[str, int]:
    """Let a server fail over some pictures; count how often it was asked about each."""
    asked: dict[str, int] = {}

    def behave(number: int) -> int | None:
        colour = digest_of(foreign.asked[number][1])
        asked[colour] = asked.get(colour, 0) + 1
        return fails.get(colour)

    foreign.behave = behave
    return asked


def test_a_server_that_is_gone_ends_the_batch_and_the_same_command_goes_on(foreign: Foreign, tmp_path: Path) -> None:
    colours = pictures(tmp_path / "in", 200)
    journal = tmp_path / "j.jsonl"
    with foreign.listening() as address:
        port = int(address.rpartition(":")[2])
        foreign.behave = lambda number: time.sleep(0.01)
        done = threading.Event()
        codes: list[int] = []

        def batch() -> None:
            codes.append(run_process("caption", str(tmp_path / "in"), "--jsonl", str(journal), "--endpoint", address))
            done.set()

        thread = threading.Thread(target=batch)
        thread.start()
        while foreign.answered.total() < 50:
            time.sleep(0.01)
    assert done.wait(60)
    thread.join()
    assert codes == [1]
    first = [row for row in rows(journal) if "error" not in row]
    assert 50 <= len(first) < 200
    with foreign.listening(port) as address:
        assert run("caption", str(tmp_path / "in"), "--jsonl", str(journal), "--endpoint", address).code == 0
    last = {row["place"]: row for row in rows(journal)}
    assert sorted(str(row["text"]) for row in last.values()) == [f"seen {each}" for each in colours]
    assert max(foreign.answered[str(row["text"]).removeprefix("seen ")] for row in first) == 1


def run_process(*arguments: str) -> int:
    """Run `mmgen` in a process of its own, with short pauses."""
    code = (
        "import sys; from mmgen.engines import endpoint; endpoint._PAUSES = (0.05, 0.1, 0.2, 0.4, 0.4, 0.4);"
        "from mmgen.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True).returncode


def test_a_folder_behind_an_address_takes_neither_torch_nor_a_server(address: str, tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    code = (
        "import sys; from mmgen.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'fastapi', 'uvicorn', 'starlette', 'numpy', 'huggingface_hub', 'rich'};"
        "print(code, sorted(heavy & set(sys.modules)))"
    )
    arguments = ["caption", str(tmp_path), "-q", "--endpoint", address]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_the_variable_makes_a_script_use_the_server(address: str) -> None:
    assert run("ask", "why?", MMGEN_ENDPOINT=address).out == "seen why?\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--endpoint", "ftp://x"], "no http(s) address"),
        (["--endpoint", "http://"], "no http(s) address"),
        (["--endpoint", "http://127.0.0.1:9", "--dtype", "float16"], "--dtype is up to the server"),
        (["--endpoint", "http://127.0.0.1:9", "--no-fit-check"], "--no-fit-check is up to the server"),
        (["--endpoint", "http://127.0.0.1:9", "--keep-alive", "5m"], "leave one out"),
        (["--endpoint", "http://127.0.0.1:9", "--concurrency", "0"], "--concurrency 0 is out of range"),
        (["--endpoint", "http://127.0.0.1:9", "--item-timeout", "0"], "--item-timeout 0 is out of range"),
        (["--keep-alive", "soon"], "--keep-alive soon is no time"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything(arguments: list[str], says: str) -> None:
    result = run("ask", "why?", *arguments)
    assert result.code == 2
    assert says in result.err


def test_pictures_are_scaled_down_before_they_are_sent(address: str, foreign: Foreign, tmp_path: Path) -> None:
    Image.new("RGB", (400, 100), "#000001").save(tmp_path / "wide.png")
    image = str(tmp_path / "wide.png")
    assert run("ask", "why?", "--image", image, "--max-pixels", "10000", "--endpoint", address).code == 0
    url = foreign.asked[0][1]["messages"][0]["content"][0]["image_url"]["url"]
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as sent:
        assert sent.size == (200, 50)


def test_the_environment_is_left_alone(address: str) -> None:
    before = dict(os.environ)
    assert run("ask", "why?", "--endpoint", address).code == 0
    assert dict(os.environ) == before

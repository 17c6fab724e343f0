"""Words that come while the next are made: in time, or with what broke them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from mmgen import tasks
from mmgen.families import chat
from mmgen.families.chat import Chat
from mmgen.request import Piece, TextSampling
from tests.support.chat_checkpoints import MAKERS
from tests.support.chat_replies import FLAT, N_TOKENS, SHORT, gathered, image, opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKERS["gemma3"](tmp_path_factory.mktemp("gemma3"))


@pytest.fixture
def lone(folder: Path) -> Chat:
    return opened(folder)


def slowed(model: Chat, at: int, then: Callable[[], object]) -> list[int]:
    """Call `then` before the forward pass number `at`; return a list that grows with each pass."""
    passes: list[int] = []

    def count(*_: object) -> None:
        passes.append(len(passes))
        if len(passes) == at:
            then()

    model.model.register_forward_pre_hook(count)
    return passes


def test_the_first_words_come_before_the_last_is_made(lone: Chat) -> None:
    request = tasks.ask("what is it?", [image(1)], text=SHORT)
    expected = "".join(map(str, lone.reply(request)))
    read = threading.Event()
    passes = slowed(lone, N_TOKENS, lambda: read.wait(timeout=30))
    stream = lone.reply(request)
    first = next(stream)
    assert len(passes) <= N_TOKENS
    read.set()
    assert "".join(map(str, [first, *stream])) == expected
    assert len(passes) == N_TOKENS


def test_a_broken_stream_raises(lone: Chat) -> None:
    def fail() -> None:
        raise RuntimeError("broken on purpose")

    slowed(lone, 5, fail)
    heard: list[Piece] = []
    with pytest.raises(RuntimeError, match="broken on purpose"):
        heard.extend(lone.reply(tasks.ask("what is it?", text=SHORT)))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("generate")]


def test_a_closed_stream_stops_the_model(lone: Chat) -> None:
    passes = slowed(lone, 0, list)
    stream = lone.reply(tasks.ask("what is it?", text=TextSampling(max_tokens=200)))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    n_passes = len(passes)
    assert n_passes < 200
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("generate")]


def test_what_was_said_is_kept_when_the_model_stops_by_itself(lone: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [tasks.ask(f"what is {i}?", text=FLAT, seed=i) for i in range(2)]
    expected = [answer[:2] for answer in gathered(lone, requests)]
    stream = chat.stream
    monkeypatch.setattr(chat, "stream", lambda *arguments: (ids for ids in islice(stream(*arguments), 6)))
    answers = gathered(lone, requests)
    assert [answer[:2] for answer in answers] == expected

"""Chat templates as they are: content in parts or as a string, system prompts, variables, and thoughts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import mmgen
from mmgen import tasks
from mmgen.errors import MmgenError, UsageError
from mmgen.families import generation
from mmgen.request import Done, Loading, Request, TextSampling, Thought, Turn
from tests.support.every_family import pieces_of
from tests.support.many_types import PICTURES, build
from tests.support.near_ties import assert_same, words_alone
from tests.support.opening import opened
from tests.support.replies import without_end
from tests.support.scripted import run

SHORT = TextSampling(max_tokens=8)
CPU = Loading(dtype="float32", device_map="cpu")
STRINGS = (
    "{% for message in messages %}{{ '<' + message.role + '> ' + message.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
SILENT = STRINGS.replace("+ message.content +", "~ message.content ~")  # prints a list as Python does
SYSTEM_AS_STRING = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ 'S: ' + message.content + '\n' }}{% else %}"
    "{% for part in message.content %}{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}{% endif %}"
    "{% endfor %}"
)
NO_SYSTEM = (
    "{% for message in messages if message.role != 'system' %}{% for part in message.content %}"
    "{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}{% endfor %}"
)
# Opens thoughts unless it is told not to, as Qwen3's do; here the model is random, and never ends them by itself.
THINKING = (
    "{% for message in messages %}{% for part in message.content %}"
    "{{ '<|image_pad|>' if part.type == 'image' else part.text }}{% endfor %}{% endfor %}"
    "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llava", tmp_path_factory.mktemp("templates") / "llava")


def with_template(folder: Path, template: str) -> Path:
    (folder / "chat_template.jinja").write_text(template)
    return folder


def stock_ids(folder: Path, prompt: str, request: Request) -> list[int]:
    """Answer a prompt that is written out, as transformers does."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(text=prompt, images=request.images or None, return_tensors="pt")
    out = model.generate(**inputs, max_new_tokens=SHORT.max_tokens, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return without_end(out.tolist(), model.generation_config.eos_token_id)


@pytest.mark.parametrize("template", [STRINGS, SILENT])
@pytest.mark.parametrize("case", ["none", "one", "two"])
def test_content_is_a_string_where_the_template_takes_one(llava: Path, template: str, case: str) -> None:
    folder = with_template(llava, template)
    request = tasks.ask("what is it?", PICTURES[case], text=SHORT, seed=0, system="Be brief.")
    prompt = f"<system> Be brief.\n<user> {'<image>' * len(PICTURES[case])}what is it?\n<assistant> "
    assert_same([words_alone(opened(folder, CPU), request)], [stock_ids(folder, prompt, request)])


def test_a_system_prompt_is_a_string_where_the_template_takes_one(llava: Path) -> None:
    folder = with_template(llava, SYSTEM_AS_STRING)
    request = tasks.ask("what is it?", PICTURES["one"], text=SHORT, seed=0, system="Be brief.")
    expected = stock_ids(folder, "S: Be brief.\n<image>what is it?", request)
    assert_same([words_alone(opened(folder, CPU), request)], [expected])


def test_a_system_prompt_that_would_be_lost_is_refused(llava: Path) -> None:
    folder = with_template(llava, NO_SYSTEM)
    with pytest.raises(MmgenError, match="has no place for a system prompt"):
        opened(folder, CPU, requests=[tasks.ask("what?", seed=0, system="Be brief.")])
    assert isinstance(mmgen.ask(opened(folder, CPU), "what?", text=SHORT), str)


def test_the_built_in_model_refuses_a_system_prompt_before_it_loads() -> None:
    result = run("ask", "what?", "--system", "Be brief.")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: demo was made without a chat template")


def test_a_variable_that_the_template_lacks_is_refused(llava: Path) -> None:
    folder = with_template(llava, SYSTEM_AS_STRING)
    with pytest.raises(UsageError, match="has no use for enable_thinking"):
        opened(folder, CPU, requests=[tasks.ask("what?", seed=0, template_args={"enable_thinking": False})])


@pytest.mark.parametrize("flag", ["enable_thinking", "=1", "a b=1"])
def test_a_variable_is_given_as_name_and_value(flag: str) -> None:
    result = run("ask", "what?", "--template-arg", flag)
    assert (result.code, result.err.splitlines()[0]) == (2, f"error: --template-arg {flag} is not NAME=VALUE")


def test_a_conversation_may_begin_with_a_system_prompt(llava: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    folder = with_template(llava, STRINGS)
    asked = ["ask", "--history", "talk.json", "-m", str(folder), "--device-map", "cpu", "--max-tokens", "3"]
    assert run(*asked, "hi", "--system", "Be brief.").code == 0
    assert run(*asked, "and?").code == 0
    talk = json.loads(Path("talk.json").read_text())
    assert [message["role"] for message in talk] == ["system", "user", "assistant", "user", "assistant"]
    assert talk[0]["content"] == [{"type": "text", "text": "Be brief."}]
    twice = run(*asked, "and?", "--system", "Be long.")
    assert (twice.code, "a system prompt of its own" in twice.err) == (2, True)


# --- thoughts ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = build("qwen3_5", tmp_path_factory.mktemp("templates") / "qwen3_5")
    return opened(with_template(folder, THINKING), CPU)


def saying(thinker: Any, monkeypatch: pytest.MonkeyPatch, *ids: int) -> None:
    """Let the model say these ids, whatever it is asked, and then go on with the last."""
    from mmgen.families import chat

    def stream(model: Any, inputs: Any, sampling: Any, seeds: Any, n_tokens: int, *_: Any) -> Any:
        for place in range(n_tokens):
            yield [ids[min(place, len(ids) - 1)]] * len(seeds)

    monkeypatch.setattr(chat, "stream", stream)


def token(thinker: Any, text: str) -> int:
    (id_,) = thinker.prompter.tokenizer(text, add_special_tokens=False)["input_ids"]
    return int(id_)


@pytest.mark.parametrize("n", [1, 3])
def test_thoughts_are_no_part_of_the_answer(thinker: Any, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    a, b, end = token(thinker, "a"), token(thinker, "b"), token(thinker, "</think>")
    saying(thinker, monkeypatch, a, a, a, end, b)
    request = tasks.ask("what?", text=TextSampling(max_tokens=2), seed=0)
    for pieces in pieces_of(thinker, [request] * n):
        assert "".join(piece.text for piece in pieces if isinstance(piece, Thought)) == "aaa"
        assert "".join(piece for piece in pieces if isinstance(piece, str)) == "bb"
        assert pieces[-1] == Done("length", 2)


def test_a_model_may_open_its_thoughts_itself(thinker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = token(thinker, "a"), token(thinker, "b")
    saying(thinker, monkeypatch, token(thinker, "<think>"), a, token(thinker, "</think>"), b)
    request = tasks.ask("what?", text=TextSampling(max_tokens=1), seed=0, template_args={"enable_thinking": False})
    (pieces,) = pieces_of(thinker, [request])
    assert pieces == [Thought("a"), "b", Done("length", 1)]


@pytest.mark.parametrize("bound", [5, None])
def test_thoughts_without_an_answer_are_an_error(
    thinker: Any, monkeypatch: pytest.MonkeyPatch, bound: int | None
) -> None:
    saying(thinker, monkeypatch, token(thinker, "a"))
    request = tasks.ask("what?", text=TextSampling(max_tokens=2, max_thought_tokens=bound), seed=0)
    room = thinker.prompter.context - thinker.prompter.write([request])["input_ids"].shape[1]
    (pieces,) = pieces_of(thinker, [request])
    assert isinstance(pieces[-1], MmgenError)
    assert pieces[-1].message == f"{bound or room} tokens of thought, and no answer"


def test_without_thoughts_it_answers_at_once(thinker: Any) -> None:
    request = tasks.ask("what?", PICTURES["one"], text=SHORT, seed=0, template_args={"enable_thinking": False})
    (pieces,) = pieces_of(thinker, [request])
    assert not any(isinstance(piece, Thought) for piece in pieces)
    thinking = replace(request, template_args=(), text=replace(SHORT, max_thought_tokens=3))
    assert isinstance(pieces_of(thinker, [thinking])[0][-1], MmgenError)


def test_an_earlier_answer_closes_its_thoughts(thinker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    saying(thinker, monkeypatch, token(thinker, "b"))
    history = (Turn("user", ("hi",)), Turn("assistant", ("<think>hm</think>hello",)))
    request = tasks.ask(
        "why?", text=TextSampling(max_tokens=1), seed=0, history=history, template_args={"enable_thinking": False}
    )
    assert pieces_of(thinker, [request])[0][0] == "b"


def test_nothing_is_chosen_by_a_model_that_is_made_to_think_first(thinker: Any) -> None:
    request = tasks.ask("what?", seed=0, choices=("a", "b"))
    with pytest.raises(MmgenError, match="thinks before it answers"):
        list(thinker.reply(request))
    assert "".join(thinker.reply(replace(request, template_args=(("enable_thinking", False),)))) in ("a", "b")


def test_a_schema_is_kept_to_after_the_thoughts(thinker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = (
        '{"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": false}'
    )
    text = TextSampling(temperature=1.0, top_p=1.0, max_thought_tokens=2000, json_schema=schema)
    ends = token(thinker, "</think>")
    choose, n_chosen = generation.choose, 0

    def soon(scores: Any, *more: Any) -> Any:  # a random model would think for long
        nonlocal n_chosen
        n_chosen += 1
        if n_chosen == 5:
            scores = torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([ends]), 0.0)
        return choose(scores, *more)

    monkeypatch.setattr(generation, "choose", soon)
    pieces = list(thinker.reply(tasks.ask("what?", seed=0, text=text)))
    assert json.loads("".join(piece for piece in pieces if isinstance(piece, str))) in ({"a": 1}, {"a": 2})

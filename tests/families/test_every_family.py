"""Every family, tiny and random: what it says is what stock transformers say, alone and beside others; and how it ends.

In float32, and up to near ties. What is one family's alone stands in a file of its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmgen import tasks
from mmgen.decoding.grammar import forbidden
from mmgen.errors import MmgenError, OutOfMemoryError, TooLongError
from mmgen.families import autoregressive, chat
from mmgen.families.chat import Chat
from mmgen.request import Done, Loading, Picture, Request, TextSampling, Turn
from tests.support.every_family import FAMILIES, N_TOKENS, Family, Stock, pieces_of
from tests.support.near_ties import assert_same, assert_same_alone, words_alone
from tests.support.opening import opened
from tests.support.replies import ends, gathered, image, said, without_end

SHORT = TextSampling(max_tokens=N_TOKENS)
FLAT = TextSampling(temperature=1.0, top_p=1.0, max_tokens=N_TOKENS)
QUESTIONS = (
    ("hi", 0),
    ("what is it, and where?", 1),
    ("what do these have in common, if anything?", 2),
    ("why is that?", 0),
    ("and this?", 1),
    ("which of the three?", 3),
)


@pytest.fixture(scope="module", params=list(FAMILIES))
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def family(name: str) -> Family:
    return FAMILIES[name]


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family.make(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return opened(folder, Loading(dtype="float32", device_map="cpu"))


def ask(i: int, sampling: TextSampling = SHORT, seed: int = 0) -> Request:
    """One of the questions; pictures are of one size in each: stock Emu3 pads others, and codes at edges see that."""
    question, n_images = QUESTIONS[i % len(QUESTIONS)]
    images = [image(10 * i + j, (40 + 4 * i, 32 + 4 * i)) for j in range(n_images)]
    return tasks.ask(question, images, text=sampling, seed=seed)


def too_long(model: Any) -> Request:
    return tasks.ask("word " * model.prompter.context, text=SHORT)


def length(model: Any, request: Request) -> int:
    """Count the ids of a request's prompt."""
    if isinstance(model, Chat):
        return int(model.prompter.write([request])["input_ids"].shape[1])
    return len(model.prompts([request])[0].ids)


@dataclass(frozen=True)
class Scoring(Stock):
    """Stock transformers, asked how likely ids are instead of what it answers."""

    said: Sequence[int] = ()
    never: Sequence[int] = ()

    def answer(self, inputs: Any, **more: Any) -> Any:
        """Feed the prompt with the ids after it, and add up what log-softmax says of each and of an end."""
        n = inputs["input_ids"].shape[1]
        shape, fed = inputs["input_ids"].shape, dict(inputs)
        for key, value in inputs.items():  # Mllama's cross-attention has a row for each token, which stays as it was
            if isinstance(value, torch.Tensor) and value.shape[:2] == shape:
                last = value[:, -1:] if value.ndim > 2 or key == "attention_mask" else torch.zeros_like(value[:, -1:])
                fed[key] = torch.cat([value, *[last] * len(self.said)], dim=1)
        fed["input_ids"][0, n:] = torch.tensor(self.said)
        with torch.no_grad():
            logits = self.network(**fed).logits[0, n - 1 :].double()
        logits[:, self.never] = -torch.inf
        p = logits.softmax(-1)
        each = [float(p[i, id_]) for i, id_ in enumerate(self.said)]
        return sum(map(math.log, each)) + math.log(float(p[-1, sorted(self.ends())].sum()))


# --- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("i", [0, 1, 2])
def test_an_answer_is_as_likely_as_stock_transformers_say(family: Family, folder: Path, model: Any, i: int) -> None:
    request, stock = ask(i), family.stock(folder)
    answers = ["red", "a red cat on the grass", "a red cat"]
    never = () if isinstance(model, Chat) else forbidden(model.prompter.vocabulary, "words")
    with family.clear_codes(model.model) if i else nullcontext():
        scores = model.score(request, answers)
    for answer, score in zip(answers, scores, strict=True):
        ids = stock.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
        scoring = Scoring(stock.network, stock.processor, ids, never)
        with family.clear_codes(stock.network) if i else nullcontext():
            expected = family.answer(scoring, QUESTIONS[i][0], request.images)
        assert score == pytest.approx(expected, abs=1e-3)  # sums of float32 in another order


def test_answers_are_as_likely_in_any_batch(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    request, answers = ask(0), ["red", "a red cat on the grass", "", "a red cat", "blue"]
    alone = [model.score(request, [answer])[0] for answer in answers]
    assert all(-math.inf < score < 0 for score in alone)
    for most_rows in (8, 2):
        monkeypatch.setattr(model, "most_rows", most_rows)
        assert model.score(request, answers) == pytest.approx(alone, abs=1e-3)  # float32, in other shapes
    assert model.score(request, []) == []


def test_only_the_likeliest_of_the_choices_comes_out(model: Any) -> None:
    choices = ("red", "blue", "a red cat")
    requests = [replace(ask(i), choices=choices) for i in range(3)] + [ask(0)]
    replies: dict[int, list[Any]] = {number: [] for number in range(len(requests))}
    for number, piece in model.replies(requests):
        replies[number].append(piece)
    for number in range(3):
        answer, done = replies[number]
        assert sum(done.chances) == pytest.approx(1)
        assert answer == choices[done.chances.index(max(done.chances))]
        ways = [
            [f"{first}{each[1:]}{end}" for first in (each[0], each[0].upper()) for end in ("", ".")] for each in choices
        ]
        scores = [model.score(ask(number), some) for some in ways]  # of one answer, however it is written
        shares = [sum(map(math.exp, some)) for some in scores]
        expected = [share / sum(shares) for share in shares]
        assert list(done.chances) == pytest.approx(expected, rel=1e-2, abs=1e-6)
    assert isinstance(replies[3][-1], Done)
    assert replies[3][-1].chances == ()


SCHEMA = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "blue"]}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["color", "n"],
    "additionalProperties": False,
}


def test_answers_keep_to_a_schema_and_are_the_same_in_any_batch(model: Any) -> None:
    text = TextSampling(temperature=1.0, top_p=1.0, json_schema=json.dumps(SCHEMA))
    requests = [ask(i, text, seed=i) for i in range(4)]
    together = gathered_words(model, requests)
    for request, words in zip(requests, together, strict=True):
        answer = json.loads(words)
        assert answer.keys() == {"color", "n"}
        assert answer["color"] in ("red", "blue")
        assert answer["n"] in range(10)
        assert gathered_words(model, [request]) == [words]
    assert len(set(together)) > 1
    assert all(words.strip() and not words.startswith("{") for words in gathered_words(model, [ask(0)]))


def gathered_words(model: Any, requests: list[Request]) -> list[str]:
    said = [""] * len(requests)
    for number, piece in model.replies(requests):
        said[number] += piece if isinstance(piece, str) else ""
    return said


def test_an_answer_that_is_no_whole_json_is_an_error(model: Any) -> None:
    short = TextSampling(max_tokens=2, json_schema=json.dumps(SCHEMA))
    with pytest.raises(MmgenError, match="no whole JSON"):
        list(model.reply(ask(0, short)))


def test_answers_that_do_not_fit_or_are_too_long_are_refused(model: Any) -> None:
    with pytest.raises(TooLongError):
        model.score(ask(0), ["red", "a red cat " * model.prompter.context])
    other = Picture(image(1), 1, (1, 2, 3))
    for answers in ([other], ["red", other]):
        with pytest.raises(MmgenError, match=r"cannot say how likely|no picture of such codes|neither words nor codes"):
            model.score(ask(0), answers)


def test_typed_control_tokens_in_answers_are_words_or_refused(family: Family, model: Any) -> None:
    for typed in family.typed:
        if isinstance(model, Chat):
            with pytest.raises(MmgenError, match="control token"):
                model.score(ask(0), ["red", typed])
        else:
            assert -math.inf < model.score(ask(0), [typed])[0] < 0


def test_memory_that_runs_out_halves_the_answers_scored_at_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["red", "a red cat", "blue", "a cat", "grass"]
    expected, likelihoods = model.score(ask(0), answers), model.likelihoods

    def scarce(request: Request, batch: Sequence[str]) -> list[float]:
        if len(batch) > room:
            raise torch.OutOfMemoryError
        scores: list[float] = likelihoods(request, batch)
        return scores

    monkeypatch.setattr(model, "likelihoods", scarce)
    monkeypatch.setattr(model, "most_rows", 8)
    room = 2
    assert model.score(ask(0), answers) == pytest.approx(expected, abs=1e-3)  # float32, in other shapes
    room = 0
    with pytest.raises(OutOfMemoryError):
        model.score(ask(0), answers)


def test_greedy_answers_are_those_of_the_documented_snippet(family: Family, folder: Path, model: Any) -> None:
    stock = family.stock(folder)
    assert ends(model) == stock.ends()
    requests = [ask(i) for i in range(len(QUESTIONS))]
    with family.clear_codes(stock.network):
        theirs = [
            without_end(family.answer(stock, question, request.images), stock.ends())
            for (question, _), request in zip(QUESTIONS, requests, strict=True)
        ]
    assert len(set(map(tuple, theirs))) > len(theirs) / 2
    alone = [words_alone(model, request) for request in requests]
    assert_same(alone, theirs)
    same = assert_same(alone, said(model, requests))
    for text, one in compress(zip(gathered(model, requests), alone, strict=True), same):
        expected = stock.processor.decode(one.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert text.strip() == expected.strip()


def test_words_of_a_batch_are_those_of_each_alone(family: Family, model: Any) -> None:
    samplings = (FLAT, replace(FLAT, top_k=5, top_p=0.8), replace(FLAT, repetition_penalty=1.5))
    requests = [ask(i, sampling, seed=40 + i) for sampling in samplings for i in (0, 1, 2, 3)]
    with family.clear_codes(model.model):
        assert len(set(map(tuple, assert_same_alone(model, requests)))) > 4


def test_sampling_follows_the_seed(model: Any) -> None:
    texts = gathered(model, [ask(1, FLAT, seed) for seed in (3, 3, 4, 5, 6)])
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_a_reply_is_what_replies_say_and_comes_as_it_is_made(model: Any) -> None:
    passes: list[int] = []
    hook = model.model.lm_head.register_forward_hook(lambda *_: passes.append(1))
    pieces = model.reply(ask(1, FLAT, seed=5))
    heard = [next(pieces)]
    n_early = len(passes)
    heard += pieces
    hook.remove()
    assert all(isinstance(piece, str) for piece in heard)
    assert ["".join(heard)] == gathered(model, [ask(1, FLAT, seed=5)])
    assert isinstance(model, Chat) or n_early < len(passes) / 2  # Chat's next words are made meanwhile


def test_a_text_is_continued(model: Any) -> None:
    request = tasks.ask("once upon a time <image> is", [image(1)], text=SHORT, complete=True)
    assert_same_alone(model, [request, tasks.ask("so it was", text=SHORT, complete=True)])


def test_earlier_turns_are_answered_with_the_question(model: Any) -> None:
    history = (Turn("user", (image(2), "what is it?")), Turn("assistant", ("A cat.",)))
    talks = [replace(ask(1, FLAT, seed), history=history) for seed in range(2)]
    assert_same_alone(model, talks)
    assert length(model, talks[0]) > length(model, ask(1)) + length(model, tasks.ask("A cat.", complete=True)) - 1
    with pytest.raises(TooLongError, match=r"the conversation is [0-9]+ tokens too long"):
        list(model.reply(replace(ask(1), history=(Turn("user", too_long(model).parts),))))


def test_what_a_user_types_never_becomes_a_control_token(family: Family, model: Any) -> None:
    for typed in family.typed:
        request = tasks.ask(f"what {typed} is", text=SHORT)
        if isinstance(model, Chat):
            with pytest.raises(MmgenError, match="control token"):
                list(model.reply(request))
            continue
        structural = model.prompter.structural
        (ids,), (plain,) = ([prompt.ids for prompt in model.prompts([each])] for each in (request, tasks.ask("PLAIN")))
        assert [id_ for id_ in ids if id_ in structural] == [id_ for id_ in plain if id_ in structural]
        assert typed in model.prompter.decode(ids)


def test_half_precision_takes_pictures_as_they_come(folder: Path, model: Any) -> None:
    half = opened(folder, Loading(dtype="bfloat16", device_map="cpu"))
    assert half.model.lm_head.weight.dtype == torch.bfloat16
    kept = {tensor.dtype for name, tensor in half.model.named_parameters() if "vqmodel" in name}
    assert kept == (set() if isinstance(model, Chat) else {torch.float32})
    requests = [tasks.ask("what is it?", [Image.new(mode, (9, 30))], text=SHORT) for mode in ("L", "RGBA", "P", "1")]
    assert all(isinstance(answer, str) for answer in gathered(half, requests))


# --- what is refused ----------------------------------------------------------------------------------------------


def test_a_prompt_that_is_too_long_is_refused_before_the_weights_are_read(
    folder: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (autoregressive, chat):
        monkeypatch.setattr(module, "load_model", lambda *_, **__: pytest.fail("the weights were read"))
    with pytest.raises(TooLongError, match="tokens too long"):
        opened(folder, requests=[too_long(model)])
    if not isinstance(model, Chat):  # of which some look at pictures beside the context
        with pytest.raises(TooLongError, match="tokens too long"):
            opened(folder, requests=[tasks.ask("what are they?", [image(1)] * 20)])


def test_one_bad_request_does_not_end_the_others(model: Any) -> None:
    good = [ask(i, FLAT, seed=i) for i in (0, 1, 3)]
    found = pieces_of(model, [good[0], too_long(model), good[1], tasks.vary(image(1), "b " * 999), good[2]])
    assert isinstance(found[1][-1], TooLongError)
    assert isinstance(found[3][-1], MmgenError)
    texts = gathered(model, good)
    assert ["".join(found[i][:-1]) for i in (0, 2, 4)] == texts


def test_what_it_cannot_do_is_refused_and_nothing_else(model: Any) -> None:
    requests = {"draw": tasks.draw("a"), "vary": tasks.vary(image(1)), "interleave": tasks.interleave("a")}
    refused = set()
    for task, request in requests.items():
        try:
            next(model.reply(request))
        except MmgenError:
            refused.add(task)
    assert refused == set(requests) - set(model.abilities.tasks)


# --- how replies end ------------------------------------------------------------------------------------------------


def test_done_says_why_and_how_much(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lengthy = next(r for r in (ask(0, FLAT, seed) for seed in range(20)) if len(said(model, [r])[0]) == N_TOKENS)
    [ids] = said(model, [lengthy])
    assert pieces_of(model, [lengthy])[0][-1] == Done("length", N_TOKENS)
    n_words = ids.index(ids[5])  # let this id be an end, wherever it comes first
    if isinstance(model, Chat):
        monkeypatch.setattr(model.model.generation_config, "eos_token_id", [ids[5]])
    else:
        vocabulary = replace(model.language_model.vocabulary, ends=frozenset([ids[5]]))
        monkeypatch.setattr(model, "language_model", replace(model.language_model, vocabulary=vocabulary))
    for requests in ([lengthy], [lengthy, ask(3, FLAT)]):
        assert pieces_of(model, requests)[0][-1] == Done("end", n_words)


def test_a_reply_ends_with_the_context(model: Any) -> None:
    def question(n_words: int) -> Request:
        return tasks.ask("a" + " a" * n_words, [image(1)], text=SHORT)

    n_words = model.prompter.context - 1 - length(model, question(0))
    [[*_, done]] = pieces_of(model, [question(n_words)])
    assert done in (Done("length", 1), Done("end", 0))
    with pytest.raises(TooLongError, match="the prompt is 1 token too long"):
        next(model.reply(question(n_words + 1)))


def test_a_cancelled_request_is_dropped_at_the_next_step(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "n_lanes", 1)  # no thread runs ahead
    early, late, other = ask(0, FLAT), ask(3, FLAT), ask(0, FLAT, seed=1)
    early.cancelled.set()
    found: list[list[Any]] = [[], [], []]
    for index, piece in model.replies([early, late, None, other]):
        found[index].append(piece)
        if isinstance(piece, str) and index == 1:
            late.cancelled.set()
    assert found[0] == [Done("cancelled", 0)]
    assert found[1][-1].reason == "cancelled"
    assert 0 < found[1][-1].n_tokens < N_TOKENS
    assert found[2] == pieces_of(model, [ask(0, FLAT, seed=1)])[0]


def test_requests_are_pulled_in_groups_and_answered_when_nothing_waits(model: Any) -> None:
    pulled: list[int] = []

    def requests() -> Iterator[Request | None]:
        for number in range(20):
            pulled.append(number)
            yield ask(0, replace(SHORT, max_tokens=1), seed=number)
            if number == 1:
                yield None

    done = [(index, len(pulled)) for index, piece in model.replies(requests()) if isinstance(piece, Done)]
    assert sorted(index for index, _ in done) == list(range(20))
    assert {index: n for index, n in done if index < 2} == {0: 2, 1: 2}
    assert {n for index, n in done if 2 <= index < 18} == {18}
    assert list(model.replies([])) == list(model.replies([None])) == []


def test_a_batch_that_does_not_fit_into_memory_is_halved(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [ask(0, FLAT, seed=i) for i in range(5)]
    expected = pieces_of(model, requests)
    answer, sizes, most = model.answer, [], 2

    def tight(some: Sequence[Request]) -> Iterator[Any]:
        sizes.append(len(some))
        for number, found in enumerate(answer(some)):
            if len(some) > most and number == 3:
                raise torch.OutOfMemoryError
            yield found

    monkeypatch.setattr(model, "answer", tight)
    assert [["".join(pieces[:-1]), pieces[-1]] for pieces in pieces_of(model, requests)] == [
        ["".join(pieces[:-1]), pieces[-1]] for pieces in expected
    ]
    assert max(sizes) > 2
    most = 0
    assert all(isinstance(pieces[-1], OutOfMemoryError) for pieces in pieces_of(model, requests))

"""`mmgen ask`: ask about pictures, or without any; once, many times, or within a conversation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.errors import MmgenError, UsageError
from mmgen.output import Answer, Answers, Item, Job
from mmgen.questions import Question, read_questions
from mmgen.request import WORDS, Loading, Request, TextSampling, Turn, fresh_seed
from mmgen.streams import Notes

GROUP = 8  # questions whose pictures are open at a time

EXAMPLES = """\b
Examples:
  $ mmgen ask --image photo.jpg "what color is it?"
  $ mmgen ask --image a.png --image b.png "first: <image> second: <image> what do they have in common?"
"""


def ask(
    question: Annotated[
        str | None,
        typer.Argument(metavar="QUESTION", show_default=False, help="What to ask; - reads it from stdin."),
    ] = None,
    images: options.Images = None,
    complete: Annotated[
        bool, typer.Option("--complete", envvar="MMGEN_COMPLETE", help="Continue the text instead of answering it.")
    ] = False,
    history: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Go on with a conversation: JSON messages, to which this is added."),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Many questions: JSON lines of prompt, images and seed; - reads stdin."),
    ] = None,
    as_json: options.AsJson = False,
    seed: options.Seed = None,
    max_tokens: options.MaxTokens = TextSampling.max_tokens,
    temperature: options.Temperature = TextSampling.temperature,
    top_p: options.TopP = TextSampling.top_p,
    top_k: options.TopK = TextSampling.top_k,
    repetition_penalty: options.RepetitionPenalty = TextSampling.repetition_penalty,
    model: options.ModelName = options.DEFAULT_MODEL,
    revision: options.Revision = Loading.revision,
    dtype: options.DtypeName = "auto",
    device_map: options.DeviceMap = Loading.device_map,
    quantize: options.QuantizeBits = None,
    attn: options.AttentionName = "auto",
    offline: options.Offline = Loading.offline,
    no_fit_check: options.NoFitCheck = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask about pictures, or without any.

    Pictures stand before the question, or where it says <image>. Paths in a FILE are looked up from its folder.
    """
    loading = options.loading(revision, dtype, device_map, quantize, attn, offline, no_fit_check)
    text = TextSampling(temperature, top_p, top_k, repetition_penalty, max_tokens)
    how = _How(model, loading, text, seed, complete, as_json, Notes(quiet))
    if prompts is None:
        _ask_once(how, question, tuple(images or ()), history)
    elif question is not None or images or history is not None:
        raise UsageError("--prompts has the questions and their pictures", "leave out QUESTION, --image and --history")
    else:
        _ask_many(how, prompts)


@dataclass(frozen=True)
class _How:
    """What the flags say of any question."""

    model: str
    loading: Loading
    text: TextSampling
    seed: int | None
    complete: bool
    as_json: bool
    notes: Notes


def _ask_once(how: _How, question: str | None, given: tuple[str, ...], history: str | None) -> None:
    from mmgen.cli import run
    from mmgen.conversation import entry, read_messages
    from mmgen.images import open_image

    if history is not None and how.complete:
        raise UsageError("--complete and --history do not go together", "a text that is continued has no turns")
    talk = None if history is None else read_messages(history)
    unanswered = talk.unanswered if talk else None
    if unanswered and (given or question is not None):
        raise UsageError(
            f"{history} ends in a question of its own", "leave out QUESTION and --image to have it answered"
        )
    if question is None and not given and not unanswered:
        raise UsageError("nothing to ask", 'give a question, as in mmgen ask "what is a snowman?", or an --image')
    words = tasks.ASK if question is None else run.read_prompt(question, "give pictures with --image")
    used_seed = fresh_seed() if how.seed is None else how.seed
    pictures = [open_image(image) for image in given]
    request = tasks.ask(
        words, pictures, text=how.text, seed=used_seed, complete=how.complete, history=talk.history if talk else ()
    )
    if unanswered:
        words, request = _words(unanswered), replace(request, parts=unanswered.parts)
    opened = run.open_model(how.model, how.loading, WORDS, [request], how.notes)
    if how.seed is None and how.text.temperature > 0:
        how.notes.say(f"seed: {used_seed}")

    job = Job("ask", opened.name, opened.revision, [Item(request, words, images=given)], how.as_json)
    sink = Answers(job, how.notes) if how.as_json else Answer(job, how.notes)
    run.feed(opened, [request], sink)
    if talk:
        asked = () if unanswered else tasks.place(words, [entry(image, talk.path) for image in given])
        talk.add(asked, sink.said)
    run.finish(sink)


def _words(turn: Turn) -> str:
    return "".join(part if isinstance(part, str) else tasks.IMAGE_MARK for part in turn.parts)


def _ask_many(how: _How, path: str) -> None:
    """Ask a file's questions in groups; a line that is wrong, or whose pictures are, fails alone."""
    from mmgen.cli import run

    used_seed = tasks.check_seed(fresh_seed() if how.seed is None else how.seed)
    lines = read_questions(path)
    shape = Request(parts=(), want=WORDS, text=how.text, seed=used_seed, completion=how.complete)
    items, asked = [], []
    for number, line in lines.items():
        question, problem = (Question(""), line) if isinstance(line, MmgenError) else (line, _problem(line))
        request = shape if question.seed is None else replace(shape, seed=question.seed)
        items.append(Item(request, question.prompt, images=question.images, line=number))
        asked.append(problem or question)
    name, revision = how.model, None
    if any(isinstance(each, Question) for each in asked):
        opened = run.open_model(how.model, how.loading, WORDS, [], how.notes)
        name, revision = opened.name, opened.revision
        if how.seed is None and how.text.temperature > 0:
            how.notes.say(f"seed: {used_seed}")

    sink = Answers(Job("ask", name, revision, items, how.as_json), how.notes)
    for group in _groups(asked, items):
        for index, error in group.items():
            if isinstance(error, MmgenError):
                sink.take(index, error)
        good = {index: request for index, request in group.items() if isinstance(request, Request)}
        if good:
            run.feed(opened, list(good.values()), sink, good)
    run.finish(sink)


def _problem(question: Question) -> MmgenError | None:
    """Say what is wrong with a question, as far as can be seen without opening its pictures."""
    from mmgen.images import check_file, is_url

    try:
        tasks.place(question.prompt, question.images)
        if question.seed is not None:
            tasks.check_seed(question.seed)
        for source in question.sources():
            if not is_url(source):
                check_file(source)
    except MmgenError as error:
        return error
    return None


def _groups(
    asked: Sequence[Question | MmgenError], items: Sequence[Item]
) -> Iterator[Mapping[int, Request | MmgenError]]:
    """Open the pictures of a few questions at a time: by index, what to ask, or why it cannot be asked."""
    from mmgen.images import open_image

    for start in range(0, len(asked), GROUP):
        group: dict[int, Request | MmgenError] = {}
        for index, question in enumerate(asked[start : start + GROUP], start):
            if isinstance(question, MmgenError):
                group[index] = question
                continue
            try:
                pictures = [open_image(source) for source in question.sources()]
                group[index] = replace(items[index].request, parts=tasks.place(question.prompt, pictures))
            except MmgenError as error:
                group[index] = error
        yield group

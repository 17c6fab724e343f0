"""`mmgen ask`: ask about pictures, or without any; once, many times, or within a conversation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from mmgen import tasks
from mmgen.cli import options
from mmgen.errors import MmgenError, UsageError
from mmgen.outputs.records import Choice, Item
from mmgen.request import WORDS, Loading, Request, TextSampling, Turn, option

if TYPE_CHECKING:
    from mmgen.cli.arguments import Command

EXAMPLES = """\b
Examples:
  $ mmgen ask --image photo.jpg "what color is it?"
  $ mmgen ask --image a.png --image b.png "first: <image> second: <image> what do they have in common?"
"""


@dataclass(frozen=True)
class Way:
    """How a question is asked."""

    complete: bool = option(False, "Continue the text instead of answering it.")
    history: str | None = option(
        None, "Go on with a conversation: JSON messages, to which this is added.", metavar="FILE", env=False
    )
    each: bool = option(
        False, "Ask about each picture apart; --image may be a folder.", heading=options.MANY, env=False
    )


@options.grouped
def ask(
    question: Annotated[
        str | None,
        typer.Argument(metavar="QUESTION", show_default=False, help="What to ask; - reads it from stdin."),
    ] = None,
    images: options.Images = None,
    prompts: options.Prompts = None,
    *,
    way: Way,
    find: options.FindOptions,
    beside: options.SidecarOptions,
    text: TextSampling,
    job: options.JobOptions,
    choice: Choice,
    loading: Annotated[Loading, options.without("window")],
) -> None:
    """Ask about pictures, or without any.

    Pictures stand before the question, or where it says <image>. Paths in a FILE are looked up from its folder.
    With --jsonl or --sidecar answers go there, and the same command again does only what is missing or failed.
    """
    from mmgen.cli import arguments, pictures
    from mmgen.outputs.terminal import Notes

    command = arguments.Command("ask", job, choice, loading, WORDS, text.temperature > 0, Notes(job.quiet))
    shape = Request(parts=(), want=WORDS, text=text, completion=way.complete)
    given = tuple(images or ())
    if way.each and prompts is None and way.history is None:
        arguments.check_stdin(question, find)
        words = tasks.ASK if question is None else arguments.read_prompt(question, "give pictures with --image")
        look = arguments.find_pictures(given, find)
        is_one = arguments.is_one(given, find)
        n_items = 1 if is_one else arguments.count(look, find)
        pictures.ask_of_each(command, shape, words, look, beside, is_one=is_one, n_items=n_items)
    elif way.each or beside.sidecar or find != options.FindOptions():
        raise UsageError(
            "one question about every picture apart: that is --each", "add it, and leave out --prompts and --history"
        )
    elif prompts is None:
        _ask_once(command, shape, question, given, way.history)
    elif question is not None or images or way.history is not None:
        raise UsageError("--prompts has the questions and their pictures", "leave out QUESTION, --image and --history")
    else:
        _ask_many(command, shape, prompts)


def _ask_once(
    command: Command, shape: Request, question: str | None, given: tuple[str, ...], history: str | None
) -> None:
    from mmgen.cli import arguments
    from mmgen.inputs.messages import entry, read_messages
    from mmgen.outputs.live import Answer
    from mmgen.outputs.writers import Lines

    if history is not None and (command.job.is_batch or command.choice.shard is not None):
        raise UsageError("a conversation is no batch", "leave out --jsonl, --html, --plan and --shard, or --history")
    if history is not None and shape.completion:
        raise UsageError("--complete and --history do not go together", "a text that is continued has no turns")
    talk = None if history is None else read_messages(history)
    unanswered = talk.unanswered if talk else None
    if unanswered and (given or question is not None):
        raise UsageError(
            f"{history} ends in a question of its own", "leave out QUESTION and --image to have it answered"
        )
    if question is None and not given and not unanswered:
        raise UsageError("nothing to ask", 'give a question, as in mmgen ask "what is a snowman?", or an --image')
    words = tasks.ASK if question is None else arguments.read_prompt(question, "give pictures with --image")
    request = replace(shape, seed=command.first_seed, history=talk.history if talk else ())
    if unanswered:
        words, request = _words(unanswered), replace(request, parts=unanswered.parts)
    item = Item(request, words, images=given, sources=given, own_seed=command.job.seed is not None)
    request = item.open()
    if command.job.as_json or command.job.is_batch:
        lines = Lines(shown=False)
        arguments.run_batch(command, lambda job: lines, lambda seed: iter([replace(item, request=request)]), 1)
        said = lines.said
    else:
        opened = arguments.open_for(command, [request], command.first_seed)
        with Answer(request.completion) as answer:
            arguments.stream(opened, request, command.notes, answer.take)
        said = answer.said
    if talk:
        asked = () if unanswered else tasks.place(words, [entry(image, talk.path) for image in given])
        talk.add(asked, said)


def _words(turn: Turn) -> str:
    return "".join(part if isinstance(part, str) else tasks.IMAGE_MARK for part in turn.parts)


def _ask_many(command: Command, shape: Request, path: str) -> None:
    from mmgen.cli import arguments
    from mmgen.inputs.prompts import Prompt, read_prompts
    from mmgen.outputs.writers import Lines

    def items(first_seed: int) -> Iterator[Item]:
        asked: Counter[int] = Counter()
        for line, each in read_prompts(path):
            if isinstance(each, Prompt) and each.output is not None:
                each = UsageError("an answer goes into no output file", 'leave "output" out of the line')
            if isinstance(each, MmgenError):
                yield Item(shape, "", images=(), line=line, error=each)
                continue
            request = replace(shape, seed=first_seed if each.seed is None else each.seed)
            has_seed = command.job.seed is not None or each.seed is not None
            sources, mark = tuple(each.sources()), hash((each.text, each.images))
            again, asked[mark] = asked[mark], asked[mark] + 1
            yield Item(
                request, each.text, images=each.images, sources=sources, line=line, again=again, own_seed=has_seed
            )

    shown = not (command.job.as_json or command.job.jsonl is not None)
    arguments.run_batch(command, lambda job: Lines(shown), items)

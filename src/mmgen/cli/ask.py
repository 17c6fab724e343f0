"""`mmgen ask`: ask about pictures, or without any; once, many times, or within a conversation."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmgen import tasks
from mmgen.cli import naming, options
from mmgen.cli.talk import TalkOptions
from mmgen.errors import UsageError
from mmgen.files import check_makeable
from mmgen.inputs.finding import Found, captured, is_url
from mmgen.limits import Limits
from mmgen.outputs.records import Item
from mmgen.request import Loading, TextSampling, Turn, option
from mmgen.tasks import IMAGE_MARK, insert_images

if TYPE_CHECKING:
    from mmgen.cli.arguments import Command
    from mmgen.cli.given import Pictures

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
    choices: str | None = option(
        None, "Answer with one of these, whichever is likeliest; --json says how likely each is.", metavar="A,B,…",
        env=False,
    )  # fmt: skip
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
    comments: options.Comments = False,
    *,
    way: Way,
    find: options.FindOptions,
    beside: options.SidecarOptions,
    text: TextSampling,
    talk: TalkOptions,
    job: options.JobOptions,
    limits: Limits,
    loading: Annotated[Loading, options.without("window")],
) -> None:
    """Ask about pictures, or without any.

    Pictures stand before the question, or where it says <image>. Paths in a FILE are looked up from its folder.
    With --jsonl or --sidecar answers go there, and the same command again does only what is missing or failed.
    """
    from mmgen.cli.arguments import Command
    from mmgen.cli.given import find_pictures, prompt_counter, read_prompt, read_prompts
    from mmgen.outputs.terminal import Notes
    from mmgen.outputs.writers import Lines

    shape = replace(talk.shape(text, completion=way.complete), choices=_choices(way.choices))
    command = Command("ask", shape, job, limits, loading, Notes(job.quiet, talk.verbose))
    given = tuple(images or ())
    if comments and prompts is None:
        read_prompts([question or "-"], None, "", comments=True)  # which says so
    if way.each and prompts is None and way.history is None:
        pictures = find_pictures(given, find, question)
        words = tasks.ASK if question is None else read_prompt(question, "give pictures with --image")
        ask_each(command, words, pictures, beside)
    elif way.each or beside != options.SidecarOptions() or find != options.FindOptions():
        raise UsageError(
            "one question about every picture apart: that is --each", "add it, and leave out --prompts and --history"
        )
    elif prompts is None:
        _ask_once(command, question, given, way.history)
    elif question is not None or images or way.history is not None:
        raise UsageError("--prompts has the questions and their pictures", "leave out QUESTION, --image and --history")
    else:
        lines = read_prompts([], prompts, "give pictures with --image", comments=comments)
        writer = Lines(shown=not (job.as_json or job.jsonl is not None))
        command.run(lambda seed: command.items(command.of_prompts(lines, seed)), writer, count=prompt_counter(prompts))


def ask_each(command: Command, prompt: str, pictures: Pictures, texts: options.SidecarOptions) -> None:
    """Ask the same of every picture; of one alone the answer is streamed as it comes."""
    from mmgen.inputs.placeholders import expand
    from mmgen.outputs.sidecars import Sidecars
    from mmgen.outputs.writers import Lines

    if texts.existing in ("append", "prepend") and command.job.jsonl is None:
        raise UsageError(f"--existing {texts.existing} needs --jsonl, which knows what was added", "add --jsonl FILE")
    if texts.prefix[-1:].isalnum():
        remark = f'--prefix "{texts.prefix}" ends in a letter, and words follow at once: end it in ", " or in a space'
        command = replace(command, remark=remark)
    if texts.outdir is not None:
        check_makeable(Path(texts.outdir))
    taken: set[int] = set()  # hashes of the sidecars that pictures have

    def sidecar(item: Item, index: int, below: str) -> str | None:
        if not texts.sidecar:
            return None
        name = item.image or ""
        ending = ".xmp" if texts.xmp else texts.ext
        path = naming.sidecar_path(name, below, texts.outdir, ending, whole=texts.sidecar_name == "name")
        if texts.outdir is None and is_url(item.sources[0]):
            raise UsageError(f"nothing can stand beside {name}", "name a folder for sidecars with --outdir")
        if os.path.abspath(path) == os.path.abspath(name):  # noqa: PTH100 -- as named, not where a link leads
            raise UsageError(f"{path} is the picture itself", "choose another --ext")
        if hash(path) in taken:
            raise UsageError(
                f"{name}: {path} is another picture's already",
                "--sidecar-name name gives each a file of its own; of folders, --outdir mirrors them",
            )
        taken.add(hash(path))
        for each in (texts.prefix, texts.suffix):  # so that it is known before the model is asked
            expand(each, name)
        return path

    command.run(
        lambda seed: command.items(command.of_pictures(pictures.found, prompt, seed, texts.ext), sidecar),
        Sidecars(texts.prefix, texts.suffix, texts.existing, texts.multiline, texts.xmp)
        if texts.sidecar
        else Lines(
            not (command.job.as_json or command.job.jsonl is not None),
            pictures.is_one and command.streams(1) and not (texts.with_name or texts.print0),
            texts.print0,
        ),
        pictures.n,
        selection=pictures.selection,
        count=pictures.count_all,
    )


def _ask_once(command: Command, question: str | None, given: tuple[str, ...], history: str | None) -> None:
    from mmgen.cli.given import read_prompt
    from mmgen.inputs.messages import entry, read_messages
    from mmgen.inputs.placeholders import expand
    from mmgen.outputs.writers import Lines

    shape = command.shape
    if [*given, question].count("-") > 1:
        raise UsageError("two of pictures and question are -", "stdin holds one")
    if history is not None and (command.job.is_batch or command.limits.shard is not None):
        raise UsageError("a conversation is no batch", "leave out --jsonl, --html, --plan and --shard, or --history")
    if history is not None and shape.completion:
        raise UsageError("--complete and --history do not go together", "a text that is continued has no turns")
    talk = None if history is None else read_messages(history)
    if talk and shape.history and talk.history and talk.history[0].role == "system":
        raise UsageError(f"{history} begins with a system prompt of its own", "leave out --system")
    unanswered = talk.unanswered if talk else None
    if unanswered and (given or question is not None):
        raise UsageError(
            f"{history} ends in a question of its own", "leave out QUESTION and --image to have it answered"
        )
    if question is None and not given and not unanswered:
        raise UsageError("nothing to ask", 'give a question, as in mmgen ask "what is a snowman?", or an --image')
    words = tasks.ASK if question is None else read_prompt(question, "give pictures with --image")
    if len(given) == 1:
        words = expand(words, given[0])
    request = replace(shape, seed=command.first_seed, history=shape.history + (talk.history if talk else ()))
    if unanswered:
        words, request = _words(unanswered), replace(request, parts=unanswered.parts)
    found = [captured(image) or Found(image, "") for image in given]
    sources = tuple(each.source for each in found)
    item = Item(
        request,
        words,
        images=tuple(each.name for each in found),
        sources=sources,
        own_seed=command.job.seed is not None,
    )
    item = replace(item, request=item.open(command.limits.strict))
    writer = Lines(shown=False, streamed=command.streams(1))
    command.run(lambda seed: [replace(item, request=replace(item.request, seed=seed))], writer, 1)
    if talk:
        asked = () if unanswered else insert_images(words, [entry(source, talk.path) for source in sources])
        talk.add(asked, writer.said, shape.system)


def _choices(words: str | None) -> tuple[str, ...]:
    """Take the answers that may come apart."""
    choices = tuple(each.strip() for each in (words or "").split(",")) if words is not None else ()
    if words is not None and (
        len(choices) < 2 or not all(choices) or len({each.casefold().rstrip(".") for each in choices}) < len(choices)
    ):
        raise UsageError(f"--choices {words} is no list of different answers", "as in --choices red,green,blue")
    return choices


def _words(turn: Turn) -> str:
    return "".join(part if isinstance(part, str) else IMAGE_MARK for part in turn.parts)

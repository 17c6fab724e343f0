"""`mmgen chat`: a conversation, on a terminal or from a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from mmgen.cli import completing, options
from mmgen.cli.talk import TalkOptions
from mmgen.errors import MmgenError, UsageError
from mmgen.limits import Limits
from mmgen.outputs.terminal import Notes
from mmgen.request import WORDS, ImageSampling, Loading, TextSampling, fresh_seed
from mmgen.text import clean

if TYPE_CHECKING:
    from mmgen.cli.session import Session

PROMPT = "> "
_QUOTES, _MORE = '"""', "… "  # around a question of several lines; what stands before its next one
_STDOUT, _STDERR = 1, 2  # file descriptors

EXAMPLES = """\b
Examples:
  $ mmgen chat
  $ mmgen chat --image photo.jpg --temperature 0.7
"""


@options.grouped
def chat(
    images: options.Images = None,
    history: Annotated[
        str | None,
        typer.Option(
            "--history",
            metavar="FILE",
            rich_help_panel=options.RESULT,
            help="Go on with a conversation: JSON messages, to which this is added.",
        ),
    ] = None,
    *,
    text: Annotated[TextSampling, options.without("json_schema")],
    image: Annotated[ImageSampling, options.only("guidance", "image_guidance", temperature="image_temperature")],
    talk: TalkOptions,
    save: Annotated[options.PictureOptions, options.only("previews")],
    job: Annotated[options.JobOptions, options.only("seed", "model", "endpoint", "keep_alive", "quiet")],
    loading: Loading,
) -> None:
    """Talk with a model, a line at a time.

    Each question is asked with all that was said before. Lines that begin with a slash are commands: /help lists
    them. Lines are read from stdin, which may be a pipe.
    """
    from mmgen.cli import opening
    from mmgen.cli.session import Session, show
    from mmgen.inputs.messages import read_messages
    from mmgen.outputs.records import plain_name

    notes = Notes(job.quiet, talk.verbose, save.previews, keeps=save.previews)
    image = replace(image, top_p=text.top_p, top_k=text.top_k, min_p=text.min_p)
    used_seed = fresh_seed() if job.seed is None else job.seed
    shown = [show(source) for source in images or ()]
    earlier = None if history is None else read_messages(history)
    if earlier and earlier.unanswered:
        raise UsageError(f"{history} ends in a question of its own", "have it answered with mmgen ask --history first")
    found = opening.find(job, Limits(), loading, WORDS, notes)
    opened = opening.open_model(found, loading, WORDS, [], notes)
    if job.seed is None and text.temperature > 0:
        notes.say(f"seed: {used_seed}")

    session = Session(opened, notes, talk.shape(text), image, used_seed, shown, earlier)
    if is_prompted():
        notes.say(f"Talk with {plain_name(opened.name)}. /help lists commands, Ctrl-D leaves.")
    with opened if opened is found else nullcontext():
        n_failed = _converse(session, notes)
    if n_failed and not is_typed():
        raise typer.Exit(1)


def _converse(session: Session, notes: Notes) -> int:
    """Take lines until the session or the input ends; say how many failed.

    Ctrl-C stops an answer. Where a line is due, the second in a row ends it all; if nobody types, so does any.
    """
    n_failed = 0
    leaving = False  # it was asked for once

    def complete(line: str) -> list[str]:
        usages = {name: command.usage for name, command in session.commands.items()}
        take_paths = [name for name, usage in usages.items() if "PATH" in usage or "FILE" in usage]
        return completing.complete(line, usages, take_paths)

    while True:
        if session.ended and (leaving or session.is_saved or not is_prompted()):
            break
        if session.ended:
            leaving, session.ended = True, False
            notes.say("what was said is not saved: /save FILE does; /quit or Ctrl-D again leaves")
        try:
            line = _whole(read_line(PROMPT, complete))
        except KeyboardInterrupt:
            if leaving or not is_typed():
                raise
            leaving = True
            break_line()
            notes.say("Ctrl-C again leaves; so do Ctrl-D and /quit")
            continue
        except UsageError as error:
            notes.error(error)
            n_failed += 1
            continue
        if line is None:
            session.ended = True
            continue
        leaving = leaving and line.strip() in ("/quit", "/exit")
        try:
            session.take(line)
        except KeyboardInterrupt:
            if not is_typed():
                raise
            break_line()
            notes.say("stopped")
        except MmgenError as error:
            notes.error(error)
            n_failed += 1
    return n_failed


def _whole(line: str | None) -> str | None:
    """Read on where a line begins with three quotes, to the line that ends with them."""
    if line is None or not line.lstrip().startswith(_QUOTES):
        return line
    text = line.lstrip().removeprefix(_QUOTES)
    while not text.rstrip().endswith(_QUOTES):
        more = read_line(_MORE)
        if more is None:
            break
        text += more
    return text.rstrip().removesuffix(_QUOTES)


# --- lines from stdin ---------------------------------------------------------------------------------------------


def is_typed() -> bool:
    """Say whether somebody types: stdin is a terminal."""
    return sys.stdin.isatty()


def is_prompted() -> bool:
    """Say whether a prompt is shown to whoever types: stderr is a terminal too."""
    return is_typed() and sys.stderr.isatty()


def read_line(prompt: str, complete: Callable[[str], list[str]] = lambda _: []) -> str | None:
    """Read a line, or None at the end of input.

    Args:
        complete: says what the last word of a line may become, when Tab is typed (`completing`).

    Raises:
        UsageError: the line is not UTF-8 text.
        KeyboardInterrupt: Ctrl-C was typed.
    """
    try:
        line = _edited(prompt, complete) if is_prompted() else sys.stdin.buffer.readline().decode()
    except UnicodeDecodeError as failure:
        raise UsageError("a line is not UTF-8 text", "check the encoding of what is typed or piped") from failure
    return clean(line) if line else None


def break_line() -> None:
    """End the line on which Ctrl-C was typed."""
    if is_prompted():
        print(file=sys.stderr, flush=True)


def _edited(prompt: str, complete: Callable[[str], list[str]]) -> str:
    """Read a line with editing keys. As input() edits and prompts on stdout alone, stdout is stderr for that time."""
    with suppress(ImportError):  # gives input() its editing keys; not everywhere
        import readline

        def word(_: str, number: int) -> str | None:
            return dict(enumerate(complete(readline.get_line_buffer()[: readline.get_endidx()]))).get(number)

        readline.set_completer(word)
        readline.set_completer_delims(completing.DELIMITERS)
        is_editline = "libedit" in (readline.__doc__ or "")  # of macOS
        readline.parse_and_bind("bind ^I rl_complete" if is_editline else "tab: complete")
    sys.stdout.flush()
    kept = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    try:
        return input(prompt) + "\n"
    except EOFError:
        print(flush=True)
        return ""
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)

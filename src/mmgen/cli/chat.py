"""`mmgen chat`: a conversation, on a terminal or from a pipe."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from mmgen.cli import lines, options
from mmgen.errors import MmgenError, UsageError
from mmgen.outputs.terminal import Notes
from mmgen.request import WORDS, ImageSampling, Loading, TextSampling, fresh_seed

if TYPE_CHECKING:
    from mmgen.cli.session import Session

PROMPT = "> "

EXAMPLES = """\b
Examples:
  $ mmgen chat
  $ mmgen chat --image photo.jpg --temperature 0.7
"""


@options.grouped
def chat(
    images: options.Images = None,
    *,
    text: TextSampling,
    image: Annotated[ImageSampling, options.only("guidance", "image_guidance", temperature="image_temperature")],
    save: Annotated[options.PictureOptions, options.only("previews")],
    job: Annotated[options.JobOptions, options.only("seed", "model", "quiet")],
    loading: Loading,
) -> None:
    """Talk with a model, a line at a time.

    Each question is asked with all that was said before. Lines that begin with a slash are commands: /help lists
    them. Lines are read from stdin, which may be a pipe.
    """
    from mmgen.cli import arguments
    from mmgen.cli.session import Session, show
    from mmgen.outputs.records import plain_name

    notes = save.notes(job.quiet)
    image = replace(image, top_p=text.top_p, top_k=text.top_k)
    used_seed = fresh_seed() if job.seed is None else job.seed
    shown = [show(source) for source in images or ()]
    opened = arguments.open_model(job.model, loading, WORDS, [], notes)
    if job.seed is None and text.temperature > 0:
        notes.say(f"seed: {used_seed}")

    session = Session(opened, notes, text, image, used_seed, shown)
    if lines.is_prompted():
        notes.say(f"Talk with {plain_name(opened.name)}. /help lists commands, Ctrl-D leaves.")
    n_failed = _converse(session, notes)
    if n_failed and not lines.is_typed():
        raise typer.Exit(1)


def _converse(session: Session, notes: Notes) -> int:
    """Take lines until the session or the input ends; say how many failed.

    Ctrl-C stops an answer. Where a line is due, the second in a row ends it all; if nobody types, so does any.
    """
    n_failed = 0
    leaving = False
    while not session.ended:
        try:
            line = lines.read_line(PROMPT)
        except KeyboardInterrupt:
            if leaving or not lines.is_typed():
                raise
            leaving = True
            lines.break_line()
            notes.say("Ctrl-C again leaves; so do Ctrl-D and /quit")
            continue
        except UsageError as error:
            notes.error(error)
            n_failed += 1
            continue
        if line is None:
            break
        leaving = False
        try:
            session.take(line)
        except KeyboardInterrupt:
            if not lines.is_typed():
                raise
            lines.break_line()
            notes.say("stopped")
        except MmgenError as error:
            notes.error(error)
            n_failed += 1
    return n_failed

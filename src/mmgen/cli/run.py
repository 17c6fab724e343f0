"""What commands do between their flags and their result: read a prompt, check outputs, open the model, feed a sink."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import typer

from mmgen.errors import MmgenError, UsageError
from mmgen.model import Model
from mmgen.output import Sink
from mmgen.request import Done, Kind, Loading, Request
from mmgen.streams import Notes, is_text

_PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


def read_prompt(words: str, hint: str) -> str:
    """Take a prompt from the command line, or from stdin if it is `-`.

    Raises:
        UsageError: not text, or a picture's name by mistake; the hint says where that belongs.
    """
    if words == "-":
        try:
            words = sys.stdin.buffer.read().decode().strip()
        except UnicodeDecodeError as failure:
            raise UsageError("the prompt on stdin is not UTF-8 text", "give words, not a picture") from failure
    return check_prompt(words, hint)


def check_prompt(words: str, hint: str) -> str:
    """Check that a prompt is text.

    Raises:
        UsageError: it is not, or a picture's name by mistake; the hint says where that belongs.
    """
    if _is_file_name(words):
        raise UsageError(f"the prompt is the name of a file: {words}", hint)
    if not is_text(words):
        raise UsageError("the prompt is not UTF-8 text", "check the terminal's or the script's encoding")
    if not words.strip():
        raise UsageError("the prompt is empty", "say in words what you want")
    return words


def _is_file_name(words: str) -> bool:
    if words.lower().endswith(_PICTURE_ENDINGS) and len(words.split()) == 1:
        return True
    return "." in words and os.path.isfile(words)  # noqa: PTH113 -- Path.is_file raises on a prompt that is too long


def open_model(name: str, loading: Loading, want: frozenset[Kind], requests: Sequence[Request], notes: Notes) -> Model:
    """Open the model, with its own note about itself."""
    if notes.quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if notes.quiet:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        warnings.simplefilter("ignore")
    from mmgen import families

    notes.progress(f"loading {name}")
    try:
        model = families.open_model(name, loading, want, requests)
    finally:
        notes.clear()
    if model.note:
        notes.say(f"note: {model.note}")
    return model


def feed(model: Model, requests: Sequence[Request], sink: Sink, indices: Iterable[int] | None = None) -> None:
    """Put requests to the model and its pieces into the sink, under the sink's own indices."""
    if not requests:
        return
    places = list(range(len(requests)) if indices is None else indices)
    ended: set[int] = set()
    try:
        for position, piece in model.replies(requests):
            if isinstance(piece, Done | MmgenError):
                ended.add(position)
            sink.take(places[position], piece)
    finally:
        sink.notes.clear()
    for position, place in enumerate(places):
        if position not in ended:
            sink.take(place, Done())


def finish(sink: Sink) -> None:
    """End the command: in failure if any item failed."""
    if sink.failed:
        raise typer.Exit(1)


def check_outputs(paths: Sequence[str], force: bool) -> None:
    """Check that files can be written and, unless forced, that none exists."""
    from mmgen.images import check_writable, format_of

    for path in paths:
        if Path(path).is_dir():
            raise UsageError(f"{path} is a folder", "name a file in it with -o")
        format_of(path)
        if not force and os.path.lexists(path):
            raise UsageError(f"{path} exists", "choose another name with -o, or overwrite it with -f")
    for folder in {Path(path).parent: None for path in paths}:
        check_writable(folder)


def check_folder(output: str | None, force: bool) -> str:
    """Check that a folder can be made, or filled: an empty one or, if forced, any."""
    from mmgen.images import check_writable

    if output is None:
        raise UsageError("no folder for the story", "name one with -o, as in -o story")
    folder = Path(output)
    if not os.path.lexists(folder):
        check_writable(folder.absolute().parent)
    elif not folder.is_dir():
        raise UsageError(f"{output} is not a folder", "choose another name with -o")
    elif not force and any(folder.iterdir()):
        raise UsageError(f"{output} is not empty", "choose another folder with -o, or overwrite what is in it with -f")
    else:
        check_writable(folder)
    return output

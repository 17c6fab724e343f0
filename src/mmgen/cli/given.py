"""The prompts and the pictures that a command's words and flags name: checked before anything heavy loads."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeAlias

from mmgen.cli.options import FindOptions
from mmgen.errors import MmgenError, UsageError
from mmgen.inputs import finding, lists, prompts
from mmgen.inputs.finding import Found, NotFoundError, captured, check_file, is_collection, is_url
from mmgen.inputs.prompts import PromptLine
from mmgen.inputs.selection import PICTURE_ENDINGS, Columns, Selection
from mmgen.text import is_text

PromptLines: TypeAlias = Iterator[tuple[int | None, PromptLine | MmgenError]]  # with where they stand in their file


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
    """Check that a prompt is text; raises as `read_prompt`."""
    is_picture = words.lower().endswith(PICTURE_ENDINGS) and len(words.split()) == 1
    if is_picture or ("." in words and os.path.isfile(words)):  # noqa: PTH113 -- Path raises on a prompt that is too long
        raise UsageError(f"the prompt is the name of a file: {words}", hint)
    if not is_text(words):
        raise UsageError("the prompt is not UTF-8 text", "check the terminal's or the script's encoding")
    if not words.strip():
        raise UsageError("the prompt is empty", "say in words what you want")
    return words


def read_prompts(words: Sequence[str], file: str | None, hint: str, *, comments: bool = False) -> PromptLines:
    """Take prompts from the command line or from a file.

    Raises:
        UsageError: there are none, or some in both places; the hint is for the name of a picture.
    """
    if file is None and not words:
        raise UsageError("missing PROMPT", "say in words what you want, or give a file of prompts with --prompts")
    if file is not None and words:
        raise UsageError("prompts both on the command line and in --prompts", "leave one out")
    if list(words).count("-") > 1:
        raise UsageError("two prompts are -", "stdin holds one")
    said = [(None, PromptLine(read_prompt(each, hint))) for each in words]
    if comments and file is None:
        raise UsageError("--comments is about --prompts", "add --prompts FILE, or leave it out")
    if file is None:
        return iter(said)
    lines = prompts.read_prompts(file, comments=comments)
    if file != "-" and not os.path.lexists(file):
        next(lines)  # says so, before anything is made for its results
    return lines


def prompt_counter(file: str | None, n: int = 1) -> Callable[[], int] | None:
    """Give what counts the results of a file of prompts, `n` of each unless its line says how many.

    Nothing counts those of a pipe.
    """
    if file is None or not Path(file).is_file():
        return None
    return lambda: sum(getattr(line, "n", None) or n for _, line in prompts.read_prompts(file))


class Pictures(NamedTuple):
    """The pictures that were named.

    Attributes:
        n: how many they are, if one was named, or somebody watches the progress and they can be counted.
        is_one: exactly one was named: no folder, no pattern, no list.
        selection: says which files were left out, so far.
        count_all: looks how many there are, if one can look twice.
    """

    found: Iterable[Found | NotFoundError]
    n: int | None
    is_one: bool
    selection: Selection
    count_all: Callable[[], int] | None


def find_pictures(
    names: Sequence[str], given: FindOptions, words: str | None = None, *, counts: bool = True
) -> Pictures:
    """Find the pictures that a command's words and options name.

    Args:
        words: the command's prompt, as given.
        counts: count them for whoever watches the progress.

    Raises:
        MmgenError: nothing was named, or something that is not there, or stdin was to hold two things.
    """
    listed_in = given.files_from
    twice = [
        name
        for name, given in (("the prompt", [words]), ("--files-from", [listed_in]), ("IMAGE", names))
        if "-" in given
    ]
    if len(twice) > 1 or list(names).count("-") > 1:
        raise UsageError(f"both {' and '.join((twice * 2)[:2])} are -", "stdin holds one")
    if not names and listed_in is None:
        raise UsageError("missing IMAGE", "name files, folders or addresses, or a list of them with --files-from")
    if given.null and listed_in is None:
        raise UsageError("-0 says how paths in --files-from end", "leave it out, or add --files-from")
    plain = [name for name in names if is_url(name) or os.path.lexists(name) or not any(sign in name for sign in "*?[")]
    for name in plain:
        if name != "-" and not (is_url(name) or os.path.lexists(name)):
            check_file(name)
    read = {name: found for name in plain if (found := captured(name)) is not None}  # once
    holds_many = any(Path(name).is_dir() or is_collection(name) for name in plain)
    is_one = listed_in is None and len(names) == len(plain) == 1 and not holds_many
    columns = Columns(given.image_column, given.key_column, given.prompt_column)
    selection = Selection(given.recursive, tuple(given.include or ()), tuple(given.exclude or ()), columns)

    def look() -> Iterator[Found | NotFoundError]:
        listed = () if listed_in is None else lists.read_names(listed_in, null=given.null)
        return _some(finding.find(chain(names, listed), selection, read), listed_in)

    comes_once = listed_in is not None and not Path(listed_in).is_file()  # stdin, <(find ...)
    comes_once = comes_once or any(is_collection(name) for name in plain)  # to count them takes as long as to read them
    count = None if comes_once else lambda: sum(1 for _ in look())
    n = 1 if is_one else count() if count and counts and sys.stderr.isatty() else None
    return Pictures(look(), n, is_one, selection, count)


def _some(found: Iterator[Found | NotFoundError], listed_in: str | None) -> Iterator[Found | NotFoundError]:
    first = next(found, None)
    if first is None:
        raise MmgenError(f"no pictures in {'stdin' if listed_in == '-' else listed_in}", "write one path a line")
    yield first
    yield from found

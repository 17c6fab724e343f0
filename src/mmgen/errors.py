"""Failures that the user can mend. Knows nothing else of the project."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class MmgenError(Exception):
    """A failure the user can mend: one line that says what is wrong, one that says what to do.

    Args:
        message: what is wrong, with the value.
        hint: the remedy.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MmgenError):
    """The command itself is off: a flag's value, an empty prompt, an output that would be overwritten."""

    exit_code = 2


class OutOfMemoryError(MmgenError):
    """Memory did not suffice for what was asked at once; for less it may."""


class CannotGoOnError(MmgenError):
    """Results can no longer be written (a full disk, a broken stdout): to go on would be in vain."""


class TooLongError(MmgenError):
    """A prompt does not fit into the context, with what came before it.

    Args:
        length: tokens of it all.
        least: tokens that a reply needs at least.
        context: tokens that the model has room for.
        in_conversation: earlier turns are among them.
    """

    def __init__(self, length: int, least: int, context: int, *, in_conversation: bool = False) -> None:
        self.length = length
        over = length + least - context
        super().__init__(
            f"the {'conversation' if in_conversation else 'prompt'} is {over} token{'s' * (over > 1)} too long: "
            f"{length} and at least {least} for the reply, and this model has room for {context}",
            "leave out earlier turns" if in_conversation else "shorten the prompt, or give fewer pictures",
        )


@contextmanager
def explained(doing: str, path: str | Path, hint: str, error: type[MmgenError] = MmgenError) -> Iterator[None]:
    """Turn what the system refuses meanwhile into an error that says what cannot be done to which file, and why.

    Raises:
        CannotGoOnError: the disk is full.
    """
    try:
        yield
    except OSError as failure:
        message = f"cannot {doing} {path}: {reason(failure)}"
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CannotGoOnError(message, "free some space and try again: what is done is kept") from failure
        raise error(message, hint) from failure


@contextmanager
def refused(message: str, hint: str, *failures: type[Exception]) -> Iterator[None]:
    """Turn such failures of a library into an error: the message, and after it what the library says, on one line."""
    try:
        yield
    except failures as failure:
        raise MmgenError(f"{message}: {' '.join(str(failure).split())}", hint) from failure


def unexpected(about: str, failure: Exception) -> MmgenError:
    """Make an error of whatever was raised over something of a user's: the type and the place, with what to do.

    With MMGEN_DEBUG=1 the traceback is printed.
    """
    if os.environ.get("MMGEN_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(failure)
    innermost = traceback.extract_tb(failure.__traceback__)[-1]
    place = f"{'/'.join(Path(innermost.filename).parts[-2:])}:{innermost.lineno}"
    return MmgenError(
        f"{about}{type(failure).__name__} in {place}: {first_line(failure)}",
        "please report this with the file; MMGEN_DEBUG=1 shows where it came from",
    )


def kind_of(error: MmgenError) -> str:
    """Say what kind of error it is: its message without the names of files."""
    for part in error.message.split(": "):
        words = [word for word in part.split() if not ("/" in word or "." in word.rstrip(".,"))]
        if words:
            return " ".join(words[words[0] == "is" :])
    return error.message


def first_line(error: BaseException) -> str:
    """Say in a line what went wrong in a library, or what kind of failure it was."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def reason(failure: Exception) -> str:
    """Say why something failed, as the end of a sentence."""
    text = failure.strerror if isinstance(failure, OSError) and failure.strerror else str(failure)
    return text[:1].lower() + text[1:]

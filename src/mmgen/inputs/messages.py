"""Read a conversation from a file of messages, and add to it. Refuses to know models.

Messages are those of transformers' chat guide: a JSON list of {"role": "user" | "assistant", "content": text or parts},
before which one of the role "system" may stand
(huggingface.co/docs/transformers/chat_content_patterns).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from mmgen.errors import MmgenError, UsageError, explained
from mmgen.files import alone_in, check_writable, real, whole_file
from mmgen.inputs.finding import from_folder, is_url
from mmgen.inputs.images import open_image
from mmgen.request import Part, Role, Turn
from mmgen.text import as_line, is_text

Entry: TypeAlias = dict[str, str]  # a part of a message, as it stands in the file

_LIKE_THIS = 'messages look like [{"role": "user", "content": "what is a snowman?"}]'


@dataclass(frozen=True)
class Messages:
    """A file of messages, as it was read.

    Attributes:
        path: of the file, which need not be there yet.
        data: all that is in it.
        history: the turns, all answered.
        unanswered: a question that stands at the end without an answer.
    """

    path: str
    data: bytes
    history: tuple[Turn, ...]
    unanswered: Turn | None = None

    def add(self, question: Sequence[str | Entry], answer: str, system: str | None = None) -> Messages:
        """Write the file anew, with one more question (if it does not stand there) and its answer after what it held.

        Gives what the file holds then.

        Args:
            question: words, and pictures as `entry` writes them.
            system: how to answer; it begins a conversation that has not begun.

        Raises:
            MmgenError: the file has changed since it was read, or cannot be written.
        """
        held, _, after = (self.data.decode() if self.data.strip() else "[]\n").rpartition("]")
        comma = "," if self.history or self.unanswered else ""
        new = [_line("system", [system])] if system is not None and not comma else []
        new += ([_line("user", question)] if question else []) + [_line("assistant", [answer])]
        text = f"{held.rstrip()}{comma}\n  " + ",\n  ".join(new) + f"\n]{after}"
        file = real(self.path)
        with alone_in(file.parent):
            if _read(self.path) != self.data:
                raise MmgenError(f"{self.path} was changed meanwhile: this answer is not in it", "ask again")
            with whole_file(file) as opened:
                opened.write(text.encode())
        return replace(self, data=text.encode(), history=(*self.history, Turn("assistant", (answer,))), unanswered=None)


def read_messages(path: str) -> Messages:
    """Read a file of messages and open their pictures. A file that does not exist is a conversation not begun.

    Raises:
        MmgenError: it cannot be read or written later, holds no messages, or a picture cannot be opened.
    """
    if path == "-":
        raise UsageError("a conversation is read and written: it cannot be stdin", "name a file with --history")
    check_writable(Path(path).absolute().parent)
    data = _read(path)
    try:
        messages = json.loads(data.decode()) if data.strip() else []
    except (ValueError, RecursionError) as failure:
        raise MmgenError(f"{path} is not JSON text: {failure}", _LIKE_THIS) from failure
    if not isinstance(messages, list):
        raise MmgenError(f"{path} is not a list of messages", _LIKE_THIS)
    begins = isinstance(messages[0], dict) and messages[0].get("role") == "system" if messages else False
    roles: Sequence[Role] = ("user", "assistant")
    turns = [
        _turn(path, number, message, "system" if begins and number == 1 else roles[(number + begins) % 2 == 0])
        for number, message in enumerate(messages, 1)
    ]
    unanswered = turns.pop() if turns and turns[-1].role == "user" else None
    return Messages(path, data, tuple(turns), unanswered)


def entry(source: str, path: str) -> Entry:
    """Write where a picture is into the messages of the file `path`: relative to it, as that is how it is read."""
    if is_url(source):
        return {"type": "image", "url": source}
    if not Path(source).is_absolute():
        source = os.path.relpath(source, Path(path).parent)
    return {"type": "image", "path": source}


def written(turns: Sequence[tuple[Role, Sequence[str | Entry]]]) -> bytes:
    """Write a conversation, a message a line."""
    return ("[\n  " + ",\n  ".join(_line(role, parts) for role, parts in turns) + "\n]\n").encode()


def _line(role: Role, parts: Sequence[str | Entry]) -> str:
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return as_line({"role": role, "content": content}).rstrip("\n")


def _read(path: str) -> bytes:
    file = Path(path)
    with explained("open", path, "check that it can be read"):
        if file.exists() and not file.is_file():
            raise MmgenError(f"{file} is not a file", "name a file of messages, or one to be made")
        return file.read_bytes() if file.exists() else b""


def _turn(path: str, number: int, message: Any, role: Role) -> Turn:
    where = f"{path}: message {number}"
    match message:
        case {"role": said, "content": str() | list() as content}:
            pass
        case _:
            raise MmgenError(f"{where} has no role, or no content that is text or a list of parts", _LIKE_THIS)
    if said != role:
        said = as_line(said).strip()
        raise MmgenError(
            f'{where} has the role {said}, not "{role}"', "user and assistant take turns; user begins, or system"
        )
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    parts = tuple(part for part in (_part(where, path, each) for each in content) if part != "")
    if role != "assistant" and not parts:
        raise MmgenError(f"{where} is empty", "take it out, or say something in it")
    return Turn(role, parts)


def _part(where: str, path: str, part: Any) -> Part:
    match part:
        case {"type": "text", "text": str(text)} if is_text(text):
            return text
        case (
            {"type": "image", "path": str(source)}
            | {"type": "image", "url": str(source)}
            | {"type": "image", "image": str(source)}
        ):
            try:
                return open_image(from_folder(Path(path).parent, source))
            except MmgenError as error:
                raise MmgenError(f"{where}: {error.message}", error.hint) from error
    raise MmgenError(
        f"{where} has a part that is neither text nor a picture: {as_line(part).strip()[:60]}",
        'parts look like {"type": "text", "text": "what is it?"} and {"type": "image", "path": "cat.png"}',
    )

"""A conversation as a file of messages to go on with. Refuses to know models.

Messages are those of transformers' chat guide: a JSON list of {"role": "user" | "assistant", "content": text or parts}
(huggingface.co/docs/transformers/chat_content_patterns).
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mmgen.errors import MmgenError, UsageError, explained
from mmgen.files import check_writable, lock, whole_file
from mmgen.inputs.finding import is_url
from mmgen.inputs.images import open_image
from mmgen.request import Part, Role, Turn
from mmgen.text import as_line, is_text

if TYPE_CHECKING:
    pass

Entry: TypeAlias = dict[str, str]  # a part of a message, as it stands in the file

_LIKE_THIS = 'messages look like [{"role": "user", "content": "what is a snowman?"}]'
_SOURCES = ("path", "url", "image")  # under which of these an image says where it is


@dataclass(frozen=True)
class Messages:
    """What a file of messages holds.

    Attributes:
        path: of the file, which need not be there yet.
        data: the file as it was read.
        history: the turns, all answered.
        unanswered: a question that stands at the end without an answer.
    """

    path: str
    data: bytes
    history: tuple[Turn, ...]
    unanswered: Turn | None = None

    def add(self, question: Sequence[str | Entry], answer: str) -> None:
        """Write the file anew, with one more question (if it does not stand there) and its answer after what it held.

        Args:
            question: words, and pictures as `entry` writes them.

        Raises:
            MmgenError: the file has changed since it was read, or cannot be written.
        """
        new = [_line("user", question)] if question else []
        new.append(_line("assistant", [answer]))
        text = self.data.decode()
        listed = text.rstrip()
        start = listed[:-1].rstrip() if listed else "["
        start += ",\n  " if self.history or self.unanswered else "\n  "
        tail = text[len(listed) :] if listed else "\n"
        file = Path(os.path.realpath(self.path))  # through a link, which stays one
        with _alone_in(file.parent):
            if _read(self.path) != self.data:
                raise MmgenError(f"{self.path} was changed meanwhile: this answer is not in it", "ask again")
            mode = file.stat().st_mode & 0o777 if file.exists() else None
            with whole_file(file, mode) as opened:
                opened.write((start + ",\n  ".join(new) + "\n]" + tail).encode())


def read_messages(path: str) -> Messages:
    """Read a file of messages and open their pictures. A file that does not exist is a conversation not begun.

    Raises:
        MmgenError: it cannot be read or written later, holds no messages, or a picture cannot be opened.
    """
    if path == "-":
        raise UsageError("a conversation is read and written: it cannot be stdin", "name a file with --history")
    check_writable(Path(path).absolute().parent)
    data = _read(path)
    turns = [_turn(path, number, message) for number, message in enumerate(_parse(path, data), 1)]
    unanswered = turns.pop() if turns and turns[-1].role == "user" else None
    return Messages(path, data, tuple(turns), unanswered)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other mmgen adds to a conversation in a folder, and keep others waiting."""
    with ExitStack() as stack:
        with suppress(PermissionError):  # Windows opens no folders: comparing just before writing must do
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            lock(handle, wait=True)
        yield


def entry(source: str, path: str) -> Entry:
    """Write where a picture is into the messages of the file `path`: relative to it, as that is how it is read."""
    if is_url(source):
        return {"type": "image", "url": source}
    if not Path(source).is_absolute():
        source = os.path.relpath(source, Path(path).parent)
    return {"type": "image", "path": source}


def _line(role: Role, parts: Sequence[str | Entry]) -> str:
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return as_line({"role": role, "content": content}).rstrip("\n")


def _read(path: str) -> bytes:
    with explained("open", path, "check that it can be read"), suppress(FileNotFoundError):
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise MmgenError(f"{Path(path)} is not a file", "name a file of messages, or one to be made")
        return Path(path).read_bytes()
    return b""


def _parse(path: str, data: bytes) -> list[Any]:
    try:
        text = data.decode()
        found = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError) as failure:
        raise MmgenError(f"{path} is not JSON text: {failure}", _LIKE_THIS) from failure
    if not isinstance(found, list):
        raise MmgenError(f"{path} is not a list of messages", _LIKE_THIS)
    return found


def _turn(path: str, number: int, message: Any) -> Turn:
    where = f"{path}: message {number}"
    role: Role = "user" if number % 2 else "assistant"
    if not isinstance(message, dict) or "role" not in message or "content" not in message:
        raise MmgenError(f"{where} has no role and content", _LIKE_THIS)
    if message["role"] != role:
        said = json.dumps(message["role"], ensure_ascii=False)
        raise MmgenError(f'{where} has the role {said}, not "{role}"', "user and assistant take turns; user begins")
    content = message["content"]
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise MmgenError(f"{where} has content that is neither text nor a list of parts", _LIKE_THIS)
    parts = tuple(part for part in (_part(where, path, each) for each in content) if part != "")
    if role == "user" and not parts:
        raise MmgenError(f"{where} is empty", "take it out, or say something in it")
    return Turn(role, parts)


def _part(where: str, path: str, part: Any) -> Part:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(text := part.get("text"), str):
        if not is_text(text):
            raise MmgenError(f"{where} has half a surrogate pair in it", "take it out: it is no text")
        return text
    source = next((part[key] for key in _SOURCES if isinstance(part.get(key), str)), "") if kind == "image" else ""
    if not source:
        raise MmgenError(
            f"{where} has a part that is neither text nor a picture: {json.dumps(part, ensure_ascii=False)[:60]}",
            'parts look like {"type": "text", "text": "what is it?"} and {"type": "image", "path": "cat.png"}',
        )
    try:
        return open_image(source if is_url(source) else Path(path).parent / source)
    except MmgenError as error:
        raise MmgenError(f"{where}: {error.message}", error.hint) from error

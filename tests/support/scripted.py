"""A model that says what it was told to, at once, and a way to run the command line with it."""

from __future__ import annotations

import io
import os
import sys
import types
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from unittest import mock

import pytest
from PIL import Image

from mmgen.checkpoints import catalog
from mmgen.checkpoints.catalog import Checkpoint
from mmgen.cli import main
from mmgen.errors import MmgenError
from mmgen.model import Abilities, Model
from mmgen.request import Done, Kind, Loading, Picture, Piece, Progress, Request


@dataclass
class Scripted(Model):
    """Answers each request with the next script; without scripts, with words and with a picture of one colour by seed.

    Attributes:
        scripts: the pieces (or the errors) to come for each request.
        opened: how it was opened: name, loading, want.
        requests: what it was asked.
    """

    scripts: list[list[Piece | BaseException]] = field(default_factory=list)
    opened: list[tuple[str, Loading, frozenset[Kind]]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    name: str = "demo"
    revision: str | None = None
    abilities: Abilities = field(default_factory=Abilities)
    note: str | None = None

    def open(
        self, checkpoint: Checkpoint, loading: Loading, want: frozenset[Kind], requests: Sequence[Request], *_: object
    ) -> Scripted:
        self.opened.append((checkpoint.name, loading, want))
        self.name = checkpoint.name
        return self

    def replies(self, requests: Iterable[Request | None]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        """Answer one request, and then pull the next."""
        for number, request in enumerate(request for request in requests if request is not None):
            try:
                for piece in self.answer(request):
                    yield number, piece
            except MmgenError as error:
                yield number, error
            else:
                yield number, Done()

    def answer(self, request: Request) -> Iterator[Piece]:
        self.requests.append(request)
        for piece in self.scripts.pop(0) if self.scripts else self._default(request):
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def _default(self, request: Request) -> list[Piece]:
        words: list[Piece] = ["A sno", "wman."] if "text" in request.want else []
        pictures: list[Piece] = [Progress(1, 2), picture(request.seed)] if "image" in request.want else []
        return words + pictures


def picture(seed: int) -> Picture:
    """A picture of one colour, told by the seed."""
    return Picture(Image.new("RGB", (8, 8), colour(seed)), seed)


def colour(seed: int) -> tuple[int, int, int]:
    return (seed % 256, seed // 256 % 256, 77)


def install(monkeypatch: pytest.MonkeyPatch, model: Scripted | None = None) -> Scripted:
    """Put a scripted model where commands open theirs."""
    model = model or Scripted()
    families = types.ModuleType("mmgen.families")
    families.open_model = model.open  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mmgen.families", families)
    monkeypatch.setattr("mmgen.families", families, raising=False)
    find = catalog.find
    monkeypatch.setattr(catalog, "find", lambda name, **options: replace(find("demo"), name=name))
    return model


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str
    out_bytes: bytes


class _Stream(io.TextIOWrapper):
    def __init__(self, data: bytes = b"", terminal: bool = False) -> None:
        self.bytes = io.BytesIO(data)
        super().__init__(self.bytes, encoding="utf-8", write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def run(*arguments: str, stdin: bytes | None = None, terminal: bool = False, **environment: str) -> Result:
    """Run `mmgen` in this process. Without `stdin`, reading it fails."""
    out, err = _Stream(terminal=terminal), _Stream(terminal=terminal)
    given = _Stream(stdin) if stdin is not None else None
    with (
        mock.patch.multiple(sys, stdin=given, stdout=out, stderr=err),
        mock.patch.dict(os.environ, {"TERM": "xterm"} | environment),
        warnings.catch_warnings(),
    ):
        code = main(arguments)
    shown = out.bytes.getvalue()
    return Result(code, shown.decode(errors="surrogateescape"), err.bytes.getvalue().decode(), shown)


__all__ = ["MmgenError", "Result", "Scripted", "colour", "install", "picture", "run"]

"""What a row of the contract says, and the pictures that rows begin with. Imports nothing of mmgen."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

ANY = "…"  # in what is expected: anything


@dataclass(frozen=True)
class Drawn:
    """A picture of the built-in model, drawn once for all rows."""

    prompt: str
    seed: int


Content = str | bytes | Drawn


@dataclass(frozen=True)
class Row:
    """A command and all that it must do. `…` stands for anything, wherever texts are expected.

    Attributes:
        name: the promise, as a sentence.
        command: of mmgen's, run in this process.
        code: the exit code.
        out: stdout, all of it.
        error, hint: how the lines begin that say so on stderr, in their order; without an error there must be neither.
        writes: files that are new or changed, all of them; a pattern stands for one or more.
        files: what the folder holds before; a name that ends in a slash is an empty folder.
        first: commands that are run before and are no part of it, mmgen's or the shell's.
        stdin: without it, reading stdin fails.
        says: lines of stderr.
        err: stderr, all of it.
        never: what stands in neither stream.
        records: files of JSON lines with the values that their objects must have; the name `-` is stdout.
        holds: files with all that they hold.
        tells, hides: files with words that they have in them, or have not, in whatever encoding of Unicode.
        same, differ: two pictures whose pixels are equal, or are not.
        terminal: stdout and stderr are one.
        shell: the command is bash's, and mmgen a process of its own; it has an empty stdin.
    """

    name: str
    command: str
    code: int = 0
    out: str | bytes = ""
    error: str | Sequence[str] = ()
    hint: str | Sequence[str] = ()
    writes: str = ""
    files: Mapping[str, Content] = field(default_factory=dict)
    first: Sequence[str] = ()
    stdin: str | bytes | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    says: Sequence[str] = ()
    err: str | None = None
    never: Sequence[str] = ()
    records: Mapping[str, Sequence[object]] = field(default_factory=dict)
    holds: Mapping[str, Content] = field(default_factory=dict)
    tells: Mapping[str, Sequence[str]] = field(default_factory=dict)
    hides: Mapping[str, Sequence[str]] = field(default_factory=dict)
    same: tuple[str, str] | None = None
    differ: tuple[str, str] | None = None
    terminal: bool = False
    shell: bool = False


class Absent:
    """Stands for no value at all in an object of JSON."""


ABSENT = Absent()


def png(colour: str = "red", size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    """Make a picture of one colour."""
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


RED, BLUE, GREEN = png("red"), png("blue"), png("green")
CAT = Drawn("a red cat on the grass", 7)
BOAT = Drawn("a red boat on the beach", 1)

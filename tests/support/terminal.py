"""A Python program on a terminal of its own, driven by keys."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Self

import pyte

ROOT = Path(__file__).parents[2]

CTRL_C, CTRL_D, UP, BACKSPACE = "\x03", "\x04", "\x1b[A", "\x7f"

# Ctrl-C reaches whom the terminal belongs to.
_OWN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")


class Terminal:
    """Runs a program; what it shows is read with `expect`.

    Args:
        code: the program.
        folder: where it runs.
        stdout: where its stdout goes if not to the terminal.
        size: lines and columns, if the terminal is to know.
        environment: more of it; an empty value takes one away.

    Attributes:
        screen: what one would see.
        progress: the lines of the screens so far on which it was said how long is left.
        pictures: the screens so far on which there was something of a picture, as rows of cells.
    """

    def __init__(
        self,
        code: str,
        folder: Path,
        stdout: int | None = None,
        size: tuple[int, int] | None = None,
        **environment: str,
    ) -> None:
        self._keys, theirs = pty.openpty()
        if size is not None:
            termios.tcsetwinsize(theirs, size)
        lines, columns = size or (24, 80)
        self.screen = pyte.Screen(columns, lines)
        self.progress: list[list[str]] = []
        self.pictures: list[list[list[pyte.screens.Char]]] = []
        self._stream = pyte.ByteStream(self.screen)
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        given = {
            **os.environ,
            "PYTHONPATH": path,
            "TERM": "xterm",
            "HOME": str(folder),
            "LINES": "",
            "COLUMNS": "",
            **environment,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", _OWN + code],
            stdin=theirs,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            cwd=folder,
            env={name: value for name, value in given.items() if value},
            start_new_session=True,
        )
        os.close(theirs)
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._keys)

    def type(self, keys: str) -> None:
        """Press keys; \\r is Enter."""
        if CTRL_C in keys:
            time.sleep(0.3)  # between its prompt and its wait for keys, readline misses a signal
        os.write(self._keys, keys.encode())

    def expect(self, text: str, seconds: float = 60) -> str:
        """Wait until a text is shown; return what was shown since the last time, without colours and the like."""
        until = time.monotonic() + seconds
        while True:
            shown = _plain(self._unread)
            before, found, _ = shown.partition(text)
            if found:
                self._unread = shown[len(before + found) :].encode()
                return before + found
            assert time.monotonic() < until, f"no {text!r} in {shown!r}"
            assert self._read(), f"ended without {text!r}: {shown!r}"

    def end(self, seconds: float = 60) -> int:
        """Wait until the program ends; return its exit code."""
        until = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < until, f"did not end: {self._unread!r}"
        return self.process.wait(seconds)

    def resize(self, lines: int, columns: int) -> None:
        """Make the window larger or smaller."""
        self.screen.resize(lines, columns)
        termios.tcsetwinsize(self._keys, (lines, columns))

    def rest(self) -> str:
        """Return what was shown and not read."""
        return _plain(self._unread)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._keys], [], [], 0.5)
        try:
            data = os.read(self._keys, 65536) if ready else b""
        except OSError:  # nobody is left at the other end
            return False
        self._unread += data
        for line in data.splitlines(keepends=True):
            self._stream.feed(line)
            if b"left" in line:
                self.progress.append([row.rstrip() for row in self.screen.display if row.strip()])
            if b"left" in line and any("▀" in row for row in self.screen.display):
                width, height = self.screen.columns, self.screen.lines
                self.pictures.append([[self.screen.buffer[y][x] for x in range(width)] for y in range(height)])
        return True


def _plain(data: bytes) -> str:
    return _ESCAPES.sub("", data.decode(errors="replace")).replace("\r\n", "\n")

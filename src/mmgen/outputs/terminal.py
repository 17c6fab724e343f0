"""stdout for results; stderr for what is said beside them: notes, errors, progress, pictures while they are drawn.

Knows terminals, pipes and time; refuses to know results, and what draws.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, AnyStr, Literal, TextIO

from mmgen.errors import CannotGoOnError, MmgenError
from mmgen.files import uninterrupted
from mmgen.request import Progress
from mmgen.text import clean

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.live import Live

_STYLES = {"error": "bold red", "hint": "cyan", "note": "dim"}  # of the word that a line begins with
_PROGRESS_SECONDS = 0.4  # from one line of progress to the next, at least
SKETCH_SECONDS, SKETCH_SHARE = 0.1, 0.04  # between two sketches, at least; the share of the time that they take
_MOST_CELLS, _LEAST_LINES = 48, 10  # width of a sketch; height of a terminal that shows it
_BAR_CELLS = 20

_apart: TextIO | None = None  # stdout, while libraries print to what they take for it

# The text before the cursor where stdout and stderr are one terminal: words that go on, or were broken off for
# progress.
_before: Literal["nothing", "words", "break"] = "nothing"


class PipeClosedError(Exception):
    """Nobody reads stdout any more."""


def duration(seconds: float) -> str:
    """Say how long something takes."""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h" if minutes >= 60 else f"{minutes}:{rest:02d} min"


def pace(per_second: float) -> str:
    """Say how many are done in a second."""
    return f"{per_second:.2g} a second" if per_second < 10 else f"{per_second:.0f} a second"


def how_far(position: int, n_items: int | None, in_hand: float, per_second: float) -> tuple[str, float | None]:
    """Say how far a batch is, and what share of it is done: in_hand: so many items beyond the position."""
    if n_items is None:
        return f"{position}, {pace(per_second)}", None
    left = f", {duration((n_items - position - in_hand) / per_second)} left" if position < n_items else ""
    return f"{position} of {n_items}, {pace(per_second)}{left}", (position + in_hand) / max(n_items, 1)


@contextmanager
def results_apart() -> Iterator[None]:
    """Keep stdout for results: what libraries print meanwhile goes nowhere."""
    global _apart
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        _apart, sys.stdout = sys.stdout, nowhere
        try:
            yield
        finally:
            sys.stdout, _apart = _apart, None


def emit(text: str) -> None:
    """Write a result to stdout, at once."""
    global _before
    out = _apart or sys.stdout
    if out.isatty() and (text := clean(text)):
        is_broken_off = _before == "break"
        _before = "nothing" if text.endswith("\n") else "words"
        if is_broken_off:  # the line has ended already
            text = text.removeprefix("\n")
    _write(out, text)


def emit_bytes(data: bytes) -> None:
    """Write a file to stdout."""
    _write((_apart or sys.stdout).buffer, data)


def _write(stream: IO[AnyStr], data: AnyStr) -> None:
    try:
        stream.write(data)
        stream.flush()
    except OSError as failure:
        raise stdout_failure(failure) from failure


def stdout_failure(failure: OSError) -> Exception:
    """Turn stdout away from what failed, lest the interpreter fail again when it flushes at its end."""
    with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), (_apart or sys.stdout).fileno())
    if isinstance(failure, BrokenPipeError):
        return PipeClosedError()
    return CannotGoOnError(
        f"cannot write to stdout: {failure.strerror}", "send the output elsewhere, or free some space"
    )


class Notes:
    """Says things beside the result, on stderr: notes, errors, and progress if that is a terminal (`is_live`).

    Pictures are shown while they are drawn if `previews` are wanted, and stay if it `keeps` them; where a terminal can.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False, previews: bool = True, keeps: bool = False) -> None:
        self.quiet, self._verbose = quiet, verbose
        self.is_live = not quiet and sys.stderr.isatty()
        self.previews, self.keeps = previews and self.is_live, keeps and self.is_live
        self._live: Live | None = None  # progress, while there is some on the terminal
        self._above: RenderableType | None = None
        self._due = 0.0  # when progress may be written anew

    @cached_property
    def console(self) -> Console:
        """The terminal. Rich is imported only where there is one."""
        from rich.console import Console

        return Console(stderr=True, color_system=None if os.environ.get("NO_COLOR") else "auto")

    def listen(self) -> None:
        """Say from now on what the rooms report (logging, "mmgen"): a warning once, the rest to who asked for more."""
        import logging  # not on the way to --help

        said: set[str] = set()

        def take(record: logging.LogRecord) -> bool:
            text = record.getMessage()
            if record.levelno < logging.WARNING:
                self.detail(text)
            elif text not in said:
                said.add(text)
                self.say(f"note: {text}")
            return False  # nobody else has to say it

        log = logging.getLogger("mmgen")
        log.filters = [take]
        log.setLevel(logging.INFO)

    @staticmethod
    def hear_no_more() -> None:
        """Leave reports to whoever else listens."""
        if "logging" in sys.modules:  # else nobody listened
            sys.modules["logging"].getLogger("mmgen").filters.clear()

    def say(self, text: str) -> None:
        """Say a line."""
        if not self.quiet:
            self._line(text)

    def detail(self, text: str) -> None:
        """Say a line to those who asked for more."""
        if self._verbose:
            self.say(text)

    def picture(self, image: Image.Image, most_cells: int = _MOST_CELLS) -> None:
        """Show a finished picture, if such are kept, at most so many cells wide."""
        if self.keeps and self.can_draw():
            self.clear()
            self.console.print(HalfBlocks(image.convert("RGBA"), most_cells))

    def can_draw(self) -> bool:
        """Say whether the terminal shows half-blocks in colour, and has room for them."""
        is_plain = self.console.color_system is None or self.console.options.ascii_only
        return not is_plain and self.console.height > _LEAST_LINES

    def error(self, error: MmgenError, about: str = "") -> None:
        """Say what is wrong and what to do about it, in a line each."""
        self._line(f"error: {about + ': ' if about else ''}{error.message}")
        if error.hint:
            self._line(f"hint: {error.hint}")

    @uninterrupted()
    def _line(self, text: str) -> None:
        global _before
        text = " ".join(clean(text).splitlines())
        if not sys.stderr.isatty():
            print(text, file=sys.stderr, flush=True)
            return
        from rich.text import Text

        if self.console.is_dumb_terminal:
            self.clear()
        word, colon, rest = text.partition(":")
        self.console.print(Text.assemble((word + colon, _STYLES.get(word, "")), rest), soft_wrap=True)
        _before = "nothing"

    @uninterrupted()
    def progress(self, text: str, share: float | None = None, above: RenderableType | None = None) -> None:
        """Show how far it is, in the place of what was shown before: in words and, if a share is known, as a bar.

        Args:
            above: stands over it from now on.
        """
        global _before
        if not self.is_live or (above is None and time.monotonic() < self._due):
            return
        from rich.console import Group
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        if _before == "words":
            _before = "break"
            self.console.line()
        if self._live is None:
            self._live = Live(
                console=self.console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
            self.console.show_cursor()  # should we be killed, it would not come back
        self._above = above or self._above
        line = Text(text)
        has_bar = share is not None and self.console.width > 3 * _BAR_CELLS
        line.truncate(self.console.width - 3 - (_BAR_CELLS + 1) * has_bar)  # ^C, too, must not begin a new line
        shown = Table.grid(padding=(0, 1, 0, 0))
        shown.add_row(*([ProgressBar(1, min(share or 0, 1), _BAR_CELLS)] * has_bar), line)
        self._live.update(Group(self._above, shown) if self._above else shown, refresh=True)
        self._overwrite(line.plain)
        self._due = time.monotonic() + _PROGRESS_SECONDS

    @uninterrupted()
    def clear(self) -> None:
        """Take progress away, and what stands over it: something else is about to be written to stdout."""
        if self._live is None:
            return
        from rich.console import Group

        self._live.update(Group())  # else all of it is written once more before it is erased
        self._live.stop()
        self._overwrite("")
        self._live, self._above, self._due = None, None, 0.0

    def _overwrite(self, text: str) -> None:
        """Write over the line on a terminal for which Live does nothing."""
        if self.console.is_dumb_terminal:
            self.console.out(text.ljust(self.console.width - 3), end="\r", highlight=False)


class Drawing:
    """Shows pictures under way, one after another: how far, how long still, and the rows that are finished.

    A sketch is made after a picture's first second, and then whenever the last one has cost little of the time since.
    """

    def __init__(self, notes: Notes, clock: Callable[[], float] = time.monotonic) -> None:
        self._notes, self._clock = notes, clock
        self._which: str | None = None
        self._done = 0
        self._began = (0.0, 0)  # when the picture's first codes were there, and how many
        self._due = 0.0  # when the next sketch may be made

    def show(self, progress: Progress, which: str = "", whole: tuple[str, float | None] | None = None) -> None:
        """Show how far a picture is.

        Args:
            which: tells it from the one before.
            whole: how far all of them are (`how_far`), where there are several: that is said instead.
        """
        now = self._clock()
        if which != self._which or progress.done <= self._done:
            self._notes.clear()
            self._which, self._began, self._due = which, (now, progress.done), max(self._due, now + 1)
        self._done = progress.done
        since, n_before = self._began
        text = f"drawing {progress.done}/{progress.total}"
        above = None
        if n_before < progress.done < progress.total:
            left = (now - since) / (progress.done - n_before) * (progress.total - progress.done)
            text += f", {duration(left)} left"
            if progress.sketch and now >= self._due and self._can_sketch() and (sketch := progress.sketch()):
                above = HalfBlocks(sketch)
        self._notes.progress(*(whole or (text, progress.done / progress.total)), above)
        if above:
            cost = self._clock() - now
            self._due = now + cost + max(cost / SKETCH_SHARE, SKETCH_SECONDS)

    def _can_sketch(self) -> bool:
        """Say whether pictures are wanted, on a terminal that can show them."""
        return self._notes.previews and self._notes.can_draw()


class HalfBlocks:
    """An RGBA picture as coloured text: two pixels a cell, one over the other, down to where it is transparent.

    It becomes as large as there is room for over a line of progress, each time it is written: a terminal may change.
    """

    def __init__(self, image: Image.Image, most_cells: int = _MOST_CELLS) -> None:
        self._image, self._most_cells = image, most_cells

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from PIL.Image import Resampling
        from rich.color import Color
        from rich.segment import Segment
        from rich.style import Style

        small = self._image.copy()
        small.thumbnail((min(options.max_width - 1, self._most_cells), 2 * (options.size.height - 2)), Resampling.BOX)
        _, _, width, n_rows = small.getbbox() or (0, 0, 0, 0)
        values = small.convert("RGB").tobytes()
        pixels = [Color.from_rgb(*values[start : start + 3]) for start in range(0, 3 * width * n_rows, 3)]
        rows = [pixels[width * y : width * (y + 1)] for y in range(n_rows)]
        for y in range(0, n_rows, 2):
            cells = (Segment("▀", Style.from_color(*pair)) for pair in zip(*rows[y : y + 2], strict=True))
            yield from Segment.simplify(cells)
            yield Segment.line()

"""Pictures while they are drawn, on a terminal: how far, how long still, and the rows that are finished.

Knows terminals and time; refuses to know what draws.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mmgen.request import Progress
from mmgen.streams import Notes, duration, terminal_size

if TYPE_CHECKING:
    from PIL import Image

SHARE = 0.04  # of the time of a drawing that its sketches may take
MOST_A_SECOND = 10
_MOST_CELLS, _LEAST_CELLS = 48, 16  # width of a sketch
_TRUE_COLOUR = 2**24


class Drawing:
    """Shows pictures under way, one after another.

    What a sketch costs is known once the first is made; from then on they wait until they are cheap.

    Args:
        clock: seconds from anywhere on.
    """

    def __init__(self, notes: Notes, clock: Callable[[], float] = time.monotonic) -> None:
        self._notes, self._clock = notes, clock
        self._n_colours = n_colours() if notes.previews else 0
        self._which: str | None = None
        self._done = 0
        self._began = (0.0, 0)  # when the picture's first codes were there, and how many
        self._cost = 0.0  # seconds, of the last sketch
        self._spent = 0.0  # seconds, on all sketches of this picture
        self._due = 0.0  # when the next may be made

    def show(self, progress: Progress, which: str = "") -> None:
        """Show how far a picture is; `which` of several tells it from the one before."""
        if not self._notes.is_live:
            return
        now = self._clock()
        if which != self._which or progress.done <= self._done:
            self._notes.clear()
            self._which, self._began, self._spent = which, (now, progress.done), 0.0
        self._done = progress.done
        since, n_before = self._began
        text, left = f"{which or 'drawing '}{progress.done}/{progress.total}", 0.0
        if n_before < progress.done < progress.total:
            left = (now - since) / (progress.done - n_before) * (progress.total - progress.done)
            text += f", {duration(left)} left"
        rows = self._rows(progress) if self._is_time(progress, now, left) else None
        self._notes.progress(text, rows)
        if rows is not None:
            self._cost = self._clock() - now
            self._spent += self._cost
            self._due = now + self._cost + max(self._cost / SHARE, 1 / MOST_A_SECOND)

    def _is_time(self, progress: Progress, now: float, left: float) -> bool:
        if not self._n_colours or progress.sketch is None or progress.done == progress.total:
            return False
        passed = now - self._began[0]
        if not self._cost:  # the first, of unknown cost: when there is something to see, and a while still to wait
            return passed > 2 or (passed + left > 1 and 3 * progress.done >= progress.total)
        return now >= self._due and self._spent + self._cost <= SHARE * (passed + left)

    def _rows(self, progress: Progress) -> list[str] | None:
        """Make a sketch as large as there is room for, if there is enough."""
        size = terminal_size()
        if size is None or size.columns <= _LEAST_CELLS or size.lines <= _LEAST_CELLS // 2 + 2:
            return None
        image = progress.sketch() if progress.sketch is not None else None
        if image is None:
            return None
        from PIL.Image import Resampling

        most_width, most_height = min(size.columns - 1, _MOST_CELLS), 2 * (size.lines - 2)
        scale = min(most_width / image.width, most_height / image.height, 1)
        width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        return half_blocks(image.resize((width, height), Resampling.BOX), self._n_colours)


def n_colours() -> int:
    """Say how many colours stderr's terminal shows; 0 if it can show no half-blocks, or nobody wants them coloured."""
    kind = os.environ.get("TERM", "")
    if (
        os.environ.get("NO_COLOR")
        or kind in ("", "dumb", "unknown")
        or not (sys.stderr.encoding or "").lower().startswith("utf")
    ):
        return 0
    return _TRUE_COLOUR if os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit") else 256


def half_blocks(image: Image.Image, n_colours: int) -> list[str]:
    """Write a picture as coloured text: two pixels a cell, one over the other, as far down as it is drawn.

    Args:
        image: RGBA, transparent from some row on.
        n_colours: 256, or more for any.
    """
    drawn = image.getchannel("A").point(lambda alpha: 255 * (alpha > 127)).getbbox()
    height = drawn[3] if drawn is not None else 0
    values = image.crop((0, 0, image.width, height)).convert("RGB").tobytes()
    pixels = [values[start : start + 3] for start in range(0, len(values), 3)]
    rows = [pixels[start : start + image.width] for start in range(0, len(pixels), image.width)]
    name = _true_colour if n_colours > 256 else _nearest_of_256()
    lines = []
    for y in range(0, height, 2):
        line = before = ""
        for x in range(image.width):
            below = f"48;{name(rows[y + 1][x])}" if y + 1 < height else "49"
            colours = f"38;{name(rows[y][x])};{below}"
            line += "▀" if colours == before else f"\x1b[{colours}m▀"
            before = colours
        lines.append(line + "\x1b[0m")
    return lines


def _true_colour(rgb: bytes) -> str:
    """Name a colour, as in ITU-T T.416 and xterm's ctlseqs."""
    red, green, blue = rgb
    return f"2;{red};{green};{blue}"


def _nearest_of_256() -> Callable[[bytes], str]:
    from rich.color import Color, ColorSystem

    def name(rgb: bytes) -> str:
        red, green, blue = rgb
        return f"5;{Color.from_rgb(red, green, blue).downgrade(ColorSystem.EIGHT_BIT).number}"

    return name

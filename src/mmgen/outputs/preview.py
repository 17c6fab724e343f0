"""Pictures while they are drawn, on a terminal: how far, how long still, and the rows that are finished.

Knows terminals and time; refuses to know what draws.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mmgen.outputs.terminal import Notes, duration
from mmgen.request import Progress

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.segment import Segment

SHARE = 0.04  # of the time of a drawing that its sketches may take
MOST_A_SECOND = 10
_MOST_CELLS, _LEAST_CELLS = 48, 16  # width of a sketch


class Drawing:
    """Shows pictures under way, one after another.

    What a sketch costs is known once the first is made; from then on they wait until they are cheap.

    Args:
        clock: seconds from anywhere on.
    """

    def __init__(self, notes: Notes, clock: Callable[[], float] = time.monotonic) -> None:
        self._notes, self._clock = notes, clock
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
        sketch = progress.sketch() if progress.sketch is not None and self._is_time(progress, now, left) else None
        self._notes.progress(text, HalfBlocks(sketch) if sketch is not None else None)
        if sketch is not None:
            self._cost = self._clock() - now
            self._spent += self._cost
            self._due = now + self._cost + max(self._cost / SHARE, 1 / MOST_A_SECOND)

    def _is_time(self, progress: Progress, now: float, left: float) -> bool:
        if not self._notes.previews or progress.done == progress.total:
            return False
        passed = now - self._began[0]
        if not self._cost:  # the first, of unknown cost: when there is something to see, and a while still to wait
            is_due = passed > 2 or (passed + left > 1 and 3 * progress.done >= progress.total)
        else:
            is_due = now >= self._due and self._spent + self._cost <= SHARE * (passed + left)
        return is_due and _can_show(self._notes.console)


def _can_show(console: Console) -> bool:
    """Say whether a terminal shows half-blocks in colour, and has room for them."""
    has_room = console.width > _LEAST_CELLS and console.height > _LEAST_CELLS // 2 + 2
    return has_room and console.color_system is not None and not console.options.ascii_only


class HalfBlocks:
    """A picture as coloured text: two pixels a cell, one over the other, as far down as it is drawn.

    It becomes as large as there is room for over a line of progress, each time it is written: a terminal may change.

    Args:
        image: RGBA, transparent from some row on.
    """

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        self._size = (0, 0)  # in pixels, of what was written last
        self._segments: list[Segment] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        most_width, most_height = min(options.max_width - 1, _MOST_CELLS), 2 * (options.size.height - 2)
        scale = min(most_width / self._image.width, most_height / self._image.height, 1)
        size = max(1, round(self._image.width * scale)), max(1, round(self._image.height * scale))
        if size != self._size:
            self._size, self._segments = size, self._at(*size)
        return self._segments

    def _at(self, width: int, height: int) -> list[Segment]:
        from PIL.Image import Resampling
        from rich.color import Color
        from rich.segment import Segment
        from rich.style import Style

        image = self._image.resize((width, height), Resampling.BOX)
        drawn = image.getchannel("A").point(lambda alpha: 255 * (alpha > 127)).getbbox()
        values = image.crop((0, 0, width, drawn[3] if drawn is not None else 0)).convert("RGB").tobytes()
        colours = [Color.from_rgb(*values[start : start + 3]) for start in range(0, len(values), 3)]
        rows = [colours[start : start + width] for start in range(0, len(colours), width)]
        segments: list[Segment] = []
        for y in range(0, len(rows), 2):
            cells = (Segment("▀", Style.from_color(*pair)) for pair in zip(*rows[y : y + 2], strict=True))
            segments += [*Segment.simplify(cells), Segment.line()]
        return segments

"""Progress, and pictures while they are drawn, as one sees them on a terminal; their cost, by a clock of our own."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from contextlib import nullcontext
from io import StringIO
from pathlib import Path

import pyte
import pytest
from PIL import Image, ImageChops, ImageDraw
from rich.console import Console

import mmgen
from mmgen.outputs.terminal import Drawing, HalfBlocks, Notes, duration
from mmgen.request import Progress
from tests.support.terminal import CTRL_C, Terminal

LOADING = 200  # seconds that it may take on a busy machine
COLOURED = {"NO_COLOR": "", "COLUMNS": "", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
SIZE = (40, 100)

# Where there is a file called "slow", each pass takes a while, and sketches come as often as they can.
MMGEN = """
import sys, time
from pathlib import Path
from mmgen import families
from mmgen.cli import main
from mmgen.outputs import terminal
open_model = families.open_model
def opened(*arguments):
    model = open_model(*arguments)
    embedding = model.model.get_input_embeddings()
    embedding.register_forward_pre_hook(lambda *_: time.sleep(0.1) if Path("slow").exists() else None)
    return model
families.open_model = opened
if Path("slow").exists():
    terminal.SKETCH_SHARE = 1
print("$ mmgen")
sys.exit(main({arguments}))
"""
DRAW = ["draw", "a red cat", "--seed", "1", "-o", "x.png"]


def mmgen_on(folder: Path, *arguments: str, size: tuple[int, int] = SIZE, **environment: str) -> Terminal:
    return Terminal(MMGEN.format(arguments=list(arguments)), folder, size=size, **(COLOURED | environment))


def text(terminal: Terminal) -> list[str]:
    """The lines on the screen that are not empty."""
    return [line.rstrip() for line in terminal.screen.display if line.strip()]


def pixels(cells: list[list]) -> list[list[tuple[int, int, int]]]:
    """The picture on a screen, two rows of pixels of each line."""
    rows = []
    for line in cells:
        blocks = [cell for cell in line if cell.data == "▀"]
        if blocks:
            rows.append([rgb(cell.fg) for cell in blocks])
            if blocks[0].bg != "default":
                rows.append([rgb(cell.bg) for cell in blocks])
    return rows


def share(cells: list[list]) -> float:
    """How much there is of a picture on a screen, if it is to be a square."""
    rows = pixels(cells)
    return len(rows) / len(rows[0])


def rgb(name: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(name)
    return red, green, blue


def difference(rows: list[list[tuple[int, int, int]]], image: Image.Image) -> float:
    """How far rows of pixels are from the top of a picture, on average, of 255."""
    width = len(rows[0])
    small = image.resize((width, round(width * image.height / image.width)), Image.Resampling.BOX)
    errors = [
        abs(value - other)
        for y, row in enumerate(rows)
        for x, each in enumerate(row)
        for value, other in zip(each, small.getpixel((x, y)), strict=True)
    ]
    return sum(errors) / len(errors)


@pytest.mark.timeout(600)
def test_a_finished_picture_stays_if_asked(tmp_path: Path) -> None:
    with mmgen_on(tmp_path, *DRAW, "--show", "--no-preview") as terminal:
        assert terminal.end(LOADING) == 0
    lines, columns = SIZE
    rows = pixels([[terminal.screen.buffer[y][x] for x in range(columns)] for y in range(lines)])
    assert len(rows) == len(rows[0]) > 20
    assert difference(rows, Image.open(tmp_path / "x.png")) < 10
    assert text(terminal)[-1] == "x.png"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("colours", ["truecolor", ""])
def test_a_picture_grows_on_a_terminal_and_leaves_nothing_behind(tmp_path: Path, colours: str) -> None:
    (tmp_path / "slow").touch()
    with mmgen_on(tmp_path, *DRAW, COLORTERM=colours) as terminal:
        assert terminal.end(LOADING) == 0
    assert text(terminal)[0] == "$ mmgen"
    assert text(terminal)[-1] == "x.png"
    assert not any("▀" in line or "drawing" in line for line in text(terminal))
    rows = pixels(terminal.pictures[-1])
    assert len(rows) in range(4, 48, 4)  # whole rows of codes
    final = Image.open(tmp_path / "x.png")
    own, other = difference(rows, final), difference(rows, final.transpose(Image.Transpose.ROTATE_180))
    assert own < 30
    assert own < other / 2


@pytest.mark.timeout(600)
def test_rows_come_one_after_another_and_ctrl_c_or_a_new_size_leave_no_remains(tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    with mmgen_on(tmp_path, *DRAW, "--window", "2") as terminal:
        terminal.expect("▀", LOADING)
        terminal.expect("s left")
        terminal.resize(20, 60)
        while share(terminal.pictures[-1]) <= share(terminal.pictures[0]):
            terminal.expect("s left")
        terminal.type(CTRL_C)
        assert terminal.end() == 130
    assert len(pixels(terminal.pictures[-1])[0]) == 2 * (20 - 2)  # what the whole picture has room for
    assert not any("▀" in line or "drawing" in line or "^C" in line for line in text(terminal))
    assert terminal.screen.cursor.x == 0
    assert not (tmp_path / "x.png").exists()


@pytest.mark.timeout(600)
def test_words_before_a_picture_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    arguments = ["interleave", "Tell a story about a red cat", "--seed", "7", "-o", "story"]
    with mmgen_on(tmp_path, *arguments) as terminal:
        assert terminal.end(LOADING) == 0
    assert terminal.pictures
    page = (tmp_path / "story" / "index.md").read_text().replace("](", "](story/")
    assert [line for line in page.splitlines() if line] == [line for line in text(terminal) if line in page]
    lines = [line.rstrip() for line in terminal.screen.display]
    first, last = lines.index(page.splitlines()[0]), lines.index(page.splitlines()[-1])
    assert lines[first : last + 1] == page.splitlines()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("flags", "environment"),
    [
        ([], {"NO_COLOR": "1"}),
        (["--no-preview"], {}),
        ([], {"MMGEN_NO_PREVIEW": "1"}),
        ([], {"TERM": "dumb"}),
    ],
    ids=["NO_COLOR", "--no-preview", "MMGEN_NO_PREVIEW", "dumb"],
)
def test_where_pictures_are_not_wanted_a_line_tells_how_far_it_is(
    tmp_path: Path, flags: list[str], environment: dict[str, str]
) -> None:
    (tmp_path / "slow").touch()
    with mmgen_on(tmp_path, *DRAW, *flags, **environment) as terminal:
        terminal.expect("drawing 1/144", LOADING)
        terminal.expect(" left")
        assert terminal.end(LOADING) == 0
    assert not terminal.pictures
    assert text(terminal)[-1] == "x.png"


@pytest.mark.timeout(600)
def test_a_small_terminal_shows_no_picture(tmp_path: Path) -> None:
    with mmgen_on(tmp_path, *DRAW, size=(8, 80)) as terminal:
        terminal.expect("drawing 1/144", LOADING)
        assert terminal.end(LOADING) == 0
    assert not terminal.pictures


@pytest.mark.timeout(600)
def test_a_pipe_gets_nothing_of_it(tmp_path: Path) -> None:
    code = MMGEN.format(arguments=DRAW)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | COLOURED, capture_output=True, check=True
    )
    assert done.stdout == b"$ mmgen\nx.png\n"
    assert b"\x1b" not in done.stderr
    assert b"drawing" not in done.stderr


class Clock:
    """Seconds that pass when we say so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def console(colours: str = "truecolor", width: int = 100, height: int = 40) -> Console:
    return Console(
        file=StringIO(),
        force_terminal=True,
        color_system=colours,
        width=width,
        height=height,
        _environ={"TERM": "xterm"},
    )  # type: ignore[arg-type]


class Screen(Notes):
    """Notes that keep what they are to show."""

    def __init__(self) -> None:
        super().__init__()
        self.is_live = self.previews = True
        self.console = console()
        self.texts: list[str] = []
        self.pictures: list[object] = []

    def progress(self, text: str, share: float | None = None, above: object = None) -> None:
        self.texts.append(text)
        if above is not None:
            self.pictures.append(above)

    def clear(self) -> None:
        pass


def watch(drawing: Drawing, clock: Clock, seconds_a_code: float, costs: list[float], step: int = 1) -> float:
    """Draw a picture of 1024 codes; return how long the sketches took of it."""
    spent = 0.0

    def sketch() -> Image.Image:
        nonlocal spent
        cost = costs[0] if len(costs) == 1 else costs.pop()
        spent += cost
        clock.now += cost
        return Image.new("RGBA", (64, 64), "red")

    for done in range(step, 1025, step):
        clock.now += seconds_a_code * step
        drawing.show(Progress(done, 1024, sketch))
    return spent


@pytest.mark.parametrize("step", [1, 8, 64])
@pytest.mark.parametrize(("seconds_a_code", "cost"), [(0.005, 0.05), (0.02, 0.001), (0.1, 0.5), (1.0, 5.0), (0.3, 4.0)])
def test_sketches_take_less_than_a_twentieth_of_the_time(seconds_a_code: float, cost: float, step: int) -> None:
    clock, screen = Clock(), Screen()
    drawing = Drawing(screen, clock)
    for _ in range(3):  # pictures
        began = clock.now
        spent = watch(drawing, clock, seconds_a_code, [cost], step)
        assert spent <= 0.05 * (clock.now - began)
    assert len(screen.pictures) >= 3
    assert len(screen.pictures) <= 10 * (clock.now - 1000)


def test_sketches_of_changing_cost_are_cheap_too() -> None:
    clock, screen, random_ = Clock(), Screen(), random.Random(1)
    costs = [random_.uniform(0.02, 0.2) for _ in range(1000)]
    began = clock.now
    spent = watch(Drawing(screen, clock), clock, 0.1, costs)
    assert spent <= 0.05 * (clock.now - began)
    assert len(screen.pictures) > 10


@pytest.mark.parametrize(("seconds_a_code", "times"), [(0.0005, 0), (0.0015, 1)])
def test_a_picture_is_seen_if_it_takes_more_than_a_second(seconds_a_code: float, times: int) -> None:
    clock, screen = Clock(), Screen()
    watch(Drawing(screen, clock), clock, seconds_a_code, [0.05], step=7)
    assert len(screen.pictures) == times


def test_the_time_that_is_left_goes_by_the_pace_of_this_picture() -> None:
    clock, screen = Clock(), Screen()
    drawing = Drawing(screen, clock)
    for seconds_a_code in (1.0, 2.0):
        clock.now += 500  # loading, words
        for done in (4, 20, 100, 144):
            clock.now += 16 * seconds_a_code if done == 20 else 80 * seconds_a_code if done == 100 else 0
            drawing.show(Progress(done, 144))
    assert screen.texts == [
        "drawing 4/144", "drawing 20/144, 2:04 min left", "drawing 100/144, 44 s left", "drawing 144/144",
        "drawing 4/144", "drawing 20/144, 4:08 min left", "drawing 100/144, 1:28 min left", "drawing 144/144",
    ]  # fmt: skip


def test_durations_read_well() -> None:
    assert [duration(seconds) for seconds in (0.1, 59.4, 59.6, 61, 3599, 3725)] == [
        "1 s", "59 s", "1:00 min", "1:01 min", "59:59 min", "1:02:05 h",
    ]  # fmt: skip


def shown(image: Image.Image, colours: str = "truecolor", width: int = 100, height: int = 40) -> list[str]:
    """The lines of a picture as they are written to a terminal."""
    terminal = console(colours, width, height)
    terminal.print(HalfBlocks(image))
    return terminal.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


class Interrupted(StringIO):
    """A terminal on which Ctrl-C is typed in the middle of each write that has something of a picture."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        half = len(text) // 2
        super().write(text[:half])
        if "▀" in text:
            signal.raise_signal(signal.SIGINT)
        return super().write(text[half:])

    def seen(self) -> list[str]:
        screen = pyte.Screen(80, 24)
        pyte.Stream(screen).feed(self.getvalue().replace("\n", "\r\n"))
        return [line.rstrip() for line in screen.display if line.strip()]


@pytest.mark.parametrize("says", [True, False])
def test_ctrl_c_in_the_middle_of_a_write_waits_for_its_end(monkeypatch: pytest.MonkeyPatch, says: bool) -> None:
    stderr = Interrupted()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    notes = Notes()
    caught = []

    def on_ctrl_c(*_: object) -> None:
        caught.append(stderr.getvalue())
        if not says:
            raise KeyboardInterrupt
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        notes.say("finishing")

    before = signal.signal(signal.SIGINT, on_ctrl_c)
    try:
        notes.say("seed: 7")
        notes.progress("drawing 1/2")
        with nullcontext() if says else pytest.raises(KeyboardInterrupt):
            notes.progress("drawing 2/2", above=HalfBlocks(Image.new("RGBA", (20, 4), "red")))
        assert caught[0].endswith("drawing 2/2")
        if says:
            assert stderr.seen() == ["seed: 7", "finishing", "▀" * 20, "▀" * 20, "drawing 2/2"]
        notes.clear()
        assert stderr.seen() == (["seed: 7", "finishing"] if says else ["seed: 7"])
    finally:
        signal.signal(signal.SIGINT, before)


def test_half_blocks_hold_two_rows_of_pixels_each_as_far_as_there_are_any() -> None:
    image = Image.new("RGBA", (3, 6))
    ImageDraw.Draw(image).rectangle((0, 0, 2, 1), "red")
    ImageDraw.Draw(image).rectangle((0, 2, 2, 2), "blue")
    first, second = shown(image)
    assert first == "\x1b[38;2;255;0;0;48;2;255;0;0m▀▀▀\x1b[0m"
    assert second == "\x1b[38;2;0;0;255m▀▀▀\x1b[0m"
    assert shown(image, "256")[1] == "\x1b[38;5;21m▀▀▀\x1b[0m"
    assert shown(Image.new("RGBA", (3, 6))) == []


def test_half_blocks_have_room_on_the_terminal_with_a_line_below() -> None:
    image = Image.new("RGBA", (64, 64), "red")
    for (width, height), (n_cells, n_lines) in {
        (100, 40): (48, 24), (30, 40): (29, 15), (100, 20): (36, 18)
    }.items():  # fmt: skip
        lines = shown(image, width=width, height=height)
        assert (lines[0].count("▀"), len(lines)) == (n_cells, n_lines)


def test_a_sketch_has_the_rows_that_are_whole_and_nothing_below() -> None:
    heights, final = [], None
    for piece in mmgen.load("demo").reply(mmgen.tasks.draw("a red cat", seed=1)):
        if isinstance(piece, mmgen.Progress):
            assert piece.sketch is not None
            assert piece == Progress(piece.done, piece.total)
            sketch = piece.sketch() if piece.done % 12 < 3 else None
            if sketch is not None:
                heights.append((piece.done // 12 * 8, sketch))
        else:
            final = piece.image
    assert final is not None
    for height, sketch in heights:
        assert sketch.size == final.size
        assert sketch.getbbox() == (0, 0, 96, height)
    last = ImageChops.difference(heights[-1][1].convert("RGB"), final)
    assert max(most for _, most in last.getextrema()) <= 2, "the whole of it is the picture, but for rounding"

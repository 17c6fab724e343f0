"""What stands on a terminal meanwhile: help, batches, many drawings; read back from the cells of its screen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.terminal import CTRL_D, Terminal
from tools.demo.render import render
from tools.demo.scene import Scene

MMGEN = "import sys\nfrom mmgen.cli import main\nsys.exit(main({arguments}))"
LOADING = 200  # seconds that it may take on a busy machine
BAR = "━"


def on_screen(folder: Path, *arguments: str, size: tuple[int, int] = (40, 100)) -> Terminal:
    code = MMGEN.format(arguments=list(arguments))
    return Terminal(code, folder, size=size, COLORTERM="truecolor", NO_COLOR="", FORCE_COLOR="")


def lines(terminal: Terminal) -> list[str]:
    return [line.rstrip() for line in terminal.screen.display if line.strip()]


@pytest.mark.parametrize("columns", [80, 140])
@pytest.mark.parametrize("command", ["", "caption", "draw", "chat", "models"])
def test_help_fits_the_window_and_breaks_no_word(tmp_path: Path, command: str, columns: int) -> None:
    with on_screen(tmp_path, *command.split(), "--help", size=(200, columns)) as terminal:
        assert terminal.end(LOADING) == 0
        seen, said = lines(terminal), terminal.rest()
    assert [line.rstrip() for line in said.splitlines() if line.strip()] == seen  # nothing was folded by the terminal
    assert max(map(len, seen)) in range(columns // 2, columns + 1)
    flags = {line.split()[0].rstrip(",") for line in seen if line.startswith("  -")}
    with on_screen(tmp_path, *command.split(), "--help", size=(400, 1000)) as wide:
        assert wide.end(LOADING) == 0
        assert flags == {line.split()[0].rstrip(",") for line in lines(wide) if line.startswith("  -")}
        if command:  # of each command the list of them has what there is room for
            assert sorted(" ".join(seen).split()) == sorted(" ".join(lines(wide)).split())


@pytest.mark.timeout(600)
def test_errors_stand_over_the_bar_of_a_batch(tmp_path: Path) -> None:
    for number in range(40):
        render(Scene("cat", "red", "on the grass"), number)[0].save(tmp_path / f"{number:02d}.png")
    for number in (3, 17):
        (tmp_path / f"{number:02d}.png").write_bytes(b"junk")
    with on_screen(tmp_path, "caption", ".", "--jsonl", "out.jsonl") as terminal:
        assert terminal.end(LOADING) == 1
        seen = next(seen for seen in terminal.progress if "17.png" in " ".join(seen))
        last = lines(terminal)
    assert re.fullmatch(rf"[{BAR}╸╺]{{20}} \d+ of 40, [\d.]+ a second, \d+ s left", seen[-1])
    assert sum(BAR in line for line in seen) == 1
    assert [line for line in seen if line.startswith(("error", "hint"))] == [
        line for line in last if line.startswith(("error", "hint"))
    ]
    assert not any(BAR in line for line in last)
    assert last[-1].startswith("38 done, 0 skipped, 2 failed (2 not a picture that can be read) in ")


@pytest.mark.timeout(600)
def test_twenty_drawings_have_one_end_to_look_forward_to(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("".join(f"a red cat {number}\n" for number in range(20)))
    with on_screen(tmp_path, "draw", "--prompts", "list.txt", "-o", "drawn/", "--seed", "1") as terminal:
        assert terminal.end(LOADING) == 0
        seen, last = terminal.progress[0], lines(terminal)
    assert re.search(rf"{BAR} \d+ of 20, [\d.]+ a second, [\d:]+ (s|min) left$", seen[-1])
    assert "drawing" not in " ".join(seen)
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 20
    assert not any(BAR in line for line in last)


@pytest.mark.timeout(600)
def test_a_chat_keeps_its_pictures_on_the_screen(tmp_path: Path) -> None:
    render(Scene("cat", "red", "on the grass"), 3)[0].save(tmp_path / "a.png")
    with on_screen(tmp_path, "chat", "--seed", "7") as terminal:
        terminal.expect("> ", LOADING)
        terminal.type("/image a.png\r")
        terminal.expect("a.png, 96 x 96\n")
        terminal.expect("> ")
        terminal.type("/draw a red cat\r")
        terminal.expect("a-red-cat-7.png", LOADING)
        terminal.expect("> ")
        seen = lines(terminal)
        terminal.type(CTRL_D)
        assert terminal.end(LOADING) == 0
    blocks = [line.count("▀") for line in seen if "▀" in line]
    assert blocks == [24] * 12 + blocks[12:]  # the one that was shown
    assert len(blocks) > 24
    assert set(blocks[12:]) == {48}  # and the one that was drawn

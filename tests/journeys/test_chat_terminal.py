"""Conversations with real models on a terminal of its own: the built-in one, and one that `generate` runs in a thread.

What is said must be what the same conversation gets from Python, whatever that is: this is no test of the model.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from PIL import Image

import mmgen
from mmgen.inputs.images import open_image
from mmgen.request import Turn
from tests.support.chat_checkpoints import make_idefics3
from tests.support.terminal import CTRL_C, CTRL_D, Terminal
from tools.demo.render import render
from tools.demo.scene import Scene

LOADING = 200  # seconds that it may take on a busy machine

# Chats. As long as there is a file called "slow", each step takes a third of a second, and the steps are counted.
CHAT = """
import sys, time
from pathlib import Path
from mmgen import families
from mmgen.cli import main
open_model = families.open_model
def wait(*_):
    if Path("slow").exists():
        with Path("steps").open("a") as steps:
            steps.write(".")
        time.sleep(0.3)
def opened(*arguments):
    model = open_model(*arguments)
    model.model.get_input_embeddings().register_forward_pre_hook(wait)
    return model
families.open_model = opened
sys.exit(main(["chat", *{flags}]))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two pictures."""
    monkeypatch.chdir(tmp_path)
    render(Scene("cat", "red", "on the grass"), 3)[0].save("a.png")
    render(Scene("boat", "blue", "at night"), 4)[0].save("b.png")
    return tmp_path


def chat(folder: Path, *flags: str) -> Terminal:
    return Terminal(CHAT.format(flags=flags), folder)


@pytest.mark.timeout(600)
def test_three_turns_with_two_pictures_are_what_python_gets(folder: Path) -> None:
    demo, a, b = mmgen.load("demo"), open_image("a.png"), open_image("b.png")
    turns = [("Describe this picture.", [a]), ("what color is it?", []), ("is <image> a boat?", [b])]
    history: list[Turn] = []
    answers = []
    for question, images in turns:
        answers.append(mmgen.ask(demo, question, images, history=history))
        before, mark, after = question.partition("<image>")
        asked = (before, *images, after) if mark else (*images, question)
        history += [Turn("user", asked), Turn("assistant", (answers[-1],) if answers[-1] else ())]
    assert len(answers[0]) > 10

    Path("slow").touch()
    with chat(folder) as terminal:
        terminal.expect("Talk with demo. /help lists commands, Ctrl-D leaves.\n> ", seconds=LOADING)
        terminal.type("/image a.png\r")
        terminal.expect("> ")
        terminal.type("Describe this picture.\r")
        terminal.expect(f"Describe this picture.\n{answers[0][:3]}")
        n_steps = len(Path("steps").read_text())
        assert terminal.expect("> ") == f"{answers[0][3:]}\n> "
        assert n_steps < len(Path("steps").read_text())  # streamed: the rest was not made when it began to show
        Path("slow").unlink()
        terminal.type("what color is it?\r")
        terminal.expect(f"what color is it?\n{answers[1]}\n> ")
        terminal.type("/image b.png\r")
        terminal.expect("> ")
        terminal.type("is <image> a boat?\r")
        terminal.expect(f"is <image> a boat?\n{answers[2]}\n> ")
        terminal.type("/save story.md\r")
        terminal.expect("saved story.md, story-1.png, story-2.png\n> ")
        terminal.type(CTRL_D)
        assert terminal.end() == 0
        assert "Traceback" not in terminal.rest()
    story = Path("story.md").read_text()
    counts = {"**You:**": 3, "**demo:**": 3, "![a.png](story-1.png)": 1, "![b.png](story-2.png)": 1}
    assert {text: story.count(text) for text in counts} == counts
    assert all(answer in story for answer in answers)
    assert [Image.open(f"story-{n}.png").tobytes() for n in (1, 2)] == [a.tobytes(), b.tobytes()]


@pytest.mark.timeout(600)
def test_ctrl_c_stops_an_answer_or_a_drawing_and_not_the_chat(folder: Path) -> None:
    demo = mmgen.load("demo")
    (drawn,) = mmgen.draw(demo, "a red cat", seed=9)
    whole = mmgen.caption(demo, drawn.image)

    Path("slow").touch()
    with chat(folder, "--seed", "7", "--image", "a.png") as terminal:
        terminal.expect("> ", seconds=LOADING)
        terminal.type("Describe this picture.\r")
        terminal.expect("Describe this picture.\nA")
        terminal.type(CTRL_C)
        terminal.expect("stopped\n> ")
        terminal.type("/undo\r")
        terminal.expect('took back "Describe this picture." and 1 picture\n> ')
        terminal.type("/draw a boat\r")
        terminal.expect(" s left")  # a few passes on
        terminal.type(CTRL_C)
        terminal.expect("stopped\n> ")
        Path("slow").unlink()
        terminal.type("/draw a red cat\r")
        terminal.expect("a-red-cat-9.png\n> ")
        terminal.type("Describe this picture.\r")
        terminal.expect(f"Describe this picture.\n{whole}\n> ")
        terminal.type("/vary make it blue\r")
        terminal.expect("make-it-blue-11.png\n> ")
        terminal.type("/save story.md\r")
        terminal.expect("saved story.md, story-1.png, story-2.png\n> ")
        terminal.type("/quit\r")
        assert terminal.end() == 0
        assert "Traceback" not in terminal.rest()
    assert open_image("a-red-cat-9.png").tobytes() == drawn.image.tobytes()
    assert sorted(path.name for path in folder.glob("*.png")) == [
        "a-red-cat-9.png", "a.png", "b.png", "make-it-blue-11.png", "story-1.png", "story-2.png",
    ]  # fmt: skip


@pytest.mark.timeout(600)
def test_ctrl_c_stops_a_model_that_generate_runs_too(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    tiny = make_idefics3(tmp_path_factory.mktemp("idefics3"))
    Path("slow").touch()
    with chat(folder, "-m", str(tiny), "--device-map", "cpu", "--max-tokens", "300", "--image", "a.png") as terminal:
        terminal.expect("> ", seconds=LOADING)
        terminal.type("what is it?\r")
        while not Path("steps").exists() or len(Path("steps").read_text()) < 5:
            time.sleep(0.01)
        terminal.type(CTRL_C)
        terminal.expect("stopped\n> ")
        n_steps = len(Path("steps").read_text())
        terminal.type("/undo\r")
        terminal.expect("> ")
        assert len(Path("steps").read_text()) == n_steps < 300  # nothing goes on behind its back
        terminal.type("/draw a cat\r")
        terminal.expect("cannot draw")
        terminal.expect("> ")
        Path("slow").unlink()
        terminal.type("/image b.png\r")
        terminal.expect("> ")
        terminal.type("and this?\r")
        terminal.expect("and this?\n")
        terminal.expect("\n> ")
        terminal.type("/quit\r")
        terminal.expect("what was said is not saved")
        terminal.type("/quit\r")
        assert terminal.end() == 0
        assert "Traceback" not in terminal.rest()


@pytest.mark.timeout(600)
def test_tab_completes_a_picture_is_confirmed_and_a_talk_is_not_left_unsaved(folder: Path) -> None:
    (folder / "a.png").rename("my first cat.png")
    with chat(folder) as terminal:
        terminal.expect("> ", seconds=LOADING)
        terminal.type("/im\tmy f\t\r")
        assert "/image my first cat.png" in terminal.expect("\nmy first cat.png, 96 x 96\n")
        terminal.expect("> ")
        terminal.type("/show\r")
        terminal.expect("/show\nmy first cat.png\n")
        terminal.type("what is it?\r")
        terminal.expect("what is it?\n")
        terminal.expect("\n> ")
        terminal.type(CTRL_D)
        terminal.expect("not saved: /save FILE does; /quit or Ctrl-D again leaves\n> ")
        terminal.type("and its color?\r")
        terminal.expect("\n> ")
        terminal.type("/quit\r")
        terminal.expect("not saved: /save FILE does; /quit or Ctrl-D again leaves\n> ")
        terminal.type("/save talk.json\r")
        terminal.expect("saved talk.json")
        terminal.expect("> ")
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    assert Path("talk.json").exists()

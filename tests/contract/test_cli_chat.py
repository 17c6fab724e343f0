"""chat, on a terminal and from a pipe. With a scripted model."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from PIL import Image

from mmgen.errors import MmgenError, TooLongError
from mmgen.inputs.images import open_image
from mmgen.model import Abilities
from mmgen.outputs.pictures import read_metadata
from mmgen.request import WORDS
from tests.support.scripted import Result, Scripted, colour, install, picture, run
from tests.support.terminal import BACKSPACE, CTRL_C, CTRL_D, UP, Terminal


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    """A scripted model, in a folder with two pictures."""
    monkeypatch.chdir(tmp_path)
    for name, tint in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (8, 8), tint).save(name)
    return install(monkeypatch)


def chat(*lines: str, flags: tuple[str, ...] = ()) -> Result:
    """Talk through a pipe."""
    return run("chat", *flags, stdin="".join(f"{line}\n" for line in lines).encode())


# On a terminal

# Says how much it was shown, and stops in the middle until there is a file called "go".
TALKER = """
import time, pytest
from pathlib import Path
from tests.support.scripted import install, picture
from mmgen.cli import main
model = install(pytest.MonkeyPatch())
def answer(request):
    if "text" not in request.want:
        yield picture(request.seed)
        return
    n_pictures = [sum(not isinstance(part, str) for part in turn.parts) for turn in (*request.history, request)]
    yield f"You said: {request.parts[-1]}. "
    if request.parts[-1] == "wait":
        while not Path("go").exists():
            time.sleep(0.01)
    yield f"Pictures by turn: {n_pictures}.\\n"
model._default = answer
sys.exit(main(["chat", *sys.argv[1:]]))
"""


def test_three_turns_with_two_pictures_on_a_terminal(model: Scripted, tmp_path: Path) -> None:
    with Terminal(TALKER, tmp_path) as terminal:
        assert terminal.expect("> ").splitlines()[-2] == "Talk with demo. /help lists commands, Ctrl-D leaves."
        terminal.type("/image a.png\r")
        terminal.expect("> ")
        terminal.type("wait\r")
        terminal.expect("You said: wait.")  # streamed: the rest is not made yet
        Path("go").touch()
        assert terminal.expect("> ") == " Pictures by turn: [1].\n> "
        terminal.type("and nwo" + BACKSPACE * 2 + "ow?\r")
        terminal.expect("You said: and now?. Pictures by turn: [1, 0, 0].\n> ")
        terminal.type("/image b.png\r")
        terminal.expect("> ")
        terminal.type(UP + UP + "\r")
        terminal.expect("You said: and now?. Pictures by turn: [1, 0, 0, 0, 1].\n> ")
        terminal.type("/draw a cat\r")
        terminal.expect(".png\n> ")
        terminal.type("/save story.md\r")
        terminal.expect("saved story.md, story-1.png, story-2.png, story-3.png\n> ")
        terminal.type(CTRL_D)
        assert terminal.end() == 0


def test_ctrl_c_stops_the_answer_and_not_the_chat(model: Scripted, tmp_path: Path) -> None:
    with Terminal(TALKER, tmp_path) as terminal:
        terminal.expect("> ")
        terminal.type("wait\r")
        terminal.expect("You said: wait.")
        terminal.type(CTRL_C)
        terminal.expect("\nstopped\n> ")
        terminal.type("and now?\r")
        terminal.expect("You said: and now?. Pictures by turn: [0, 0, 0].\n> ")
        terminal.type("half a li")
        terminal.expect("half a li")
        terminal.type(CTRL_C)
        terminal.expect("Ctrl-C again leaves; so do Ctrl-D and /quit\n> ")
        terminal.type("still here\r")
        terminal.expect("You said: still here.")
        terminal.expect("> ")
        terminal.type(CTRL_C)
        terminal.expect("> ")
        terminal.type(CTRL_C)
        assert terminal.end() == 130
        assert "Traceback" not in terminal.rest()


def test_prompts_stay_off_stdout(model: Scripted, tmp_path: Path) -> None:
    with Path("out").open("wb") as out, Terminal(TALKER, tmp_path, stdout=out.fileno()) as terminal:
        terminal.expect("> ")
        terminal.type("wait\r")
        while not Path("out").read_text():
            time.sleep(0.01)
        terminal.type(CTRL_C)
        terminal.expect("stopped\n> ")
        terminal.type("/undo\r")
        terminal.expect('took back "wait"\n> ')
        terminal.type("hello\r")
        terminal.expect("> ")
        terminal.type("/quit\r")
        terminal.expect("not saved: /save FILE does; /quit or Ctrl-D again leaves\n> ")
        terminal.type("/quit\r")
        assert terminal.end() == 0
    assert Path("out").read_text() == "You said: wait.\nYou said: hello. Pictures by turn: [0].\n"


# From a pipe


def test_a_pipe_is_answered_line_by_line_without_prompts(model: Scripted) -> None:
    model.scripts = [["One. "], ["Two."], ["Three."]]
    result = chat("first", "", "  second  ", "third")
    assert (result.code, result.out, result.err) == (0, "One.\nTwo.\nThree.\n", "")
    assert [request.parts for request in model.requests] == [("first",), ("second",), ("third",)]
    assert [(turn.role, turn.parts) for turn in model.requests[2].history] == [
        ("user", ("first",)),
        ("assistant", ("One.",)),
        ("user", ("second",)),
        ("assistant", ("Two.",)),
    ]
    assert len(model.opened) == 1
    assert model.opened[0][2] == WORDS


def test_the_end_of_input_ends_it_without_a_word(model: Scripted) -> None:
    assert chat() == run("chat", stdin=None) == Result(0, "", "", b"")
    assert run("chat", stdin=b"no newline").out == "A snowman.\n"


def test_interrupted_where_nobody_types_it_ends(model: Scripted) -> None:
    model.scripts = [["One."], ["Tw", KeyboardInterrupt()]]
    result = chat("one", "two", "three")
    assert (result.code, result.out, result.err) == (130, "One.\nTw\n", "")


def test_pictures_stand_before_their_question_or_where_it_says(model: Scripted) -> None:
    assert chat("what?", "/image b.png", "/image a.png", "is <image> like it?", flags=("--image", "a.png")).err == ""
    first, second = model.requests
    assert [tint(part) for part in first.parts] == ["red", "what?"]
    assert [tint(part) for part in second.history[0].parts] == ["red", "what?"]
    assert [tint(part) for part in second.parts] == ["red", "is ", "blue", " like it?"]


def tint(part: str | Image.Image) -> str:
    if isinstance(part, str):
        return part
    return {(255, 0, 0): "red", (0, 0, 255): "blue"}.get(part.getpixel((0, 0)), "other")  # type: ignore[arg-type]


def test_a_path_may_be_quoted_as_a_shell_would_have_it(model: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    for name in ("my cat.png", "it's.png"):
        Path("a.png").rename(name)
        spellings = [name, f'"{name}"', name.replace(" ", "\\ ").replace("'", "\\'")]
        assert chat(*(f"/image {path}" for path in spellings)).err == ""
        Path(name).rename("a.png")
    assert chat("/image ~/a.png", "/image\ta.png").err == ""


def test_a_drawn_picture_is_saved_and_joins_the_conversation(model: Scripted) -> None:
    Path("a-red-cat-7.png").write_text("mine")
    result = chat("/draw a red cat", "/vary", "/vary make it blue", "what are they?", "/vary", flags=("--seed", "7"))
    names = ["a-red-cat-7-2.png", "variation-8.png", "make-it-blue-9.png", "A snowman.", "variation-11.png"]
    assert (result.code, result.out.split("\n")[:-1], result.err) == (0, names, "")
    assert Path("a-red-cat-7.png").read_text() == "mine"
    drawn, varied, changed, asked, again = model.requests
    assert drawn.parts == ("a red cat",)
    assert varied.parts[-1].getpixel((0, 0)) == colour(7)  # type: ignore[union-attr]
    assert changed.parts[0].getpixel((0, 0)) == colour(8)  # type: ignore[union-attr]
    assert [part.getpixel((0, 0)) for part in asked.parts[:3]] == [colour(7), colour(8), colour(9)]  # type: ignore[union-attr]
    assert again.parts[-1].getpixel((0, 0)) == colour(9)  # type: ignore[union-attr]
    assert (read_metadata("a-red-cat-7-2.png") or {})["prompt"] == "a red cat"  # type: ignore[typeddict-item]


def test_who_cannot_draw_is_not_said_to(model: Scripted) -> None:
    model.abilities = Abilities(WORDS)
    result = chat("/draw a cat", "/help")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: demo cannot draw: ")
    assert "/draw" not in result.err.partition("hint")[2]
    model.abilities = Abilities()
    assert "/draw PROMPT" in chat("/help").err
    assert "/draw PROMPT" in chat("/help", flags=("-q",)).err


def test_who_draws_from_words_alone_is_not_said_to_vary(model: Scripted) -> None:
    model.abilities = Abilities(varies=False)
    result = chat("/image a.png", "/vary", "/help", "/draw a cat", flags=("--seed", "7"))
    assert (result.code, result.out) == (1, "a-cat-8.png\n")
    assert result.err.startswith("error: demo draws from words alone")
    listed = [line.split()[0] for line in result.err.splitlines()]
    assert "/draw" in listed
    assert "/vary" not in listed


def test_undo_takes_back_the_last_picture_or_exchange(model: Scripted) -> None:
    result = chat("one", "/image a.png", "two", "/image b.png", "/undo", "/undo", "three", "/undo", "/undo", "/undo")
    assert [part for turn in model.requests[2].history for part in turn.parts] == ["one", "A snowman."]
    assert model.requests[2].parts == ("three",)
    assert result.err.splitlines()[:4] == [
        "took back b.png",
        'took back "two" and 1 picture',
        'took back "three"',
        'took back "one"',
    ]
    assert result.err.splitlines()[4].startswith("error: nothing to take back")


def test_a_conversation_is_saved_as_markdown_with_its_pictures(model: Scripted) -> None:
    model.scripts = [["Red.\n"], [picture(9)], ["Blue, *I think*."]]
    talk = ["/image a.png", "what [color]?", "/draw a [cat]", "and this?", "/image b.png"]
    assert chat(*talk, "/save my story.md", "/save my story.md", "/undo", "/save my story.md").code == 0
    assert Path("my story.md").read_text() == (
        "# A conversation with demo\n\n"
        "**You:**\n\n![a.png](<my story-1.png>)\n\nwhat [color]?\n\n**demo:**\n\nRed.\n\n"
        "**You:**\n\n![a \\[cat\\]](<my story-2.png>)\n\nand this?\n\n**demo:**\n\nBlue, *I think*.\n"
    )
    assert [open_image(f"my story-{n}.png").getpixel((0, 0)) for n in (1, 2)] == [(255, 0, 0), colour(9)]


def test_saving_overwrites_nothing_of_others(model: Scripted) -> None:
    Path("mine.md").write_text("mine")
    Path("half-2.png").write_text("mine")
    before = sorted(Path().iterdir())
    told = ["/image a.png", "/image b.png", "what?"]
    result = chat(*told, "/save mine.md", "/save half.md", "/save x.txt", "/save nowhere/x.md", "/save")
    assert result.code == 1
    errors = [line for line in result.err.splitlines() if line.startswith("error")]
    assert [
        said in error for said, error in zip(("mine.md", "half-2.png", "x.txt", "nowhere", ""), errors, strict=True)
    ]
    assert (Path("mine.md").read_text(), Path("half-2.png").read_text()) == ("mine", "mine")
    assert sorted(Path().iterdir()) == before
    assert chat("/save new.md").err.startswith("error: nothing to save")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/image none.png", "no such file: none.png"),
        ("/image", "no picture"),
        ("/image 'a", "no such file: 'a"),
        ("a.png", "/image"),
        ("/draw", "nothing to draw"),
        ("/vary", "no picture to vary"),
        ("/bogus", "no command /bogus"),
        ("/", "no command /"),
        ("a\x00\x1b[31m\udcff", "not UTF-8"),
        ("bad answer", "a fault"),
    ],
)
def test_an_error_does_not_end_the_chat(model: Scripted, line: str, said: str) -> None:
    if line == "bad answer":
        model.scripts = [["be", MmgenError("a fault", "mend it")], ["Still here."]]
    given = f"{line}\nhello\n".encode(errors="surrogateescape")
    result = run("chat", stdin=given)
    assert result.code == 1
    assert result.out.endswith("A snowman.\n" if line != "bad answer" else "be\nStill here.\n")
    assert said in result.err
    assert [text.partition(":")[0] for text in result.err.splitlines()] == ["error", "hint"]
    assert model.requests[-1].history == ()


def test_too_long_a_conversation_says_by_how_much_and_how_to_go_on(model: Scripted) -> None:
    too_long = TooLongError(4100, 1, 4096, in_conversation=True)
    model.scripts = [["One."], [too_long], ["Two."]]
    result = chat("one", "/image a.png", "two", "/undo", "/undo", "three")
    assert result.out == "One.\nTwo.\n"
    error, hint, *undone = result.err.splitlines()
    assert error.startswith("error: the conversation is 5 tokens too long: 4100 ")
    assert "/undo" in hint
    assert undone == ["took back a.png", 'took back "one"']
    assert model.requests[2].history == ()


def test_a_question_may_begin_with_a_slash_after_a_space(model: Scripted) -> None:
    assert chat(" /etc is what?").out == "A snowman.\n"
    assert model.requests[0].parts == ("/etc is what?",)


def test_sampling_and_seeds_reach_the_model(model: Scripted) -> None:
    flags = ("--temperature", "0.5", "--image-temperature", "0.9", "--max-tokens", "9", "--seed", "4294967295")
    assert chat("one", "/draw a cat", "two", flags=flags).err == ""
    assert [request.seed for request in model.requests] == [2**32 - 1, 0, 1]
    assert (model.requests[0].text.temperature, model.requests[0].text.max_tokens) == (0.5, 9)
    assert model.requests[1].image.temperature == 0.9
    drawn = chat("one", flags=("--temperature", "1"))
    assert drawn.err == f"seed: {model.requests[-1].seed}\n"


@pytest.mark.parametrize("flags", ["--seed -1", "--image none.png", "--temperature -1"])
def test_what_is_wrong_from_the_start_is_said_before_anything_loads(model: Scripted, flags: str) -> None:
    result = chat("hello", flags=tuple(flags.split()))
    assert (result.code in (1, 2), result.out, model.opened) == (True, "", [])
    assert [text.partition(":")[0] for text in result.err.splitlines()] == ["error", "hint"]


# Taken up again


def test_a_saved_conversation_is_taken_up_again_with_its_pictures(model: Scripted) -> None:
    first = chat("/image a.png", "what?", "/save talk.json", "/clear", "why?")
    assert first.code == 0
    assert not model.requests[1].history
    again = chat("/load talk.json", "where?", "/save again.md")
    assert again.code == 0
    request = model.requests[2]
    assert [turn.role for turn in request.history] == ["user", "assistant"]
    assert request.history[0].parts[0].tobytes() == open_image("a.png").tobytes()  # type: ignore[union-attr]
    assert "where?" in Path("again.md").read_text()
    assert run("ask", "why?", "--history", "talk.json").code == 0  # it is the same format
    assert len(model.requests[3].history) == 2


def test_a_picture_of_a_conversation_that_was_loaded_can_be_looked_at(model: Scripted) -> None:
    assert chat("/image a.png", "what?", "/save talk.json").code == 0
    result = chat("/load talk.json", "/show")
    assert result.code == 0
    assert result.err.splitlines()[-1] == "picture"


def test_a_conversation_in_a_file_grows_as_it_is_held(model: Scripted) -> None:
    assert chat("/draw a cat", "what is it?", flags=("--history", "t.json", "--seed", "7")).code == 0
    assert chat("and now?", flags=("--history", "t.json")).code == 0
    talk = json.loads(Path("t.json").read_text())
    assert [message["role"] for message in talk] == ["user", "assistant"] * 2
    assert talk[0]["content"][0] == {"type": "image", "path": "a-cat-7.png"}
    assert len(model.requests[-1].history) == 2


def test_a_conversation_may_be_told_how_to_answer_and_to_draw(model: Scripted) -> None:
    lines = ["/system Be brief.", "/set temperature 0.5", "/set guidance 2", "/set image_temperature 0.1", "what?"]
    assert chat(*lines, "/draw a cat").code == 0
    asked, drawn = model.requests
    assert (asked.system, asked.text.temperature) == ("Be brief.", 0.5)
    assert (drawn.image.guidance, drawn.image.temperature) == (2, 0.1)
    for wrong in ("/set", "/set warmth 1", "/set temperature warm", "/set temperature -1", "/load no.json", "/load"):
        assert chat(wrong).code == 1


def test_a_question_may_have_several_lines(model: Scripted) -> None:
    assert chat('"""what', "is", 'it?"""', '"""one line"""').code == 0
    assert [request.parts for request in model.requests] == [("what\nis\nit?",), ("one line",)]
    assert chat("/exit", "what?").code == 0
    assert len(model.requests) == 2

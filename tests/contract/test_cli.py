"""The command line as a contract: streams, exit codes, help, errors. With a scripted model."""

from __future__ import annotations

import gc
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyte
import pytest
from PIL import Image

from mmgen.checkpoints import catalog
from mmgen.cli import main
from mmgen.errors import MmgenError
from mmgen.request import Progress
from tests.support import shell
from tests.support.scripted import Scripted, install, run

COMMANDS = ("caption", "ask", "draw", "vary", "interleave", "chat")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    """A scripted model, in a folder with two pictures."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8), "red").save(name)
    return install(monkeypatch)


def python(code: str, **options: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": ""}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **options
    )  # type: ignore[call-overload, no-any-return]


def seen(shown: str) -> list[str]:
    """The lines that one sees on a terminal once all is shown."""
    screen = pyte.Screen(80, 24)
    pyte.Stream(screen).feed(shown.replace("\n", "\r\n"))
    return [line.rstrip() for line in screen.display if line.strip()]


SCRIPTED = """
import sys, time, pytest
from tests.support.scripted import install, picture
from mmgen.checkpoints import catalog
from mmgen.cli import main
model = install(pytest.MonkeyPatch())
"""


# Help


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS), ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from mmgen.checkpoints import catalog
from mmgen.cli import main
assert main({arguments}) == 0
heavy = {{"torch", "transformers", "numpy", "PIL", "rich", "huggingface_hub", "httpx2", "mmgen.families"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    process = python(code)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    assert out


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_ends_with_two_examples_that_run(command: str | None, model: Scripted) -> None:
    arguments = [command] if command else []
    short, long = run(*arguments, "-h"), run(*arguments, "--help")
    assert short == long
    assert short.code == 0
    assert "\x1b" not in short.out
    ending = short.out.rstrip().splitlines()[-3:]
    assert ending[0].strip() == "Examples:"
    for name in ("photo.jpg", "drawing.png"):
        Image.new("RGB", (8, 8), "red").save(name)
    for line in ending[1:]:
        program, *words = shlex.split(line.strip().removeprefix("$ "))
        assert program == "mmgen"
        result = run(*words, stdin=b"hello" if words[0] == "chat" else None)
        assert (result.code, result.out != "") == (0, True), result.err


def test_without_a_command_help_goes_to_stderr_as_misuse() -> None:
    result = run()
    assert (result.code, result.out) == (2, "")
    assert "interleave" in result.err


def test_version_is_on_stdout() -> None:
    assert re.fullmatch(r"mmgen \d+\.\d+\.\d+\n", run("--version").out)


def test_the_module_runs_too() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "mmgen", "draw", "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.startswith("Usage: mmgen draw")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell: str) -> None:
    code = "import sys; sys.argv = ['mmgen']; from mmgen.cli import main; sys.exit(main())"
    os.environ["_MMGEN_COMPLETE"] = f"source_{shell}"
    try:
        process = python(code)
    finally:
        del os.environ["_MMGEN_COMPLETE"]
    out, _ = process.communicate(timeout=30)
    assert b"_MMGEN_COMPLETE" in out


# Misuse: exit code 2, one error and one hint, before anything loads


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("drw a", "drw"),
        ("draw", "PROMPT"),
        ("draw a --sed 7", "--sed"),
        ("draw a --seed x", "--seed"),
        ("draw a --seed -1", "seed -1"),
        ("draw a --seed 4294967296", "seed 4294967296"),
        ("draw a --seed 4294967295 -n 2", "seed 4294967296"),
        ("draw a -n 0", "-n 0"),
        ("draw a --temperature -1", "temperature -1"),
        ("draw a --temperature nan", "temperature nan"),
        ("draw a --top-p 0", "top-p 0"),
        ("draw a --top-p 1.5", "top-p 1.5"),
        ("draw a --top-k -1", "top-k -1"),
        ("draw a --guidance -2", "guidance -2"),
        ("draw a --guidance inf", "guidance inf"),
        ("draw a --ratio wide", "'wide'"),
        ("draw a --ratio 0:1", "'0:1'"),
        ("draw a --ratio 16:9:1", "'16:9:1'"),
        ("draw a --dtype float8", "--dtype"),
        ("draw a --quantize 3bit", "--quantize"),
        ("draw a --attn fast", "--attn"),
        ("draw ''", "empty"),
        ("draw ' '", "empty"),
        ("draw a -o a.gif", "a.gif"),
        ("draw a -o a.png", "a.png exists"),
        ("draw a b -o -", "2 pictures"),
        ("draw a -n 2 -o -", "2 pictures"),
        ("draw a -o - --json", "--json"),
        ("draw - -", "stdin"),
        ("draw a.png", "a.png"),
        ("vary a.png b.png", "b.png"),
        ("vary a.png b.png -o c.png", "b.png"),
        ("vary a.png 'a <image> and <image>'", "<image>"),
        ("vary a.png --image-guidance -1", "image guidance -1"),
        ("vary a.png blue -o b.png", "b.png exists"),
        ("ask", "nothing to ask"),
        ("ask ''", "empty"),
        ("ask a.png", "a.png"),
        ("ask none.jpg", "none.jpg"),
        ("ask what a.png", "a.png"),
        ("ask --image a.png '<image><image>'", "2 <image> marks"),
        ("ask what --max-tokens 0", "max tokens 0"),
        ("ask what --repetition-penalty 0", "repetition penalty 0"),
        ("interleave a", "-o"),
        ("interleave a -o a.png", "a.png"),
        ("interleave a -o .", "not empty"),
        ("interleave a -o c --image-temperature -1", "temperature -1"),
        ("interleave '' -o c", "empty"),
        ("caption", "IMAGE"),
        ("caption a.png --temperature -1", "temperature"),
    ],
)
def test_misuse_is_said_in_two_lines_before_anything_loads(model: Scripted, words: str, said: str) -> None:
    before = sorted(Path().iterdir())
    result = run(*shlex.split(words), stdin=b"words")
    assert (result.code, result.out) == (2, "")
    error, hint = result.err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert said in result.err
    assert not model.opened
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("caption none.jpg", "no such file: none.jpg"),
        ("caption a.png none.jpg", "no such file: none.jpg"),
        ("caption 'none*.jpg'", "pattern"),
        ("caption text.jpg", "text.jpg is not a picture"),
        ("caption cut.png", "cut.png is broken"),
        ("caption pipe", "not a regular file"),
        ("ask what --image none.jpg", "none.jpg"),
        ("ask what --image a.png --image cut.png", "cut.png"),
        ("vary none.jpg", "none.jpg"),
        ("vary cut.png -o c.png", "cut.png"),
        ("interleave a --image none.jpg -o c", "none.jpg"),
        ("draw a -o none/c.png", "no such folder: none"),
        ("draw a -o /proc/c.png", "/proc"),
        ("draw a -n 2 -o /proc/c.png -f", "/proc"),
        ("interleave a -o /proc/c", "/proc"),
        ("interleave a -o none/c", "no such folder"),
    ],
)
def test_what_cannot_be_read_or_written_fails_before_anything_loads(model: Scripted, words: str, said: str) -> None:
    Path("text.jpg").write_text("hello")
    Image.effect_noise((64, 64), 80).save("cut.png")
    Path("cut.png").write_bytes(Path("cut.png").read_bytes()[:2000])
    os.mkfifo("pipe")
    before = sorted(Path().iterdir())
    result = run(*shlex.split(words))
    assert (result.code, result.out) == (1, "")
    assert [line.partition(":")[0] for line in result.err.splitlines()] == ["error", "hint"]
    assert said in result.err
    assert not model.opened
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("command", ["caption a.png", "ask what", "draw a", "vary a.png", "interleave a -o c"])
def test_a_model_that_cannot_is_an_error_and_leaves_nothing(
    model: Scripted, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise MmgenError("no model called x", "see the aliases")

    monkeypatch.setattr("mmgen.families.open_model", refuse)
    before = sorted(Path().iterdir())
    result = run(*command.split(), "-m", "x")
    assert (result.code, result.out, result.err) == (1, "", "error: no model called x\nhint: see the aliases\n")
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("command", ["caption a.png", "ask what", "draw a", "vary a.png", "interleave a -o c"])
def test_a_request_that_fails_is_the_command_s_error_and_leaves_nothing(model: Scripted, command: str) -> None:
    model.scripts = [[MmgenError("the prompt is 7 tokens too long", "shorten it")]]
    before = sorted(Path().iterdir())
    result = run(*command.split(), "-q")
    assert (result.code, result.out) == (1, "")
    assert result.err == "error: the prompt is 7 tokens too long\nhint: shorten it\n"
    assert sorted(Path().iterdir()) == before


def test_a_bug_keeps_its_own_traceback(model: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(model, "open", fail)
    install(monkeypatch, model)
    with pytest.raises(ZeroDivisionError):
        run("ask", "what")


# Streams


def test_stdin_is_left_alone_unless_asked_for(model: Scripted) -> None:
    for words in (
        ["caption", "a.png"],
        ["ask", "what"],
        ["draw", "a"],
        ["vary", "a.png"],
        ["interleave", "a", "-o", "c"],
    ):
        assert run(*words, stdin=None).code == 0


@pytest.mark.parametrize("words", ["ask -", "draw -", "vary a.png -", "interleave - -o c"])
def test_a_prompt_of_one_dash_is_read_from_stdin(model: Scripted, words: str) -> None:
    assert run(*words.split(), stdin="a café\n".encode()).code == 0
    assert "a café" in model.requests[0].parts
    assert run(*words.split(), "-f" if "ask" not in words else "-q", stdin=b"\xff\xfe").code == 2


def test_quiet_says_nothing_and_a_model_s_note_is_said_once(model: Scripted) -> None:
    model.note = "small and built in"
    assert run("draw", "a", "-q").err == ""
    result = run("draw", "a", "b")
    assert result.err.count("note: small and built in\n") == 1


def test_progress_shows_on_a_terminal_only(model: Scripted) -> None:
    assert "drawing 1/2" not in run("draw", "a").err
    assert "drawing 1/2" in run("draw", "a", terminal=True).err
    assert "drawing" not in run("draw", "a", "-q", terminal=True).err


def test_a_progress_line_is_gone_when_something_else_is_said(model: Scripted) -> None:
    for end in (MmgenError("too long"), KeyboardInterrupt()):
        model.scripts = [[Progress(1, 2), end]]
        result = run("draw", "a", "--seed", "7", terminal=True)
        assert "drawing 1/2" in result.err
        assert seen(result.err) == (["error: too long"] if result.code == 1 else [])
        assert result.code in (1, 130)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "\x1b[1;31merror:\x1b[0m the prompt is empty\n\x1b[36mhint:\x1b[0m say in words what you want\n"),
        ({"NO_COLOR": "1"}, "error: the prompt is empty\nhint: say in words what you want\n"),
        ({"TERM": "dumb"}, "error: the prompt is empty\nhint: say in words what you want\n"),
    ],
)
def test_an_error_is_coloured_on_a_terminal_that_wants_it(environment: dict[str, str], expected: str) -> None:
    assert run("draw", "", terminal=True, **({"NO_COLOR": ""} | environment)).err == expected


def test_a_long_error_is_one_line_for_whoever_copies_it() -> None:
    name = "long-" * 40 + ".png"
    result = run("caption", name, terminal=True, NO_COLOR="1")
    assert result.err.splitlines()[0] == f"error: no such file: {name}"


def test_what_is_said_beside_a_result_needs_no_rich_but_on_a_terminal() -> None:
    ended = "assert 'rich' not in sys.modules\nsys.exit(code)"
    for arguments, expected in ((["draw", "a", "-o", "-"], 0), (["draw", ""], 2)):
        process = python(f"{SCRIPTED}\ncode = main({arguments})\n{ended}")
        _, err = process.communicate(timeout=30)
        assert (process.returncode, b"Traceback" in err) == (expected, False), err


def test_a_terminal_gets_no_control_characters(model: Scripted) -> None:
    model.scripts = [["red \x1b[31m\x07alert"]]
    assert run("ask", "what", terminal=True).out == "red [31malert\n"
    Image.new("RGB", (8, 8)).save("\x1b[31m.png")
    assert "\x1b" not in run("caption", "\x1b[31m.png", "a.png", terminal=True).out
    assert "\x1b" in run("caption", "\x1b[31m.png", "a.png").out


def test_a_file_name_that_is_not_utf_8_comes_out_as_it_went_in(model: Scripted) -> None:
    name = os.fsdecode(b"\xff.png")
    Image.new("RGB", (8, 8)).save(name)
    assert run("caption", name, "a.png").out_bytes.startswith(b"\xff.png\t")
    assert run("ask", name.removesuffix(".png")).code == 2


def test_a_closed_pipe_ends_quietly() -> None:
    code = SCRIPTED + "model.scripts = [['x' * 99 for _ in range(100_000)]]\nsys.exit(main(['ask', 'what']))"
    process = python(code)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert (process.stderr.read(), process.wait(30)) == (b"", 141)
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_an_error() -> None:
    process = python(SCRIPTED + "out = open('/dev/full', 'w'); sys.stdout = out\nsys.exit(main(['ask', 'what']))")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.startswith(b"error: cannot write to stdout: No space left on device\nhint: ")
    assert len(err.splitlines()) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_on_a_full_disk_or_to_nobody_ends_like_anything_else(flag: str) -> None:
    with Path("/dev/full").open("w") as full:
        run = subprocess.run([sys.executable, "-m", "mmgen", flag], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (run.returncode, run.stderr.splitlines()[0]) == (
        1,
        b"error: cannot write to stdout: No space left on device",
    )
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run([sys.executable, "-m", "mmgen", flag], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (run.returncode, run.stderr) == (141, b"")


def test_an_interrupted_run_keeps_what_is_finished(tmp_path: Path) -> None:
    code = f"""
import os; os.chdir({str(tmp_path)!r})
def slow():
    time.sleep(30)
    yield picture(8)
model._default = lambda request: [picture(7)] if request.seed == 7 else slow()
sys.exit(main(['draw', 'a', '-n', '2', '--seed', '7']))
"""
    process = python(SCRIPTED + code)
    assert process.stdout is not None
    assert process.stdout.readline() == b"a-7.png\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-7.png"]


# Options


def test_a_flag_goes_before_the_environment_and_that_before_the_default(model: Scripted) -> None:
    run("ask", "what")
    run("ask", "what", MMGEN_MAX_TOKENS="5", MMGEN_MODEL="other", MMGEN_SEED="9")
    run("ask", "what", "--max-tokens", "6", MMGEN_MAX_TOKENS="5")
    assert [request.text.max_tokens for request in model.requests] == [256, 5, 6]
    assert [name for name, _, _ in model.opened] == ["demo", "other", "demo"]
    assert model.requests[1].seed == 9
    bad = run("ask", "what", MMGEN_MAX_TOKENS="many")
    assert bad.code == 2
    assert "MMGEN_MAX_TOKENS" in bad.err


@pytest.mark.parametrize("command", ["caption a.png", "ask what", "draw a", "vary a.png", "interleave a -o c"])
def test_every_command_loads_as_it_is_told(model: Scripted, command: str) -> None:
    flags = "-m mine --revision main --dtype float32 --device-map cpu --quantize 4bit --attn sdpa --offline"
    assert run(*command.split(), *flags.split()).code == 0
    ((name, loading, want),) = model.opened
    assert name == "mine"
    assert (loading.revision, loading.dtype, loading.device_map) == ("main", "float32", "cpu")
    assert (loading.quantize, loading.attn, loading.offline) == ("4bit", "sdpa", True)
    assert want == model.requests[0].want


@pytest.mark.parametrize(
    "command",
    ["caption a.png", "ask what", "draw a -n 2", "vary a.png", "interleave a -o c", "ask what --jsonl o.jsonl"],
)
def test_every_command_finds_its_model_once(model: Scripted, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    find = catalog.find
    monkeypatch.setattr(catalog, "find", lambda name, **options: found.append(name) or find(name, **options))
    assert run(*command.split()).code == 0
    assert found == ["demo"]


def test_a_process_of_its_own_looks_for_garbage_rarely_and_not_at_its_end() -> None:
    before = gc.get_threshold()
    main(["--version"])
    assert gc.get_threshold() == before
    script = """
        import atexit, gc, sys
        from mmgen.__main__ import run
        sys.argv = ["mmgen", "--version"]
        run()
        assert gc.isenabled() and gc.get_threshold()[0] > 10_000
        atexit._run_exitfuncs()
        assert gc.get_freeze_count() > 10_000
    """
    process = python(textwrap.dedent(script))
    assert process.wait() == 0, process.communicate()[1].decode()


def test_a_bad_seed_is_misuse_for_several_pictures_too(model: Scripted) -> None:
    result = run("caption", "a.png", "b.png", "--seed", "-1")
    assert result.code == 2
    assert "seed -1" in result.err
    assert not model.requests


def test_debugging_adds_the_traceback_and_changes_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMGEN_DEBUG", "1")
    result = run("draw", "")
    assert result.code == 2
    assert result.err.startswith("Traceback")
    assert result.err.splitlines()[-2:] == ["error: the prompt is empty", "hint: say in words what you want"]


@pytest.mark.parametrize(("closed", "code"), [("ask - <&-", 2), ("models >&-", 0), ("models no-such-model 2>&-", 1)])
def test_closed_streams_are_no_traceback(closed: str, code: int) -> None:
    script = f"{sys.executable} -m mmgen {closed}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_completion_is_installed_and_shown(tmp_path: Path) -> None:
    installed = shell.run("mmgen --install-completion; exit $?", tmp_path, HOME=str(tmp_path))
    assert (installed.returncode, "completion installed" in installed.stdout) == (0, True)
    assert list(tmp_path.rglob("mmgen*"))
    shown = shell.run("mmgen --show-completion bash; exit $?", tmp_path, HOME=str(tmp_path))
    assert (shown.returncode, "_mmgen_completion" in shown.stdout) == (0, True)

"""Ctrl-C: it ends a program at once until something is written, and is an exception from then on."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.support.shell import run

INTERRUPTED = 130  # what a shell shows


@pytest.mark.parametrize("seconds", [0.15, 0.5, 1.0, 1.6])
def test_an_early_interrupt_ends_a_command_without_a_word(tmp_path: Path, seconds: float) -> None:
    begun = "import sys; from mmgen.__main__ import run; import mmgen.cli; print(end='.', flush=True)"
    code = f"{begun}; sys.argv = ['mmgen', 'draw', 'a red cat', '-o', 'cat.png']; sys.exit(run())"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.read(1)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    if process.returncode == 0:  # a machine so fast that it was done by then
        assert out == "cat.png\n"
        return
    assert process.returncode in (-signal.SIGINT, INTERRUPTED)
    assert (out, "Traceback" in said) == ("", False)
    assert not list(tmp_path.iterdir())


def test_what_swallows_exceptions_cannot_keep_a_process_that_loads(tmp_path: Path) -> None:
    script = """
        def load(*arguments):
            while True:
                try:
                    interrupt()
                    time.sleep(9)
                except BaseException:
                    pass
        drawing("draw", "a red cat", "-o", "cat.png")
    """
    done = run(program(script) + '; echo "exit code $?"', tmp_path)
    assert (done.stdout, done.stderr) == (f"exit code {INTERRUPTED}\n", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("meanwhile", ["time.sleep(9)", "swallow()", "mangle()"])
def test_a_batch_stopped_while_it_loads_leaves_nothing(tmp_path: Path, meanwhile: str) -> None:
    (tmp_path / "prompts.txt").write_text("a red cat")
    script = f"""
        def swallow():
            try: time.sleep(9)
            except BaseException: pass
        def mangle():
            try: time.sleep(9)
            except BaseException: raise RecursionError("as numpy does in the middle of its import")
        def load(*arguments):
            assert os.path.exists("d.jsonl")
            interrupt()
            {meanwhile}
        drawing("draw", "--prompts", "prompts.txt", "-o", "pictures/", "--jsonl", "d.jsonl")
    """
    done = run(program(script), tmp_path, TMPDIR=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]


def test_what_is_written_is_taken_back(tmp_path: Path) -> None:
    script = """
        from mmgen.__main__ import run
        from mmgen.files import whole_file
        from mmgen.files import end_on_interrupt
        from pathlib import Path
        end_on_interrupt()
        try:
            with whole_file(Path("cat.png")) as file:
                file.write(b"half")
                interrupt()
                time.sleep(9)
        except KeyboardInterrupt:
            sys.exit(7)
    """
    assert run(program(script), tmp_path).returncode == 7
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moment", ["files.lock", "files.os.fsync", "journal.Journal.append"])
def test_an_interruption_while_files_are_made_or_moved_leaves_the_old_or_the_new(tmp_path: Path, moment: str) -> None:
    (tmp_path / "prompts.txt").write_text("a red cat")
    script = f"""
        from mmgen import files
        from mmgen.outputs import journal
        from tests.support.scripted import Scripted
        load = Scripted().open
        real, at = {moment}, 0
        def interrupted(*arguments, **named):
            global at
            at += 1
            interrupt()
            return real(*arguments, **named)
        {moment} = interrupted
        drawing("draw", "--prompts", "prompts.txt", "-o", "pictures/{{index}}.png", "-f", "--seed", os.environ["SEED"])
    """
    command = program("import sys; sys.path.insert(0, os.environ['ROOT'])\n" + textwrap.dedent(script))
    root = str(Path(__file__).parents[2])
    for seed in "1", "2":
        assert run(command, tmp_path, SEED=seed, ROOT=root).returncode == INTERRUPTED
        assert not list(tmp_path.rglob(".mmgen-*"))
    again = [sys.executable, "-m", "mmgen", "draw", "--prompts", "prompts.txt", "-o", "pictures/{index}.png", "-q"]
    assert run([*again, "--seed", "2", "--plan"], tmp_path).stdout in (
        "new 1, done 0, stale 0, failed 0\n",
        "new 0, done 1, stale 0, failed 0\n",
    )


def test_somebody_elses_process_keeps_its_way(tmp_path: Path) -> None:
    script = """
        from mmgen.files import whole_file
        from pathlib import Path
        for way in (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler):
            signal.signal(signal.SIGINT, way)
            with whole_file(Path("cat.png")):
                assert signal.getsignal(signal.SIGINT) is way
    """
    done = run(program(script), tmp_path)
    assert done.returncode == 0, done.stderr


def test_what_is_to_ignore_interrupts_goes_on_doing_so(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red cat")
    script = """
        real = families.open_model
        def load(*arguments):
            interrupt()
            return real(*arguments)
        drawing("draw", "--prompts", "prompts.txt", "-o", "pictures/", "--quiet", "--seed", "1")
    """
    done = run(f"trap '' INT; {program(script)}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "pictures").is_dir()


def program(script: str) -> str:
    """Write a shell's command for a script; `drawing` runs mmgen, whose model is opened by `load`."""
    head = """
        import os, signal, sys, time
        from mmgen import families
        def interrupt(): os.kill(os.getpid(), signal.SIGINT)
        def drawing(*arguments):
            from mmgen.__main__ import run
            families.open_model = load
            sys.argv = ["mmgen", *arguments]
            sys.exit(run())
    """
    code = textwrap.dedent(head) + textwrap.dedent(script)
    assert '"""' not in code
    quoted = code.replace("'", "'\\''")
    return f"'{sys.executable}' -c '{quoted}'"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_batch_that_is_told_to_stop_finishes_what_is_in_hand(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(f"a red cat number {n}" for n in range(200)))
    command = [sys.executable, "-m", "mmgen", "draw", "--prompts", "prompts.txt", "-o", "out/", "--seed", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not list(tmp_path.glob("out/*.png")):
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == code
    assert "finishing what is in hand" in said
    (journal,) = tmp_path.glob("out/*.jsonl")
    pictures = list(tmp_path.glob("out/*.png"))
    assert 0 < len(pictures) == len(journal.read_text().splitlines()) < 200
    assert not list(tmp_path.glob("out/.mmgen-[0-9]*"))

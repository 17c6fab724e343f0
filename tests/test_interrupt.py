"""Ctrl-C while a program starts: nothing is in hand, so it ends at once, without a word."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from mmgen.interrupt import INTERRUPTED
from tests.shell import run


@pytest.mark.parametrize("seconds", [0.15, 0.5, 1.0, 1.6])
def test_an_early_interrupt_ends_a_command_without_a_word(tmp_path: Path, seconds: float) -> None:
    begun = "import signal, sys, time; from mmgen.__main__ import run; print(end='.', flush=True)"
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
    assert (process.returncode, out, "Traceback" in said) == (INTERRUPTED, "", False)
    assert not list(tmp_path.iterdir())


def test_what_swallows_exceptions_cannot_keep_a_process_that_loads(tmp_path: Path) -> None:
    assert ends("while True:\n    try: time.sleep(9)\n    except BaseException: pass", tmp_path) == INTERRUPTED


def test_a_download_is_stopped_by_an_exception(tmp_path: Path) -> None:
    fetching = """
        hub = types.ModuleType("mmgen.hub")
        exec("def fetch():\\n    kill()\\n    time.sleep(9)", {"kill": kill, "time": time}, vars(hub))
        sys.modules["mmgen.hub"] = hub
        try:
            hub.fetch()
        except KeyboardInterrupt:
            sys.exit(7)
    """
    assert ends(textwrap.dedent(fetching), tmp_path, kill=False) == 7


def test_afterwards_an_interrupt_is_what_it_was_or_an_exception(tmp_path: Path) -> None:
    script = """
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with interrupt.nothing_in_hand(interrupt.undo_nothing):  # in a process that is somebody else's
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        interrupt.leave_at_once()
        own = lambda number, frame: None
        whole = signal.signal(signal.SIGINT, own)
        with interrupt.nothing_in_hand(interrupt.undo_nothing):
            assert signal.getsignal(signal.SIGINT) is whole
        assert signal.getsignal(signal.SIGINT) is own
        signal.signal(signal.SIGINT, whole)
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            sys.exit(7)
    """
    head = "import signal, sys\nfrom mmgen import interrupt\n"
    done = run([sys.executable, "-c", head + textwrap.dedent(script)], tmp_path)
    assert done.returncode == 7, done.stderr


def test_a_batch_stopped_while_it_loads_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red cat")
    script = """
        import os, signal, sys, time
        from mmgen import families
        from mmgen.__main__ import run
        def load(*arguments):
            assert os.path.exists("d.jsonl") and os.path.exists(os.environ["TMPDIR"])
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(9)
        families.open_model = load
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["mmgen", "draw", "--prompts", "prompts.txt", "-o", "pictures/", "--jsonl", "d.jsonl"]
        sys.exit(run())
    """
    done = run([sys.executable, "-c", textwrap.dedent(script)], tmp_path, TMPDIR=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]


def test_what_is_to_ignore_interrupts_goes_on_doing_so(tmp_path: Path) -> None:
    script = """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupt.leave_at_once()
        with interrupt.nothing_in_hand(interrupt.undo_nothing):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    """
    head = "import signal\nfrom mmgen import interrupt\n"
    done = run([sys.executable, "-c", head + textwrap.dedent(script)], tmp_path)
    assert done.returncode == 0, done.stderr


def ends(code: str, folder: Path, *, kill: bool = True) -> int:
    """Run code while nothing is in hand, interrupted by itself; return the exit code."""
    head = """
        import os, signal, sys, threading, time, types
        from mmgen import interrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupt.leave_at_once()
        def kill(): threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with interrupt.nothing_in_hand(interrupt.undo_nothing):
    """
    body = textwrap.indent(("kill()\n" if kill else "") + code, "    ")
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(head) + body], cwd=folder, env=dict(os.environ), timeout=60, check=False
    )
    return process.returncode

"""What every test gets: an environment without the developer's own settings."""

from __future__ import annotations

import os
import signal

import pytest

# Before anything imports torch: threads that spin while they wait make small models many times slower on busy cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["MMGEN_TUNE"] = "off"  # what is measured on a busy machine would be another choice each time

import transformers

# As the command line has it in a process of its own, before transformers is imported.
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

# Who starts the tests in the background has them ignore Ctrl-C (a shell) or SIGHUP (nohup), and all that they start;
# some send those.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hide MMGEN_… variables and colours, and give help a fixed width."""
    for name in [name for name in os.environ if name.startswith("MMGEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MMGEN_TUNE", "off")
    monkeypatch.setenv("MMGEN_CACHE", str(tmp_path_factory.mktemp("cache")))  # what was said is said anew in each test
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")

"""Whoever calls mmgen keeps their process as it was: before, during and after a load and the five calls."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mmgen.__main__ import wait_briefly

# Says what a process is like, as far as a library may be tempted to change it.
STATE = """
    import logging, os, signal, sys, threading, warnings
    import torch
    from PIL import Image

    LOGGERS = ("", "transformers", "huggingface_hub", "accelerate", "bitsandbytes", "PIL", "torch")
    MODULES = ("transformers", "transformers.models", "torch._dynamo", "sympy")

    def state():
        return {
            "environment": dict(os.environ),
            "classes": {name: type(sys.modules[name]).__name__ for name in MODULES if name in sys.modules},
            "import hooks": [id(hook) for hook in sys.meta_path],
            "log levels": {name: logging.getLogger(name).level for name in LOGGERS},
            "warnings": [repr(each) for each in warnings.filters],
            "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
            "Pillow's limit": Image.MAX_IMAGE_PIXELS,
            "processes": torch.distributed.is_available(),
        }
"""
IMPORTS = """
    import transformers, torch._dynamo
    from transformers.models.chameleon.modeling_chameleon import ChameleonForConditionalGeneration
    from transformers.models.auto.image_processing_auto import AutoImageProcessor
    import accelerate, bitsandbytes, huggingface_hub.errors
    import transformers.integrations.accelerate, transformers.quantizers.auto
"""
CALLS = """
    import mmgen
    model = mmgen.load("demo")
    picture = mmgen.draw(model, "a red cat", seed=7)[0].image
    picture.save("cat.png")
    assert mmgen.caption(model, "cat.png") and mmgen.ask(model, "what color is it?", "cat.png")
    mmgen.vary(model, picture, "make it blue", seed=7)
    assert list(mmgen.interleave(model, "Tell a story about a red cat", seed=7))
"""


def test_a_caller_who_has_imported_all_before_sees_no_change_at_any_time(tmp_path: Path) -> None:
    watching = """
        def computed_threads():
            torch.ones(64, 64) @ torch.ones(64, 64)
            return torch.get_num_threads()

        before, done, changes = state(), threading.Event(), set()
        def watch():
            n_threads = computed_threads()
            while not done.is_set():
                changes.update(name for name, value in state().items() if value != before[name])
                if computed_threads() != n_threads:
                    changes.add("threads")
                done.wait(0.02)
        watcher = threading.Thread(target=watch)
        watcher.start()
        n_threads = computed_threads()
    """
    ending = """
        done.set()
        watcher.join()
        after = state()
        changes.update(name for name, value in after.items() if value != before[name])
        assert computed_threads() == n_threads
        print(*sorted(changes), sep=", ")
    """
    assert ran(STATE, IMPORTS, watching, CALLS, ending, folder=tmp_path) == ""


def test_a_caller_who_has_imported_nothing_has_what_plain_imports_give_afterwards(tmp_path: Path) -> None:
    ending = """
        plain = state()
        plain["import hooks"] = len(plain["import hooks"])
        plain["signals"] = {int(number): str(handler) for number, handler in plain["signals"].items()}
        plain["warnings"] = sorted(set(plain["warnings"]))
        import json
        print(json.dumps(plain, sort_keys=True))
    """
    assert ran(STATE, CALLS, IMPORTS, ending, folder=tmp_path) == ran(STATE, IMPORTS, ending, folder=tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, ("PASSIVE", "3000")),
        ({"GOMP_SPINCOUNT": "7"}, ("PASSIVE", "7")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None)),
    ],
)
def test_threads_wait_as_the_environment_says_or_else_briefly(
    monkeypatch: pytest.MonkeyPatch, before: dict[str, str], after: tuple[str, str | None]
) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    wait_briefly()
    assert tuple(os.environ.get(name) for name in names) == after


def ran(*parts: str, folder: Path) -> str:
    """Run code in a process of its own and return what it printed."""
    code = "\n".join(map(textwrap.dedent, parts))
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()

"""The program: `mmgen`, and `python -m mmgen`. It and the command line alone change the process that they run in."""

from __future__ import annotations

import atexit
import gc
import os
import sys

from mmgen.files import end_on_interrupt

_NEW_OBJECTS = 50_000  # after which garbage is looked for: imports make ten times as many, and nearly all of them stay


def run() -> int:
    """Run the command line and give its exit code."""
    end_on_interrupt()  # before anything is imported that takes time
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # what goes wrong there is raised, and said once
    gc.set_threshold(_NEW_OBJECTS)
    # Looking through half a million objects at the end takes most of a second; files are closed where they are used.
    atexit.register(gc.freeze)
    wait_briefly()
    from mmgen.cli import main

    return main()


def wait_briefly() -> None:
    """Let threads that wait for each other sleep soon (GNU OpenMP), unless OMP_WAIT_POLICY is set; before torch comes.

    Measured with 300 million parameters in two threads (benchmarks/README.md): to spin on, as is the default, makes a
    pass about five times slower where another process computes; to sleep at once a third slower on an idle machine.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


if __name__ == "__main__":
    sys.exit(run())

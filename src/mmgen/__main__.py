"""The program: `mmgen`, and `python -m mmgen`. What only a process of our own may change is changed here."""

from __future__ import annotations

import atexit
import gc
import sys

from mmgen.interrupt import leave_at_once

_NEW_OBJECTS = 50_000  # after which garbage is looked for: imports make ten times as many, and nearly all of them stay


def run() -> int:
    """Run the command line and give its exit code."""
    leave_at_once()  # before anything is imported that takes time
    gc.set_threshold(_NEW_OBJECTS)
    # Looking through half a million objects at the end takes most of a second; files are closed where they are used.
    atexit.register(gc.freeze)
    from mmgen.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(run())

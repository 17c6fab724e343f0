"""The program: `mmgen`, and `python -m mmgen`."""

from __future__ import annotations

import sys

from mmgen.interrupt import leave_at_once


def run() -> int:
    """Run the command line and give its exit code."""
    leave_at_once()  # before anything is imported that takes time
    from mmgen.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(run())

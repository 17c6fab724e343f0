"""Commands run as a user's shell would run them, with `mmgen` from the environment of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(command: str | list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder: a string through bash, a list as it is. Its stdin is empty."""
    programs = Path(sys.executable).parent
    assert (programs / "mmgen").exists(), f"no mmgen in {programs}: install the project with `make lint`"
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command] if isinstance(command, str) else command,
        cwd=folder,
        env=os.environ | {"PATH": path} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

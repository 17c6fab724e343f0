"""How many files of src/mmgen a newcomer has to open to follow one command: `python -m tools.count_files draw --list`.

A file counts if one of its functions (or a lambda, a method, a generator) runs, in any thread, between two moments:

draw     from the call of `mmgen.cli.main(["draw", "a snowman", "-o", "out.png"])`, the prompt among them,
         to its return, out.png being written
caption  from the call of `mmgen.cli.main(["caption", FOLDER, "--jsonl", "captions.jsonl"])` to its return; FOLDER has
         three pictures, and captions.jsonl is not there before
load     from the call of `mmgen.load()` to its return

all with the built-in model, in a process and a folder of their own, `main` and `load` having been looked up before.
What importing runs does not count: neither the bodies of modules and classes nor the functions that these call. So the
number depends on what stands in which file, and on nothing else that a rebuild may move; no inner name is known here.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stdout
from pathlib import Path
from types import CodeType, FrameType

from PIL import Image

import mmgen
from mmgen.cli import main as mmgen_main

HOME = Path(mmgen.__file__).parent


@contextmanager
def noted(folder: Path) -> Iterator[list[Path]]:
    """Note the files under a folder in which a function runs meanwhile, relative to it, in order of the first call."""
    files: dict[str, None] = {}
    prefix = f"{folder}{os.sep}"

    def profile(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(prefix) and name not in files and not _is_import(frame, prefix):
            files[name] = None

    found: list[Path] = []
    threading.setprofile(profile)  # of threads to come
    sys.setprofile(profile)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        found += [Path(name).relative_to(folder) for name in files]


def _is_import(frame: FrameType | None, prefix: str) -> bool:
    """Say whether a frame is the body of a module or a class under the folder, or runs for one."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(prefix) and not _is_function(frame.f_code):
            return True
        frame = frame.f_back
    return False


def _is_function(code: CodeType) -> bool:
    return bool(code.co_flags & inspect.CO_OPTIMIZED)  # which the bodies of modules and classes are not


def draw() -> None:
    """Draw a picture as the command line does."""
    _run("draw", "a snowman", "-o", "out.png")


def caption() -> None:
    """Describe a folder of pictures as the command line does."""
    _run("caption", "pictures", "--jsonl", "captions.jsonl")


def load() -> None:
    """Load the built-in model as a program does."""
    _load()


_load = mmgen.load  # looked up here: what finds it is no part of loading
WAYS: dict[str, Callable[[], None]] = {"draw": draw, "caption": caption, "load": load}


def _run(*arguments: str) -> None:
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        code = mmgen_main(arguments)
    if code:
        raise SystemExit(code)


def count(way: str) -> list[Path]:
    """Run one of the ways in a folder of its own; list the files that took part, in order of the first call."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        Path("pictures").mkdir()
        for number, colour in enumerate(("red", "green", "blue")):
            Image.new("RGB", (96, 96), colour).save(f"pictures/{number}.png")
        with noted(HOME) as found:
            WAYS[way]()
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, and print the number or the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--list", action="store_true", help="print the files, too, in order of their first call")
    asked = parser.parse_args(arguments)
    found = count(asked.way)
    if asked.list:
        print(*found, sep="\n")
    print(len(found))


if __name__ == "__main__":
    main()

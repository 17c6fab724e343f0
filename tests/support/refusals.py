"""What is refused of a checkpoint before torch is imported: tried in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_TRY = """
import sys
from PIL import Image
from mmgen import tasks
from mmgen.errors import MmgenError
from mmgen.request import BOTH, PICTURES, ImageSampling
from tests.support.opening import opened

image = Image.new("RGB", (8, 8))
requests = {
    "vary": tasks.vary(image),
    "interleave": tasks.interleave("a story"),
    "negative prompt": tasks.draw("a cat", image=ImageSampling(negative_prompt="blur")),
    "ratio": tasks.draw("a cat", image=ImageSampling(ratio="16:9")),
}
request = requests[sys.argv[2]]
try:
    opened(sys.argv[1], want=request.want, requests=[request])
except MmgenError as error:
    print(error.exit_code, error.message, error.hint, sep="\\n")
    assert not {"torch", "transformers"} & set(sys.modules)
"""


def refusal(folder: Path, what: str) -> list[str]:
    """Ask a checkpoint for what it cannot do; return exit code, message and hint.

    Args:
        what: vary, interleave, negative prompt or ratio.
    """
    command = [sys.executable, "-c", _TRY, str(folder), what]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

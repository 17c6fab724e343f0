"""What is quickest on this processor: measured once for layers of one shape, and kept. Knows no model.

What is measured may change the last bits of a result. So a choice stands for as long as it is kept: for one machine,
one version of torch and one shape. Where it cannot be kept, and with MMGEN_TUNE=off, the choice is a fixed one.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from math import inf
from pathlib import Path

import torch

from mmgen.files import kept

_PROCESSOR = Path("/proc/cpuinfo")
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")  # of what it may use


def choose(what: str, about: object, fixed: list[int], measure: Callable[[], list[int]]) -> list[int]:
    """Give whole numbers that were measured here, now or before, or as many fixed ones."""
    if os.environ.get("MMGEN_TUNE") == "off":
        return fixed
    key = sha256(f"{what} {about} {_machine()}".encode()).hexdigest()[:16]
    with suppress(ValueError):  # what is kept was damaged
        found = json.loads(kept(f"tuned-{key}.json", lambda: json.dumps(measure())) or "")
        if isinstance(found, list) and [type(each) for each in found] == [int] * len(fixed):
            logging.getLogger("mmgen").info("%s, as measured on this processor: %s", what, found)
            return found
    return fixed


def shortest(ways: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Time ways to compute, which take turns for so long, after a round to warm up: the shortest of each in seconds."""
    times, until = [inf] * len(ways), time.perf_counter() + seconds
    for way in ways:
        way()
    while inf in times or time.perf_counter() < until:
        for index, way in enumerate(ways):
            started = time.perf_counter()
            way()
            times[index] = min(times[index], time.perf_counter() - started)
    return times


def _machine() -> str:
    name = platform.processor()
    with suppress(OSError):
        name = next((line for line in _PROCESSOR.read_text().splitlines() if line.startswith("model name")), name)
    limits = [os.environ.get(limit) for limit in _LIMITS]
    return f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} {name} {limits}"

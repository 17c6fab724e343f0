"""What is measured, and on what machine: the parts of a drawing, memory, bandwidth. Knows no model."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import torch
import transformers

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Run:
    """One drawing of some pictures, in seconds.

    Attributes:
        prefill: to the first code.
        decode: from there to the last one.
        vq, png: from codes to pixels, and from pixels to the bytes of a file; of all pictures together.
        n_codes: that were made of each picture.
        passes: of the network for each picture, where that is told.
        peak_bytes: most memory that was taken meanwhile: resident on a CPU, allocated on a GPU.
        codes: of each picture.
        n_groups: batches, one after the other, that the pictures were made in.
    """

    n_pictures: int
    prefill: float
    decode: float
    vq: float
    png: float
    n_codes: int
    passes: float | None
    peak_bytes: int
    codes: tuple[tuple[int, ...], ...] = ()
    n_groups: int = 1

    @property
    def seconds(self) -> float:
        """All of it, for one picture."""
        return (self.prefill + self.decode + self.vq + self.png) / self.n_pictures

    @property
    def seconds_of_pass(self) -> float:
        """Of one pass while decoding, about: the slowest picture of a batch decides, the mean is what is known."""
        return self.decode / (self.n_groups * (self.passes or self.n_codes))

    def scaled_to(self, n_codes: int) -> "Run":
        """What it would be for whole pictures of so many codes, each at the price of those that were made."""
        if self.n_codes == n_codes:
            return self
        return replace(self, decode=self.decode * (n_codes - 1) / (self.n_codes - 1), n_codes=n_codes)


def median(runs: Sequence[Run]) -> Run:
    """The median of each part."""
    parts = {part: statistics.median(getattr(run, part) for run in runs) for part in ("prefill", "decode", "vq", "png")}
    told = [run.passes for run in runs if run.passes is not None]
    passes = statistics.fmean(told) if told else None
    return replace(runs[-1], **parts, passes=passes, peak_bytes=max(run.peak_bytes for run in runs))


class Clock:
    """Adds up the seconds of what it is put around, waiting for the device before and after.

    Seconds in which it runs in several threads count once.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0
        self._lock, self._n_running, self._since = Lock(), 0, 0.0

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            with self._lock:
                if not self._n_running:
                    self._since = self.now()
                self._n_running += 1
            try:
                return function(*arguments)
            finally:
                with self._lock:
                    self._n_running -= 1
                    if not self._n_running:
                        self.seconds += self.now() - self._since

        return timed


# --- memory -------------------------------------------------------------------------------------------------------


def forget_peak(device: torch.device) -> None:
    """Let the peak begin anew. On a CPU: Linux, proc(5), clear_refs 5."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        _CLEAR.write_text("5")


def peak_bytes(device: torch.device) -> int:
    """Most memory since the peak was forgotten; 0 where nobody says."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resident().get("VmHWM", 0)


def resident() -> dict[str, int]:
    """What Linux says of this process in /proc/self/status, in bytes: VmHWM, VmRSS, RssAnon, RssFile and others."""
    if not _STATUS.exists():
        return {}
    lines = (line.split() for line in _STATUS.read_text("ascii").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3 and words[2] == "kB"}


# --- the machine --------------------------------------------------------------------------------------------------


def copy_bandwidth(device: torch.device, n_bytes: int | None = None) -> float:
    """Bytes a second that one large copy within the device's memory moves, read and written; the best of seven."""
    n_bytes = n_bytes or (4 * 2**30 if device.type == "cuda" else 2**29)
    source = torch.ones(n_bytes, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    clock = Clock(device)
    best = float("inf")
    for _ in range(7):
        started = clock.now()
        target.copy_(source)
        best = min(best, clock.now() - started)
    return 2 * n_bytes / best


def environment(device: torch.device) -> dict[str, object]:
    """What the figures depend on beside the code: the machine, the versions, the date."""
    found: dict[str, object] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "commit": _commit(),
    }
    if device.type == "cuda":
        of = torch.cuda.get_device_properties(device)
        found |= {"gpu": of.name, "gpu_gb": round(of.total_memory / 1e9, 1), "cuda": torch.version.cuda}
    return found


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _commit() -> str | None:
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or no clone
        return None
    return done.stdout.strip()


def compare(one: Callable[[], float], other: Callable[[], float], repeat: int) -> tuple[float, float, float]:
    """Let two ways that tell their seconds take turns, after a warm-up of each.

    Returns:
        The median of each in ms, and of how many times as fast the other is within a round.
    """
    rounds = [(one(), other()) for _ in range(repeat + 1)][1:]
    a, b = (1000 * statistics.median(spent) for spent in zip(*rounds, strict=True))
    return a, b, statistics.median(x / y for x, y in rounds)

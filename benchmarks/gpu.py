"""All checks and timings that need a GPU, in one call within 8 minutes; JSON is written after each part.

`python -m benchmarks.gpu [--json gpu.json] [--seconds 480]`. Each part is a process of its own with a limit, so that
one which breaks or hangs takes nothing from the others; what no time was left for is said. The checks use the built-in
model in float32. The timings use a model in the shape of Anole-7b with random weights, made on the GPU: engineering
figures, which say nothing of how many passes a picture takes. `--tiny` tries the script itself on a CPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import transformers

import mmgen
from mmgen import tasks
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.request import ImageSampling, Request

from . import subject
from .measures import copy_bandwidth, environment

PROMPTS = ("a snowman", "a red cat", "a house at night", "a blue boat at sunset", "a tree", "a yellow flower")
WINDOWS = (2, 8, 16, 32)
LEAST_SECONDS = 20.0  # nothing is begun with less


def parts(tiny: bool) -> dict[str, tuple[float, list[str]]]:
    """The parts in order of worth, each with its limit in seconds and what Python is told."""
    timing = ["-m", "benchmarks.draw", "--guidance", "3", "--windows", "1", "--repeat", "3"]
    if tiny:
        timing += ["--model", "tiny", "--curve", "1", "4", "--baseline-codes", "8", "--device", "cpu", "--seconds", "1"]
    else:
        timing += ["--model", "7b", "--curve", "1", "2", "4", "8", "16", "32", "64", "--baseline-codes", "96"]
        timing += ["--device", "cuda", "--seconds", "60"]
    many = "2" if tiny else "16"
    checks = ["-m", "benchmarks.gpu", "--checks", *(["--tiny"] if tiny else [])]
    return {
        "checks": (110, checks),
        "one picture, beside A": (120, [*timing, "--pictures", "1", "--baselines", "A"]),
        f"{many} pictures, beside A": (190, [*timing, "--pictures", many, "--baselines", "A"]),
        "one picture, beside B": (120, [*timing, "--pictures", "1", "--baselines", "B"]),
        f"{many} pictures, beside B": (150, [*timing, "--pictures", many, "--baselines", "B"]),
    }


def run(command: Sequence[str], limit: float) -> dict[str, Any]:
    """Run a part, print what it says, and return that with how it ended."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen([sys.executable, *command], stdout=out, stderr=err, start_new_session=True)
        try:
            ended = f"exit code {process.wait(limit)}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with what it started to compile
            process.wait()
            ended = f"stopped after {limit:.0f} s"
        out.seek(0)
        err.seek(0)
        lines, complaints = out.read().splitlines(), err.read().splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]
    print("\n".join(line for line in lines if not line.startswith("{")))
    if ended != "exit code 0":
        print("\n".join(complaints[-12:]))
    print(f"[{ended}, {time.monotonic() - started:.0f} s]", flush=True)
    return {"ended": ended, "seconds": time.monotonic() - started, "records": records, "complaints": complaints[-40:]}


# --- checks -------------------------------------------------------------------------------------------------------


class Checks:
    """Compares codes, says each result as it comes, and counts what failed."""

    def __init__(self, model: AutoregressiveModel) -> None:
        self._model = model
        self.failed = 0

    def say(self, what: str, found: str) -> None:
        """Say one result: `ok`, `FAILED …` or `skipped: why`."""
        self.failed += found.startswith("FAILED")
        print(f"{what:<58} {found}", flush=True)
        print(json.dumps({"check": what, "found": found}), flush=True)

    def same(
        self, what: str, requests: Sequence[Request], expected: Sequence[Sequence[int]], found: Sequence[Sequence[int]]
    ) -> None:
        """Compare pictures code by code; where two part, only a near tie is let through."""
        ties = []
        for request, one, other in zip(requests, expected, found, strict=True):
            parted = next(
                (place for place, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]), None
            )
            if parted is not None:
                ties.append(subject.tie(self._model, request, one, parted, other[parted]))
        if all(tie.is_near for tie in ties):
            self.say(what, "ok" if not ties else f"ok: {len(ties)} of {len(requests)} part at a near tie, {ties}")
        else:
            self.say(what, f"FAILED: {len(ties)} of {len(requests)} part, {ties}")


def check(device: torch.device, tiny: bool) -> int:
    """Run all checks; return how many failed."""
    model, on_cpu = (
        cast(AutoregressiveModel, mmgen.load("demo", mmgen.Loading(dtype="float32", device_map=name)))
        for name in (str(device), "cpu")
    )
    checks = Checks(model)
    prompts = PROMPTS[:2] if tiny else PROMPTS
    for guidance in (1.0, 3.0):
        sampling = ImageSampling(guidance=guidance)
        requests = [tasks.draw(prompt, image=sampling, seed=i) for i, prompt in enumerate(prompts)]
        # Prompts of one length and of others: the batch is the same on both sides, so that only the window differs.
        expected = subject.draw_all(model, requests, 1).codes
        mark = f", guidance {guidance:g}"
        alone = [subject.draw_all(model, [request], 1).codes[0] for request in requests[:3]]
        checks.same(f"each alone as in a batch of {len(requests)}{mark}", requests[: len(alone)], expected[:3], alone)
        for window in WINDOWS[:1] if tiny else WINDOWS:
            found = subject.draw_all(model, requests, window).codes
            checks.same(f"window {window} as step by step{mark}", requests, expected, found)
        cpu = subject.draw_all(on_cpu, requests, 1).codes
        checks.same(f"{device} as cpu{mark}", requests, expected, cpu)
    again = subject.draw_all(model, requests[:1], None).codes
    checks.same("the window that mmgen chooses as step by step", requests[:1], expected[:1], again)
    replayed = [subject.draw_all(model, requests, window).codes for window in (1, 16)]
    subject.capture_nothing(model)
    plain = [subject.draw_all(model, requests, window).codes for window in (1, 16)]
    checks.say("captured step as the plain one, code for code", "ok" if plain == replayed else "FAILED: codes differ")
    return checks.failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts for which there is time; return 1 if a check failed or a part broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--tiny", action="store_true", help="try the script itself, on a CPU")
    parser.add_argument("--checks", action="store_true", help="the checks alone, in this process")
    asked = parser.parse_args(arguments)
    started = time.monotonic()
    if not asked.tiny and not torch.cuda.is_available():
        parser.error("there is no GPU here; --tiny tries the script on a CPU")
    device = torch.device("cpu" if asked.tiny else "cuda")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if asked.checks:
        return int(check(device, asked.tiny) > 0)
    facts = environment(device)
    facts["copy_gb_s"] = round(copy_bandwidth(device, 2**26 if asked.tiny else None) / 1e9, 1)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the parts need it
    print(", ".join(f"{name} {value}" for name, value in facts.items() if value is not None))
    results: dict[str, Any] = {"environment": facts, "parts": {}}
    for name, (limit, command) in parts(asked.tiny).items():
        left = asked.seconds - (time.monotonic() - started)
        print(f"\n=== {name}", flush=True)
        if left < LEAST_SECONDS:
            print("left out: no time")
            results["parts"][name] = {"ended": "left out: no time"}
        else:
            results["parts"][name] = run(command, left if asked.tiny else min(limit, left))
        asked.json.write_text(json.dumps(results, indent=1) + "\n")
    return int(any(part["ended"] != "exit code 0" for part in results["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())

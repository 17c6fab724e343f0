"""Kill downloads at moments within a file, beside others of the same model, and look at what is in the Hub's cache.

`python -m benchmarks.kill_download [--moments 20]`. A Hub on this machine serves a model slowly. One process fetches
it, and another the same (mmgen and the Hub's own `hf download`, by turns); the first is killed with SIGKILL and, in as
many rounds again, interrupted with SIGINT; a third begins at once. The others have to come to their end, every file in
the cache has to be the one that is served, and nothing else may be left in the end.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.hub import COMMIT, Hub, etag, serve, write_hollow

FILES = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
N_BYTES = 24_000_000  # of each
FETCH = f"""
import sys
from mmgen.checkpoints import hub
try:
    hub.describe("org/tiny", {COMMIT!r}, False)
    hub.fetch("org/tiny", {COMMIT!r}, {FILES}, 1)
except KeyboardInterrupt:
    sys.exit(130)
"""


def fetch(hub: Hub, home: Path, *, foreign: bool = False) -> subprocess.Popen[str]:
    """Begin to fetch, with mmgen or with the Hub's own program."""
    theirs = ("-m", "huggingface_hub.cli.hf", "download", "org/tiny", *FILES, "--revision", COMMIT, "--quiet")
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_VERBOSITY": "error"}
    return subprocess.Popen(
        [sys.executable, *(theirs if foreign else ("-c", FETCH))],
        env=dict(os.environ) | own,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> int | str:
    """Wait for a process; return its exit code, or what it said of its failure."""
    said = process.communicate(timeout=120)[1]
    return said if "Error" in said else process.returncode


def left_in(home: Path) -> set[Path]:
    """Return the files of downloads that are under way, or were."""
    return set(home.glob("hub/models--org--tiny/blobs/*.incomplete"))


def held_by(process: subprocess.Popen[str]) -> set[Path]:
    """Return the files that a process downloads into; it may be at its end."""
    held = set()
    with suppress(OSError):
        for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):
                held.add(descriptor.readlink())
    return {path for path in held if path.suffix == ".incomplete"}


def wrong_in(home: Path, served: Path) -> list[str]:
    """Name what is in the cache, whole by its name, and not what is served."""
    storage = home / "hub" / "models--org--tiny"
    whole = {etag(served / file): (served / file).read_bytes() for file in (*FILES, "config.json")}
    blobs = set(storage.glob("blobs/*")) - left_in(home)
    wrong = [path.name for path in blobs if whole.get(path.name) != path.read_bytes()]
    links = storage.glob("snapshots/*/*")
    return wrong + [path.name for path in links if path.read_bytes() != (served / path.name).read_bytes()]


def one_round(served: Path, number: int, moment: float, sign: signal.Signals, counts: Counter[str]) -> list[str]:
    """Stop one of three downloads when this share of a file has been sent; return what is not as it should be."""
    faults = []
    with serve(served) as hub, tempfile.TemporaryDirectory(prefix="kill-download-") as name:
        home = Path(name)
        hub.pause = 0.02
        first = fetch(hub, home)
        while not left_in(home):
            assert first.poll() is None
            time.sleep(0.002)
        other = fetch(hub, home, foreign=bool(number % 2))
        sent = hub.n_sent
        while hub.n_sent < sent + moment * N_BYTES and first.poll() is None:
            time.sleep(0.002)
        while not (held := held_by(first)) and first.poll() is None:  # between two files, or it waits for the other
            time.sleep(0.002)
        counts["within a file"] += bool(held)
        first.send_signal(sign)
        stopped = time.monotonic()
        code = end(first)
        counts["slowest stop, ms"] = max(counts["slowest stop, ms"], round(1000 * (time.monotonic() - stopped)))
        if code not in (-sign, 0) if sign == signal.SIGKILL else code not in (130, 0):
            faults.append(f"the one that was stopped ended with {code}")
        counts["stopped before its end"] += code != 0
        counts["files left by it"] += sum(path.exists() for path in held)
        faults += [f"wrong at once: {name}" for name in wrong_in(home, served)]
        third = fetch(hub, home)
        for who, process in (("the other", other), ("the third", third)):
            if (code := end(process)) != 0:
                faults.append(f"{who} ended with {code}")
        counts["beside hf download"] += number % 2
        faults += [f"wrong in the end: {name}" for name in wrong_in(home, served)]
        left = left_in(home)
        counts["files left in the end"] += len(left)
        faults += [f"left in the end: {path.name}" for path in left]
    return faults


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=20, help="of SIGKILL, and as many of SIGINT")
    n_moments = parser.parse_args(arguments).moments
    rng = random.Random(7)
    failed = False
    with tempfile.TemporaryDirectory(prefix="kill-download-") as name:
        served = Path(name)
        (served / "config.json").write_text("{}")
        for file in FILES:
            write_hollow(served / file, {"w": ("U8", (N_BYTES,))})
            with (served / file).open("r+b") as out:
                out.seek(1000)
                out.write(rng.randbytes(N_BYTES - 1000))
        for sign in (signal.SIGKILL, signal.SIGINT):
            counts: Counter[str] = Counter()
            for number in range(n_moments):
                faults = one_round(served, number, (number + rng.random()) / n_moments, sign, counts)
                for fault in faults:
                    print(f"NOT {sign.name} {number}: {fault}", flush=True)
                counts["faults"] += len(faults)
            print(f"{sign.name}: " + ", ".join(f"{what} {n}" for what, n in counts.items()), flush=True)
            failed |= counts["faults"] > 0
    sys.exit(failed)


if __name__ == "__main__":
    main()

"""Two machines of a Ray cluster on loopback: `python -m benchmarks.cluster PART`.

deaths: 2,000 pictures, of which one ends its worker each time and one hangs; a worker and a machine are killed.
driver: the command is killed at 20 moments and started again.
speed: captions a second of one thread in this process, and of two workers with one thread each, in turn, between the
33rd result and the last.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

from tests.support.clusters import MMGEN, Machines, machines
from tools.demo.render import render
from tools.demo.scene import ALL_SCENES

ALONE = {"OMP_NUM_THREADS": "1"}
QUIET = {"RAY_AUTH_MODE": "disabled"}


def main() -> None:
    """Run a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("deaths", "driver", "speed"))
    parser.add_argument("-n", type=int, default=2000, help="pictures")
    parser.add_argument("--moments", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, machines(2) as two:
        folder = Path(name)
        (folder / "pictures").mkdir()
        rng = random.Random(1)
        for number in range(given.n):
            render(rng.choice(ALL_SCENES), 3_000_000_000 + number)[0].save(folder / "pictures" / f"{number:04}.png")
        if given.part == "deaths":
            deaths(two, folder, given.n)
        elif given.part == "driver":
            driver(two, folder, given.n, given.moments)
        else:
            speed(two, folder, given.n)


def deaths(two: Machines, folder: Path, n: int) -> None:
    """Kill a worker and a machine; compare with one process."""
    expected = alone(folder)
    pictures = sorted((folder / "pictures").iterdir())
    bad = [
        pictures[n // 3].rename(folder / "pictures" / "bad-poison.png"),
        pictures[n // 2].rename(folder / "pictures" / "bad-hang.png"),
    ]
    journal = folder / "rows.jsonl"
    command = two.command("caption", "pictures", "--jsonl", "rows.jsonl", "--json", "--item-timeout", "10")
    began = time.monotonic()
    with subprocess.Popen(command, cwd=folder, env=os.environ | QUIET, stdout=subprocess.PIPE, text=True) as running:
        outs: list[str] = []
        assert running.stdout is not None
        killed = 0
        for line in running.stdout:
            outs.append(line)
            if killed == 0 and len(outs) > n // 5:
                two.workers()[0].kill()
                killed = 1
            elif killed == 1 and len(outs) > n // 2:
                two.lose()
                two.add()
                killed = 2
    found = rows(journal)
    errors = {name for name, row in found.items() if "error" in row}
    same = sum(found[name]["text"] == row["text"] for name, row in expected.items() if name in found)
    print(
        f"{time.monotonic() - began:.0f} s: {len(found)} rows, each once; {len(errors)} errors: "
        f"{sorted(str(found[name]['error']) for name in errors)}; {same} of {n - len(bad)} captions as of one process; "
        f"{sum(json.loads(line)['image'] in found for line in outs)} of {len(outs)} lines of stdout are results"
    )


def driver(two: Machines, folder: Path, n: int, moments: int) -> None:
    """Kill the command again and again."""
    expected, rng = alone(folder), random.Random(1)
    command = two.command("caption", "pictures", "--jsonl", "rows.jsonl", "-q")
    with_work = 0
    for _ in range(moments):
        running = subprocess.Popen(command, cwd=folder, env=os.environ | QUIET)
        time.sleep(rng.uniform(1, 16))
        with_work += running.poll() is None
        running.kill()
        running.wait()
    subprocess.run(command, cwd=folder, env=os.environ | QUIET, check=True)
    found = rows(folder / "rows.jsonl")
    same = sum(found[name]["text"] == row["text"] for name, row in expected.items() if name in found)
    print(f"{with_work} of {moments} kills with work left; {len(found)} rows, each once; {same} of {n} as undisturbed")


def speed(two: Machines, folder: Path, n: int) -> None:
    """Compare two workers with one thread."""
    for _ in range(3):
        one = pace([*MMGEN, "caption", "pictures", "--json"], folder, ALONE)
        other = pace(two.command("caption", "pictures", "--json"), folder, QUIET)
        print(f"one thread {one:.2f} a second, two workers {other:.2f}: {other / one:.2f} times")


def pace(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Count results a second, from the first that came to the last."""
    with subprocess.Popen(command, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        times = [time.monotonic() for _ in running.stdout]
    late = [each for each in times if each > times[0]]
    return (len(late) - 32) / (late[-1] - late[32])


def alone(folder: Path) -> dict[str, dict[str, object]]:
    """Caption in one process with one thread."""
    command = [*MMGEN, "caption", "pictures", "--jsonl", "alone.jsonl", "-q"]
    subprocess.run(command, cwd=folder, env=os.environ | ALONE, check=True)
    return rows(folder / "alone.jsonl")


def rows(path: Path) -> dict[str, dict[str, object]]:
    """Read a journal; an item with two rows is a fault."""
    listed = [json.loads(line) for line in path.read_text().splitlines()]
    found = {str(row["image"]): row for row in listed}
    assert len(found) == len(listed), "an item has two rows"
    return found


if __name__ == "__main__":
    main()

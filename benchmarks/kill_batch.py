"""Kill a batch at random moments, restart it each time, and compare with an undisturbed run.

`python -m benchmarks.kill_batch [--model scripted|demo] [--kills 100] [--pictures 2000]`. Captions of a folder of good
and bad files (seed given, and seed drawn), then pictures of a list of prompts into a folder. With the scripted model,
which answers by the picture's content and the seed after a moment, it takes a few minutes.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .corpus import make_corpus

SCRIPTED = """
import sys, time, types
from PIL import Image
from mmgen.model import Abilities, Model
from mmgen.request import Done, Picture

class Quick(Model):
    name, revision, note, abilities = "demo", None, None, Abilities()
    def replies(self, requests):
        for number, request in enumerate(filter(None, requests)):
            for piece in self.answer(request):
                yield number, piece
            yield number, Done()
    def answer(self, request):
        time.sleep(0.001)
        shown = [part.resize((1, 1)).getpixel((0, 0)) for part in request.parts if not isinstance(part, str)]
        said = [part for part in request.parts if isinstance(part, str)]
        if "text" in request.want:
            yield f"{said} {shown} {request.seed}"
        if "image" in request.want:
            yield Picture(Image.new("RGB", (64, 64), (request.seed % 256, len(said[0]) % 256, 7)), request.seed)

families = types.ModuleType("mmgen.families")
families.open_model = lambda *arguments, **options: Quick()
sys.modules["mmgen.families"] = families
from mmgen.cli import main
sys.exit(main())
"""


def command(model: str, *arguments: str) -> list[str]:
    """Return how mmgen is run, with the real model or the scripted one."""
    start = ["-c", SCRIPTED] if model == "scripted" else ["-m", "mmgen"]
    return [sys.executable, *start, *arguments]


def undisturbed(model: str, *arguments: str, folder: Path) -> tuple[int, float]:
    """Run to the end; return exit code and seconds."""
    started = time.monotonic()
    done = subprocess.run(command(model, *arguments), cwd=folder, capture_output=True)
    return done.returncode, time.monotonic() - started


def disturbed(model: str, *arguments: str, folder: Path, n_kills: int, seconds: float, rng: random.Random) -> int:
    """Kill n times at a random moment, then run to the end; return its exit code."""
    for _ in range(n_kills):
        process = subprocess.Popen(
            command(model, *arguments), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(rng.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        process.wait()
    return undisturbed(model, *arguments, folder=folder)[0]


def rows(path: Path) -> dict[str, tuple[object, object]]:
    """Read a journal: by place, text and error; the last line of a place counts. Every line must be whole.

    Words are recorded once for each place: what is tried again had failed. (A record of a picture or a sidecar may come
    again, with the same words: where its file was not in place yet when the batch was killed.)
    """
    found: dict[str, tuple[object, object]] = {}
    for line in path.read_bytes().splitlines():
        record = json.loads(line)
        text, _ = found.get(record["place"], (None, None))
        is_again = "output" in record and record.get("text") == text
        assert text is None or "text" not in record or is_again, f"{record['place']} was answered twice"
        found[record["place"]] = (record.get("text", record.get("output")), record.get("error"))
    return found


def check(name: str, ok: bool) -> None:
    """Say whether it holds, and stop if not."""
    print(f"{'ok ' if ok else 'NOT'} {name}", flush=True)
    if not ok:
        raise SystemExit(1)


def main() -> None:
    """Run the trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("scripted", "demo"), default="scripted")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--prompts", type=int, default=300)
    arguments = parser.parse_args()
    model, rng = arguments.model, random.Random(7)
    with tempfile.TemporaryDirectory(prefix="kill-batch-") as name:
        folder = Path(name)
        good, bad = make_corpus(folder / "photos", arguments.pictures)
        captions = ("caption", "photos", "-q", "--temperature", "0.5", "--jsonl")
        code, seconds = undisturbed(model, *captions, "whole.jsonl", "--seed", "3", folder=folder)
        whole = rows(folder / "whole.jsonl")
        check(f"exit code 1, {len(good)} captions, {len(bad)} errors ({seconds:.0f} s)", code == 1)
        check("every good picture has a caption", {f"photos/{n}" for n in good} == {p for p in whole if whole[p][0]})
        check("every bad one has its error", {f"photos/{n}" for n in bad} == {p for p in whole if whole[p][1]})
        limit = 1.2 * seconds / max(arguments.kills, 10) + (6 if model == "demo" else 1)
        for seed in (("--seed", "3"), ()):
            out = folder / f"killed{len(seed)}.jsonl"
            disturbed(model, *captions, out.name, *seed, folder=folder, n_kills=arguments.kills, seconds=limit, rng=rng)
            drawn = json.loads(out.read_bytes().splitlines()[0]).get("drawn_seed")
            if not seed:
                undisturbed(model, *captions, "drawn.jsonl", "--seed", str(drawn), folder=folder)
                whole = rows(folder / "drawn.jsonl")
            check(
                f"killed {arguments.kills} times, {'seed given' if seed else 'seed drawn'}: the same",
                rows(out) == whole,
            )
        prompts = [f"a cat, number {i}" if model == "scripted" else "a cat" for i in range(arguments.prompts)]
        (folder / "prompts.txt").write_text("\n".join(prompts))
        draw = ("draw", "-q", "--prompts", "prompts.txt", "--seed", "5", "-o")
        code, seconds = undisturbed(model, *draw, "whole/", folder=folder)
        limit = 1.2 * seconds / max(arguments.kills, 10) + (6 if model == "demo" else 1)
        disturbed(model, *draw, "killed/", folder=folder, n_kills=arguments.kills, seconds=limit, rng=rng)
        compared = subprocess.run(
            ["diff", "-r", "-x", "mmgen.jsonl", "whole", "killed"], cwd=folder, capture_output=True, text=True
        )
        check(f"killed {arguments.kills} times, {arguments.prompts} pictures: the same files", not compared.stdout)
        strays = list(folder.rglob(".*"))
        check(f"no stray file {strays}", not strays)
        places = {place.replace("killed/", "whole/") for place in rows(folder / "killed" / "mmgen.jsonl")}
        check("every picture has its row", places == set(rows(folder / "whole" / "mmgen.jsonl")))


if __name__ == "__main__":
    main()

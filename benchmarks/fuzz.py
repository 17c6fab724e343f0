"""Damaged files of all kinds through the readers: every outcome is a result or one clear line.

`python -m benchmarks.fuzz [--seed 7] [--scale 1.0] [--seconds S] [--only KIND]`. Pictures of 14 formats, checkpoint
folders, journals, lists of prompts, conversations and device maps, each damaged at random; then whole commands over
them. What is found (a traceback, a crash, more than ten seconds, a file where none belongs) is printed with the number
that makes it again (`--only KIND --first NUMBER --scale 0`), and the exit code is 1.

Each kind runs in a process of its own, so that one which crashes or hangs takes nothing from the others.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image

from mmgen.checkpoints import catalog
from mmgen.checkpoints.loading import choose_device_map
from mmgen.errors import MmgenError
from mmgen.families import abilities, open_model
from mmgen.inputs.images import open_image
from mmgen.inputs.messages import read_messages
from mmgen.inputs.placeholders import expand
from mmgen.inputs.prompts import read_prompts
from mmgen.outputs.export import Export
from mmgen.outputs.journal import Journal
from mmgen.outputs.pictures import describe
from mmgen.outputs.reading import Records
from mmgen.outputs.terminal import Notes
from mmgen.request import Loading
from tests.support.chat_checkpoints import make_gemma3
from tests.support.checkpoints import make_checkpoint

LIMIT = 10.0  # seconds of one case
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "MPO", "TGA", "PPM", "QOI", "JXL", "ICO")
ODD: tuple[Any, ...] = (None, -1, 0, 1, 2**63, 1e300, float("nan"), "", "x", "\ud800", "../../x", [], {}, [[]], True)


# --- damage --------------------------------------------------------------------------------------------------------


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat, blank or overwrite parts of some bytes."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(7):
            case 0 | 1 if found:
                found[min(at, len(found) - 1)] ^= 1 << rng.randrange(8)
            case 2:
                del found[at:]
            case 3:
                n = rng.randrange(1, 64)
                found[at:at] = found[at : at + n]
            case 4:
                found[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x00\x00\x00\x01"))
            case 5:
                n = rng.randrange(1, 256)
                found[at : at + n] = bytes(len(found[at : at + n]))
            case _:
                found[at:at] = rng.randbytes(rng.randrange(1, 9))
    return bytes(found)


def odd(value: Any, rng: random.Random) -> Any:
    """Replace or take away one value somewhere within JSON."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: odd(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], odd(value[at], rng), *value[at + 1 :]]
    return rng.choice(ODD)


def odd_text(text: bytes, rng: random.Random) -> bytes:
    """Damage JSON, or lines of it, by its values or by its bytes."""
    if rng.random() < 0.4:
        return damaged(text, rng)
    lines = text.splitlines() if text.count(b"\n{") else [text]
    at = rng.randrange(len(lines))
    lines[at] = json.dumps(odd(json.loads(lines[at]), rng)).encode()
    return b"\n".join(lines) + b"\n"


# --- kinds: each gives a function of one case, in a folder of its own ------------------------------------------------

Case = Callable[[random.Random, Path], object]


def pictures(base: Path) -> Case:
    """Damaged pictures, opened, and asked what they say of themselves."""
    files = []
    for number, kind in enumerate(FORMATS):
        if kind == "JXL":
            __import__("pillow_jxl")
        image = Image.effect_noise((40 + number, 32), 70).convert("RGB")
        path = base / f"{number}.{kind.lower()}"
        more = {"exif": _exif(), "icc_profile": _profile()} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
        image.save(path, kind, **more)
        files.append(path)

    def case(rng: random.Random, folder: Path) -> object:
        chosen = rng.choice(files)
        path = folder / f"a{chosen.suffix}"
        path.write_bytes(damaged(chosen.read_bytes(), rng))
        describe(str(path)) if rng.random() < 0.1 else None
        return open_image(path, strict=rng.random() < 0.5)

    return case


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def _profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def checkpoints(base: Path) -> Case:
    """Checkpoint folders with damaged JSON, tokenizers and headers: found, looked at, and one in eight opened."""
    whole = [make_checkpoint(base / "chameleon"), make_gemma3(base / "gemma3")]

    def case(rng: random.Random, folder: Path) -> object:
        source = rng.choice(whole)
        texts = [path for path in source.iterdir() if path.suffix == ".json"]
        chosen = rng.choice([*texts, *texts, *source.glob("*.safetensors")])
        for path in source.iterdir():
            if path != chosen:
                (folder / path.name).symlink_to(path)
        data = chosen.read_bytes()
        if chosen.suffix == ".json":
            data = odd_text(data, rng)
        else:
            n = 8 + int.from_bytes(data[:8], "little")
            data = damaged(data[:n], rng) + data[n:]
        (folder / chosen.name).write_bytes(data)
        found = catalog.find(str(folder))
        abilities(found)
        return open_model(found, Loading(device_map="cpu")) if rng.random() < 0.125 else None

    return case


def journals(base: Path) -> Case:
    """Damaged journals: gone on with, and made into pages."""
    text = b"".join(
        json.dumps(
            {
                "key": f"{number:032x}", "place": f"{number}.png", "version": 1, "command": "caption",
                "model": {"name": "demo", "revision": None}, "image": f"{number}.png", "prompt": "p", "text": "t",
                "sampling": {"text": {"temperature": 0}}, "seconds": 0.1, "drawn_seed": 7,
                "files": [{"path": "/x.png", "size": 3, "mtime_ns": 4, "sha256": "0" * 64}],
            }
        ).encode() + b"\n"
        for number in range(4)
    )  # fmt: skip

    def case(rng: random.Random, folder: Path) -> object:
        path = folder / "j.jsonl"
        path.write_bytes(odd_text(text, rng))
        out = folder / rng.choice(("a.html", "a.csv", "metadata.jsonl"))
        with suppress(MmgenError), Journal(path) as journal:
            list(journal.records())
        Export(Records(path), out, "t", folder, Notes(quiet=True)).write()
        return None

    return case


def prompts(base: Path) -> Case:
    """Damaged lists of prompts: JSON lines, tables, plain."""
    lines = (
        b'{"prompt": "a cat", "images": ["a.png"], "seed": 7, "n": 2, "guidance": 3, "ratio": "1:1", "output": "a.png"}'
        b'\n{"prompt": "b"}\n'
    )
    table = b'prompt,seed,n,guidance\n"a, cat",7,2,1.5\nb,,,\n'

    def case(rng: random.Random, folder: Path) -> object:
        ending = rng.choice(("jsonl", "csv", "txt"))
        path = folder / f"p.{ending}"
        path.write_bytes(odd_text(lines, rng) if ending == "jsonl" else damaged(table, rng))
        return list(read_prompts(str(path), comments=rng.random() < 0.5))

    return case


def histories(base: Path) -> Case:
    """Damaged conversations, and the .json beside a picture."""
    Image.new("RGB", (8, 8)).save(base / "a.png")
    talk = [
        {
            "role": "user",
            "content": [{"type": "image", "path": str(base / "a.png")}, {"type": "text", "text": "what?"}],
        },
        {"role": "assistant", "content": "a cat"},
    ]

    def case(rng: random.Random, folder: Path) -> object:
        path = folder / "a.json"
        path.write_bytes(odd_text(json.dumps(talk).encode(), rng))
        with suppress(MmgenError):
            expand("{json.a.b} {json.tags}", str(folder / "a.png"))
        return read_messages(str(path))

    return case


def maps(base: Path) -> Case:
    """Damaged device maps."""

    def case(rng: random.Random, folder: Path) -> object:
        path = folder / "map.json"
        path.write_bytes(odd_text(b'{"model": "cpu", "lm_head": "cpu"}', rng))
        return choose_device_map(Loading(device_map=str(path)))

    return case


def commands(base: Path) -> Case:
    """Whole commands over damaged files, in processes of their own."""
    kinds = {kind: KINDS[kind][0](_made(base / kind)) for kind in ("pictures", "checkpoints", "prompts", "journals")}
    good = base / "good.png"
    Image.new("RGB", (32, 32), "red").save(good)

    def case(rng: random.Random, folder: Path) -> object:
        kind = rng.choice([*kinds])
        inside = _made(folder / "in")
        with suppress(Exception):  # it only makes the file here
            kinds[kind](rng, inside)
        [name] = [path.name for path in inside.iterdir() if not path.is_symlink()][:1] or [""]
        words = {
            "pictures": ["caption", f"in/{name}", str(good), "--jsonl", "out.jsonl"],
            "checkpoints": ["caption", str(good), "-m", "./in"],
            "prompts": ["draw", "--prompts", f"in/{name}", "-o", "drawn/", "--limit", "2"],
            "journals": ["export", "in/j.jsonl", "-o", "page.html"],
        }[kind]
        done = subprocess.run(
            [sys.executable, "-m", "mmgen", *words, "-q"], cwd=folder, capture_output=True, text=True, timeout=90,
            errors="replace", check=False,
        )  # fmt: skip
        if "Traceback" in done.stderr or done.returncode not in (0, 1, 2):
            raise AssertionError(f"mmgen {' '.join(words)}: exit {done.returncode}\n{done.stderr[-2000:]}")
        return None

    return case


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


KINDS: dict[str, tuple[Callable[[Path], Case], int]] = {
    "pictures": (pictures, 100_000),
    "checkpoints": (checkpoints, 2_000),
    "journals": (journals, 2_000),
    "prompts": (prompts, 2_000),
    "histories": (histories, 2_000),
    "maps": (maps, 2_000),
    "commands": (commands, 200),
}


# --- running -------------------------------------------------------------------------------------------------------


def work(kind: str, seed: int, numbers: Iterator[int], until: float) -> None:
    """Try cases in this process; print a line before each and one after it."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        case = KINDS[kind][0](_made(Path(place) / "base"))
        around = _names(Path(place))
        for number in numbers:
            if time.time() > until:
                return
            print(f"begin {number}", flush=True)
            folder = _made(Path(place) / "case")
            started, ended = time.monotonic(), "result"
            try:
                case(random.Random(f"{seed} {kind} {number}"), folder)
            except MmgenError as error:
                ended = "refused"
                if "\n" in error.message:
                    ended = f"finding: more than a line: {error.message!r}"
            except BaseException:  # noqa: BLE001 -- this is what is looked for
                ended = f"finding: {traceback.format_exc()!r}"
            if time.monotonic() - started > LIMIT and kind != "commands":
                ended = f"finding: took {time.monotonic() - started:.0f} s"
            shutil.rmtree(folder)
            if (now := _names(Path(place))) != around:
                ended, around = f"finding: wrote {sorted(now ^ around)}", now
            print(f"end {ended}", flush=True)


def _names(place: Path) -> frozenset[str]:
    return frozenset(path.name for path in (*place.iterdir(), *(place / "base").iterdir()))


def run(kind: str, arguments: argparse.Namespace, until: float) -> tuple[Counter[str], list[str]]:
    """Try cases of one kind, in a new process after each crash or hang; give counts and findings."""
    counts: Counter[str] = Counter()
    findings: list[str] = []
    number, most = arguments.first, arguments.first + max(1, int(KINDS[kind][1] * arguments.scale))
    while number < most and time.time() < until:
        worker = [sys.executable, "-m", "benchmarks.fuzz", "--worker", kind, "--seed", str(arguments.seed)]
        worker += ["--first", str(number), "--last", str(most), "--until", str(until)]
        with (
            tempfile.TemporaryFile("w+") as err,
            subprocess.Popen(worker, stdout=subprocess.PIPE, stderr=err, text=True) as process,
        ):
            is_under_way = False
            for line in process.stdout or ():
                word, _, rest = line.strip().partition(" ")
                if word == "begin":
                    number, is_under_way = int(rest), True
                elif word == "end":
                    is_under_way = False
                    counts[rest.partition(":")[0]] += 1
                    if rest.startswith("finding"):
                        findings.append(f"{kind} {number}: {rest}")
            code = process.wait()
            err.seek(0)
            if is_under_way:
                counts["finding"] += 1
                findings.append(f"{kind} {number}: ended the process ({code}): {err.read()[-800:]}")
            elif code:
                raise SystemExit(f"the worker of {kind} failed: {err.read()[-2000:]}")
        number += 1
        if not is_under_way:
            break
    return counts, findings


def main() -> None:
    """Try all kinds, side by side with nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="1 is all; 0 is one of each kind")
    parser.add_argument("--seconds", type=float, default=1e9, help="most, shared by the kinds")
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--worker", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--last", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=1e18, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.seed, iter(range(arguments.first, arguments.last)), arguments.until)
        return
    kinds, n_found = [arguments.only] if arguments.only else list(KINDS), 0
    for kind in kinds:
        started = time.time()
        counts, findings = run(kind, arguments, started + arguments.seconds / len(kinds))
        n_found += len(findings)
        said = ", ".join(f"{n:,} {name}" for name, n in sorted(counts.items()))
        print(f"{kind:12} {counts.total():,} in {time.time() - started:.0f} s: {said}", flush=True)
        for each, _ in zip(findings, count(), strict=False):
            print("  " + each.replace("\\n", "\n    ")[-1500:], flush=True)
    sys.exit(n_found > 0)


if __name__ == "__main__":
    main()

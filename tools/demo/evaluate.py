"""Measure the built-in model through mmgen's own interface, on renders and seeds not used in training.

Scenes seen in training and the 40 held out are reported apart. `python -m tools.demo.evaluate FOLDER` prints the table
and writes it into the model card.
"""

import argparse
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import mmgen
from mmgen import tasks
from mmgen.model import Model
from mmgen.request import Picture, Request

from . import stories, text
from .card import BEGIN_RESULTS, END_RESULTS
from .judge import judge_accuracy, load_judge, see
from .render import render
from .scene import COLOURS, HELD_OUT, PLACES, SUBJECTS, TRAINED, Scene

SEED = 2_000_000_000
BARS = {
    "draw: subject": 0.95, "draw: colour": 0.95, "draw: place": 0.98, "draw: all that was asked": None,
    "caption: all three": 0.97, "ask": 0.95, "ask, two pictures": 0.95, "vary": 0.90, "interleave": None,
}  # fmt: skip


@dataclass
class Score:
    """Right answers out of all."""

    right: int = 0
    n: int = 0

    def add(self, ok: bool) -> None:
        """Count one."""
        self.right, self.n = self.right + ok, self.n + 1

    def __str__(self) -> str:
        return f"{self.right / self.n:.1%} ({self.right}/{self.n})" if self.n else "-"


Table = dict[str, dict[bool, Score]]  # row -> held out? -> score


def empty_table() -> Table:
    """Return the table without counts."""
    return {row: {False: Score(), True: Score()} for row in BARS}


def answers(model: Model, requests: Sequence[Request]) -> list[str | Picture]:
    """Answer requests that each want one thing, in batches."""
    words: dict[int, str] = {}
    pictures: dict[int, Picture] = {}
    for index, piece in model.replies(requests):
        if isinstance(piece, Exception):
            raise piece
        if isinstance(piece, Picture):
            pictures[index] = piece
        elif isinstance(piece, str):
            words[index] = words.get(index, "") + piece
    return [pictures.get(i) or words.get(i, "").strip() for i in range(len(requests))]


def images_of(found: Sequence[str | Picture]) -> list[Image.Image]:
    """Return the images of pictures."""
    return [piece.image for piece in found if isinstance(piece, Picture)]


def fresh(scene: Scene, number: int) -> Image.Image:
    """Render a scene with a seed that training never used."""
    return render(scene, SEED + number)[0]


def measure_draw(model: Model, table: Table, n_seen: int, n_held_out: int, rng: random.Random) -> None:
    """Ask for pictures, held-out ones with all three attributes, and let the judge look."""
    judge = load_judge()
    asked: list[tuple[str, dict[str, str], bool]] = []
    for i in range(n_seen + n_held_out):
        held_out = i >= n_seen
        scene = sorted(HELD_OUT, key=str)[i % 40] if held_out else rng.choice(TRAINED)
        wanted = {"subject": scene.subject, "colour": scene.colour, "place": scene.place}
        if not held_out:
            for name in ("colour", "place"):
                if rng.random() < 0.25:
                    del wanted[name]
        prompt = text.description(scene.subject, wanted.get("colour"), wanted.get("place"), rng)
        asked.append((text.typed(rng.choice(text.DRAW_FORMS).format(prompt), rng), wanted, held_out))
    found = answers(model, [tasks.draw(prompt, seed=SEED + i) for i, (prompt, _, _) in enumerate(asked)])
    for (prompt, wanted, held_out), shown in zip(asked, see(judge, images_of(found)), strict=True):
        right = {name: getattr(shown, name) == value for name, value in wanted.items()}
        for name, ok in right.items():
            table[f"draw: {name}"][held_out].add(ok)
        table["draw: all that was asked"][held_out].add(all(right.values()))
        if not all(right.values()):
            print(f"draw {prompt!r}: {shown.caption}")


def measure_words(model: Model, table: Table, n_seen: int, n_held_out: int, rng: random.Random) -> None:
    """Captions, questions about one picture, and about two."""
    requests, wanted, rows = [], [], []
    for i in range(n_seen + n_held_out):
        held_out = i >= n_seen
        scene = sorted(HELD_OUT, key=str)[i % 40] if held_out else rng.choice(TRAINED)
        image = fresh(scene, i)
        prompt = rng.choice((text.CAPTION, text.typed(rng.choice(text.CAPTION_FORMS), rng, " .?")))
        cases = [("caption: all three", prompt, [image], scene.caption)]
        question, answer = text.ask(scene, rng)
        cases.append(("ask", question, [image], answer))
        if i % 2 == 0:
            other = scene
            for name, names in (("subject", SUBJECTS), ("colour", COLOURS), ("place", PLACES)):
                if rng.random() < 0.6:
                    other = Scene(**{**other.__dict__, name: rng.choice(names)})
            question, answer = text.common(scene, other, rng)
            question += "<image><image>" if rng.random() < 0.5 else ""
            cases.append(("ask, two pictures", question, [image, fresh(other, 500_000 + i)], answer))
        for row, question, images, answer in cases:
            requests.append(tasks.ask(question, images, seed=SEED + i))
            wanted.append(answer)
            rows.append((row, held_out, question))
    for (row, held_out, question), answer, said in zip(rows, wanted, answers(model, requests), strict=True):
        table[row][held_out].add(said == answer)
        if said != answer:
            print(f"{row}: {question!r}: {said!r}, not {answer!r}")


def measure_vary(model: Model, table: Table, n_seen: int, n_held_out: int, rng: random.Random) -> None:
    """Variations with and without a change; held out if either end is."""
    judge = load_judge()
    cases: list[tuple[Scene, str, Scene, Image.Image]] = []
    counts = {False: 0, True: 0}
    while counts[False] < n_seen or counts[True] < n_held_out:
        before = rng.choice(TRAINED) if rng.random() < 0.7 else rng.choice(sorted(HELD_OUT, key=str))
        prompt, after = text.change(before, rng)
        held_out = before in HELD_OUT or after in HELD_OUT
        if counts[held_out] >= (n_held_out if held_out else n_seen):
            continue
        counts[held_out] += 1
        prompt += "<image>" if prompt == text.VARY or rng.random() < 0.3 else ""
        cases.append((before, prompt, after, fresh(before, 700_000 + len(cases))))
    found = answers(model, [tasks.vary(image, prompt, seed=SEED + i) for i, (_, prompt, _, image) in enumerate(cases)])
    images = images_of(found)
    for (before, prompt, after, image), made, shown in zip(cases, images, see(judge, images), strict=True):
        differs = bool(np.abs(np.asarray(made, float) - np.asarray(image, float)).mean() > 1)
        table["vary"][before in HELD_OUT or after in HELD_OUT].add(shown == after and differs)
        if shown != after:
            print(f"vary {before.caption} {prompt!r}: {shown.caption}")


def named_in(sentence: str) -> Scene | None:
    """Return the scene that a sentence names, if it names all three attributes."""
    found = [[name for name in names if re.search(rf"\b{name}\b", sentence)] for names in (SUBJECTS, COLOURS, PLACES)]
    return Scene(*(names[-1] for names in found)) if all(found) else None


def measure_interleave(model: Model, table: Table, n: int, rng: random.Random) -> None:
    """Stories: each picture must show what the sentence before it says; no picture at all counts as wrong."""
    judge = load_judge()
    for i in range(n):
        prompt = "Can you draw a snowman and explain how to build one?" if i == 0 else stories.interleave(rng)[0]
        said, n_pictures = "", 0
        for piece in mmgen.interleave(model, prompt, seed=SEED + i):
            if isinstance(piece, str):
                said += piece
            elif isinstance(piece, Picture):
                n_pictures += 1
                wanted, shown = named_in(said.strip().rsplit(". ")[-1]), see(judge, [piece.image])[0]
                table["interleave"][wanted in HELD_OUT].add(wanted == shown)
                if wanted != shown:
                    print(f"interleave {said!r}: {shown.caption}")
                said = ""
        if n_pictures == 0:
            table["interleave"][False].add(False)
            print(f"interleave {prompt!r}: no picture, {said!r}")


def as_markdown(table: Table, judged: Sequence[float], seconds: float) -> str:
    """Return the table with its bars and a line on how it was measured."""
    lines = ["| task | scenes of training | held-out scenes | bar |", "|---|---|---|---|"]
    for row, bar in BARS.items():
        lines.append(f"| {row} | {table[row][False]} | {table[row][True]} | {f'{bar:.0%}' if bar else ''} |")
    lines.append("")
    lines.append(
        "Measured by `python -m tools.demo.evaluate` through mmgen's interface with default settings, on renders "
        f"and seeds not used in training, in {seconds:.0f} s. Pictures are judged by a small network that shares "
        f"nothing with the model; on fresh renders it names {judged[0]:.1%} of subjects, {judged[1]:.1%} of colours "
        f"and {judged[2]:.1%} of places. No picture of 40 of the 400 combinations was in any training."
    )
    return "\n".join(lines)


def evaluate(folder: Path, scale: float = 1.0) -> str:
    """Measure everything; return the table as Markdown."""
    started = time.monotonic()
    model, table, rng = mmgen.load(str(folder)), empty_table(), random.Random(SEED)

    def of(n: int) -> int:
        return max(1, round(n * scale))

    steps: list[Callable[[], None]] = [
        lambda: measure_draw(model, table, of(160), of(80), rng),
        lambda: measure_words(model, table, of(200), of(80), rng),
        lambda: measure_vary(model, table, of(60), of(30), rng),
        lambda: measure_interleave(model, table, of(16), rng),
    ]
    for step in steps:
        step()
    return as_markdown(table, judge_accuracy(load_judge()), time.monotonic() - started)


def write_results(card: Path, results: str) -> None:
    """Put the table into the card, between its two marks."""
    before, rest = card.read_text("utf-8").split(BEGIN_RESULTS)
    card.write_text(before + BEGIN_RESULTS + "\n" + results + "\n" + END_RESULTS + rest.split(END_RESULTS)[1], "utf-8")


def main() -> None:
    """Evaluate a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full numbers")
    parser.add_argument("--no-card", action="store_true", help="print only")
    arguments = parser.parse_args()
    results = evaluate(arguments.folder, arguments.scale)
    print(results)
    if not arguments.no_card:
        write_results(arguments.folder / "README.md", results)


if __name__ == "__main__":
    main()

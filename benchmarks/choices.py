"""Answers among choices beside free ones: `python -m benchmarks.choices [-n 200]`; fresh renders, built-in model."""

from __future__ import annotations

import argparse

import mmgen
from mmgen import tasks
from mmgen.request import Done, Loading
from tools.demo.judge import fresh_renders
from tools.demo.scene import COLOURS, SUBJECTS


def main() -> None:
    """Ask about the colour and the subject of renders, and count what is right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=200, help="renders")
    n = parser.parse_args().n
    model = mmgen.load("demo", Loading(dtype="float32"))
    scenes, images = fresh_renders(n, seed=15)
    for question, field, choices in (
        ("what color is it?", "colour", COLOURS),
        ("what is it?", "subject", SUBJECTS),
    ):
        free = [mmgen.ask(model, question, [image]) for image in images]
        n_free = sum(getattr(scene, field) in said.lower() for scene, said in zip(scenes, free, strict=True))
        article = "" if field == "colour" else "a "
        for written in (choices, tuple(f"{article}{each}" for each in choices)):
            said, sums = [""] * n, [0.0] * n
            requests = [tasks.ask(question, [image], choices=written) for image in images]
            for index, piece in model.replies(requests):
                if isinstance(piece, str):
                    said[index] = piece
                elif isinstance(piece, Done):
                    sums[index] = sum(piece.chances)
            right = sum(getattr(scene, field) in each.lower() for scene, each in zip(scenes, said, strict=True))
            others = sum(each not in written for each in said)
            worst = max(abs(each - 1) for each in sums)
            among = f"among {len(written)} such as {written[0]!r}: {right / n:6.1%}, {others} others"
            print(f"{question:18} free {n_free / n:6.1%}   {among}, sums of probabilities off by {worst:.0e} at most")


if __name__ == "__main__":
    main()

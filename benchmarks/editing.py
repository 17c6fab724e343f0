"""Editing through codes, with the built-in model: `python -m benchmarks.editing [PART …]`; without a part, all of them.

back      words that change nothing give the source back: renders, and pictures of its own
exact     strength 1 is a sample of the new words: 500 pictures of other words, coupled, beside 500 that were drawn
colours   200 changed colours at five strengths: right, codes kept, distance; beside drawing afresh, and `vary` by words
places    the same of 200 places
passes    how many passes the source's codes save as guesses, at window 16, strength 0.3
holes     200 pictures with a hole of 4 x 4 codes: how many are right, and whether eight drafts fit better than one
best      the best of eight on held-out scenes beside all eight
entropy   a temperature that goes by the entropy (arXiv 2510.09012) beside a fixed one

What a picture shows is said by the judge of tools/demo, which shares nothing with the model.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from statistics import mean
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

import mmgen
from benchmarks.codes import pictures
from benchmarks.windows import PROMPTS, as_counts, as_pixels, energy_test
from mmgen import tasks
from mmgen.codes import note_of
from mmgen.decoding import jacobi, sampling
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.families.judging import judge as judged_by
from mmgen.request import Edit, ImageSampling, Loading, Picture
from tools.demo.judge import fresh_renders, load_judge, see
from tools.demo.scene import COLOURS, HELD_OUT, PLACES, TRAINED, Scene

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SAMPLING = ImageSampling()
JUDGE = load_judge()


def words(scene: Scene) -> str:
    return scene.caption[0].lower() + scene.caption[1:-1]


def noted(picture: Picture, prompt: str, image: ImageSampling = SAMPLING) -> Image.Image:
    """A picture as it would come from its file."""
    opened = picture.image.copy()
    said = {"command": "draw", "prompt": prompt, "sampling": {"image": asdict(image)}}
    opened.info["mmgen"] = json.dumps({**(note_of(opened.info) or {}), **said})
    return opened


def drawn(
    model: AutoregressiveModel, prompts: Sequence[str], seed: int, image: ImageSampling = SAMPLING
) -> list[Picture]:
    return pictures(model, [tasks.draw(prompt, seed=seed + i, image=image) for i, prompt in enumerate(prompts)])


def share_right(images: Sequence[Image.Image], scenes: Sequence[Scene]) -> float:
    return mean(a == b for a, b in zip(see(JUDGE, images), scenes, strict=True))


def distance(one: Image.Image, two: Image.Image) -> float:
    """Mean difference of pixels, of 255."""
    return float(np.abs(np.asarray(one.convert("RGB"), float) - np.asarray(two.convert("RGB"), float)).mean())


def share_kept(found: Sequence[Picture], sources: Sequence[Picture]) -> float:
    pairs = zip(found, sources, strict=True)
    return mean(a == b for one, two in pairs for a, b in zip(one.codes or (), two.codes or (), strict=True))


def back(model: AutoregressiveModel, n: int) -> None:
    scenes, renders = fresh_renders(n, seed=41)
    captions = [scene.caption for scene in scenes]
    own = drawn(model, [words(scene) for scene in scenes], 0)
    ids = [model.prompts([tasks.ask("a", [render])])[0].images[0][1:-1] for render in renders]
    code_of = {id_: code for code, id_ in enumerate(model.prompter.vocabulary.code_ids)}
    cases = (
        ("renders", renders, captions, [tuple(code_of[id_] for id_ in each) for each in ids]),
        (
            "own pictures",
            [noted(picture, words(scene)) for picture, scene in zip(own, scenes, strict=True)],
            [words(scene) for scene in scenes],
            [picture.codes for picture in own],
        ),
    )
    for name, images, prompts, codes in cases:
        for strength in (1.0, 0.0):
            requests = [
                tasks.vary(image, prompt, seed=i, edit=Edit(strength, prompt))
                for i, (image, prompt) in enumerate(zip(images, prompts, strict=True))
            ]
            same = sum(a.codes == b for a, b in zip(pictures(model, requests), codes, strict=True))
            print(
                f"back: {name}, strength {strength:g}, the same words: {same} of {n} the source, code for code",
                flush=True,
            )


def exact(model: AutoregressiveModel, n: int) -> None:
    old = [PROMPTS[(i + 5) % len(PROMPTS)] for i in range(n)]
    new = [PROMPTS[i % len(PROMPTS)] for i in range(n)]
    image = ImageSampling(temperature=1.0)
    sources = drawn(model, old, 0, image)
    requests = [
        tasks.vary(noted(source, prompt, image), to, seed=20_000 + i, image=image, edit=Edit(1.0, prompt))
        for i, (source, prompt, to) in enumerate(zip(sources, old, new, strict=True))
    ]
    base = drawn(model, new, 50_000, image)
    others = {
        "coupled": pictures(model, requests),
        "drawn, temperature 0.7": drawn(model, new, 90_000, replace(image, temperature=0.7)),
    }
    for name, found in others.items():
        p_values = {
            kind: energy_test([view(each) for each in base], [view(each) for each in found])
            for kind, view in (("pixels", as_pixels), ("codes", as_counts))
        }
        told = ", ".join(f"{kind} p = {p:.3f}" for kind, p in p_values.items())
        print(f"exact: {n} {name} beside {n} drawn: {told}; kept {share_kept(found, sources):.3f}", flush=True)


def changes(n: int, what: str) -> list[tuple[Scene, Scene]]:
    """Scenes, and what they are to become: another colour, or another place."""
    rng = random.Random(7)
    found = []
    for scene in rng.sample(sorted(TRAINED, key=str), n):
        if what == "colours":
            others = [replace(scene, colour=colour) for colour in COLOURS if colour != scene.colour]
        else:
            others = [replace(scene, place=place) for place in PLACES if place != scene.place]
        found.append((scene, rng.choice([other for other in others if other not in HELD_OUT])))
    return found


def dial(model: AutoregressiveModel, n: int, what: str) -> None:
    pairs = changes(n, what)
    old, new = [words(a) for a, _ in pairs], [words(b) for _, b in pairs]
    wanted, sources = [b for _, b in pairs], drawn(model, old, 0)

    def tell(name: str, found: Sequence[Picture]) -> None:
        far = mean(distance(a.image, b.image) for a, b in zip(found, sources, strict=True))
        right = share_right([picture.image for picture in found], wanted)
        kept, passes = share_kept(found, sources), mean(picture.passes or 0 for picture in found)
        print(
            f"{what}: {name:14} right {right:6.1%}  kept {kept:.3f}  distance {far:5.1f}  passes {passes:.0f}",
            flush=True,
        )

    tell("afresh", drawn(model, new, 10_000))
    for strength in STRENGTHS:
        requests = [
            tasks.vary(noted(source, a), b, seed=i, edit=Edit(strength))
            for i, (source, a, b) in enumerate(zip(sources, old, new, strict=True))
        ]
        tell(f"strength {strength:g}", pictures(model, requests))
    said = [f"make it {b.colour}" if what == "colours" else f"put it {b.place}" for b in wanted]
    requests = [
        tasks.vary(noted(source, a), words, seed=i)
        for i, (source, a, words) in enumerate(zip(sources, old, said, strict=True))
    ]
    tell("vary by words", pictures(model, requests))


def passes(n: int) -> None:
    model = load(window=16)
    for what in ("colours", "places"):
        pairs = changes(n, what)
        sources = drawn(model, [words(a) for a, _ in pairs], 0)
        requests = [
            tasks.vary(noted(source, words(a)), words(b), seed=i, edit=Edit(0.3))
            for i, (source, (a, b)) in enumerate(zip(sources, pairs, strict=True))
        ]
        settle = jacobi._Draft.settle

        def forgetting(
            draft: jacobi._Draft, chosen: Sequence[int], settle: Callable[..., list[int]] = settle
        ) -> list[int]:
            """Settle codes, and forget those of the source, and of earlier attempts, after what was looked at."""
            draft.later.clear()
            first, before = draft.n == 0, draft.n
            settled = settle(draft, chosen)
            del draft.codes[draft.n if first else max(draft.n, before + len(chosen)) :]
            return settled

        with_them = pictures(model, requests)
        with patch.object(jacobi._Draft, "settle", forgetting):
            without = pictures(model, requests)
        assert [a.codes for a in with_them] == [b.codes for b in without]
        one, two = (mean(picture.passes or 0 for picture in found) for found in (with_them, without))
        print(
            f"passes: {what}, strength 0.3, window 16: {one:.1f} with the source as guesses, {two:.1f} without: "
            f"{one / two:.2f}"
        )


def holes(model: AutoregressiveModel, n: int) -> None:
    scenes = random.Random(7).sample(sorted(TRAINED, key=str), n)
    prompts = [words(scene) for scene in scenes]
    sources = drawn(model, prompts, 0)
    mask = Image.new("L", (12, 12))
    mask.paste(255, (4, 4, 8, 8))
    outside = [place for place in range(144) if not (4 <= place // 12 < 8 and 4 <= place % 12 < 8)]
    apart = {}
    for drafts in (1, 8):
        requests = [
            tasks.vary(noted(source, prompt), seed=i, edit=Edit(drafts=drafts), mask=mask)
            for i, (source, prompt) in enumerate(zip(sources, prompts, strict=True))
        ]
        found = pictures(model, requests)
        same = sum(
            all((a.codes or ())[place] == (b.codes or ())[place] for place in outside)
            for a, b in zip(found, sources, strict=True)
        )
        apart[drafts] = np.array([distance(a.image, b.image) for a, b in zip(found, sources, strict=True)])
        right = share_right([picture.image for picture in found], scenes)
        print(
            f"holes: {drafts} draft(s): codes outside equal in {same} of {n}, right {right:.1%}, distance to what was "
            f"there {apart[drafts].mean():.2f}",
            flush=True,
        )
    less = apart[1] - apart[8]
    flips = np.random.default_rng(0).choice([-1, 1], (9999, n))
    p = (1 + ((flips * less).mean(1) >= less.mean()).sum()) / 10_000
    print(
        f"holes: eight drafts are nearer in {(less > 0).mean():.0%}, as near in {(less == 0).mean():.0%}: p = {p:.4f}"
    )


def best(model: AutoregressiveModel, n: int) -> None:
    scenes = [scene for _ in range(max(1, n // 40)) for scene in sorted(HELD_OUT, key=str)]
    for image in (SAMPLING, replace(SAMPLING, guidance=1.0)):
        all_right, best_right, likelier = [], [], []
        for number, scene in enumerate(scenes):
            found = drawn(model, [words(scene)] * 8, 1000 * number, image)
            request = tasks.draw(words(scene), image=image, seed=0)
            scores = [judged_by(model, request, picture) for picture in found]
            right = [seen == scene for seen in see(JUDGE, [picture.image for picture in found])]
            all_right += right
            best_right.append(right[scores.index(max(scores))])
            likelier += [a > b for a, is_right in zip(scores, right, strict=True) if is_right
                         for b, other in zip(scores, right, strict=True) if not other]  # fmt: skip
        print(
            f"best: guidance {image.guidance:g}: of 8 unjudged {mean(all_right):.1%} right, the best of 8 "
            f"{mean(best_right):.1%} of {len(scenes)}; a right one was judged above a wrong in {mean(likelier):.1%} "
            f"of {len(likelier)} pairs",
            flush=True,
        )


def entropy(model: AutoregressiveModel, n: int) -> None:
    """Draw with T = T0 (2.5 exp(-H / 3) + 0.6), H in nats of the guided distribution."""
    plain = sampling.log_probabilities

    def guided(logits: torch.Tensor, given: ImageSampling) -> torch.Tensor:
        log_p = logits.float().log_softmax(-1)
        bits = -(log_p.exp() * log_p).nan_to_num().sum(-1, keepdim=True)
        return plain(logits.float() / (2.5 * torch.exp(-bits / 3) + 0.6), given)

    scenes = random.Random(11).choices(sorted(HELD_OUT, key=str), k=n)
    prompts = [words(scene) for scene in scenes]
    for guidance in (3.0, 1.0):
        for temperature in (0.5, 0.7, 1.0):
            image = replace(SAMPLING, guidance=guidance, temperature=temperature)
            fixed = share_right([picture.image for picture in drawn(model, prompts, 0, image)], scenes)
            with patch.object(sampling, "log_probabilities", guided), patch.object(jacobi, "log_probabilities", guided):
                by_entropy = share_right([picture.image for picture in drawn(model, prompts, 0, image)], scenes)
            print(
                f"entropy: guidance {guidance:g}, T {temperature:g}: right {fixed:.1%} fixed, {by_entropy:.1%} "
                f"by entropy, of {n}",
                flush=True,
            )


def load(window: int | None = None) -> AutoregressiveModel:
    model = mmgen.load("demo", loading=Loading(dtype="float32", window=window))
    assert isinstance(model, AutoregressiveModel)
    return model


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("back", "exact", "colours", "places", "passes", "holes", "best", "entropy")
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("-n", type=int, default=0, help="pictures, where not as many as above")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts).difference(names):
        parser.error(f"no part {sorted(unknown)[0]}")
    n, model = arguments.n, load()
    ways: dict[str, Callable[[], None]] = {
        "back": lambda: back(model, n or 100),
        "exact": lambda: exact(model, n or 500),
        "colours": lambda: dial(model, n or 200, "colours"),
        "places": lambda: dial(model, n or 200, "places"),
        "passes": lambda: passes(n or 100),
        "holes": lambda: holes(model, n or 200),
        "best": lambda: best(model, n or 80),
        "entropy": lambda: entropy(model, n or 200),
    }
    for name in arguments.parts or names:
        ways[name]()


if __name__ == "__main__":
    main()

"""Stored codes beside the encoder's: how many it gets wrong of drawn pictures, and what captions and variations gain.

    python -m benchmarks.codes [-n 200]

Pictures of scenes are drawn by the built-in model and saved as PNG and as JPEG. What a picture shows is said by the
judge of tools/demo, which shares nothing with the model.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from mmgen import tasks
from mmgen.checkpoints import catalog
from mmgen.families import open_model
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.inputs.images import open_image
from mmgen.outputs.pictures import encode
from mmgen.outputs.records import Record
from mmgen.request import Loading, Picture, Request
from tools.demo.judge import load_judge, see
from tools.demo.scene import COLOURS, TRAINED


def main() -> None:
    """Draw, look and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=200, help="pictures")
    n = parser.parse_args().n
    models = {}
    for way, encodes in (("stored", False), ("encoder", True)):
        model = open_model(catalog.find("demo"), Loading(dtype="float32", encode=encodes))
        assert isinstance(model, AutoregressiveModel)
        models[way] = model
    model, judge = models["stored"], load_judge()
    scenes = random.Random(7).sample(sorted(TRAINED, key=str), n)
    prompts = [f"a {scene.colour} {scene.subject} {scene.place}" for scene in scenes]
    drawn = pictures(model, [tasks.draw(prompt, seed=seed) for seed, prompt in enumerate(prompts)])
    shown = see(judge, [picture.image for picture in drawn])
    others = [next(colour for colour in COLOURS if colour != scene.colour) for scene in shown]
    print(f"{n} pictures of {len(drawn[0].codes or ())} codes")
    with tempfile.TemporaryDirectory() as folder:
        for ending in ("png", "jpg"):
            opened = []
            for index, picture in enumerate(drawn):
                path = Path(folder) / f"{index}.{ending}"
                record: Record = {
                    "command": "draw",
                    "model": {"name": "demo", "revision": None},
                    "prompt": prompts[index],
                    "sampling": {"image": {"guidance": 3.0, "negative_prompt": None}},
                }
                path.write_bytes(encode(picture, path, record))
                opened.append(open_image(path))
            for way, each in models.items():
                ids = [each.prompts([tasks.ask("a", [image])])[0].images[0] for image in opened]
                code_ids = each.prompter.vocabulary.code_ids
                pairs = [
                    (id_, code_ids[code])
                    for found, picture in zip(ids, drawn, strict=True)
                    for id_, code in zip(found[1:-1], picture.codes or (), strict=True)
                ]
                wrong = sum(a != b for a, b in pairs) / len(pairs)
                captions = words(each, [tasks.caption(image) for image in opened])
                colours = words(each, [tasks.ask("what color is it?", [image]) for image in opened])
                varied = pictures(
                    each,
                    [
                        tasks.vary(image, f"make it {colour}", seed=index)
                        for index, (image, colour) in enumerate(zip(opened, others, strict=True))
                    ],
                )
                seen = see(judge, [picture.image for picture in varied])
                right = [
                    sum(text == scene.caption for text, scene in zip(captions, shown, strict=True)),
                    sum(scene.colour in text.lower() for text, scene in zip(colours, shown, strict=True)),
                    sum(
                        (to.subject, to.place, to.colour) == (scene.subject, scene.place, colour)
                        for to, scene, colour in zip(seen, shown, others, strict=True)
                    ),
                ]
                print(
                    f"{ending} {way:8} codes wrong {wrong:6.1%}   right: captions {right[0] / n:6.1%}, "
                    f"colours asked {right[1] / n:6.1%}, variations {right[2] / n:6.1%}",
                    flush=True,
                )


def words(model: AutoregressiveModel, requests: list[Request]) -> list[str]:
    """Give the answers to requests, in order."""
    texts = [""] * len(requests)
    for index, piece in model.replies(requests):
        if isinstance(piece, str):
            texts[index] += piece
    return [text.strip() for text in texts]


def pictures(model: AutoregressiveModel, requests: list[Request]) -> list[Picture]:
    """Give the pictures of requests, in order."""
    found = {index: piece for index, piece in model.replies(requests) if isinstance(piece, Picture)}
    return [found[index] for index in range(len(requests))]


if __name__ == "__main__":
    main()

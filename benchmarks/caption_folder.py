"""Captions of a folder: mmgen's batch beside a plain loop and beside transformers' own batching, in one run.

`python -m benchmarks.caption_folder [--pictures 200] [--model demo] [--repeat 3]`. All load the checkpoint first; what
is timed begins with the paths and ends with the captions. Greedy, the same prompt, the same number of threads. The best
of the repeats counts, and they take turns, so that a noisy machine is unjust to none.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from transformers import ChameleonForConditionalGeneration, ChameleonProcessor, pipeline

import mmgen
from mmgen import tasks
from mmgen.checkpoints import catalog
from mmgen.jobs import Job
from mmgen.limits import Limits
from mmgen.model import Model
from mmgen.outputs.journal import Journal
from mmgen.outputs.records import Item, Origin
from mmgen.outputs.terminal import Notes
from mmgen.outputs.writers import Lines
from mmgen.request import WORDS, Request
from tools.demo.render import render
from tools.demo.scene import ALL_SCENES

MAX_TOKENS = 32
Captions = dict[str, str]


def by_batch(model: Model, paths: Sequence[Path]) -> Captions:
    """As `mmgen caption FOLDER --jsonl FILE` does it, journal and all."""
    shape = Request(parts=(), want=WORDS, text=mmgen.TextSampling(max_tokens=MAX_TOKENS), seed=1)
    items = [Item(shape, tasks.CAPTION, image=str(path), sources=(str(path),)) for path in paths]
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "captions.jsonl") as journal:
        origin, notes = Origin("caption", model.name, None), Notes(quiet=True)
        Job(origin, Lines(shown=False), notes, lambda requests: model, Limits(), journal).run(items)
        return {record["image"]: record["text"] for record in journal.records()}


def by_loop(model: Model, paths: Sequence[Path]) -> Captions:
    """One picture after the other through mmgen's Python interface."""
    text = mmgen.TextSampling(max_tokens=MAX_TOKENS)
    return {str(path): mmgen.caption(model, path, text=text) for path in paths}


class Stock:
    """transformers as its documentation uses it."""

    def __init__(self, folder: Path) -> None:
        self.processor = ChameleonProcessor.from_pretrained(folder)
        self.processor.tokenizer.padding_side = "left"
        self.model = ChameleonForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.model.generation_config.pad_token_id = self.processor.tokenizer.pad_token_id

    def pipeline(self, paths: Sequence[Path], size: int) -> Captions:
        """Let transformers' own pipeline make the batches."""
        pipe = pipeline("image-text-to-text", model=self.model, processor=self.processor)
        images = [[Image.open(path).convert("RGB")] for path in paths]
        texts = ["<image>" + tasks.CAPTION] * len(paths)
        out = pipe(
            images=images, text=texts, batch_size=size, max_new_tokens=MAX_TOKENS, return_full_text=False,
            generate_kwargs={"do_sample": False},
        )  # fmt: skip
        said = [each[0] if isinstance(each, list) else each for each in out]
        return {str(path): each["generated_text"].strip() for path, each in zip(paths, said, strict=True)}

    @torch.inference_mode()
    def caption(self, paths: Sequence[Path], size: int) -> Captions:
        """Answer in batches of a size, decoding all in step until the last is done."""
        found = {}
        for start in range(0, len(paths), size):
            group = paths[start : start + size]
            images = [Image.open(path).convert("RGB") for path in group]
            inputs = self.processor(
                images=[[image] for image in images],
                text=["<image>" + tasks.CAPTION] * len(group),
                return_tensors="pt",
                padding=True,
            )
            out = self.model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
            said = self.processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            found |= {str(path): text.strip() for path, text in zip(group, said, strict=True)}
        return found


def main() -> None:
    """Time all and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    folder = catalog.find(arguments.model).folder
    with tempfile.TemporaryDirectory() as name:
        paths = []
        for i in range(arguments.pictures):
            paths.append(Path(name) / f"{i}.png")
            render(ALL_SCENES[i % len(ALL_SCENES)], 4_000_000_000 + i)[0].save(paths[-1])
        model, stock = mmgen.load(arguments.model), Stock(folder)
        ways: dict[str, Callable[[], Captions]] = {
            "mmgen, a batch": lambda: by_batch(model, paths),
            "mmgen, one at a time": lambda: by_loop(model, paths),
            "transformers, one at a time": lambda: stock.caption(paths, 1),
            "transformers, batches of 8": lambda: stock.caption(paths, 8),
            "transformers, batches of 16": lambda: stock.caption(paths, 16),
            "transformers, its pipeline, 16": lambda: stock.pipeline(paths, 16),
        }
        seconds: dict[str, float] = {}
        said: dict[str, Captions] = {}
        for _ in range(arguments.repeat):
            for way, run in ways.items():
                started = time.perf_counter()
                said[way] = run()
                seconds[way] = min(seconds.get(way, float("inf")), time.perf_counter() - started)
    first = next(iter(ways))
    where = f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}"
    print(f"{arguments.pictures} pictures, {where}")
    for way, spent in seconds.items():
        same = sum(said[way][path] == said[first][path] for path in said[first])
        rate, ratio = len(paths) / spent, spent / seconds[first]
        print(f"{way:<32} {rate:6.1f} a second  {ratio:5.2f}x the time  {same} captions the same")
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()

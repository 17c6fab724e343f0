"""Answers of a chat model about a folder: mmgen's batch beside transformers' own batch of the same size, in one run.

`python -m benchmarks.chat_folder [--size tiny|290m] [--pictures 64] [--repeat 5]`. A random checkpoint in the shape of
Idefics2, in float32: what it says means nothing, and every step costs what it would. Greedy, so many tokens each; the
median of the ratios of rounds that take turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from PIL import Image
from transformers import Idefics2ForConditionalGeneration, Idefics2Processor

import mmgen
from mmgen import tasks
from mmgen.text import clean
from tests.support.chat_checkpoints import make_idefics2
from tools.demo.render import render
from tools.demo.scene import ALL_SCENES

from .caption_folder import MAX_TOKENS, by_batch

BATCH = 16


def make(size: str, folder: Path) -> Path:
    """Write a checkpoint; `290m` has 24 layers of width 1,024."""
    make_idefics2(folder)
    if size == "tiny":
        return folder
    config = Idefics2ForConditionalGeneration.config_class.from_pretrained(folder)
    for name, value in {
        "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 64,
    }.items():  # fmt: skip
        setattr(config.text_config, name, value)
    config.perceiver_config.hidden_size = 1024
    torch.manual_seed(0)
    Idefics2ForConditionalGeneration(config).save_pretrained(folder)
    return folder


class Stock:
    """transformers as its documentation uses it."""

    def __init__(self, folder: Path) -> None:
        self.processor = Idefics2Processor.from_pretrained(folder)
        self.processor.tokenizer.padding_side = "left"
        self.model = Idefics2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def answer(self, paths: Sequence[Path]) -> dict[str, str]:
        """Answer in batches."""
        found = {}
        asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": tasks.CAPTION}]}]
        text = self.processor.apply_chat_template(asked, add_generation_prompt=True)
        for start in range(0, len(paths), BATCH):
            group = paths[start : start + BATCH]
            images = [[Image.open(path).convert("RGB")] for path in group]
            inputs = self.processor(images=images, text=[text] * len(group), return_tensors="pt", padding=True)
            out = self.model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
            said = self.processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            found |= {str(path): clean(answer).strip() for path, answer in zip(group, said, strict=True)}
        return found


def main() -> None:
    """Time both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("tiny", "290m"), default="tiny")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = make(asked.size, Path(name) / "model")
        paths = []
        for number in range(asked.pictures):
            paths.append(Path(name) / f"{number}.png")
            render(ALL_SCENES[number % len(ALL_SCENES)], 4_000_000_000 + number)[0].save(paths[-1])
        model, stock = mmgen.load(str(folder)), Stock(folder)
        ratios = []
        for round_ in range(asked.repeat + 1):
            started = time.perf_counter()
            own = by_batch(model, paths)
            between = time.perf_counter()
            other = stock.answer(paths)
            ended = time.perf_counter()
            if round_:
                ratios.append((ended - between) / (between - started))
        same = sum(own[path] == other[path] for path in own)
    print(f"{asked.size}: plain batches of {BATCH} take {statistics.median(ratios):.2f} times mmgen's time", end="")
    print(f" ({min(ratios):.2f} to {max(ratios):.2f}); {same} of {len(own)} answers the same", flush=True)


if __name__ == "__main__":
    main()

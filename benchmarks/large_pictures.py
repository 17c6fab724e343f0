"""Sixteen photos of twelve megapixels through a tiny Qwen2.5-VL with the real one's pixels: memory, foretold and taken.

python -m benchmarks.large_pictures [N]

Prints how many are answered at once, what the fit says that they take, and by how much the peak of the process (VmHWM)
rises above what it was after the imports.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

import mmgen
from mmgen import tasks
from mmgen.checkpoints import fit
from mmgen.request import Done, TextSampling
from tests.support.many_types import build, row

SIZE = (4000, 3000)
REAL = {"shortest_edge": 56 * 56, "longest_edge": 12_845_056}  # pixels, of Qwen2.5-VL-7B's preprocessor_config.json


def photo(seed: int) -> Image.Image:
    """Draw blocks of colour, a photo's size."""
    blocks = torch.randint(0, 256, (30, 40, 3), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return Image.fromarray(blocks.numpy()).resize(SIZE, Image.Resampling.NEAREST)


def peak_bytes() -> int:
    """Read the most memory that this process has had (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main(n: int = 16) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder:
        build("qwen2_5_vl", Path(folder))
        processor, config = Path(folder, "processor_config.json"), Path(folder, "config.json")
        about = row("qwen2_5_vl")["processor"]
        about["image_processor"] |= {"size": REAL, "min_pixels": None, "max_pixels": None}
        processor.write_text(json.dumps(about))
        told = json.loads(config.read_text())
        told["text_config"]["max_position_embeddings"] = 32_768
        config.write_text(json.dumps(told))
        model = mmgen.load(folder, mmgen.Loading(dtype="float32", device_map="cpu"))
        requests = [tasks.caption(photo(0), text=TextSampling(max_tokens=4), seed=0)]
        n_tokens, n_bytes = model.prompter.measure(requests[0])
        print(f"a photo: {n_tokens} tokens, {n_bytes / 1e6:.0f} MB as the processor prepares it")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = peak_bytes()
        requests += [tasks.caption(photo(seed), text=TextSampling(max_tokens=4), seed=0) for seed in range(1, n)]
        n_rows = model.count_fitting(requests)
        takes = model.memory(requests[:n_rows])
        foretold = takes.decoding + takes.tokens * fit.cache_per_token(model.checkpoint, "float32")
        opened = n * 3 * SIZE[0] * SIZE[1]
        endings = [piece for _, piece in model.replies(requests) if isinstance(piece, Done)]
        taken = peak_bytes() - before
        print(f"{len(endings)} answered, {n_rows} at once")
        print(f"foretold {foretold / 1e6:.0f} MB and the photos {opened / 1e6:.0f} MB, taken {taken / 1e6:.0f} MB")
        print(f"taken / foretold: {taken / (foretold + opened):.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

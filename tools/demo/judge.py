"""The judge: a small network of its own that says which subject, colour and place a picture shows.

Trained on renders alone, blurred, noised and shifted; shares nothing with the model it judges.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .dataset import Pictures
from .render import render
from .scene import ALL_SCENES, COLOURS, PLACES, SUBJECTS, Scene

WEIGHTS = Path(__file__).with_name("judge.safetensors")
SIZES = (len(SUBJECTS), len(COLOURS), len(PLACES))


@dataclass(frozen=True)
class JudgeTraining:
    """How the judge is trained."""

    n_steps: int = 2500
    batch: int = 48
    rate: float = 3e-3
    seed: int = 3


class Judge(nn.Module):
    """Pixels [B, 3, 96, 96] in [0, 1] -> logits [B, 10 + 8 + 5]."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 48, 64, 64)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 5 if a == 3 else 3, stride=2, padding=2 if a == 3 else 1) for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.head = nn.Linear(2 * widths[-1], sum(SIZES))

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels * 2 - 1
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.relu(norm(layer(x)))
        logits: Tensor = self.head(torch.cat([x.amax((2, 3)), x.mean((2, 3))], dim=1))
        return logits


def targets(scenes: np.ndarray) -> Tensor:
    """Scene numbers [B] -> [B, 3] indices of subject, colour and place."""
    found = [ALL_SCENES[i] for i in scenes.tolist()]
    return torch.tensor([(SUBJECTS.index(s.subject), COLOURS.index(s.colour), PLACES.index(s.place)) for s in found])


def roughen(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, shift and add noise; pixels [B, 3, H, W] in [0, 1]."""

    def chance() -> float:
        return float(torch.rand((), generator=generator))

    if chance() < 0.5:
        factor = 1.4 + 1.6 * chance()
        small = F.interpolate(pixels, scale_factor=1 / factor, mode="bilinear", antialias=True)
        pixels = F.interpolate(small, pixels.shape[2:], mode="bilinear")
    dx, dy = torch.randint(-6, 7, (2,), generator=generator).tolist()
    height, width = pixels.shape[2:]
    pixels = F.pad(pixels, (6, 6, 6, 6), mode="replicate")[:, :, 6 + dy :, 6 + dx :][:, :, :height, :width]
    noise = torch.randn(pixels.shape, generator=generator) * 0.06 * chance()
    coarse = F.interpolate(torch.randn(len(pixels), 3, 12, 12, generator=generator), pixels.shape[2:]) * 0.05 * chance()
    return (pixels + noise + coarse).clamp(0, 1)


def train_judge(pictures: Pictures, options: JudgeTraining) -> Judge:
    """Train a judge; about two minutes on two cores."""
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    judge = Judge().train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=options.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, options.n_steps)
    for step in range(options.n_steps):
        indices = torch.randint(len(pictures.scenes), (options.batch,), generator=generator).sort().values.numpy()
        pixels = torch.from_numpy(pictures.pixels[indices]).permute(0, 3, 1, 2).float() / 255
        logits = judge(roughen(pixels, generator)).split(SIZES, dim=1)
        wanted = targets(pictures.scenes[indices])
        loss = sum((F.cross_entropy(one, wanted[:, i]) for i, one in enumerate(logits)), torch.zeros(()))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 250 == 0:
            print(f"judge {step + 1} loss {loss.item():.4f}", flush=True)
    return judge.eval()


def save_judge(judge: Judge, path: Path = WEIGHTS) -> None:
    """Write the weights in float16."""
    state = judge.state_dict()
    save_file({name: t.half().contiguous() if t.is_floating_point() else t for name, t in state.items()}, path)


def load_judge(path: Path = WEIGHTS) -> Judge:
    """Read the weights; compute in float32."""
    judge = Judge()
    judge.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in load_file(path).items()})
    return judge.eval()


@torch.inference_mode()
def see(judge: Judge, images: Sequence[Image.Image]) -> list[Scene]:
    """Say what pictures show."""
    if not images:
        return []
    pixels = torch.stack([torch.from_numpy(np.array(image.convert("RGB").resize((96, 96)))) for image in images])
    logits = torch.cat([judge(part.permute(0, 3, 1, 2).float() / 255) for part in pixels.split(100)])
    chosen = torch.stack([part.argmax(1) for part in logits.split(SIZES, dim=1)], dim=1).tolist()
    return [Scene(SUBJECTS[s], COLOURS[c], PLACES[p]) for s, c, p in chosen]


def fresh_renders(n: int, seed: int) -> tuple[list[Scene], list[Image.Image]]:
    """Render n random scenes, of all 400, with seeds that training never uses."""
    rng = random.Random(seed)
    scenes = [rng.choice(ALL_SCENES) for _ in range(n)]
    return scenes, [render(scene, 1_000_000_000 + seed * 100_000 + i)[0] for i, scene in enumerate(scenes)]


def judge_accuracy(judge: Judge, n: int = 2000) -> tuple[float, float, float]:
    """Share of fresh renders whose subject, colour and place the judge names right."""
    scenes, images = fresh_renders(n, seed=77)
    seen = see(judge, images)
    pairs = list(zip(scenes, seen, strict=True))
    return (sum(a.subject == b.subject for a, b in pairs) / n, sum(a.colour == b.colour for a, b in pairs) / n,
            sum(a.place == b.place for a, b in pairs) / n)  # fmt: skip

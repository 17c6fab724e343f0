"""Render the training pictures once, in parallel, to memory-mapped arrays. Held-out scenes never enter."""

import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .render import SIZE, render
from .scene import ALL_SCENES, NATURAL, TRAINED, Scene

N_PICTURES = 40_000
SHARE_NATURAL = 0.15  # pictures in the subject's natural colour, beyond its even share
CHUNK = 500


@dataclass(frozen=True)
class Pictures:
    """pixels [N, 96, 96, 3] uint8; masks [N, 96, 96] uint8, 255 on the subject; scenes [N] index into ALL_SCENES."""

    pixels: np.ndarray
    masks: np.ndarray
    scenes: np.ndarray


def pick_scene(rng: random.Random) -> Scene:
    """Choose a trained scene, natural colours somewhat more often."""
    while True:
        scene = rng.choice(TRAINED)
        if rng.random() < SHARE_NATURAL:
            scene = Scene(scene.subject, rng.choice(NATURAL[scene.subject]), scene.place)
        if scene in _TRAINED:
            return scene


_TRAINED = frozenset(TRAINED)
_NUMBER = {scene: i for i, scene in enumerate(ALL_SCENES)}


def render_chunk(start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Render CHUNK pictures, seeds from `start` on: pixels, masks and scenes, as in Pictures."""
    pixels = np.empty((CHUNK, SIZE, SIZE, 3), np.uint8)
    masks = np.empty((CHUNK, SIZE, SIZE), np.uint8)
    numbers = np.empty(CHUNK, np.int64)
    for i in range(CHUNK):
        scene = pick_scene(random.Random(start + i))
        image, mask = render(scene, start + i)
        pixels[i], masks[i], numbers[i] = np.asarray(image), np.asarray(mask), _NUMBER[scene]
    return pixels, masks, numbers


def render_dataset(folder: Path, n_pictures: int = N_PICTURES) -> None:
    """Write pixels.npy, masks.npy and scenes.npy; picture i is rendered with seed i."""
    if (folder / "scenes.npy").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2) as pool:
        chunks = list(pool.map(render_chunk, range(0, n_pictures, CHUNK)))
    for name, arrays in zip(("pixels", "masks", "scenes"), zip(*chunks, strict=True), strict=True):
        np.save(folder / f"{name}.npy", np.concatenate(arrays))


def load_dataset(folder: Path) -> Pictures:
    """Open what render_dataset wrote, memory-mapped."""
    return Pictures(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("pixels", "masks", "scenes")))

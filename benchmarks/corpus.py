"""A folder of pictures to try batches on: renders, cut-up photographs, and difficult files among them.

`python -m benchmarks.corpus FOLDER [N]` makes N files (2,000), 60 of them difficult. Photographs are the sample images
of scikit-learn, if that is installed. Seeded.
"""

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tools.demo.render import render
from tools.demo.scene import ALL_SCENES

N_DIFFICULT = 60


def _truncated(path: Path, image: Image.Image) -> None:
    image.save(path, "JPEG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _huge(path: Path, image: Image.Image) -> None:
    Image.new("1", (30_000, 30_000)).save(path, "PNG")


def _turned(path: Path, image: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    image.save(path, "JPEG", exif=exif)


def _deep(path: Path, image: Image.Image) -> None:
    Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257).save(path, "PNG")


def _animated(path: Path, image: Image.Image) -> None:
    image.save(path, "GIF", save_all=True, append_images=[image.rotate(90)])


def _transparent(path: Path, image: Image.Image) -> None:
    rgba = image.convert("RGBA")
    rgba.putalpha(128)
    rgba.save(path, "PNG")


BAD: dict[str, Callable[[Path, Image.Image], object]] = {
    "empty.jpg": lambda path, image: path.write_bytes(b""),
    "truncated.jpg": _truncated,
    "text.png": lambda path, image: path.write_text("no picture"),
    "huge.png": _huge,
    "pipe.png": lambda path, image: os.mkfifo(path),
    "dangling.jpg": lambda path, image: path.symlink_to("nowhere.jpg"),
}
ODD: dict[str, Callable[[Path, Image.Image], object]] = {
    "cmyk.jpg": lambda path, image: image.convert("CMYK").save(path, "JPEG"),
    "deep.png": _deep,
    "animated.gif": _animated,
    "turned.jpg": _turned,
    "transparent.png": _transparent,
    "grey.png": lambda path, image: image.convert("L").save(path, "PNG"),
    "palette.png": lambda path, image: image.convert("P").save(path, "PNG"),
}


def make_corpus(folder: Path, n: int = 2000, seed: int = 1) -> tuple[list[str], list[str]]:
    """Fill a folder; return the names of good and of bad files."""
    folder.mkdir(parents=True)
    rng = random.Random(seed)
    photographs = _photographs()
    good, bad = [], []
    kinds = [*BAD, *ODD]
    for i in range(n):
        if photographs and i % 2:
            image = _cut(rng.choice(photographs), rng)
        else:
            image = render(rng.choice(ALL_SCENES), 3_000_000_000 + i)[0]
        if i < N_DIFFICULT:
            kind = kinds[i % len(kinds)]
            name = f"{i:04d}-{kind}"
            (BAD | ODD)[kind](folder / name, image)
        else:
            kind, name = "", f"{i:04d}.{'jpg' if i % 3 else 'png'}"
            image.save(folder / name)
        (bad if kind in BAD else good).append(name)
    return good, bad


def _photographs() -> list[Image.Image]:
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        return []
    return [Image.fromarray(pixels) for pixels in load_sample_images().images]


def _cut(image: Image.Image, rng: random.Random) -> Image.Image:
    side = rng.randrange(96, 256)
    left, top = rng.randrange(image.width - side), rng.randrange(image.height - side)
    return image.crop((left, top, left + side, top + side))


if __name__ == "__main__":
    made, broken = make_corpus(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
    print(f"{len(made)} good, {len(broken)} bad")

"""Paint the five backgrounds: two or three flat bands and one or two landmarks each. Knows nothing of subjects."""

import random

from PIL import Image, ImageDraw

from .render import OVERSAMPLE, RGB, SIZE, jitter

SIDE = SIZE * OVERSAMPLE  # pixels of the large canvas


def paint_place(place: str, horizon: float, rng: random.Random) -> Image.Image:
    """Return the large empty scene; horizon is the height of the ground's edge, 0 top to 1 bottom."""
    canvas = Image.new("RGB", (SIDE, SIDE))
    draw = ImageDraw.Draw(canvas)

    def band(top: float, bottom: float, colour: RGB) -> None:
        draw.rectangle((0, round(top * SIDE), SIDE, round(bottom * SIDE)), jitter(colour, rng, 3))

    def disc(x: float, y: float, r: float, colour: RGB, squash: float = 1.0) -> None:
        draw.ellipse(((x - r) * SIDE, (y - r * squash) * SIDE, (x + r) * SIDE, (y + r * squash) * SIDE), colour)

    side = rng.choice([0.14, 0.86])  # where the sun or the moon stands
    if place == "in the snow":
        band(0, 1, (178, 208, 234))
        disc(rng.uniform(0.1, 0.9), horizon + 0.16, 0.5, (222, 234, 246), 0.5)
        band(horizon, 1, (240, 245, 251))
        for _ in range(6):
            disc(rng.random(), rng.uniform(0.03, horizon), 0.021, (255, 255, 255))
    elif place == "on the grass":
        band(0, 1, (152, 214, 250))
        x, y = rng.choice([0.2, 0.8]), rng.uniform(0.1, 0.2)
        for dx, r in ((-0.1, 0.05), (0.0, 0.075), (0.1, 0.05)):
            disc(x + dx, y, r, (255, 255, 255))
        band(horizon, 1, (158, 214, 92))
        disc(rng.uniform(0.0, 1.0), horizon + 0.05, 0.45, (158, 214, 92), 0.24)
    elif place == "at night":
        band(0, 1, (24, 28, 78))
        disc(side, 0.15, 0.095, (252, 244, 196))
        disc(side + 0.045, 0.125, 0.08, (24, 28, 78))
        for _ in range(5):
            disc(rng.random(), rng.uniform(0.03, horizon - 0.05), 0.016, (255, 250, 200))
        band(horizon, 1, (46, 60, 92))
    elif place == "on the beach":
        band(0, 1, (124, 206, 248))
        disc(side, 0.13, 0.085, (255, 226, 80))
        band(horizon - 0.14, horizon, (34, 132, 200))
        band(horizon, horizon + 0.03, (232, 246, 252))
        band(horizon + 0.03, 1, (244, 220, 156))
    else:  # at sunset
        band(0, 1, (122, 76, 140))
        band(horizon * 0.36, 1, (226, 104, 104))
        band(horizon * 0.7, 1, (252, 170, 96))
        disc(rng.choice([0.2, 0.8]), horizon, 0.15, (255, 232, 120))
        band(horizon, 1, (94, 60, 84))
    return canvas

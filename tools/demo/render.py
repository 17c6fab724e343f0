"""Draw a scene with Pillow: flat colours, dark outlines, a large subject, antialiased by supersampling.

Deterministic from (scene, seed). Knows nothing of models.
"""

import math
import random

from PIL import Image, ImageDraw

from .scene import Scene

SIZE = 96  # pixels of the finished picture, each way
OVERSAMPLE = 4  # drawn this many times larger, then averaged down

RGB = tuple[int, int, int]
INK: RGB = (38, 32, 44)
PAINT: dict[str, RGB] = {
    "red": (218, 40, 44),
    "orange": (246, 136, 24),
    "yellow": (252, 220, 50),
    "green": (34, 148, 66),
    "blue": (44, 98, 216),
    "purple": (136, 66, 186),
    "pink": (252, 146, 190),
    "white": (250, 250, 250),
}
BROWN: RGB = (130, 84, 50)
CREAM: RGB = (252, 240, 214)


class Pen:
    """Draws in subject units: x and y in [-1, 1], y down, the subject stands on y = 1."""

    def __init__(self, layer: Image.Image, x_px: float, y_px: float, unit_px: float, flip: bool) -> None:
        self.draw = ImageDraw.Draw(layer)
        self.origin, self.unit, self.sign = (x_px, y_px), unit_px, -1 if flip else 1
        self.line_px = max(2, round(1.15 * OVERSAMPLE))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Subject units -> pixels of the large layer."""
        return self.origin[0] + self.sign * x * self.unit, self.origin[1] + y * self.unit

    def oval(self, x: float, y: float, rx: float, ry: float, fill: RGB, outline: bool = True) -> None:
        """Draw an ellipse about (x, y)."""
        px, py = self.at(x, y)
        box = (px - rx * self.unit, py - ry * self.unit, px + rx * self.unit, py + ry * self.unit)
        self.draw.ellipse(box, fill, INK if outline else None, self.line_px if outline else 0)

    def shape(self, points: list[tuple[float, float]], fill: RGB, outline: bool = True) -> None:
        """Draw a closed polygon with rounded joints."""
        path = [self.at(x, y) for x, y in points]
        self.draw.polygon(path, fill)
        if outline:
            self.draw.line([*path, path[0], path[1]], INK, self.line_px, joint="curve")

    def box(self, left: float, top: float, right: float, bottom: float, fill: RGB, outline: bool = True) -> None:
        """Draw an upright rectangle."""
        self.shape([(left, top), (right, top), (right, bottom), (left, bottom)], fill, outline)

    def line(self, points: list[tuple[float, float]], fill: RGB = INK, width: float = 1.0) -> None:
        """Draw an open line; width in outlines."""
        self.draw.line([self.at(x, y) for x, y in points], fill, round(width * self.line_px), joint="curve")

    def eye(self, x: float, y: float, r: float = 0.09) -> None:
        """Draw a dark eye with a glint."""
        self.oval(x, y, r, r * 1.15, INK, outline=False)
        self.oval(x - r * 0.3, y - r * 0.4, r * 0.36, r * 0.36, (255, 255, 255), outline=False)


def arc(x: float, y: float, rx: float, ry: float, start: float, stop: float, n: int = 24) -> list[tuple[float, float]]:
    """Points of an elliptical arc, degrees, 0 to the right and 90 down."""
    steps = (math.radians(start + (stop - start) * i / n) for i in range(n + 1))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in steps]


def blend(a: RGB, b: RGB, share: float) -> RGB:
    """Mix two colours; share 1 gives b."""
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


def jitter(colour: RGB, rng: random.Random, by: int = 5) -> RGB:
    """Shift a colour slightly."""
    red, green, blue = (min(255, max(0, c + rng.randint(-by, by))) for c in colour)
    return red, green, blue


# --- subjects: each fills about x in [-0.9, 0.9] and y in [-1, 1] ---------------------------------------------------


def snowman(pen: Pen, paint: RGB, rng: random.Random) -> None:
    for side in (-1, 1):
        pen.line([(side * 0.3, 0.02), (side * 0.85, -0.26 + 0.1 * rng.random())], BROWN, 1.7)
    pen.oval(0, 0.56, 0.56, 0.46, paint)
    pen.oval(0, 0.0, 0.42, 0.36, paint)
    pen.oval(0, -0.47, 0.33, 0.31, paint)
    hat: RGB = rng.choice([(48, 46, 58), (84, 50, 40)])
    pen.box(-0.24, -1.0, 0.24, -0.68, hat)
    pen.box(-0.4, -0.74, 0.4, -0.64, hat)
    for side in (-1, 1):
        pen.eye(side * 0.13, -0.52, 0.065)
    pen.shape([(0.0, -0.46), (0.0, -0.34), (0.36, -0.38)], (250, 120, 20))
    for y in (-0.02, 0.14) if rng.random() < 0.5 else (-0.05, 0.09, 0.42):
        pen.oval(0, y, 0.055, 0.055, INK, outline=False)


def cat(pen: Pen, paint: RGB, rng: random.Random) -> None:
    tail = [(0.35, 0.82), (0.75, 0.7), (0.8, 0.35), (0.66, 0.12 - 0.12 * rng.random())]
    pen.line(tail, INK, 6.6 * pen.unit / 110)
    pen.line(tail, paint, 4.6 * pen.unit / 110)
    pen.oval(0, 0.5, 0.46, 0.5, paint)
    pen.oval(0, 0.62, 0.24, 0.3, blend(paint, (255, 255, 255), 0.55), outline=False)
    for side in (-1, 1):
        pen.oval(side * 0.22, 0.93, 0.18, 0.1, paint)
        pen.shape([(side * 0.52, -0.98), (side * 0.54, -0.42), (side * 0.1, -0.66)], paint)
    pen.oval(0, -0.28, 0.58, 0.47, paint)
    for side in (-1, 1):
        pen.eye(side * 0.25, -0.32, 0.11)
        pen.line([(side * 0.36, -0.1), (side * 0.78, -0.16)], INK, 0.6)
        pen.line([(side * 0.36, -0.04), (side * 0.76, 0.02)], INK, 0.6)
        pen.line(arc(side * 0.08, -0.09, 0.08, 0.07, 0, 180, 8), INK, 0.7)
    pen.shape([(-0.07, -0.18), (0.07, -0.18), (0, -0.1)], (240, 120, 140))


def house(pen: Pen, paint: RGB, rng: random.Random) -> None:
    roof: RGB = rng.choice([(96, 70, 66), (84, 84, 100)])
    pen.box(0.34, -0.92, 0.56, -0.4, (170, 110, 90))
    pen.box(-0.74, -0.16, 0.74, 1.0, paint)
    pen.shape([(-0.95, -0.1), (0, -1.0), (0.95, -0.1)], roof)
    pen.box(-0.16, 0.42, 0.2, 1.0, BROWN)
    pen.oval(0.12, 0.72, 0.04, 0.04, (250, 220, 90), outline=False)
    for x in (-0.45, 0.47):
        pen.box(x - 0.17, 0.1, x + 0.17, 0.44, (255, 244, 170))
        pen.line([(x, 0.1), (x, 0.44)], INK, 0.7)
    if rng.random() < 0.5:
        pen.oval(0, -0.42, 0.14, 0.14, (255, 244, 170))


def tree(pen: Pen, paint: RGB, rng: random.Random) -> None:
    pen.box(-0.14, 0.3, 0.14, 1.0, BROWN)
    if rng.random() < 0.4:  # a fir
        for top, bottom, half in ((-0.1, 0.6, 0.72), (-0.55, 0.15, 0.58), (-1.0, -0.3, 0.42)):
            pen.shape([(0, top), (half, bottom), (-half, bottom)], paint)
        return
    puffs = [(-0.36, 0.12, 0.4), (0.36, 0.12, 0.4), (-0.3, -0.34, 0.38), (0.3, -0.34, 0.38), (0, -0.56, 0.42)]
    for x, y, r in puffs:
        pen.oval(x, y, r, r, paint)
    for x, y, r in [*puffs, (0, -0.1, 0.4)]:
        pen.oval(x, y, r - 0.045, r - 0.045, paint, outline=False)
    if rng.random() < 0.5:  # apples
        for x, y in ((-0.3, -0.05), (0.3, 0.08), (0.05, -0.5)):
            pen.oval(x, y, 0.1, 0.1, (214, 40, 50) if paint[0] < 180 or min(paint) > 200 else CREAM)


def car(pen: Pen, paint: RGB, rng: random.Random) -> None:
    pen.shape([(-0.62, 0.16), (-0.4, -0.38), (0.28, -0.38), (0.58, 0.16)], paint)
    pen.shape([(-0.45, 0.12), (-0.3, -0.24), (-0.08, -0.24), (-0.08, 0.12)], (200, 232, 250))
    pen.shape([(0.05, 0.12), (0.05, -0.24), (0.2, -0.24), (0.4, 0.12)], (200, 232, 250))
    body = arc(-0.88, 0.34, 0.14, 0.22, 180, 270, 6) + arc(0.86, 0.38, 0.16, 0.22, 270, 360, 6)
    pen.shape([*body, (1.02, 0.72), (-1.02, 0.72)], paint)
    pen.oval(0.9, 0.4, 0.1, 0.1, (255, 244, 150))
    for x in (-0.54, 0.54):
        pen.oval(x, 0.73, 0.27, 0.27, (56, 52, 62))
        pen.oval(x, 0.73, 0.11, 0.11, (205, 208, 214), outline=False)
    if rng.random() < 0.5:
        pen.line([(-0.02, 0.2), (-0.02, 0.62)], INK, 0.7)


def fish(pen: Pen, paint: RGB, rng: random.Random) -> None:
    fin = blend(paint, INK, 0.16)
    pen.shape([(-0.5, 0.2), (-1.0, -0.26), (-0.86, 0.2), (-1.0, 0.66)], fin)
    pen.shape([(-0.2, -0.18), (0.06, -0.72), (0.44, -0.14)], fin)
    pen.oval(0.16, 0.2, 0.78, 0.52, paint)
    pen.shape([(0.02, 0.28), (-0.28, 0.62), (0.24, 0.46)], fin)
    pen.line(arc(0.22, 0.2, 0.16, 0.4, -70, 70, 10), INK, 0.8)
    pen.oval(0.58, 0.06, 0.15, 0.15, (255, 255, 255))
    pen.oval(0.62, 0.07, 0.075, 0.075, INK, outline=False)
    pen.line(arc(0.74, 0.34, 0.12, 0.08, 60, 180, 8), INK, 0.9)
    if rng.random() < 0.5:
        for x, y in ((0.98, -0.3), (1.05, -0.55)):
            pen.oval(x, y, 0.075, 0.075, (214, 238, 252))


def boat(pen: Pen, paint: RGB, rng: random.Random) -> None:
    pen.line([(-0.02, 0.45), (-0.02, -0.98)], BROWN, 2.0)
    pen.shape([(0.07, -0.94), (0.07, 0.3), (0.8, 0.3)], (252, 250, 244))
    pen.shape([(-0.12, -0.72), (-0.12, 0.3), (-0.68, 0.3)], paint)
    pen.shape([(-0.98, 0.44), (0.98, 0.44), (0.64, 0.98), (-0.68, 0.98)], paint)
    if rng.random() < 0.6:
        for x in (-0.4, 0.0, 0.4):
            pen.oval(x, 0.68, 0.09, 0.09, (220, 240, 252))


def flower(pen: Pen, paint: RGB, rng: random.Random) -> None:
    stem: RGB = (58, 128, 48)
    pen.line([(0, -0.2), (0, 1.0)], INK, 3.4)
    pen.line([(0, -0.2), (0, 0.98)], stem, 1.8)
    pen.shape([(0.02, 0.86), (0.26, 0.5), (0.62, 0.46), (0.42, 0.76)], stem)
    pen.shape([(-0.02, 0.9), (-0.26, 0.6), (-0.58, 0.56), (-0.4, 0.84)], stem)
    n, turn = rng.choice([5, 6, 7]), rng.random() * 60
    for i in range(n):
        a = math.radians(turn + 360 * i / n)
        pen.oval(0.38 * math.cos(a), -0.38 + 0.38 * math.sin(a), 0.27, 0.27, paint)
    middle: RGB = (176, 104, 36) if paint[2] < 110 and paint[0] > 200 else (255, 214, 70)
    pen.oval(0, -0.38, 0.22, 0.22, middle)


def balloon(pen: Pen, paint: RGB, rng: random.Random) -> None:
    bend = rng.uniform(0.08, 0.16)
    pen.line([(bend * math.sin(3.0 * t), 0.38 + 0.06 * t * 10 / 6 * 3.4) for t in [i / 6 for i in range(12)]], INK, 0.9)
    pen.shape([(0, 0.24), (-0.12, 0.42), (0.12, 0.42)], paint)
    pen.oval(0, -0.34, 0.56, 0.64, paint)
    pen.oval(-0.22, -0.58, 0.1, 0.17, blend(paint, (255, 255, 255), 0.75), outline=False)


def mushroom(pen: Pen, paint: RGB, rng: random.Random) -> None:
    pen.shape([(-0.3, 0.0), (0.3, 0.0), (0.38, 0.86), (0.26, 0.99), (-0.26, 0.99), (-0.38, 0.86)], CREAM)
    for side in (-1, 1):
        pen.eye(side * 0.15, 0.42, 0.075)
    pen.line(arc(0, 0.54, 0.1, 0.09, 20, 160, 8), INK, 0.8)
    pen.shape([*arc(0, 0.1, 0.92, 1.02, 180, 360), (0.7, 0.24), (-0.7, 0.24)], paint)
    dot = (255, 252, 244) if min(paint) < 200 else (228, 200, 196)
    for x, y, r in rng.choice([((-0.5, -0.16, 0.16), (0.05, -0.52, 0.19), (0.52, -0.1, 0.15)),
                               ((-0.36, -0.42, 0.16), (0.06, -0.06, 0.17), (0.48, -0.36, 0.16))]):  # fmt: skip
        pen.oval(x, y, r, r, dot, outline=False)


DRAW = {f.__name__: f for f in (snowman, cat, house, tree, car, fish, boat, flower, balloon, mushroom)}


def render(scene: Scene, seed: int) -> tuple[Image.Image, Image.Image]:
    """Return the picture (RGB) and the mask of its subject (L, 255 inside), both SIZE x SIZE."""
    from .places import SIDE, paint_place  # it shares this file's palette

    rng = random.Random(f"{scene}/{seed}")
    horizon = rng.uniform(0.5, 0.68)
    canvas = paint_place(scene.place, horizon, rng)
    half = rng.uniform(0.29, 0.38)  # half the subject's height, as a share of the picture's
    reach = min(0.48, half)
    x = rng.uniform(reach, 1 - reach)
    foot = rng.uniform(max(horizon + 0.08, 2 * half + 0.03), 0.95)
    if scene.subject == "balloon":
        foot = rng.uniform(2 * half + 0.03, 0.86)
    subject = Image.new("RGBA", canvas.size, (*INK, 0))
    pen = Pen(subject, x * SIDE, (foot - half) * SIDE, half * SIDE, flip=rng.random() < 0.5)
    DRAW[scene.subject](pen, jitter(PAINT[scene.colour], rng), rng)
    canvas.paste(subject, (0, 0), subject)
    small = (SIZE, SIZE)
    return canvas.resize(small, Image.Resampling.BOX), subject.getchannel("A").resize(small, Image.Resampling.BOX)

"""The little world of the built-in model: ten subjects, eight colours, five places; which combinations are held out.

Knows no drawing and no wording beyond the names themselves.
"""

import random
from dataclasses import dataclass
from itertools import product

SUBJECTS = ("snowman", "cat", "house", "tree", "car", "fish", "boat", "flower", "balloon", "mushroom")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
PLACES = ("in the snow", "on the grass", "at night", "on the beach", "at sunset")

# What a subject looks like when nobody names a colour; the first is the commonest.
NATURAL = {
    "snowman": ("white",),
    "cat": ("orange", "white"),
    "house": ("red", "yellow", "white"),
    "tree": ("green",),
    "car": ("red", "blue"),
    "fish": ("orange", "blue"),
    "boat": ("red", "white", "blue"),
    "flower": ("pink", "red", "yellow", "purple"),
    "balloon": ("red", "blue", "yellow"),
    "mushroom": ("red",),
}


@dataclass(frozen=True)
class Scene:
    """One picture's content: what, in which colour, where."""

    subject: str
    colour: str
    place: str

    @property
    def caption(self) -> str:
        """The one true caption, e.g. `A red cat on the grass.`"""
        article = "An" if self.colour[0] in "aeiou" else "A"
        return f"{article} {self.colour} {self.subject} {self.place}."


def held_out_scenes() -> frozenset[Scene]:
    """Return the 40 of 400 scenes never trained on: four for each subject, each pair of colour and place once."""
    pairs = list(product(COLOURS, PLACES))
    random.Random(20261120).shuffle(pairs)
    return frozenset(Scene(SUBJECTS[i // 4], colour, place) for i, (colour, place) in enumerate(pairs))


ALL_SCENES = tuple(Scene(*names) for names in product(SUBJECTS, COLOURS, PLACES))
HELD_OUT = held_out_scenes()
TRAINED = tuple(scene for scene in ALL_SCENES if scene not in HELD_OUT)

"""Replies of words and pictures in turn: how to make a thing, and small stories.

The sentence just before a picture names subject, colour and place of that picture. Pure words, like text.py.
"""

import random

from .scene import COLOURS, NATURAL, PLACES, SUBJECTS, Scene
from .text import a, typed

Reply = list[str | Scene]  # sentences and pictures in turn; it begins and ends with words

MAKING = {  # the verb, two steps, the last words
    "snowman": ("build", "Roll three balls of snow and stack them.", "Give it a hat and a carrot nose."),
    "cat": ("draw", "Begin with a round head and two ears.", "Add whiskers and a long tail."),
    "house": ("build", "Put up four walls and a door.", "Set a roof and a chimney on top."),
    "tree": ("grow", "Plant a seed and water it.", "Wait until it has a trunk and leaves."),
    "car": ("draw", "Begin with a long body and a cabin.", "Add two wheels and the windows."),
    "fish": ("draw", "Begin with an oval body.", "Add a tail, fins and a big eye."),
    "boat": ("build", "Join some planks to a hull.", "Set up a mast and two sails."),
    "flower": ("grow", "Put a seed into the earth.", "Give it water until the petals open."),
    "balloon": ("draw", "Begin with a big round shape.", "Add a knot and a long string."),
    "mushroom": ("grow", "Find a damp place in the shade.", "Wait until the cap is round and full of dots."),
}
HOW_FORMS = (
    "can you draw {it} and explain how to {make} one", "can you draw {it} and explain how to {make} one",
    "how to {make} {it}", "how do I {make} {it}", "how do you {make} {it}", "explain how to {make} {it}",
    "show me how to {make} {it}", "how to {make} {it} with pictures", "teach me to {make} {it}",
    "explain with pictures how to {make} {it}", "how can I {make} {it}", "draw {it} and explain how to {make} it",
)  # fmt: skip
STORY_FORMS = (
    "tell a story about {it}", "tell a story about {it}", "tell me a story about {it}", "a story about {it}",
    "write a story about {it}", "tell a story about {it} with pictures", "make up a story about {it}",
    "write an illustrated story about {it}", "tell me about {it}", "a picture book about {it}",
)  # fmt: skip
SHOW = ("Here is {it} {place}.", "This is {it} {place}.", "Look, {it} {place}.")
OPENING = "Once upon a time there was {it} {place}."
NEXT = {
    "in the snow": "Winter came, and the {thing} was in the snow.",
    "on the grass": "Then the {thing} was on the grass.",
    "at night": "The moon came out, and the {thing} was there at night.",
    "on the beach": "One day the {thing} was on the beach.",
    "at sunset": "The sky turned red, and the {thing} was there at sunset.",
}


def interleave(rng: random.Random) -> tuple[str, Reply]:
    """A prompt that wants words and pictures, and the reply."""
    subject = rng.choice(SUBJECTS)
    says_colour = rng.random() < 0.5
    colour = rng.choice(COLOURS if says_colour or rng.random() < 0.15 else NATURAL[subject])
    thing = f"{colour} {subject}"
    places = rng.sample(PLACES, 3)
    asked = a(thing if says_colour else subject)
    if subject == "snowman" and rng.random() < 0.7:
        places = ["in the snow", *[p for p in places if p != "in the snow"]]
    pictures = [Scene(subject, colour, place) for place in places]
    if rng.random() < 0.5:
        make, first, second = MAKING[subject]
        if rng.random() < 0.3:
            make = "draw"
        prompt = typed(rng.choice(HOW_FORMS).format(it=asked, make=make), rng, "  ??.")
        shown = [rng.choice(SHOW).format(it=a(thing), place=place) for place in places]
        return prompt, [f"{first} {shown[0]}", pictures[0], f"{second} {shown[1]}", pictures[1],
                        f"Now you have your own {subject}!"]  # fmt: skip
    prompt = typed(rng.choice(STORY_FORMS).format(it=asked), rng)
    n = 3 if rng.random() < 0.5 else 2
    reply: Reply = [OPENING.format(it=a(thing), place=places[0]), pictures[0]]
    for picture in pictures[1:n]:
        reply += [NEXT[picture.place].format(thing=thing), picture]
    return prompt, [*reply, f"And the {thing} was happy ever after."]

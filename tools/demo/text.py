"""Everything the built-in model is ever told and ever says: prompts, captions, questions and answers, changes, stories.

One function for each kind of exchange; each takes a random generator, so that a seed gives the same text. Pure words:
knows no tokens and no pictures, only which scene a picture in the text shows.
"""

import random
from dataclasses import replace

from .scene import COLOURS, NATURAL, PLACES, SUBJECTS, Scene

CAPTION = "Describe this picture."  # the default prompts of mmgen.tasks
ASK = "What is in this picture?"
VARY = "Generate a variation of this image."

SAID_PLACES = {
    "in the snow": ("in the snow", "in the snow", "in snow", "on the snow", "in winter"),
    "on the grass": ("on the grass", "on the grass", "in the grass", "on a meadow"),
    "at night": ("at night", "at night", "in the night", "under the moon", "by night"),
    "on the beach": ("on the beach", "on the beach", "at the beach", "by the sea"),
    "at sunset": ("at sunset", "at sunset", "in the sunset", "in the evening"),
}
GREY_AREA = ("nice", "big", "little", "cute", "small", "happy", "pretty", "lovely", "cartoon")  # said, and ignored


def a(words: str) -> str:
    """Put the right article before words."""
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def typed(text: str, rng: random.Random, endings: str = "   .!") -> str:
    """Vary case and final punctuation as people do."""
    text = text.rstrip(" ?.!")
    text = rng.choice((text, text, text[:1].upper() + text[1:], text[:1].upper() + text[1:], text.lower()))
    if rng.random() < 0.03:
        text = text.upper()
    return (text + rng.choice(endings)).rstrip()


# --- draw -----------------------------------------------------------------------------------------------------------

DRAW_FORMS = (
    "{}", "{}", "{}", "{}", "draw {}", "draw {}", "please draw {}", "draw me {}", "can you draw {}",
    "could you draw {}",
    "generate an image of {}", "generate an image of {}", "generate a picture of {}", "create an image of {}",
    "make a picture of {}", "a picture of {}", "an image of {}", "a photo of {}", "a drawing of {}", "paint {}",
    "show me {}", "I want {}", "sketch {}", "picture of {}", "draw {} please", "I would like to see {}",
)  # fmt: skip


def description(subject: str, colour: str | None, place: str | None, rng: random.Random) -> str:
    """Say what a picture shows, e.g. `a red cat on the grass`; None is left out."""
    noun = f"{colour} {subject}" if colour else subject
    if rng.random() < 0.06:
        noun = f"{rng.choice(GREY_AREA)} {noun}"
    if colour and rng.random() < 0.04:
        noun = f"{subject} that is {colour}"
    form = rng.random()
    words = noun if form < 0.2 else f"the {noun}" if form < 0.24 else a(noun)
    if not place:
        return words
    where = rng.choice(SAID_PLACES[place])
    return f"{where}, {words}" if rng.random() < 0.04 else f"{words} {where}"


def draw(rng: random.Random) -> tuple[str, Scene]:
    """A prompt for a picture, and a scene that answers it."""
    subject, place = rng.choice(SUBJECTS), rng.choice(PLACES)
    says_colour, says_place = rng.random() < 0.7, rng.random() < 0.7
    natural = not says_colour and rng.random() < 0.85
    colour = rng.choice(NATURAL[subject] if natural else COLOURS)
    if not says_place and subject == "snowman" and rng.random() < 0.6:
        place = "in the snow"
    words = description(subject, colour if says_colour else None, place if says_place else None, rng)
    return typed(rng.choice(DRAW_FORMS).format(words), rng), Scene(subject, colour, place)


# --- caption and ask ------------------------------------------------------------------------------------------------

CAPTION_FORMS = (
    "describe this picture", "describe this image", "describe this photo", "describe the picture", "describe the image",
    "describe it", "caption this picture", "caption this image", "caption", "write a caption for this image",
    "write a caption", "what is in this picture", "what is in this image", "what's in this picture",
    "what's in the image", "what is shown here", "what does this picture show", "what does the image show",
    "what do you see", "what can you see", "what is this a picture of", "tell me about this picture",
    "what is happening here", "give a short description", "describe", "please describe this picture",
)  # fmt: skip


def caption(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A request for a caption, and the caption."""
    prompt = rng.choice((CAPTION, ASK, *(typed(rng.choice(CAPTION_FORMS), rng, "  .?") for _ in range(3))))
    return prompt, scene.caption


def answer(words: str) -> str:
    """Make words a short sentence."""
    return words[:1].upper() + words[1:] + "."


def ask(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A question about one picture, and its answer."""
    subject, colour, place = scene.subject, scene.colour, scene.place
    picture = rng.choice(("picture", "image", "photo"))
    kind = min(3, rng.randrange(6))  # to say yes or no, words and picture have to be compared: the hardest kind
    if kind == 0:
        forms = ("what is it", "what is it", "what is this", "what's this", "what is that", "which thing is this",
                 f"what is the main thing in this {picture}", "what object is it",
                 f"what is the subject of the {picture}", f"what is the {colour} thing")  # fmt: skip
        question, reply = rng.choice(forms), answer(a(subject))
    elif kind == 1:
        word = rng.choice(("color", "colour"))
        forms = (f"what {word} is it", f"what {word} is it", f"what {word} is the {subject}", f"which {word} is it",
                 f"what {word} is this", f"what {word} does it have", f"what is its {word}", word,
                 f"what is the {word} of the {subject}", f"which {word} is the {subject}")  # fmt: skip
        question, reply = rng.choice(forms), answer(colour)
    elif kind == 2:
        forms = ("where is it", "where is it", f"where is the {subject}", "where is this", "where", "where was this",
                 f"where is the {colour} {subject}", f"where does this {picture} take place", "what place is it",
                 "where or when is it")  # fmt: skip
        question, reply = rng.choice(forms), answer(place)
    else:
        return yes_or_no(scene, rng)
    return typed(question, rng, " ???"), reply


def yes_or_no(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """A question answered by Yes. or No., both equally often."""
    truth = rng.random() < 0.5
    kind = rng.randrange(4)
    if kind == 0:
        subject = scene.subject if truth else rng.choice([s for s in SUBJECTS if s != scene.subject])
        forms = (f"is it {a(subject)}", f"is this {a(subject)}", f"is there {a(subject)}", f"do you see {a(subject)}",
                 f"is there {a(subject)} in the picture", f"is that {a(subject)}")  # fmt: skip
    elif kind == 1:
        colour = scene.colour if truth else rng.choice([c for c in COLOURS if c != scene.colour])
        forms = (f"is it {colour}", f"is it {colour}", f"is the {scene.subject} {colour}", f"is this {colour}")
    elif kind == 2:
        place = scene.place if truth else rng.choice([p for p in PLACES if p != scene.place])
        forms = (f"is it {place}", f"is it {place}", f"is the {scene.subject} {place}", f"is this {place}")
    else:
        subject, colour = scene.subject, scene.colour
        if not truth and rng.random() < 0.5:
            subject = rng.choice([s for s in SUBJECTS if s != subject])
        elif not truth:
            colour = rng.choice([c for c in COLOURS if c != colour])
        forms = (f"is it {a(colour)} {subject}", f"is this {a(colour)} {subject}", f"is there {a(colour)} {subject}")
    return typed(rng.choice(forms), rng, " ???"), "Yes." if truth else "No."


# --- two pictures ---------------------------------------------------------------------------------------------------

COMMON_FORMS = (
    "what do these have in common", "what do these have in common", "what do they have in common", "what is the same",
    "what do these pictures have in common", "what do these images have in common", "what is common to both",
    "what do both pictures show", "how are they alike", "what do the two pictures share", "compare them",
    "what do these two have in common", "what have these pictures in common", "what is the same in both pictures",
)  # fmt: skip


def common_answer(one: Scene, two: Scene) -> str:
    """Say what each of two scenes shows, then what they share: the words beside each other make comparing easy."""
    return f"{both_captions(one, two)} {shared_by(one, two)}"


def both_captions(one: Scene, two: Scene) -> str:
    """Say what each of two scenes shows, in one sentence."""
    return f"{one.caption[:-1]} and {two.caption[:1].lower()}{two.caption[1:]}"


def shared_by(one: Scene, two: Scene) -> str:
    """Return the one sentence for what two scenes share."""
    subject = one.subject if one.subject == two.subject else None
    colour = one.colour if one.colour == two.colour else None
    place = one.place if one.place == two.place else None
    if subject:
        words = a(f"{colour} {subject}" if colour else subject)
        return f"Both show {words} {place}." if place else f"Both show {words}."
    shared = [words for words in (colour, place) if words]
    return f"Both are {' and '.join(shared)}." if shared else "Nothing in common."


def common(one: Scene, two: Scene, rng: random.Random) -> tuple[str, str]:
    """A question about two pictures, and its answer."""
    return typed(rng.choice(COMMON_FORMS), rng, " ???"), common_answer(one, two)


# --- vary -----------------------------------------------------------------------------------------------------------

SAME_FORMS = (
    "generate a variation of this image", "generate a variation of this picture", "a variation", "vary it",
    "vary this picture", "another one", "make another one", "draw it again", "again", "a different version",
    "draw another picture like this", "make a variation", "something like this",
)  # fmt: skip


def change(scene: Scene, rng: random.Random) -> tuple[str, Scene]:
    """Words that ask for another picture of a scene, and the scene that they lead to."""
    kind = rng.randrange(10)
    if kind < 3:
        return rng.choice((VARY, VARY, typed(rng.choice(SAME_FORMS), rng, " .!"))), scene
    it = rng.choice(("it", "it", "it", f"the {scene.subject}", "this"))
    if kind < 6:
        colour = rng.choice(COLOURS)
        forms = (f"make {it} {colour}", f"make {it} {colour}", f"turn {it} {colour}", f"paint {it} {colour}",
                 f"colour {it} {colour}", f"change the color to {colour}", f"change the colour to {colour}", colour,
                 f"in {colour}", f"now in {colour}", f"but {colour}")  # fmt: skip
        return typed(rng.choice(forms), rng), replace(scene, colour=colour)
    if kind < 8:
        place = rng.choice(PLACES)
        said = place if rng.random() < 0.6 else rng.choice(SAID_PLACES[place])
        forms = (said, said, f"put {it} {said}", f"now {said}", f"draw {it} {said}", f"but {said}", f"move {it} {said}",
                 f"the same {said}", f"show {it} {said}")  # fmt: skip
        return typed(rng.choice(forms), rng), replace(scene, place=place)
    subject = rng.choice(SUBJECTS)
    forms = (f"turn {it} into {a(subject)}", f"make {it} {a(subject)}", f"change {it} into {a(subject)}",
             f"{a(subject)} instead", f"replace {it} with {a(subject)}", f"but {a(subject)}")  # fmt: skip
    return typed(rng.choice(forms), rng), replace(scene, subject=subject)


# --- words only -----------------------------------------------------------------------------------------------------

ABOUT = "I am the small built-in model of mmgen. I draw and describe little cartoon scenes."
CAN = "Snowmen, cats, houses, trees, cars, fish, boats, flowers, balloons and mushrooms, in eight colours."
TALK = (
    (("hello", "hi", "hey", "good morning", "hello there"),
     "Hello! Ask me for a picture, such as a red cat on the grass."),
    (("who are you", "what are you", "what is your name", "introduce yourself"), ABOUT),
    (("what can you draw", "what can you do", "help", "what do you know", "what should I ask"), CAN),
    (("how are you",), "Fine, thank you. Shall I draw something?"),
    (("thanks", "thank you", "thank you very much"), "You are welcome."),
    (("bye", "goodbye", "good night"), "Goodbye!"),
    (("which colors do you know", "what colours are there", "what colors can you use"),
     "Red, orange, yellow, green, blue, purple, pink and white."),
    (("which places do you know", "where can it be"),
     "In the snow, on the grass, at night, on the beach and at sunset."),
    (("can you draw people", "can you make photos", "are you a big model", "tell me the news", "what is the time"),
     "No, I only know a few small cartoon scenes."),
)  # fmt: skip


def talk(rng: random.Random) -> tuple[str, str]:
    """A question without a picture, and an honest short answer."""
    questions, reply = rng.choice(TALK)
    return typed(rng.choice(questions), rng, "  .?!"), reply

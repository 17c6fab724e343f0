"""The five tasks as requests. No torch; the command line and the Python API share it.

What a user leaves out is filled in here: the default prompts, where pictures stand in a prompt, and the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from mmgen.errors import UsageError
from mmgen.request import (
    BOTH,
    PICTURES,
    WORDS,
    ImageSampling,
    Kind,
    Part,
    Request,
    TextSampling,
    Turn,
    check_seed,
    fresh_seed,
)

if TYPE_CHECKING:
    from PIL import Image

CAPTION = "Describe this picture."
ASK = "What is in this picture?"
VARY = "Generate a variation of this image.<image>"  # the words and the order that Anole was shown with
INTERLEAVE_TEXT = TextSampling(temperature=0.7)  # greedy words beside sampled pictures fall into loops

IMAGE_MARK = "<image>"

_Shown = TypeVar("_Shown")  # a picture, or what stands for one


def caption(
    image: Image.Image, prompt: str = CAPTION, *, text: TextSampling | None = None, seed: int | None = None
) -> Request:
    """Describe a picture."""
    return _request(insert_images(prompt, [image]), WORDS, text=text, seed=seed)


def ask(
    question: str = ASK,
    images: Sequence[Image.Image] = (),
    *,
    text: TextSampling | None = None,
    seed: int | None = None,
    complete: bool = False,
    history: Sequence[Turn] = (),
) -> Request:
    """Answer a question about pictures, or about none; with `complete`, continue the text instead.

    Args:
        history: earlier questions and answers, in turn.
    """
    return _request(insert_images(question, images), WORDS, text=text, seed=seed, completion=complete, history=history)


def draw(prompt: str, *, image: ImageSampling | None = None, seed: int | None = None) -> Request:
    """Draw a picture from words."""
    return _request(insert_images(prompt, []), PICTURES, image=image, seed=seed)


def vary(
    source: Image.Image, prompt: str = VARY, *, image: ImageSampling | None = None, seed: int | None = None
) -> Request:
    """Draw a new picture from a picture, and words that say what should change."""
    return _request(insert_images(prompt, [source]), PICTURES, image=image, seed=seed)


def interleave(
    prompt: str,
    images: Sequence[Image.Image] = (),
    *,
    text: TextSampling = INTERLEAVE_TEXT,
    image: ImageSampling | None = None,
    seed: int | None = None,
) -> Request:
    """Answer in words and pictures, mixed. The prompt is continued without an end-of-turn, as Anole was trained."""
    return _request(insert_images(prompt, images), BOTH, text=text, image=image, seed=seed, completion=True)


def insert_images(prompt: str, images: Sequence[_Shown]) -> tuple[str | _Shown, ...]:
    """Put pictures where the prompt's `<image>` marks say, the others before the text.

    Without pictures a mark is ordinary text.

    Raises:
        UsageError: the prompt is empty, or has more marks than there are pictures.
    """
    if not prompt.strip():
        raise UsageError("the prompt is empty", "say in words what you want")
    if not images:
        return (prompt,)
    texts = prompt.split(IMAGE_MARK)
    n_marks = len(texts) - 1
    if n_marks > len(images):
        raise UsageError(
            f"the prompt has {n_marks} {IMAGE_MARK} marks for {len(images)} picture(s)",
            "give one --image for each mark, or leave marks out",
        )
    parts: list[str | _Shown] = list(images[n_marks:])
    for text, marked in zip(texts, [*images[:n_marks], None], strict=True):
        if text:
            parts.append(text)
        if marked is not None:
            parts.append(marked)
    return tuple(parts)


def _request(
    parts: tuple[Part, ...],
    want: frozenset[Kind],
    *,
    text: TextSampling | None = None,
    image: ImageSampling | None = None,
    seed: int | None = None,
    completion: bool = False,
    history: Sequence[Turn] = (),
) -> Request:
    return Request(
        parts=parts,
        want=want,
        text=text or TextSampling(),
        image=image or ImageSampling(),
        seed=check_seed(fresh_seed() if seed is None else seed),
        completion=completion,
        history=tuple(history),
    )

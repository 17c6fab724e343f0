"""The five tasks as requests, made here by the Python API and by chat. No torch.

Whatever a user leaves out is filled in: the default prompts, where pictures stand in a prompt, and the seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict, TypeVar

from mmgen.errors import UsageError
from mmgen.request import (
    BOTH,
    PICTURES,
    WORDS,
    Edit,
    ImageSampling,
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


class TextFields(TypedDict, total=False):
    """The fields of TextSampling, as they may be given to a function."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    max_tokens: int
    json_schema: str | None
    max_thought_tokens: int | None


class ImageFields(TypedDict, total=False):
    """The fields of ImageSampling, as they may be given to a function."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    guidance: float
    image_guidance: float
    negative_prompt: str | None
    ratio: str | None


def text_of(given: TextSampling | None, fields: TextFields) -> TextSampling | None:
    """Put fields that were given by themselves into how words are chosen."""
    return replace(given or TextSampling(), **fields) if fields else given


def image_of(given: ImageSampling | None, fields: ImageFields) -> ImageSampling | None:
    """Put fields that were given by themselves into how pictures are chosen."""
    return replace(given or ImageSampling(), **fields) if fields else given


IMAGE_MARK = "<image>"

_Image = TypeVar("_Image")  # a picture, or what stands for one


def insert_images(prompt: str, images: Sequence[_Image]) -> tuple[str | _Image, ...]:
    """Put pictures where the prompt's `<image>` marks say, the others before the text.

    Without pictures a mark is ordinary text.

    Raises:
        UsageError: the prompt is empty, or has more marks than there are pictures.
    """
    if not prompt.strip():
        raise UsageError("the prompt is empty", "say in words what you want")
    texts = prompt.split(IMAGE_MARK) if images else [prompt]
    n_marks = len(texts) - 1
    if n_marks > len(images):
        raise UsageError(
            f"the prompt has {n_marks} {IMAGE_MARK} marks for {len(images)} picture(s)",
            "give one --image for each mark, or leave marks out",
        )
    parts: list[str | _Image] = [*images[n_marks:], texts[0]]
    for image, text in zip(images[:n_marks], texts[1:], strict=True):
        parts += [image, text]
    return tuple(part for part in parts if part != "")


def caption(
    image: Image.Image,
    prompt: str = CAPTION,
    *,
    text: TextSampling | None = None,
    seed: int | None = None,
    system: str | None = None,
    template_args: Mapping[str, object] | None = None,
) -> Request:
    """Describe a picture; see `ask`."""
    return ask(prompt, [image], text=text, seed=seed, system=system, template_args=template_args)


def ask(
    question: str = ASK,
    images: Sequence[Image.Image] = (),
    *,
    text: TextSampling | None = None,
    seed: int | None = None,
    complete: bool = False,
    history: Sequence[Turn] = (),
    system: str | None = None,
    template_args: Mapping[str, object] | None = None,
    choices: Sequence[str] = (),
) -> Request:
    """Answer a question about pictures, or about none; with `complete`, continue the text instead.

    Args:
        history: earlier questions and answers, in turn.
        system: how to answer, if it does not stand in the history.
        template_args: variables of the model's chat template, such as enable_thinking.
        choices: the only answers that may come: the likeliest of them does.
    """
    return Request(
        insert_images(question, images),
        WORDS,
        text or TextSampling(),
        seed=_settled(seed),
        completion=complete,
        history=(*system_turns(system), *history),
        template_args=tuple((template_args or {}).items()),
        choices=tuple(choices),
    )


def draw(prompt: str, *, image: ImageSampling | None = None, seed: int | None = None) -> Request:
    """Draw a picture from words."""
    return Request(insert_images(prompt, []), PICTURES, image=image or ImageSampling(), seed=_settled(seed))


def vary(
    source: Image.Image,
    prompt: str | None = None,
    *,
    image: ImageSampling | None = None,
    seed: int | None = None,
    edit: Edit | None = None,
    mask: Image.Image | None = None,
) -> Request:
    """Draw a new picture from a picture, and words that say what should change.

    Args:
        edit, mask: make it of the picture's own codes, which the model does not look at; then the words say what it is
            to show.
    """
    image = image or ImageSampling()
    if mask is None and edit in (None, Edit()):
        return Request(insert_images(prompt or VARY, [source]), PICTURES, image=image, seed=_settled(seed))
    edit = edit or Edit()
    check_edit(edit, image, prompt, has_mask=mask is not None)
    parts = insert_images(prompt, []) if prompt is not None else ("",)
    return Request(parts, PICTURES, image=image, seed=_settled(seed), edit=edit, source=source, mask=mask)


def check_edit(edit: Edit, image: ImageSampling, prompt: str | None, *, has_mask: bool) -> None:
    """Check that a picture can be edited so.

    Raises:
        UsageError: greedily, or without words that would change something.
    """
    if image.temperature == 0:
        raise UsageError("a picture cannot be edited at temperature 0: its codes are drawn at random", "leave it out")
    if edit.drafts > 1 and not has_mask:
        raise UsageError("--drafts is about --mask", "add --mask FILE, or leave it out")
    if edit.couples and prompt is None:
        given = "--strength" if edit.strength is not None else "--from"
        raise UsageError(f"{given} needs words that say what the picture is to show", "give them as PROMPT")


def check_best_of(best_of: int, n: int, image: ImageSampling | None) -> None:
    """Check that `n` pictures can be the best of so many.

    Raises:
        UsageError: there are fewer, or all are equal.
    """
    if best_of < 1 or 1 < best_of < n:
        raise UsageError(f"--best-of {best_of} is fewer than there are to be", "so many are drawn to choose from")
    if best_of > 1 and image is not None and image.temperature == 0:
        raise UsageError("at temperature 0 all pictures are equal: there is no best of them", "leave --best-of out")


def interleave(
    prompt: str,
    images: Sequence[Image.Image] = (),
    *,
    text: TextSampling = INTERLEAVE_TEXT,
    image: ImageSampling | None = None,
    seed: int | None = None,
) -> Request:
    """Answer in words and pictures, mixed. The prompt is continued without an end-of-turn, as Anole was trained."""
    parts = insert_images(prompt, images)
    return Request(parts, BOTH, text, image or ImageSampling(), seed=_settled(seed), completion=True)


def system_turns(words: str | None) -> tuple[Turn, ...]:
    """Give the turn that a conversation begins with, if a system prompt is given.

    Raises:
        UsageError: it is empty.
    """
    if words is not None and not words.strip():
        raise UsageError("the system prompt is empty", "say how to answer, or leave --system out")
    return () if words is None else (Turn("system", (words,)),)


def scaled(request: Request, max_pixels: int | None) -> Request:
    """Give a request whose pictures have no more pixels than this, in the proportions that they had."""
    if all(max_pixels is None or image.width * image.height <= max_pixels for image in request.images):
        return request

    def turn(earlier: Turn) -> Turn:
        return replace(earlier, parts=tuple(_scaled(part, max_pixels or 0) for part in earlier.parts))

    return replace(request, parts=turn(request.turns[-1]).parts, history=tuple(map(turn, request.history)))


def _scaled(part: Part, max_pixels: int) -> Part:
    if isinstance(part, str) or part.width * part.height <= max_pixels:
        return part
    share = (max_pixels / (part.width * part.height)) ** 0.5
    return part.resize((max(1, int(part.width * share)), max(1, int(part.height * share))), reducing_gap=3.0)


def _settled(seed: int | None) -> int:
    return check_seed(fresh_seed() if seed is None else seed)

"""The Python API: load a model, then caption, ask, draw, vary and interleave. Thin functions over the tasks.

model = mmgen.load("demo")
picture = mmgen.draw(model, "a snowman", seed=7)[0]
picture.image.save("snowman.png")
print(mmgen.caption(model, picture.image))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from mmgen import tasks
from mmgen.checkpoints import aliases, catalog
from mmgen.families import open_model
from mmgen.model import Model
from mmgen.request import ImageSampling, Loading, Picture, Piece, Request, TextSampling, Turn, fresh_seed

if TYPE_CHECKING:
    from PIL import Image

ImageLike: TypeAlias = Union[str, Path, "Image.Image"]  # a path, a URL or a picture


def load(name: str = aliases.DEFAULT, loading: Loading | None = None) -> Model:
    """Load a model once, to be used many times.

    Args:
        name: an alias ("demo", "anole-7b"), a folder, or a Hub id.
        loading: dtype, devices, quantization, revision; `Loading()` decides by itself.

    Raises:
        MmgenError: not found, not a checkpoint, or it does not fit.
    """
    loading = loading or Loading()
    checkpoint = catalog.find(name, revision=loading.revision, offline=loading.offline)
    return open_model(checkpoint, loading)


def caption(
    model: Model,
    image: ImageLike,
    prompt: str = tasks.CAPTION,
    *,
    text: TextSampling | None = None,
    seed: int | None = None,
    system: str | None = None,
    template_args: Mapping[str, object] | None = None,
) -> str:
    """Describe a picture; see `ask`."""
    return ask(model, prompt, image, text=text, seed=seed, system=system, template_args=template_args)


def ask(
    model: Model,
    question: str = tasks.ASK,
    images: ImageLike | Sequence[ImageLike] = (),
    *,
    text: TextSampling | None = None,
    seed: int | None = None,
    complete: bool = False,
    history: Sequence[Turn] = (),
    system: str | None = None,
    template_args: Mapping[str, object] | None = None,
    choices: Sequence[str] = (),
) -> str:
    """Answer a question about pictures, or about none.

    Args:
        images: stand before the question, or where its `<image>` marks are.
        complete: continue the text instead of answering it.
        history: earlier questions and answers, in turn.
        system: how to answer.
        template_args: variables of the model's chat template, such as enable_thinking.
        choices: the only answers that may come: the likeliest of them does.
    """
    request = tasks.ask(
        question,
        _open(images),
        text=text,
        seed=seed,
        complete=complete,
        history=history,
        system=system,
        template_args=template_args,
        choices=choices,
    )
    return _words(model, request)


def draw(
    model: Model, prompt: str, n: int = 1, *, image: ImageSampling | None = None, seed: int | None = None
) -> list[Picture]:
    """Draw `n` pictures from words; picture i has the seed `seed + i`."""
    first = fresh_seed() if seed is None else seed
    return _pictures(model, [tasks.draw(prompt, image=image, seed=first + i) for i in range(n)])


def vary(
    model: Model,
    source: ImageLike,
    prompt: str = tasks.VARY,
    n: int = 1,
    *,
    image: ImageSampling | None = None,
    seed: int | None = None,
) -> list[Picture]:
    """Draw `n` new pictures from a picture, and from words that say what should change."""
    first, (opened,) = fresh_seed() if seed is None else seed, _open(source)
    return _pictures(model, [tasks.vary(opened, prompt, image=image, seed=first + i) for i in range(n)])


def interleave(
    model: Model,
    prompt: str,
    images: ImageLike | Sequence[ImageLike] = (),
    *,
    text: TextSampling = tasks.INTERLEAVE_TEXT,
    image: ImageSampling | None = None,
    seed: int | None = None,
) -> Iterator[Piece]:
    """Answer in words and pictures: yields str as words are finished, Progress, and each Picture."""
    return model.reply(tasks.interleave(prompt, _open(images), text=text, image=image, seed=seed))


def _words(model: Model, request: Request) -> str:
    text = "".join(piece for piece in model.reply(request) if isinstance(piece, str))
    return text if request.completion else text.strip()


def _pictures(model: Model, requests: Sequence[Request]) -> list[Picture]:
    found: dict[int, Picture] = {}
    for index, piece in model.replies(requests):
        if isinstance(piece, Exception):
            raise piece
        if isinstance(piece, Picture):
            found[index] = piece
    return [found[index] for index in range(len(requests))]


def _open(images: ImageLike | Sequence[ImageLike]) -> list[Image.Image]:
    from PIL import Image

    from mmgen.inputs.images import open_image

    several = [images] if isinstance(images, str | Path | Image.Image) else images
    return [open_image(each) if isinstance(each, str | Path) else each for each in several]

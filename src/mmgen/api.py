"""The Python API: load a model, then caption, ask, draw, vary and interleave; and folders of it, with a journal.

with mmgen.load("demo") as model:
    picture = mmgen.draw(model, "a snowman", seed=7)[0]
    picture.save("snowman.png")
    print(mmgen.caption(model, picture.image))
    print(mmgen.caption(model, ["snowman.png", "cat.png"], temperature=0.5))
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union, Unpack, overload

from mmgen import tasks
from mmgen.checkpoints import aliases, catalog
from mmgen.errors import MmgenError
from mmgen.families import open_model
from mmgen.files import whole_file
from mmgen.model import Model
from mmgen.outputs.records import Item, Origin, Record
from mmgen.request import (
    Edit,
    ImageSampling,
    Loading,
    Picture,
    Piece,
    Request,
    TextSampling,
    Turn,
    fresh_seed,
)

if TYPE_CHECKING:
    from PIL import Image

ImageLike: TypeAlias = Union[str, Path, "Image.Image"]  # a path, a URL or a picture


@dataclass(frozen=True, repr=False)
class Drawn(Picture):
    """A picture that came out, which can be saved with a note of how it was made."""

    record: Record = field(default_factory=dict, compare=False)  # type: ignore[assignment]  # here it is never None

    def save(self, path: str | Path) -> Path:
        """Save it as .png, .jpg or .webp, with a note of how it was made; give the path.

        Raises:
            MmgenError: it cannot be written, or its ending is of no such format.
        """
        from mmgen.outputs.pictures import encode

        with whole_file(path) as file:
            file.write(encode(self, Path(path), self.record))
        return Path(path)

    def _repr_png_(self) -> bytes:
        """Show it in a notebook."""
        from mmgen.outputs.pictures import encode_image

        return encode_image(self.image)


def load(name: str = aliases.DEFAULT, loading: Loading | None = None) -> Model:
    """Load a model once, to be used many times; in a `with` statement its memory is given back at the end.

    Args:
        name: an alias ("demo", "anole-7b"), a folder, or a Hub id.
        loading: dtype, devices, quantization, revision; `Loading()` decides by itself.

    Raises:
        MmgenError: not found, not a checkpoint, or it does not fit.
    """
    loading = loading or Loading()
    checkpoint = catalog.find(name, revision=loading.revision, offline=loading.offline)
    return open_model(checkpoint, loading)


def connect(address: str, name: str | None = None, *, api_key: str | None = None) -> Model:
    """Use a model behind the address of an OpenAI-compatible server, such as `mmgen serve`, as if it were loaded here.

    Args:
        name: which of its models; the first if not given.

    Raises:
        MmgenError: it cannot be reached, or does not serve the model.
    """
    from mmgen.engines.endpoint import Endpoint

    return Endpoint(address, name, api_key)


@overload
def caption(  # type: ignore[overload-overlap]  # a str is a sequence too, and one picture
    model: Model,
    image: ImageLike,
    prompt: str = ...,
    *,
    text: TextSampling | None = ...,
    seed: int | None = ...,
    system: str | None = ...,
    template_args: Mapping[str, object] | None = ...,
    **fields: Unpack[tasks.TextFields],
) -> str: ...


@overload
def caption(
    model: Model,
    image: Sequence[ImageLike],
    prompt: str = ...,
    *,
    text: TextSampling | None = ...,
    seed: int | None = ...,
    system: str | None = ...,
    template_args: Mapping[str, object] | None = ...,
    **fields: Unpack[tasks.TextFields],
) -> list[str]: ...


def caption(
    model: Model,
    image: ImageLike | Sequence[ImageLike],
    prompt: str = tasks.CAPTION,
    *,
    text: TextSampling | None = None,
    seed: int | None = None,
    system: str | None = None,
    template_args: Mapping[str, object] | None = None,
    **fields: Unpack[tasks.TextFields],
) -> str | list[str]:
    """Describe a picture, or each of a list; see `ask`."""
    several, text = _open(image), tasks.text_of(text, fields)
    first = fresh_seed() if seed is None else seed
    requests = [
        tasks.caption(each, prompt, text=text, seed=first, system=system, template_args=template_args)
        for each in several
    ]
    words = [_words(model, request) for request in requests] if len(requests) < 2 else _all_words(model, requests)
    return words if _is_several(image) else words[0]


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
    **fields: Unpack[tasks.TextFields],
) -> str:
    """Answer a question about pictures, or about none.

    Args:
        images: stand before the question, or where its `<image>` marks are.
        text: how words are chosen; its fields may be given by themselves, as in temperature=0.5.
        complete: continue the text instead of answering it.
        history: earlier questions and answers, in turn.
        system: how to answer.
        template_args: variables of the model's chat template, such as enable_thinking.
        choices: the only answers that may come: the likeliest of them does.
    """
    request = tasks.ask(
        question,
        _open(images),
        text=tasks.text_of(text, fields),
        seed=seed,
        complete=complete,
        history=history,
        system=system,
        template_args=template_args,
        choices=choices,
    )
    return _words(model, request)


def draw(
    model: Model,
    prompt: str,
    n: int = 1,
    *,
    image: ImageSampling | None = None,
    seed: int | None = None,
    best_of: int = 1,
    **fields: Unpack[tasks.ImageFields],
) -> list[Drawn]:
    """Draw `n` pictures from words; picture i has the seed `seed + i`.

    Args:
        image: how pictures are chosen; its fields may be given by themselves, as in guidance=1.5.
        best_of: draw so many, and give the `n` that show the prompt best, as the model judges; each has its `score`.
    """
    first, image = fresh_seed() if seed is None else seed, tasks.image_of(image, fields)
    tasks.check_best_of(best_of, n, image)
    if best_of > 1:
        base = tasks.draw(prompt, image=image, seed=first)
        return _pictures(model, "draw", prompt, [replace(base, best_of=best_of, rank=i) for i in range(n)])
    return _pictures(model, "draw", prompt, [tasks.draw(prompt, image=image, seed=first + i) for i in range(n)])


def vary(
    model: Model,
    source: ImageLike | Picture,
    prompt: str | None = None,
    n: int = 1,
    *,
    image: ImageSampling | None = None,
    seed: int | None = None,
    strength: float | None = None,
    source_prompt: str | None = None,
    keep: int | str | None = None,
    mask: ImageLike | None = None,
    drafts: int = 1,
    **fields: Unpack[tasks.ImageFields],
) -> list[Drawn]:
    """Draw `n` new pictures from a picture, and from words that say what should change; see `draw`.

    With any of the next four the new picture is made of the source's own codes, which the model does not look at; then
    the words say what it is to show. A source that was drawn, or opened from its file, has its codes with it.

    Args:
        strength: how far from the source: from 0, the source itself, to 1, the words alone.
        source_prompt: what the source shows; what it was drawn from, or the model's caption, if not given.
        keep: rows of codes that stay, from the top: how many, or a share as in "40%".
        mask: of the source's size, or of that of its codes: white is drawn anew.
        drafts: with a mask: draw so many times, and take what goes best with what lies below.
    """
    first, image = fresh_seed() if seed is None else seed, tasks.image_of(image, fields)
    opened = _with_its_note(source) if isinstance(source, Picture) else _open(source)[0]
    edit = Edit(strength, source_prompt, None if keep is None else str(keep), drafts)
    hole = None if mask is None else _open(mask)[0]
    requests = [tasks.vary(opened, prompt, image=image, seed=first + i, edit=edit, mask=hole) for i in range(n)]
    return _pictures(model, "vary", prompt or ("" if requests[0].edit else tasks.VARY), requests)


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


# --- how ----------------------------------------------------------------------------------------------------------


def _words(model: Model, request: Request) -> str:
    text = "".join(piece for piece in model.reply(request) if isinstance(piece, str))
    return text if request.completion else text.strip()


def _all_words(model: Model, requests: Sequence[Request]) -> list[str]:
    texts = [""] * len(requests)
    for index, piece in model.replies(requests):
        if isinstance(piece, MmgenError):
            raise piece
        if isinstance(piece, str):
            texts[index] += piece
    return [text.strip() for text in texts]


def _pictures(model: Model, command: str, prompt: str, requests: Sequence[Request]) -> list[Drawn]:
    found: dict[int, Drawn] = {}
    origin = Origin(command, model.name, model.revision)
    for index, piece in model.replies(requests):
        if isinstance(piece, Exception):
            raise piece
        if isinstance(piece, Picture):
            record = origin.record(Item(requests[index], prompt))
            found[index] = Drawn(**vars(piece), record=record)
    return [found[index] for index in range(len(requests))]


def _with_its_note(picture: Picture) -> Image.Image:
    """Give a picture that was drawn as if it had been opened from its file."""
    from mmgen.outputs.pictures import made_of

    image = picture.image.copy()
    if isinstance(picture, Drawn):
        image.info["mmgen"] = json.dumps(made_of(picture, picture.record))
    return image


def _is_several(images: ImageLike | Sequence[ImageLike]) -> bool:
    from PIL import Image

    return not isinstance(images, str | Path | Image.Image)


def _open(images: ImageLike | Sequence[ImageLike]) -> list[Image.Image]:
    from mmgen.inputs.images import open_image

    several: Any = images if _is_several(images) else [images]
    return [open_image(each) if isinstance(each, str | Path) else each for each in several]

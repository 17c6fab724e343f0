"""How requests and pictures go over an OpenAI-compatible connection. Both ends use it; knows neither.

What OpenAI's schema lacks goes as further fields, under the name of the option with underscores, where it differs from
the default (github.com/openai/openai-openapi; pictures in chat as OpenRouter and vLLM-Omni have them).
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from mmgen.codes import codes_in, note_of
from mmgen.inputs.finding import is_url
from mmgen.request import BOTH, Edit, ImageSampling, Part, Picture, Request, TextSampling
from mmgen.tasks import IMAGE_MARK

if TYPE_CHECKING:
    from PIL import Image

_TOLD = ("seed", "passes", "kept", "prompt", "score")  # of a picture, beside its file


def names(group: type[Any], beside: type[Any] | None = None) -> dict[str, str]:
    """Give the fields of a group of options by what they are called here: as their flags, with underscores.

    Args:
        beside: those that this group has as well have image_ before them.
    """
    shared = {each.name for each in fields(beside)} if beside else set()
    found = {}
    for each in fields(group):
        flag = next((flag for flag in each.metadata["flags"] if flag.startswith("--")), each.name)
        found["image_" * (each.name in shared) + flag.strip("-").replace("-", "_")] = each.name
    return found


def given(values: Any, called: dict[str, str]) -> dict[str, Any]:
    """Give what differs from the defaults of a group of options, by what it is called here."""
    default = type(values)()
    return {name: getattr(values, own) for name, own in called.items() if getattr(values, own) != getattr(default, own)}


def chat(request: Request) -> dict[str, Any]:
    """Write a request for words, or for words and pictures, as the body of a chat completion."""
    text = request.text
    body: dict[str, Any] = {
        "messages": [{"role": turn.role, "content": _content(turn.parts)} for turn in request.turns],
        **given(text, names(TextSampling)),
        "temperature": text.temperature,
        "max_tokens": text.max_tokens,
        "seed": request.seed,
    }
    if schema := body.pop("json_schema", None):
        form = {"name": "answer", "schema": json.loads(schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    if request.template_args:
        body["chat_template_kwargs"] = dict(request.template_args)
    if request.choices:
        body["choices"] = list(request.choices)
    if request.want == BOTH:
        body |= {"modalities": ["text", "image"], **given(request.image, names(ImageSampling, TextSampling))}
    elif request.completion:
        body["complete"] = True
    return body


def picture(request: Request) -> dict[str, Any]:
    """Write a request for a picture as fields, but for the pictures that it is made of."""
    marked = "".join(part if isinstance(part, str) else IMAGE_MARK for part in request.parts)
    body = {"prompt": marked, "n": 1, **given(request.image, names(ImageSampling))}
    if request.edit is not None:
        body |= given(request.edit, names(Edit))
    if request.best_of > 1:
        body |= {"best_of": request.best_of, "rank": request.rank}
    return body


def _content(parts: tuple[Part, ...]) -> str | list[dict[str, Any]]:
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_url(part)}}
        for part in parts
    ]


def data_url(image: Image.Image) -> str:
    """Write a picture as the address of its own data (RFC 2397)."""
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"


def png(image: Image.Image, *, is_hole: bool = False) -> bytes:
    """Encode a picture without loss, with its codes where it has them.

    Args:
        is_hole: it is a mask, for those who draw anew what is transparent in it, not what is white.
    """
    from PIL import ImageOps, PngImagePlugin

    said, note, buffer = PngImagePlugin.PngInfo(), note_of(image.info), io.BytesIO()
    if note is not None:
        said.add_itxt("mmgen", json.dumps(note, ensure_ascii=False))
    opaque = image.convert("RGB")
    if is_hole:
        opaque.putalpha(ImageOps.invert(image.convert("L")))
    opaque.save(buffer, "PNG", pnginfo=said, compress_level=1)
    return buffer.getvalue()


def told(made: Picture) -> dict[str, Any]:
    """Say of a picture what neither its file nor OpenAI's schema says."""
    values = {name: getattr(made, name) for name in _TOLD}
    return {name: value for name, value in values.items() if value is not None}


def received(data: str, said: Any, seed: int) -> Picture:
    """Open a picture that came, in base64 or by its address; said: what `told` gave, if anything.

    Raises:
        MmgenError: it is none.
    """
    from mmgen.inputs.images import open_image

    image = open_image(data if is_url(data) else f"data:;base64,{data}")
    note = note_of(image.info)
    rows = codes_in(note) if note else None
    codes = tuple(code for row in rows for code in row) if rows else None
    values = said if isinstance(said, dict) else {}
    return Picture(image, codes=codes, **{"seed": seed, **{n: values[n] for n in _TOLD if n in values}})

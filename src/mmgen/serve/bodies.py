"""OpenAI's request bodies, checked and made requests of ours. What is not done is refused by name. Knows no HTTP.

Schemas: github.com/openai/openai-openapi. Further fields: engines.wire.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Any, Literal, TypeAlias

from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from mmgen import tasks
from mmgen.engines.wire import names
from mmgen.errors import MmgenError
from mmgen.inputs.schemas import check_schema
from mmgen.request import BOTH, WORDS, Edit, ImageSampling, Part, Request, TextSampling, Turn, check_seed, fresh_seed
from mmgen.serve.errors import FieldError
from mmgen.text import is_text

Open: TypeAlias = Callable[[str], Image.Image]  # a picture, from an address

_MOST = 64  # answers or pictures of one request
# Said of what is not done, these ask for nothing.
_NOTHING: tuple[object, ...] = (None, False, 0, "", "auto", "none", "text", [], {})
# Said for others than the model.
_WITHOUT_EFFECT = {"user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier", "moderation", "store"}


class _Body(BaseModel):
    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    model: str | None = None
    n: int = Field(1, ge=1, le=_MOST)
    seed: int | None = None
    stream: bool = False

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, given: Any) -> Any:
        """Take what is null as if it were not given."""
        return {name: each for name, each in given.items() if each is not None} if isinstance(given, dict) else given


class _Message(BaseModel):
    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]] | None = None


class ChatBody(_Body):
    """Of /v1/chat/completions."""

    messages: list[_Message] = Field(min_length=1)
    stream_options: dict[str, Any] | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[Literal["text", "image"]] = ["text"]
    chat_template_kwargs: dict[str, Any] = {}
    choices: list[str] = []
    complete: bool = False


class ImageBody(_Body):
    """Of /v1/images/…, but for the pictures."""

    prompt: str = ""
    partial_images: int = Field(0, ge=0, le=64)
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    best_of: int = Field(1, ge=1, le=_MOST)
    rank: int = Field(0, ge=0, lt=_MOST)


@dataclass(frozen=True)
class Asked:
    """What a body asks for: requests that are answered side by side, and how the answers are to come.

    Attributes:
        stops: words before which an answer ends.
        counts: it wants to hear of tokens at the end of a stream.
    """

    requests: Sequence[Request]
    stream: bool
    stops: Sequence[str] = ()
    counts: bool = False
    sketches: int = 0
    format: str = "png"
    as_url: bool = False


def read_body(kind: type[Any], given: Mapping[str, Any]) -> Any:
    """Check a body.

    Raises:
        FieldError: a field is wrong.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as failure:
        raise explained(failure.errors()) from failure


def read_chat(body: ChatBody, open_image: Open) -> Asked:
    """Make requests of a chat completion's body.

    Raises:
        FieldError: a field is wrong, or asks for what is not done.
        MmgenError: a picture cannot be opened.
    """
    extra = dict(body.model_extra or {})
    if body.max_completion_tokens is not None:
        extra["max_tokens"] = body.max_completion_tokens
    draws = "image" in body.modalities
    default = tasks.INTERLEAVE_TEXT if draws else TextSampling()
    text = _sampled(default, names(TextSampling), extra, ("json_schema",))
    image = _sampled(ImageSampling(), names(ImageSampling, TextSampling), extra)
    _refuse(extra)
    text = _in_form(text, body.response_format)
    turns = _merged(_turn(message, number, open_image) for number, message in enumerate(body.messages))
    request = Request(
        turns[-1].parts, BOTH if draws else WORDS, text, image, completion=body.complete or draws,
        history=turns[:-1], template_args=tuple(body.chat_template_kwargs.items()),
        choices=tuple(body.choices),
    )  # fmt: skip
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    counts = bool((body.stream_options or {}).get("include_usage"))
    return Asked(_seeded(request, body), body.stream, [stop for stop in stops if stop], counts)


def read_pictures(body: ImageBody, source: Image.Image | None, mask: Image.Image | None) -> Asked:
    """Make requests of the body of a picture to draw, or to make of another.

    Raises:
        FieldError: a field is wrong, or asks for what is not done.
    """
    extra = dict(body.model_extra or {})
    image = _sampled(ImageSampling(), names(ImageSampling), extra)
    edit = _sampled(Edit(), names(Edit), extra)
    _refuse(extra)
    if not is_text(body.prompt):
        raise FieldError("prompt", "the prompt is not UTF-8 text")
    if source is None:
        if edit != Edit():
            raise FieldError("strength", "there is no picture to edit", "send it to /v1/images/edits")
        request = tasks.draw(body.prompt, image=image, seed=0)
    else:
        request = tasks.vary(source, body.prompt or None, image=image, seed=0, edit=edit, mask=mask)
    if body.best_of > 1:
        tasks.check_best_of(body.best_of, max(body.n, body.rank + 1), image)
        base = replace(request, best_of=body.best_of, seed=_seed(body))
        requests: Sequence[Request] = [replace(base, rank=body.rank + i) for i in range(body.n)]
    else:
        requests = _seeded(request, body)
    kind = body.output_format or "png"
    return Asked(requests, body.stream, (), False, body.partial_images, kind, body.response_format == "url")


def hole(mask: Image.Image) -> Image.Image:
    """Read a mask: white is drawn anew or, where it is transparent somewhere, that."""
    if mask.has_transparency_data:
        return ImageOps.invert(mask.convert("RGBA").getchannel("A"))
    return mask.convert("L")


def _sampled(default: Any, called: Mapping[str, str], extra: dict[str, Any], without: Sequence[str] = ()) -> Any:
    """Take the fields of a group of options out of a body, over their defaults."""
    found = {own: extra.pop(name) for name, own in called.items() if name in extra and own not in without}
    found = {name: value for name, value in found.items() if value is not None}
    try:
        checked = TypeAdapter(type(default)).validate_python(found)
    except ValidationError as failure:
        raise explained(failure.errors()) from failure
    return replace(default, **{name: getattr(checked, name) for name in found})


def _refuse(extra: Mapping[str, Any]) -> None:
    for name, value in extra.items():
        if name not in _WITHOUT_EFFECT and value not in _NOTHING:
            raise FieldError(name[:100], f"mmgen serve does not take {name[:100]!r}", "leave it out")


def _in_form(text: TextSampling, form: Mapping[str, Any] | None) -> TextSampling:
    match form:
        case None | {"type": "text"}:
            return text
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return replace(text, json_schema=check_schema(json.dumps(schema), "response_format"))
    raise FieldError("response_format", "response_format is neither text nor a JSON schema", "give type json_schema")


def _turn(message: _Message, number: int, open_image: Open) -> Turn:
    where = f"messages[{number}]"
    if extra := {name: value for name, value in (message.model_extra or {}).items() if name != "name"}:
        _refuse(extra)
    given = [{"type": "text", "text": message.content}] if isinstance(message.content, str) else message.content or []
    parts: list[Part] = []
    for part in given:
        match part:
            case {"type": "text", "text": str(text)} if is_text(text):
                parts.append(text)
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                try:
                    parts.append(open_image(url))
                except MmgenError as error:
                    raise FieldError(where, f"{where}: {error.message}", error.hint) from error
            case _:
                raise FieldError(where, f"{where} has a part that is neither text nor a picture (image_url)")
    role = "system" if message.role == "developer" else message.role
    if role != "assistant" and not any(part != "" for part in parts):
        raise FieldError(where, f"{where} is empty", "say something in it")
    return Turn(role, tuple(part for part in parts if part != ""))


def _merged(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """Join what stands in a row of one role, as chat templates take user and assistant in turn, and system first."""
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            merged[-1] = Turn(turn.role, (*merged[-1].parts, *turn.parts))
        elif turn.role == "system" and merged:
            raise FieldError("messages", "a message of the system stands within the conversation", "begin with it")
        else:
            merged.append(turn)
    if merged[-1].role != "user":
        raise FieldError("messages", "the last message is not the user's", "end with a question")
    if next(turn.role for turn in merged if turn.role != "system") != "user":
        raise FieldError("messages", "the conversation begins with the assistant", "begin with the user")
    return tuple(merged)


def _seed(body: _Body) -> int:
    return fresh_seed() if body.seed is None else check_seed(body.seed)


def _seeded(request: Request, body: _Body) -> list[Request]:
    """Make as many requests as are wanted, each with a seed of its own, and an event of its own to cancel it."""
    first = _seed(body)
    check_seed(first + body.n - 1)
    return [replace(request, seed=first + i, cancelled=Event()) for i in range(body.n)]


def explained(found: Sequence[Any]) -> FieldError:
    """Say the first thing that is wrong in a body."""
    where = ".".join(str(each) for each in found[0]["loc"] if each != "body") or "body"
    message = str(found[0]["msg"])
    return FieldError(where[:100], f"{where[:100]}: {message[:1].lower()}{message[1:300]}")

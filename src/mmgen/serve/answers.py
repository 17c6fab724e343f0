"""What goes back, in OpenAI's schemas: whole bodies, and the events of a stream. Knows no HTTP but its events."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

from mmgen.engines import wire
from mmgen.errors import MmgenError
from mmgen.outputs.pictures import encode_image
from mmgen.request import Done, Picture, Progress, Thought
from mmgen.serve.bodies import Asked
from mmgen.serve.errors import EndingError, error_body
from mmgen.serve.scheduler import Event, Scheduler, Sketch, Ticket

_HEARTBEAT = 5.0  # seconds after which a stream says that it is alive


class Replies:
    """The replies to the requests of one body, as they come; in the thread of an event loop."""

    def __init__(self, scheduler: Scheduler, asked: Asked) -> None:
        loop, self._events = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Event]]()

        def teller(index: int) -> Any:
            def tell(event: Event) -> None:
                try:
                    loop.call_soon_threadsafe(self._events.put_nowait, (index, event))
                except RuntimeError:  # the loop is closed: nobody waits any more
                    asked.requests[index].cancelled.set()

            return tell

        self._requests = asked.requests
        self._n_left = len(asked.requests)
        self._put_back: tuple[int, Event] | None = None
        scheduler.submit(
            [Ticket(each, teller(i), asked.stream, asked.sketches) for i, each in enumerate(asked.requests)]
        )

    async def begin(self, seconds: float) -> None:
        """Wait so long for the first that comes, and raise it if it is an error."""
        try:
            self._put_back = await asyncio.wait_for(self._events.get(), seconds)
        except TimeoutError:
            return
        if isinstance(self._put_back[1], MmgenError):
            raise self._put_back[1]

    async def next(self, seconds: float | None = None) -> tuple[int, Event] | None:
        """Give (which request, what came of it); None if nothing comes for so long, or all have ended."""
        if self._n_left == 0:
            return None
        found, self._put_back = self._put_back, None
        if found is None:
            try:
                found = await asyncio.wait_for(self._events.get(), seconds)
            except TimeoutError:
                return None
        self._n_left -= isinstance(found[1], Done | MmgenError)
        return found

    @property
    def is_over(self) -> bool:
        """Whether all have ended."""
        return self._n_left == 0

    def drop(self) -> None:
        """Have the model leave off what nobody waits for."""
        for request in self._requests:
            request.cancelled.set()


class Answer(ABC):
    """An answer of one of OpenAI's schemas."""

    def __init__(self, asked: Asked, model: str) -> None:
        self.asked, self.model, self.created = asked, model, int(time.time())
        self.ends: dict[int, Done] = {}

    @abstractmethod
    def take(self, index: int, piece: Event) -> list[str]:
        """Take what came of a request; give the events of the stream that say so."""

    @abstractmethod
    def body(self) -> dict[str, Any]:
        """Give the whole body, once all has come."""

    def last(self) -> list[str]:
        """Give the events that end the stream."""
        return []

    async def whole(self, replies: Replies) -> dict[str, Any]:
        """Wait for all that comes.

        Raises:
            MmgenError: a request cannot be answered.
        """
        try:
            while not replies.is_over:
                if (found := await replies.next()) is not None:
                    await self._take(*found)
            return self.body()
        finally:
            replies.drop()

    async def stream(self, replies: Replies) -> AsyncIterator[str]:
        """Give server-sent events (html.spec.whatwg.org, 9.2) as pieces come, with comments that say how far it is."""
        try:
            while not replies.is_over:
                found = await replies.next(_HEARTBEAT)
                if found is None:
                    yield ": it goes on\n\n"
                elif isinstance(found[1], Progress):
                    yield f": {found[1].done}/{found[1].total}\n\n"
                else:
                    for each in await self._take(*found):
                        yield each
            for each in self.last():
                yield each
            yield "data: [DONE]\n\n"
        except MmgenError as error:
            yield _event(error_body(error))
        finally:
            replies.drop()

    async def _take(self, index: int, piece: Event) -> list[str]:
        if isinstance(piece, MmgenError):
            raise piece
        if isinstance(piece, Done):
            if piece.reason == "cancelled" and not self.is_cut(index):
                raise EndingError("the server ended before the answer did", "ask again")
            self.ends[index] = piece
        if isinstance(piece, Picture | Sketch):  # which take time to encode
            return await asyncio.to_thread(self.take, index, piece)
        return self.take(index, piece)

    def is_cut(self, index: int) -> bool:
        """Whether an answer was ended by what it said."""
        return False

    def usage(self, n_in: str, n_out: str) -> dict[str, Any]:
        """Count tokens, by such names."""
        counts = {n_in: max(e.n_prompt for e in self.ends.values()), n_out: sum(e.n_tokens for e in self.ends.values())}
        return {**counts, "total_tokens": sum(counts.values())}


class Words(Answer):
    """A chat completion, with pictures where some were drawn."""

    def __init__(self, asked: Asked, model: str) -> None:
        super().__init__(asked, model)
        self._id = f"chatcmpl-{uuid4().hex}"
        self._messages: list[dict[str, Any]] = [{"role": "assistant", "content": ""} for _ in asked.requests]
        self._held, self._cut = [""] * len(asked.requests), set[int]()

    def is_cut(self, index: int) -> bool:
        """Whether a stop word came."""
        return index in self._cut

    def take(self, index: int, piece: Event) -> list[str]:
        """Take words, thoughts and pictures."""
        message = self._messages[index]
        match piece:
            case str():
                if words := self._before_stops(index, piece):
                    message["content"] += words
                    return [self._chunk(index, {"content": words})]
            case Thought(text):
                message["reasoning_content"] = message.get("reasoning_content", "") + text
                return [self._chunk(index, {"reasoning_content": text})]
            case Picture():
                url = {"url": wire.data_url(piece.image)}
                image = {"type": "image_url", "image_url": url, "mmgen": wire.told(piece)}
                message.setdefault("images", []).append(image)
                return [self._chunk(index, {"images": [image]})]
            case Done():
                rest, self._held[index] = self._held[index], ""
                message["content"] += rest
                held = [self._chunk(index, {"content": rest})] if rest else []
                return [*held, self._chunk(index, {}, self._finish(index))]
        return []

    def _before_stops(self, index: int, new: str) -> str:
        """Give what can be said: what stands before a stop word, and cannot be the beginning of one."""
        if index in self._cut:
            return ""
        text, self._held[index] = self._held[index] + new, ""
        places = [text.find(stop) for stop in self.asked.stops if stop in text]
        if places:
            self._cut.add(index)
            self.asked.requests[index].cancelled.set()
            return text[: min(places)]
        longest = max((len(stop) for stop in self.asked.stops), default=1)
        ends = (text[-n:] for n in range(min(longest - 1, len(text)), 0, -1))
        held = next((end for end in ends if any(stop.startswith(end) for stop in self.asked.stops)), "")
        self._held[index] = held
        return text[: len(text) - len(held)]

    def _finish(self, index: int) -> dict[str, Any]:
        done = self.ends[index]
        chances = {"chances": list(done.chances)} if done.chances else {}
        return {"finish_reason": "length" if done.reason == "length" else "stop", **chances}

    def _shared(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, index: int, delta: dict[str, Any], finish: dict[str, Any] | None = None) -> str:
        choice = {"index": index, "delta": {"role": "assistant", **delta}, "finish_reason": None, **(finish or {})}
        return _event({**self._shared("chat.completion.chunk"), "choices": [choice]})

    def last(self) -> list[str]:
        """Give the chunk that counts tokens, if it is wanted."""
        if not self.asked.counts:
            return []
        usage = self.usage("prompt_tokens", "completion_tokens")
        return [_event({**self._shared("chat.completion.chunk"), "choices": [], "usage": usage})]

    def body(self) -> dict[str, Any]:
        """Give the completion."""
        choices = [{"index": i, "message": message, **self._finish(i)} for i, message in enumerate(self._messages)]
        usage = self.usage("prompt_tokens", "completion_tokens")
        return {**self._shared("chat.completion"), "choices": choices, "usage": usage}


class Pictures(Answer):
    """Pictures that were drawn, or made of another; kind: image_generation or image_edit, as events are called."""

    def __init__(self, asked: Asked, model: str, kind: str) -> None:
        super().__init__(asked, model)
        self._kind = kind
        self._data: list[dict[str, Any]] = [{} for _ in asked.requests]
        self._n_sketches = 0

    def take(self, index: int, piece: Event) -> list[str]:
        """Take pictures, and the beginnings of some."""
        match piece:
            case Sketch(image):
                self._n_sketches += 1
                about = {"b64_json": _base64(encode_image(image)), "partial_image_index": self._n_sketches - 1}
                return [self._said("partial_image", image.size, about)]
            case Picture():
                form = self.asked.format
                data = wire.png(piece.image) if form == "png" else encode_image(piece.image, form.upper())
                url = f"data:image/{form};base64,{_base64(data)}"
                self._data[index] = {
                    **({"url": url} if self.asked.as_url else {"b64_json": _base64(data)}), "mmgen": wire.told(piece),
                }  # fmt: skip
                self._size = piece.image.size
            case Done():
                counts = {"usage": self.usage("input_tokens", "output_tokens")}
                return [self._said("completed", self._size, {**self._data[index], **counts})]
        return []

    def _said(self, what: str, size: tuple[int, int], about: dict[str, Any]) -> str:
        kind = f"{self._kind}.{what}"
        shared = {"type": kind, "created_at": self.created, "output_format": self.asked.format, "quality": "auto"}
        shared |= {"size": f"{size[0]}x{size[1]}", "background": "opaque"}
        return _event({**shared, **about}, kind)

    def body(self) -> dict[str, Any]:
        """Give the pictures."""
        usage = self.usage("input_tokens", "output_tokens")
        return {"created": self.created, "data": self._data, "output_format": self.asked.format, "usage": usage}


def _event(data: dict[str, Any], kind: str = "") -> str:
    name = f"event: {kind}\n" if kind else ""
    return f"{name}data: {json.dumps(data)}\n\n"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

"""What comes back from an OpenAI-compatible server, as pieces: whole bodies, and the events of a stream."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from typing import Any

from mmgen.engines import wire
from mmgen.errors import MmgenError
from mmgen.request import Done, Picture, Piece, Progress, Reason, Request, Thought

_HOW_FAR = re.compile(r":\s*(\d+)/(\d+)")  # a comment of mmgen serve, which others pass over


class AgainError(Exception):
    """An attempt failed in a way that another may not; pause: seconds that the server asks for."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


class Answer:
    """An answer as it comes."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._reason: Reason | None = None
        self._n_tokens = self._n_prompt = self._n_pictures = 0
        self._chances: tuple[float, ...] = ()
        self._sketch: Any = None

    @property
    def end(self) -> Done | None:
        """Its end, if it has come."""
        if self._reason is None:
            return None
        return Done(self._reason, self._n_tokens, self._chances, n_prompt=self._n_prompt)

    def progress(self, line: str) -> Iterator[Piece]:
        """Take a comment of the stream."""
        if found := _HOW_FAR.match(line):
            sketch = self._sketch
            yield Progress(int(found[1]), int(found[2]), None if sketch is None else lambda: sketch)

    def take(self, event: dict[str, Any]) -> Iterator[Piece]:
        """Take an event, or a whole body.

        Raises:
            MmgenError: the server says that it failed, or sent what is no picture.
            AgainError: it says that it failed for now.
        """
        if isinstance(failure := event.get("error"), dict):
            if failure.get("type") in ("server_error", "rate_limit_error"):
                raise AgainError(error_of(failure).message)
            raise error_of(failure)
        kind = str(event.get("type", ""))
        if kind.endswith(".partial_image"):
            from PIL import Image

            with Image.open(io.BytesIO(base64.b64decode(event["b64_json"]))) as image:
                self._sketch = image.convert("RGBA")
        elif kind.endswith(".completed"):
            yield self._picture(event)
            self._reason = "end"
        elif isinstance(event.get("data"), list) and event["data"]:
            yield self._picture(event["data"][0])
            self._reason = "end"
        for choice in event.get("choices") or ():
            said = choice.get("delta") or choice.get("message") or {}
            if thought := said.get("reasoning_content") or said.get("reasoning"):
                yield Thought(thought)
            if said.get("content"):
                yield said["content"]
            for image in said.get("images") or ():
                yield self._picture({"url": image["image_url"]["url"], "mmgen": image.get("mmgen")})
            if choice.get("finish_reason"):
                self._reason = "length" if choice["finish_reason"] == "length" else "end"
                self._chances = tuple(choice.get("chances") or ())
        if usage := event.get("usage"):
            self._n_tokens = usage.get("completion_tokens") or usage.get("output_tokens") or 0
            self._n_prompt = usage.get("prompt_tokens") or usage.get("input_tokens") or 0

    def _picture(self, item: dict[str, Any]) -> Picture:
        self._n_pictures += 1
        data = item.get("b64_json") or item.get("url") or ""
        return wire.received(data, item.get("mmgen"), self._request.seed + self._n_pictures - 1)


def error_of(said: Any, sent: dict[str, Any] | None = None) -> MmgenError:
    """Make an error of what a server says was wrong; where it is a field that was sent, name the flag to leave out."""
    said = said if isinstance(said, dict) else {"message": said}
    message = " ".join(str(said.get("message") or said.get("detail") or "it gave no reason").split())
    hint = str(said.get("hint") or "")
    words = {*re.findall(r"\w+", f"{said.get('param') or ''} {message}")}
    refused = next((name for name in sent or {} if name in words and name not in ("prompt", "model", "messages")), None)
    if not hint and refused:
        hint = f"this server does not take it: leave out --{refused.replace('_', '-')}"
    return MmgenError(message[:1000], hint)

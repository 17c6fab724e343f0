"""Prompts by a checkpoint's own chat template: a conversation to ids, with pictures where it has them. Without torch.

What a user types is text even where it spells a special token: only the template's own are read as such.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tokenizers import Tokenizer

from mmgen.decoding.grammar import Prompt, Vocabulary
from mmgen.errors import MmgenError, TooLongError
from mmgen.request import WORDS, Request, Turn

if TYPE_CHECKING:
    from PIL import Image

    from mmgen.catalog import Checkpoint

_FIND_STAND_IN = re.compile("\ufdd0(\\d+)\ufdd1")  # noncharacters (Unicode 15, section 23.7) around its number


class TemplatePrompter(ABC):
    """Writes prompts for one checkpoint with a chat template.

    Args:
        checkpoint: its template and tokenizer.
        context: most positions of one reply, prompt included.

    Attributes:
        vocabulary: the ids that carry structure; a family's own.
        start: ids that every prompt begins with.
    """

    vocabulary: Vocabulary

    def __init__(self, checkpoint: Checkpoint, context: int) -> None:
        self.name, self._folder = checkpoint.name, checkpoint.folder
        self._tokenizer = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json"))
        self._settings = self.read_json("tokenizer_config.json")
        self.generation = self.read_json("generation_config.json")
        self.context = context
        added = self._tokenizer.get_added_tokens_decoder().values()
        texts = [*(token.content for token in added if token.special), *self._named().values()]
        found = {text: self._tokenizer.token_to_id(text) for text in texts}
        self._special: dict[str, int] = {text: id_ for text, id_ in found.items() if id_ is not None}
        self._special_ids = frozenset(self._special.values())
        self.image_id = self.named("image_token")
        adds_bos = self._settings.get("add_bos_token", len(self._tokenizer.encode("").ids) > 0)
        self.start = (self.named("bos_token"),) if adds_bos else ()
        self._tokenizer.encode_special_tokens = True

    @abstractmethod
    def picture_length(self, image: Image.Image) -> int:
        """Say how many ids a picture in a prompt takes."""

    @abstractmethod
    def canvas(self, request: Request, ids: Sequence[int]) -> Prompt:
        """Turn the ids of a request for a picture into its prompt: what precedes begin-image."""

    def check(self, request: Request) -> None:
        """Raise MmgenError if the prompt and the least that is wanted do not fit into the context."""
        self.write(request, lambda image: [self.image_id] * self.picture_length(image))

    def write(self, request: Request, encode: Callable[[Image.Image], Sequence[int]]) -> Prompt:
        """Write a request's prompt.

        Args:
            encode: picture -> the ids that stand for it.

        Raises:
            MmgenError: too long for the context, or a conversation without a template for it.
        """
        ids = self.ids(request, encode)
        prompt, least = Prompt(tuple(ids)), 1
        if request.want != WORDS:
            prompt = self.canvas(request, ids)
            v = self.vocabulary
            height, width = prompt.grid or (v.side, v.side)
            least = 1 + height * (width + (v.row_end is not None))
        length = max(len(prompt.ids), len(prompt.away_from))
        if length + least > self.context:
            raise TooLongError(length, least, self.context, in_conversation=bool(request.history))
        return prompt

    def ids(self, request: Request, encode: Callable[[Image.Image], Sequence[int]]) -> list[int]:
        """Turn a request's conversation, or the text to be continued, into ids."""
        turns = (*request.history, Turn("user", request.parts))
        pictures = [part for turn in turns for part in turn.parts if not isinstance(part, str)]
        typed: list[str] = []
        if request.completion and request.history:
            raise MmgenError("a conversation is answered, not continued", "leave out one of the two")
        if request.completion:
            mark = self._named()["image_token"]
            text = "".join(_stand_in(part, typed) if isinstance(part, str) else mark for part in request.parts)
        else:
            text = self._render([_message(turn, typed) for turn in turns])
        text = self.preface(request) + text
        if self.start:
            text = text.removeprefix(self._named()["bos_token"])
        return [*self.start, *self._encode(text, typed, [list(encode(picture)) for picture in pictures])]

    def preface(self, request: Request) -> str:
        """Give what precedes every conversation beside its template; nothing, but for families that have it."""
        return ""

    def text_ids(self, text: str) -> list[int]:
        """Turn plain text into ids; no id with a structural meaning ever comes out."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        for id_, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if id_ in self._special_ids and end - start > 1:
                # An added token that the tokenizer does not know as special: split the text inside it.
                middle = (start + end) // 2
                return self.text_ids(text[:middle]) + self.text_ids(text[middle:])
        return list(encoding.ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn words' ids into text, without the special ones."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def named(self, key: str) -> int:
        """Find the id of a special token by its part, such as bos_token or image_token."""
        id_ = self._tokenizer.token_to_id(self._named().get(key, ""))
        if id_ is None:
            raise MmgenError(f"{self.name}: the tokenizer has no {key}", "is this checkpoint complete?")
        return id_

    def ends(self) -> frozenset[int]:
        """List the ids that end a reply, as the checkpoint says."""
        given = self.generation.get("eos_token_id")
        ends = given if isinstance(given, list) else [given]
        return frozenset(id_ for id_ in ends if isinstance(id_, int)) or frozenset({self.named("eos_token")})

    def read_json(self, name: str) -> dict[str, Any]:
        """Read one of the checkpoint's files; without it there is nothing."""
        path: Path = self._folder / name
        try:
            found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise MmgenError(f"{path} is not valid JSON: {error}", "fetch the file again") from error
        return found

    def _named(self) -> dict[str, str]:
        """Map the parts of special tokens to their texts, old files and new."""
        extra = self._settings.get("extra_special_tokens")
        found = {**self._settings, **(extra if isinstance(extra, dict) else {})}
        texts = {
            key: token["content"] if isinstance(token, dict) else token
            for key, token in found.items()
            if key.endswith("_token")
        }
        return {key: text for key, text in texts.items() if isinstance(text, str)}

    def _render(self, messages: list[dict[str, Any]]) -> str:
        from jinja2.exceptions import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        path = self._folder / "chat_template.jinja"
        template: str | None = path.read_text("utf-8") if path.exists() else None
        for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
            template = template or self.read_json(name).get("chat_template")
        if template is None:
            raise MmgenError(f"{self.name} has no chat template", "continue a text with mmgen ask --complete")
        try:
            rendered: Any = render_jinja_template(
                [messages], chat_template=template, add_generation_prompt=True, **cast(Any, self._named())
            )
        except TemplateError as error:
            raise MmgenError(f"the chat template of {self.name} refuses this: {error}", "ask in another way") from error
        text: str = rendered[0][0]
        return text

    def _encode(self, text: str, typed: Sequence[str], pictures: list[list[int]]) -> list[int]:
        """Turn a rendered text into ids: special tokens as such, stand-ins as typed text, image tokens as pictures."""
        present = sorted((token for token in self._special if token in text), key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, present))})", text) if present else [text]
        ids: list[int] = []
        waiting = iter(pictures)
        for index, piece in enumerate(pieces):
            if index % 2:
                id_ = self._special[piece]
                ids += next(waiting) if id_ == self.image_id else [id_]
            elif piece:
                ids += self.text_ids(_FIND_STAND_IN.sub(lambda found: typed[int(found[1])], piece))
        return ids


def _message(turn: Turn, typed: list[str]) -> dict[str, Any]:
    """Write a turn as a template wants it, with stand-ins for what was typed."""
    content = [
        {"type": "text", "text": _stand_in(part, typed)} if isinstance(part, str) else {"type": "image"}
        for part in turn.parts
    ]
    return {"role": turn.role, "content": content}


def _stand_in(text: str, typed: list[str]) -> str:
    """Keep a typed text and give what stands for it; the space around it stays, as some templates take it away."""
    word = text.strip()
    if not word:
        return text
    typed.append(word)
    before, after = text.split(word, 1) if word != text else ("", "")
    return f"{before}\ufdd0{len(typed) - 1}\ufdd1{after}"

"""Prompts by a checkpoint's own chat template: a conversation to ids, with pictures where it has them. Without torch.

Typed words stand aside while the template is rendered: only its own special tokens are read as such.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from mmgen.decoding.grammar import PromptIds, Vocabulary
from mmgen.errors import MmgenError
from mmgen.families.token_prompt import TokenPrompter
from mmgen.request import WORDS, Request, Turn

if TYPE_CHECKING:
    from PIL import Image

    from mmgen.checkpoints.catalog import Checkpoint

_FIND_STAND_IN = re.compile("\ufdd0(\\d+)\ufdd1")  # noncharacters (Unicode 15, section 23.7) around its number


class TemplatePrompter(TokenPrompter):
    """Writes prompts for one checkpoint with a chat template.

    Attributes:
        image_id: stands for a picture in a rendered template.
        start: ids that every prompt begins with.
    """

    def __init__(self, checkpoint: Checkpoint, context: int) -> None:
        super().__init__(checkpoint, context)
        self._settings = checkpoint.read_json("tokenizer_config.json")
        self.generation = checkpoint.read_json("generation_config.json")
        added = self.tokenizer.get_added_tokens_decoder().values()
        texts = [*(token.content for token in added if token.special), *self._named().values()]
        found = {text: self.tokenizer.token_to_id(text) for text in texts}
        self._special: dict[str, int] = {text: id_ for text, id_ in found.items() if id_ is not None}
        self.structural = frozenset(self._special.values())
        self.image_id = self.named("image_token")
        adds_bos = self._settings.get("add_bos_token", len(self.tokenizer.encode("").ids) > 0)
        self.start = (self.named("bos_token"),) if adds_bos else ()

    @abstractmethod
    def canvas(self, request: Request, ids: Sequence[int]) -> PromptIds:
        """Turn the ids of a request for a picture into its prompt: what precedes begin-image."""

    def write(self, request: Request, encode: Callable[[Image.Image], Sequence[int]]) -> PromptIds:
        """Write a request's prompt."""
        ids = self.ids(request, encode)
        prompt, least = PromptIds(tuple(ids)), 1
        if request.want != WORDS:
            prompt = self.canvas(request, ids)
            v = self.vocabulary
            height, width = prompt.grid or (v.side, v.side)
            least = 1 + height * (width + (v.row_end is not None))
        self.check_length(request, max(len(prompt.ids), len(prompt.unconditional)), least)
        return prompt

    def ids(self, request: Request, encode: Callable[[Image.Image], Sequence[int]]) -> list[int]:
        """Turn a request's conversation, or the text to be continued, into ids."""
        typed: list[str] = []
        if request.completion and request.history:
            raise MmgenError("a conversation is answered, not continued", "leave out one of the two")
        if request.completion:
            mark = self._named()["image_token"]
            text = "".join(_stand_in(part, typed) if isinstance(part, str) else mark for part in request.parts)
        else:
            text = self._render([_message(turn, typed) for turn in request.turns])
        text = self.preface(request) + text
        if self.start:
            text = text.removeprefix(self._named()["bos_token"])
        return [*self.start, *self._encode(text, typed, [list(encode(image)) for image in request.images])]

    def preface(self, request: Request) -> str:
        """Give what precedes every conversation beside its template; nothing, but for families that have it."""
        return ""

    def named(self, key: str) -> int:
        """Find the id of a special token by its part, such as bos_token or image_token."""
        id_ = self.tokenizer.token_to_id(self._named().get(key, ""))
        if id_ is None:
            raise MmgenError(f"{self.checkpoint.name}: the tokenizer has no {key}", "is this checkpoint complete?")
        return id_

    def make_vocabulary(
        self, begin_image: str, *, size: int, n_codes: int, code_ids: tuple[int, ...] = (), row_end: int | None = None
    ) -> Vocabulary:
        """Gather the ids that carry structure; those that end a reply are the checkpoint's own.

        Args:
            begin_image: the part that its token plays.
        """
        given = self.generation.get("eos_token_id")
        ends = {id_ for id_ in (given if isinstance(given, list) else [given]) if isinstance(id_, int)}
        eos, *others = sorted(ends or {self.named("eos_token")})
        return Vocabulary(
            size=size, bos=self.named("bos_token"), eos=eos, end_of_turn=eos, begin_image=self.named(begin_image),
            end_image=self.named("eoi_token"), placeholder=self.image_id, code_ids=code_ids, n_codes=n_codes,
            row_end=row_end, other_ends=frozenset(others),
        )  # fmt: skip

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

        path = self.checkpoint.folder / "chat_template.jinja"
        template: str | None = path.read_text("utf-8") if path.exists() else None
        for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
            template = template or self.checkpoint.read_json(name).get("chat_template")
        if template is None:
            raise MmgenError(
                f"{self.checkpoint.name} has no chat template", "continue a text with mmgen ask --complete"
            )
        try:
            rendered: Any = render_jinja_template(
                [messages], chat_template=template, add_generation_prompt=True, **cast(Any, self._named())
            )
        except TemplateError as error:
            raise MmgenError(
                f"the chat template of {self.checkpoint.name} refuses this: {error}", "ask in another way"
            ) from error
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

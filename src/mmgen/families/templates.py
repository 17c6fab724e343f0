"""Conversations as a checkpoint's own chat template writes them, and texts to be continued. Imports no torch.

A template takes the content of a message as a list of parts or as one string: which of them is found out by rendering,
so that a list as Python prints it never reaches a model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from mmgen.errors import MmgenError, UsageError
from mmgen.request import Part, Request, Role

if TYPE_CHECKING:
    from PIL import Image

_PROBE = "\ufdd2probe\ufdd3"  # noncharacters (Unicode 15, section 23.7) around a word, which no template has
# Around the thoughts of models that think before they answer: Qwen3, GLM-4.1V; Gemma 4; Mistral.
_THOUGHTS = (("<think>", "</think>"), ("<|channel>", "<channel|>"), ("[THINK]", "[/THINK]"))

Message = dict[str, Any]
Style = Literal["parts", "string", "none"]  # of a message's content; none: the template has no place for it


class Template:
    """Writes prompts by a processor's chat template.

    Args:
        processor: transformers', with its template or without one.
        name: of the checkpoint.

    Attributes:
        thoughts: tokens that begin and end the thoughts of a model that thinks before it answers, if it does.
    """

    def __init__(self, processor: Any, name: str) -> None:
        self._processor, self._name = processor, name
        self._styles: dict[Role, Style] = {}
        words = processor.tokenizer.get_vocab()
        self.thoughts = next((pair for pair in _THOUGHTS if set(pair) <= words.keys()), None)

    def written(self, request: Request, write: Callable[[str], str] = str) -> str:
        """Write a prompt as text with a mark in place of each image: by the template, or as a text to be continued.

        Args:
            write: changes what was typed.

        Raises:
            MmgenError: the processor or its template has no way to write this.
        """
        if request.completion:
            return self._continued(request, write)
        return self._render(self.messages(request, write), dict(request.template_args))

    def messages(self, request: Request, write: Callable[[str], str] = str) -> list[Message]:
        """Write a conversation as the template takes it (transformers, docs/source/en/chat_templating_multimodal.md).

        Raises:
            MmgenError: there is no template, or it has no place for a system prompt, or no use for an argument.
        """
        template = self._processor.chat_template
        if template is None:
            raise MmgenError(
                f"{self._name} has no chat template: it continues texts and answers no questions",
                "give it the beginning of a text, with --complete",
            )
        for name, _ in request.template_args:
            if not re.search(rf"\b{re.escape(name)}\b", str(template)):
                raise UsageError(f"the chat template of {self._name} has no use for {name}", "leave --template-arg out")
        return [self._message(turn.role, turn.parts, write) for turn in request.turns]

    @property
    def takes_strings(self) -> bool:
        """Whether the content of a question is one string, with marks in place of images."""
        return self._style("user") == "string"

    def _message(self, role: Role, parts: Sequence[Part], write: Callable[[str], str]) -> Message:
        style = self._style(role)
        if style == "none":
            raise MmgenError(f"the chat template of {self._name} has no place for a {role} prompt", "leave it out")
        if style == "string":
            mark = str(getattr(self._processor, "image_token", None) or "")
            return {"role": role, "content": "".join(write(p) if isinstance(p, str) else mark for p in parts)}
        return {"role": role, "content": [_part(part, write) for part in parts]}

    def _style(self, role: Role) -> Style:
        """Find out how the content of a role's messages is to be given, the first time that it is asked for."""
        if role not in self._styles:
            asked = [] if role == "user" else [self._probe("user", self._style("user"), "why?")]
            styles: tuple[Style, ...] = ("parts", "string")
            for style in styles:
                probe = self._probe(role, style, _PROBE)
                try:
                    text = self._render([*asked, probe] if role == "assistant" else [probe, *asked], {})
                except MmgenError:
                    continue
                if _PROBE in text and f"'{_PROBE}'" not in text:  # in quotes: a list as Python prints it
                    self._styles[role] = style
                    break
            else:
                self._styles[role] = "parts" if role != "system" else "none"  # the template says what it misses
        return self._styles[role]

    def _probe(self, role: Role, style: Style, text: str) -> Message:
        return {"role": role, "content": text if style == "string" else [{"type": "text", "text": text}]}

    def _render(self, conversation: list[Message], arguments: dict[str, Any]) -> str:
        from jinja2 import TemplateError

        try:
            text: str = self._processor.apply_chat_template(
                conversation, add_generation_prompt=True, tokenize=False, **arguments
            )
        except (TemplateError, TypeError, ValueError) as error:  # the template is the checkpoint's, not ours
            raise refusal(self._name, error) from error
        return text

    def _continued(self, request: Request, write: Callable[[str], str]) -> str:
        if request.history:
            raise MmgenError("a text to continue has no earlier turns", "leave out --complete, or what is before it")
        mark: str | None = getattr(self._processor, "image_token", None)
        if request.images and mark is None:
            raise MmgenError(
                f"{self._name} cannot continue a text with pictures: its processor names no token for them",
                "leave out the pictures, or --complete",
            )
        return "".join(write(part) if isinstance(part, str) else str(mark or "") for part in request.parts)


def _part(part: str | Image.Image, write: Callable[[str], str]) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": write(part)}
    return {"type": "image", "image": part.convert("RGB")}


def refusal(name: str, error: Exception) -> MmgenError:
    """Say in words of ours what a processor or its template said of a prompt."""
    return MmgenError(
        f"{name} cannot take this prompt: {' '.join(str(error).split())}", "change the prompt, or the pictures in it"
    )

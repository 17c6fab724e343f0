"""Prompts as ids: typed words to ids and back, conversations by a checkpoint's own chat template. Imports no torch.

Typed text stays text even where it spells a special token: no id with a structural meaning ever comes of it. It stands
aside while a template is rendered, so that only the template's own special tokens are read as such.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from mmgen.decoding.grammar import Canvas, PromptIds, Vocabulary
from mmgen.errors import MmgenError, TooLongError
from mmgen.families.processors import load_processor
from mmgen.families.templates import Template
from mmgen.inputs.masks import forced
from mmgen.request import WORDS, Request

if TYPE_CHECKING:
    from PIL import Image
    from transformers import PreTrainedConfig

    from mmgen.checkpoints.catalog import Checkpoint

_FIND_STAND_IN = re.compile("\ufdd0(\\d+)\ufdd1")  # noncharacters (Unicode 15, section 23.7) around its number


class TokenPrompter(ABC):
    """Writes prompts for one checkpoint, as ids.

    Attributes:
        context: most positions of one reply, prompt included.
        vocabulary: the ids that carry structure; a family's own.
        structural: ids that never come of typed text; a family's own.
    """

    context: int
    vocabulary: Vocabulary
    structural: frozenset[int]

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.name = checkpoint.name
        self.tokenizer = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json"))
        self.tokenizer.encode_special_tokens = True  # what a user types is text, "</s>" too

    def token_id(self, token: str) -> int:
        """Find the id of a token.

        Raises:
            MmgenError: there is none.
        """
        id_: int | None = self.tokenizer.token_to_id(token)
        if id_ is None:
            raise MmgenError(f"{self.name}: the tokenizer has no {token}", "is this checkpoint complete?")
        return id_

    @abstractmethod
    def image_length(self, image: Image.Image) -> int:
        """Say how many ids an image in a prompt takes."""

    def grid(self, image: Image.Image) -> tuple[int, int] | None:
        """Say how many rows and columns of codes an image in a prompt is; None: it is no codes."""
        return None

    @abstractmethod
    def image_ids(self, encoded: Any) -> list[int]:
        """Write an image as it stands in a prompt, given what the model encodes it as."""

    @abstractmethod
    def lay_out(self, request: Request, images: Sequence[Sequence[int]]) -> PromptIds:
        """Write a request's prompt, of whatever length."""

    def write(self, request: Request, images: Sequence[Sequence[int]]) -> PromptIds:
        """Write a request's prompt.

        Args:
            images: the ids that stand for each image of the request.

        Raises:
            MmgenError: too long for the context, or beyond the checkpoint's chat template.
        """
        prompt = self.lay_out(request, images)
        canvas = prompt.canvas or self.vocabulary.canvas
        length = max(len(prompt.ids), len(prompt.unconditional))
        least = 1 if "text" in request.want else 1 + canvas.rows * (canvas.columns + (canvas.row_end is not None))
        if length + least > self.context:
            raise TooLongError(length, least, self.context, in_conversation=bool(request.history))
        return prompt

    def check(self, request: Request) -> None:
        """Raise MmgenError if a request's prompt cannot be written, without looking at its images."""
        images = [[self.vocabulary.placeholder] * self.image_length(image) for image in request.images]
        canvas = self.write(request, images).canvas or self.vocabulary.canvas
        if request.edit is not None:
            self.write(replace(request, parts=(request.edit.source_prompt or "",)), [])
            forced(request, canvas.rows, canvas.columns)

    def text_ids(self, text: str) -> list[int]:
        """Turn typed text into ids; no id with a structural meaning ever comes out."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        for id_, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if id_ in self.structural and end - start > 1:
                # An added token that the tokenizer does not know as special: split the text inside it.
                middle = (start + end) // 2
                return self.text_ids(text[:middle]) + self.text_ids(text[middle:])
        return list(encoding.ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn words' ids into text, without the special ones."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)


class TemplatePrompter(TokenPrompter):
    """Writes prompts for one checkpoint with a chat template.

    Attributes:
        config: the checkpoint's, as transformers reads it.
        image_processor: prepares images.
        template: writes conversations.
        image_id: stands for an image in a rendered template.
        start: ids that every prompt begins with.
    """

    def __init__(self, checkpoint: Checkpoint, config_class: type[PreTrainedConfig]) -> None:
        from mmgen.checkpoints.loading import read_config, read_image_processor

        super().__init__(checkpoint)
        self.config: Any = read_config(config_class, checkpoint)
        self.context = self.config.get_text_config().max_position_embeddings
        self.image_processor = read_image_processor(checkpoint)
        self.processor = load_processor(checkpoint)
        self.template = Template(self.processor, checkpoint.name)
        self.generation = checkpoint.read_json("generation_config.json")
        own = self.processor.tokenizer
        self._special = {token.content: id_ for id_, token in own.added_tokens_decoder.items() if token.special}
        self._special |= dict(zip(own.all_special_tokens, own.all_special_ids, strict=True))
        self.structural = frozenset(self._special.values())
        self.image_id = self.named("image_token")
        self.start: tuple[int, ...] = (self.named("bos_token"),) if own("")["input_ids"] else ()

    @abstractmethod
    def image_prompt(self, request: Request, ids: Sequence[int]) -> PromptIds:
        """Turn the ids of a request for an image into its prompt: what precedes begin-image."""

    def lay_out(self, request: Request, images: Sequence[Sequence[int]]) -> PromptIds:
        """Write a request's prompt, of whatever length: its conversation, or the text to be continued."""
        typed: list[str] = []

        def stand_in(text: str) -> str:
            word = text.strip()  # the space around it stays, as some templates take it away
            if not word:
                return text
            typed.append(word)
            return text.replace(word, f"\ufdd0{len(typed) - 1}\ufdd1", 1)

        text = self.preface(request) + self.template.written(request, stand_in)
        if self.start:
            text = text.removeprefix(self.processor.tokenizer.bos_token)
        waiting = iter(images)
        present = sorted((token for token in self._special if token in text), key=len, reverse=True)
        ids = list(self.start)
        for piece in re.split(f"({'|'.join(map(re.escape, present))})", text) if present else [text]:
            if piece in self._special:
                id_ = self._special[piece]
                ids += next(waiting) if id_ == self.image_id else [id_]
            else:
                ids += self.text_ids(_FIND_STAND_IN.sub(lambda found: typed[int(found[1])], piece))
        return PromptIds(tuple(ids)) if request.want == WORDS else self.image_prompt(request, ids)

    def preface(self, request: Request) -> str:
        """Give what precedes every conversation beside its template; nothing, but for families that have it."""
        return ""

    def named(self, part: str) -> int:
        """Find the id of a special token by the part it plays, such as bos_token or image_token."""
        return self.token_id(getattr(self.processor.tokenizer, part, None) or part)

    def generated(self, part: str) -> Any:
        """Find the id, or the ids, of a special token as `generate` does: by generation_config.json first."""
        given = self.generation.get(f"{part}_id")
        return self.named(part) if given is None else given

    def make_vocabulary(self, begin_image: str, code_ids: Sequence[int], canvas: Canvas) -> Vocabulary:
        """Gather the ids that carry structure; those that end a reply are the checkpoint's own.

        Args:
            begin_image: the part that its token plays.
        """
        given = self.generated("eos_token")
        return Vocabulary(
            size=self.config.get_text_config().vocab_size,
            bos=self.named("bos_token"),
            ends=frozenset(given if isinstance(given, list) else [given]),
            begin_image=self.named(begin_image),
            end_image=self.named("eoi_token"),
            placeholder=self.image_id,
            code_ids=tuple(code_ids),
            canvas=canvas,
        )

"""What prompts of our own decoding loops have in common: typed words to ids and back, and room for them. No torch.

What a user types is text even where it spells a special token: no id with a structural meaning ever comes of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from mmgen.decoding.grammar import PromptIds, Vocabulary
from mmgen.errors import TooLongError
from mmgen.request import Request

if TYPE_CHECKING:
    from PIL import Image

    from mmgen.checkpoints.catalog import Checkpoint


class TokenPrompter(ABC):
    """Writes prompts for one checkpoint, as ids.

    Args:
        checkpoint: its tokenizer.
        context: most positions of one reply, prompt included.

    Attributes:
        vocabulary: the ids that carry structure; a family's own.
        structural: ids that never come of typed text; a family's own.
    """

    vocabulary: Vocabulary
    structural: frozenset[int]

    def __init__(self, checkpoint: Checkpoint, context: int) -> None:
        self.checkpoint, self.context = checkpoint, context
        self.tokenizer = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json"))
        self.tokenizer.encode_special_tokens = True  # what a user types is text, "</s>" too

    @abstractmethod
    def picture_length(self, image: Image.Image) -> int:
        """Say how many ids a picture in a prompt takes."""

    @abstractmethod
    def write(self, request: Request, encode: Callable[[Image.Image], Sequence[int]]) -> PromptIds:
        """Write a request's prompt.

        Args:
            encode: picture -> the ids that stand for it.

        Raises:
            MmgenError: too long for the context, or beyond the checkpoint's chat template.
        """

    def check(self, request: Request) -> None:
        """Raise MmgenError if a request's prompt cannot be written, without looking at its pictures."""
        self.write(request, lambda image: [self.vocabulary.placeholder] * self.picture_length(image))

    def check_length(self, request: Request, length: int, least: int) -> None:
        """Raise TooLongError if a prompt and the least that is wanted do not fit into the context."""
        if length + least > self.context:
            raise TooLongError(length, least, self.context, in_conversation=bool(request.history))

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

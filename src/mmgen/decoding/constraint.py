"""Replies that are JSON of a schema: which tokens may come next. The package llguidance knows; it is an extra.

Willard & Louf, "Efficient Guided Generation" (arXiv 2307.09702); the masks are llguidance's (github.com/guidance-ai).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

# As JSON is written nearly everywhere.
_SPACING: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Constraint:
    """The tokens that may come next in one reply.

    Args:
        tokenizer: llguidance's.
        schema: JSON schema, as text.
        ends: ids that end a reply.
        opens_after: an id that ends thoughts, until which anything may come.
    """

    def __init__(self, tokenizer: Any, schema: str, ends: Collection[int], opens_after: int | None = None) -> None:
        from llguidance import LLMatcher

        self._matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(schema, _SPACING))
        self._ends = list(ends)
        self._opens_after = opens_after

    def push(self, id_: int) -> None:
        """Take note of a token that came."""
        if self._opens_after is not None:
            self._opens_after = None if id_ == self._opens_after else self._opens_after
        elif not self._matcher.is_stopped():
            self._matcher.consume_token(id_)

    def cut(self, logits: Tensor) -> Tensor:
        """Leave of logits [V] those that may come next; the others are minus infinity."""
        if self._opens_after is not None:
            return logits
        if self._matcher.is_stopped():  # it is whole
            return torch.full_like(logits, -torch.inf).index_fill(
                0, torch.tensor(self._ends, device=logits.device), 0.0
            )
        # llguidance's own kernel is compiled at run time, which takes a compiler, and was wrong on AVX2.
        packed = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        allowed = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1  # the first bit is the first token's
        return logits.masked_fill(allowed.flatten()[: len(logits)].to(logits.device) == 0, -torch.inf)


def own_tokenizer(tokenizer: str, size: int, ends: Collection[int]) -> Any:
    """Make llguidance's tokenizer of a tokenizer.json, as text; about a second for a large one."""
    from llguidance import LLTokenizer

    return LLTokenizer(tokenizer, n_vocab=size, eos_token=list(ends))


def no_constraint(_: object) -> None:
    """Let anything come."""


def next_ids_allowed(scores: Tensor, constraints: Sequence[Constraint | None]) -> Tensor:
    """Cut each row of scores [B, V] as its constraint says."""
    rows = zip(scores, constraints, strict=True)
    return torch.stack([row if each is None else each.cut(row) for row, each in rows])

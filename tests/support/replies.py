"""What the tests of families share: pictures of noise, replies gathered, and the ids of words that were said."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image

from mmgen.decoding.sampling import Noise, log_probabilities
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.families.chat import Chat
from mmgen.request import Done, ImageSampling, Picture, Progress, Request

_FIRST_LETTER = 0xF0000  # of those that Unicode leaves to private use


def image(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


def gathered(model: AutoregressiveModel, requests: Sequence[Request]) -> list[Any]:
    """Answer requests in one go: the words, the picture or the error of each."""
    found: list[Any] = ["" for _ in requests]
    for index, piece in model.replies(requests):
        if isinstance(piece, str):
            found[index] += piece
        elif not isinstance(piece, Progress | Done):
            found[index] = piece
    return found


def said(model: AutoregressiveModel | Chat, requests: Sequence[Request]) -> list[list[int]]:
    """Answer requests in one go: the ids of each, those of codes too, without an end.

    On the way a letter stands for each id.
    """

    def spell(ids: Sequence[int]) -> str:
        return "".join(chr(_FIRST_LETTER + id_) for id_ in ids)

    texts = [""] * len(requests)
    if isinstance(model, Chat):
        spelling = patch.object(model.prompter, "decode", spell)
    else:
        spelling = patch.object(model, "language_model", replace(model.language_model, detokenise=spell))
    with spelling:
        for index, piece in model.replies(requests):
            if isinstance(piece, Picture):
                texts[index] += spell(model.language_model.network.code_ids[list(piece.codes or ())].tolist())
            texts[index] += piece if isinstance(piece, str) else ""
    return [without_end([ord(letter) - _FIRST_LETTER for letter in text], ends(model)) for text in texts]


def ends(model: AutoregressiveModel | Chat) -> set[int]:
    """List the ids that end a model's replies."""
    if isinstance(model, Chat):
        found = model.model.generation_config.eos_token_id
        return set(found) if isinstance(found, list) else {found}
    return set(model.language_model.vocabulary.ends)


def without_end(ids: Sequence[int], ends: Collection[int]) -> list[int]:
    """Cut a reply where it ends."""
    return list(ids[: next((place for place, id_ in enumerate(ids) if id_ in ends), len(ids))])


class RowSampler:
    """Our sampling as a logits processor for stock `generate`: each row's pick is all that is left of its scores.

    Where no code may follow it lets the scores pass.

    Args:
        code_ids: where the codes stand among the logits; None: they are all there is.
    """

    def __init__(self, sampling: ImageSampling, seeds: Sequence[int], code_ids: torch.Tensor | None = None) -> None:
        self._sampling, self._code_ids = sampling, code_ids
        self._noises = [Noise(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        codes = torch.arange(scores.shape[-1]) if self._code_ids is None else self._code_ids
        allowed = scores[:, codes]
        if allowed.isneginf().all():  # another token is forced here
            return scores
        if self._sampling.temperature > 0:
            s = self._sampling
            gumbel = torch.stack([noise.row(len(codes)) for noise in self._noises])
            allowed = log_probabilities(allowed, s) + gumbel
        picks = allowed.argmax(-1)
        return torch.full_like(scores, -torch.inf).scatter(-1, codes[picks][:, None], 0.0)

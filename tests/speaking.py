"""What the tests of families with our own decoding loops share: pictures of noise, and replies gathered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from PIL import Image

from mmgen.decoding.grammar import Grammar
from mmgen.decoding.sampling import Noise, log_probabilities
from mmgen.families.speaking import SpeakingModel
from mmgen.request import Done, ImageSampling, Picture, Progress, Request

_saw_word = Grammar.saw_word


def image(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


def gathered(model: SpeakingModel, requests: Sequence[Request]) -> list[Any]:
    """Answer requests in one go: the words, the picture or the error of each."""
    found: list[Any] = ["" for _ in requests]
    for index, piece in model.replies(requests):
        if isinstance(piece, str):
            found[index] += piece
        elif not isinstance(piece, Progress | Done):
            found[index] = piece
    return found


def spoken(model: SpeakingModel, request: Request, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """List the ids of a reply in words, the last one included, as the grammar sees them."""
    said: list[int] = []
    monkeypatch.setattr(Grammar, "saw_word", lambda self, id_: (said.append(id_), _saw_word(self, id_))[1])
    list(model.reply(request))
    return said


def assert_same_alone(model: SpeakingModel, requests: Sequence[Request]) -> list[Any]:
    """Check that each request gets in the batch what it gets alone; return what that is."""
    batch = gathered(model, requests)
    for request, found in zip(requests, batch, strict=True):
        (alone,) = gathered(model, [request])
        if isinstance(found, Picture):
            assert (found.seed, found.codes) == (alone.seed, alone.codes)
            assert found.image.tobytes() == alone.image.tobytes()
        else:
            assert found == alone
    return batch


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
            allowed = log_probabilities(allowed, s.temperature, s.top_k, s.top_p) + gumbel
        picks = allowed.argmax(-1)
        return torch.full_like(scores, -torch.inf).scatter(-1, codes[picks][:, None], 0.0)

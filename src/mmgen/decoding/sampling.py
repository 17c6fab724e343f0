"""From logits to a choice, as pure functions: guidance, temperature, top-k, top-p, and a pick under given noise.

A token is argmax(log P + g) with Gumbel noise g: an exact sample from P (Gumbel-max; Maddison et al., 2014,
arXiv 1411.0030). The noise is drawn on the CPU from one generator a picture, one row a position in order, so a
picture depends on its seed and not on the batch, the device or the loop that computed it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmgen.request import Sampling

# Of their own, so that words, pictures and edited pictures of one seed do not share noise
WORDS_STREAM, EDITS_STREAM = 0x776F7264, 0x65646974


class Noise:
    """Gumbel noise of one picture or one text: a row at a time, in position order."""

    def __init__(self, seed: int, stream: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed ^ stream)

    def row(self, size: int) -> Tensor:
        """Draw the next row: [size] float32."""
        return gumbel([self], size)[0]

    def uniform(self, size: int) -> Tensor:
        """Draw what the next row is made of: [size] float32 in [0, 1). `randn` can depend on how many are drawn."""
        return torch.rand(size, generator=self._generator)


def gumbel(noises: Sequence[Noise], size: int) -> Tensor:
    """Draw the next row of each: [B, size] float32."""
    return -torch.log(-torch.log(torch.stack([noise.uniform(size) for noise in noises])))


def guidance_weights(guidance: float, image_guidance: float, *, has_pictures: bool) -> dict[str, float]:
    """Weigh the rows that are mixed: the full context, its pictures only, nothing. A row of weight 0 is left out.

    mixed = u + g_image (i - u) + g_text (f - i), the formula of Chameleon's and Anole's image decoding
    (facebookresearch/chameleon, chameleon/inference/logits_processor.py; classifier-free guidance: arXiv 2207.12598).
    While there is no picture in the context i equals u.
    """
    if not has_pictures:
        image_guidance = guidance
    weights = {"full": guidance, "pictures": image_guidance - guidance, "nothing": 1 - image_guidance}
    return {row: weight for row, weight in weights.items() if weight or row == "full"}


def mix(logits: Tensor, weights: Sequence[float]) -> Tensor:
    """Mix guidance rows: logits [B, G, ..., K] -> [B, ..., K], float32."""
    if len(weights) == 1:
        return logits[:, 0].float() * weights[0]
    return torch.einsum("g,bg...->b...", logits.new_tensor(weights, dtype=torch.float32), logits.float())


def penalise_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make what was said less likely: logits [V], seen ids [n] -> [V] (CTRL, arXiv 1909.05858, section 4.1)."""
    scores = logits[seen]
    return logits.index_put((seen,), torch.where(scores < 0, scores * penalty, scores / penalty))


def log_probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Temper and cut: logits [..., K] -> log P [..., K] float32, minus infinity where cut.

    Temperature first, then the `top_k` likeliest (0 keeps all), then the smallest set whose probability reaches
    `top_p` (Holtzman et al., arXiv 1904.09751; 1 keeps all). Those as likely as its last stay, too: which of them came
    first would be up to the sorting. At last those at least `min_p` times as likely as the likeliest (Nguyen et al.,
    arXiv 2407.01082; 0 keeps all).
    """
    logits = logits.float()
    logits = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature  # the largest at 0: none overflows it
    if 0 < sampling.top_k < logits.shape[-1]:
        kth = logits.topk(sampling.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    log_p = logits.log_softmax(-1)
    if sampling.top_p < 1:
        ordered = _descending(log_p)
        p = ordered.exp()
        # Before each stands the probability of likelier ones.
        n_kept = (p.cumsum(-1) - p < sampling.top_p).sum(-1, keepdim=True)
        log_p = log_p.masked_fill(log_p < ordered.gather(-1, (n_kept - 1).clamp(min=0)), -torch.inf).log_softmax(-1)
    if sampling.min_p > 0:
        least = log_p.amax(-1, keepdim=True) + math.log(sampling.min_p)
        log_p = log_p.masked_fill(log_p < least, -torch.inf).log_softmax(-1)
    return log_p


def _descending(values: Tensor) -> Tensor:
    """Sort the last dimension. NumPy's sort takes half of the time of torch's on a CPU."""
    if values.device.type != "cpu":
        return values.sort(dim=-1, descending=True).values
    ordered = values.clone()
    ordered.numpy().sort(axis=-1)
    return ordered.flip(-1)


def pick(log_p: Tensor, noise: Tensor) -> Tensor:
    """Sample by the Gumbel-max trick: log P [..., K], noise [..., K] -> choices [...] int64."""
    return (log_p + noise.to(log_p.device)).argmax(-1)


def choose(logits: Tensor, sampling: Sampling, noises: Sequence[Noise]) -> Tensor:
    """Choose one in each row under that row's noise, or the likeliest at temperature 0: logits [B, K] -> [B] int64."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    return pick(log_probabilities(logits, sampling), gumbel(noises, logits.shape[-1]))

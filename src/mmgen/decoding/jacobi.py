"""Exact Jacobi decoding: several codes of a picture in one pass, the same codes as one by one. Knows no files.

Every pass looks at a window of places: the next one, and guesses for those after it. What the network chooses behind
right guesses is what it would have chosen step by step, because a place's noise stays the same however often it is
looked at. Wrong guesses are replaced by what was chosen, and looked at again.

Predictive sampling (Wiggers & Hoogeboom, ICML 2020, arXiv 2002.09928), speculative Jacobi decoding (arXiv 2410.01699),
shared noise between guesses (MC-SJD, arXiv 2510.24211).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmgen.decoding.cache import Cache
from mmgen.decoding.grammar import Canvas
from mmgen.decoding.sampling import Noise, log_probabilities, mix, pick
from mmgen.decoding.stepwise import Network, forward
from mmgen.request import ImageSampling

_CPU_TOKENS = 16  # of one pass, over all its rows: beyond it a pass takes longer in proportion
_GPU_TOKENS = 128


def choose_window(device: torch.device, n_rows: int) -> int:
    """Choose how many places a pass looks at, for pictures of `n_rows` rows in all: as many as cost little more."""
    return max(1, (_CPU_TOKENS if device.type == "cpu" else _GPU_TOKENS) // n_rows)


@dataclass
class _Sketch:
    """A picture under way.

    Attributes:
        index: among the pictures.
        starts: in each of its rows of the cache, where its first place will be.
        codes: of its places; the first `n` are settled, those after them are guesses.
        gumbel: noise of the places from `n` on, as far as they were looked at.
    """

    index: int
    noise: Noise
    canvas: Canvas
    starts: list[int]
    codes: list[int] = field(default_factory=list)
    n: int = 0
    gumbel: list[Tensor] = field(default_factory=list)

    def noise_of(self, width: int, n_codes: int) -> Tensor:
        """Noise of the next `width` places: [width, n_codes]. Only codes draw some, each once, in their order."""
        while len(self.gumbel) < width:
            is_end = self.canvas.is_row_end(self.n + len(self.gumbel))
            self.gumbel.append(torch.zeros(n_codes) if is_end else self.noise.row(n_codes))
        return torch.stack(self.gumbel[:width])

    def fed(self, width: int, row_end: int) -> list[int]:
        """Codes to look at: the last that is settled, and guesses; where there was none yet, the code to the left."""
        while len(self.codes) < self.n + width - 1:
            is_end = self.canvas.is_row_end(len(self.codes))
            self.codes.append(row_end if is_end else self._neighbour(len(self.codes)))
        return self.codes[self.n - 1 : self.n - 1 + width]

    def _neighbour(self, place: int) -> int:
        left = place - 1
        return self.codes[left if not self.canvas.is_row_end(left) else place - self.canvas.columns]

    def settle(self, chosen: Sequence[int], row_end: int) -> list[int]:
        """Take what was chosen at the places from `n` on; return the codes that are settled by it.

        The first is right, and each one whose left neighbour was guessed as it was then chosen. The rest are guesses.
        """
        room = self.canvas.n_places - self.n
        new = [row_end if self.canvas.is_row_end(self.n + i) else code for i, code in enumerate(chosen[:room])]
        guesses = self.codes[self.n :]
        n_new = 1
        while n_new < len(new) and n_new <= len(guesses) and new[n_new - 1] == guesses[n_new - 1]:
            n_new += 1
        self.codes[self.n :] = new
        del self.gumbel[:n_new]
        self.n += n_new
        return [code for code in new[:n_new] if code != row_end]


def picture(
    network: Network,
    cache: Cache,
    rows: range,
    hidden: Tensor,
    weights: Sequence[float],
    sampling: ImageSampling,
    noises: Sequence[Noise],
    canvas: Canvas,
    window: int = 1,
) -> Iterator[list[tuple[int, list[int]]]]:
    """Choose the codes of B pictures, each at its own pace. A picture that is done leaves its rows.

    Args and yields: see stepwise.picture.

    Args:
        window: most places that a pass looks at.
    """
    n_kinds = len(weights)
    row_end = len(network.code_ids)  # stands for what is between rows
    between = network.code_ids.new_tensor([0 if canvas.row_end is None else canvas.row_end])
    ids = torch.cat([network.code_ids, between])
    sketches = [
        _Sketch(index, noise, canvas, cache.lengths[rows.start + index * n_kinds :][:n_kinds])
        for index, noise in enumerate(noises)
    ]
    hidden = hidden[:, None]  # [B * G, T, D], at first of begin-image alone
    while True:
        logits = network.code_head(hidden)  # [B * G, T, K]
        mixed = mix(logits.reshape(-1, n_kinds, *logits.shape[1:]), weights)  # [B, T, K]
        if sampling.temperature == 0:
            chosen = mixed.argmax(-1)
        else:
            gumbel = torch.stack([sketch.noise_of(*mixed.shape[1:]) for sketch in sketches])
            chosen = pick(log_probabilities(mixed, sampling.temperature, sampling.top_k, sampling.top_p), gumbel)
        yield [(s.index, s.settle(codes, row_end)) for s, codes in zip(sketches, chosen.tolist(), strict=True)]
        for slot, sketch in enumerate(sketches):
            for kind, start in enumerate(sketch.starts):
                cache.lengths[rows.start + slot * n_kinds + kind] = start + sketch.n - 1
        _leave(sketches, cache, rows, n_kinds)
        if not sketches:
            return
        width = min(window, max(canvas.n_places - sketch.n for sketch in sketches))
        fed = torch.tensor([sketch.fed(width, row_end) for sketch in sketches], device=ids.device)
        active = range(rows.start, rows.start + len(sketches) * n_kinds)
        hidden = forward(network, cache, active, ids[fed].repeat_interleave(n_kinds, 0))


def _leave(sketches: list[_Sketch], cache: Cache, rows: range, n_kinds: int) -> None:
    """Drop pictures that are done; the last ones move into their rows, so that rows in use are neighbours."""
    for slot in reversed(range(len(sketches))):
        if sketches[slot].n < sketches[slot].canvas.n_places:
            continue
        last = sketches.pop()
        if slot < len(sketches):
            sketches[slot] = last
            for kind in range(n_kinds):
                cache.copy(rows.start + len(sketches) * n_kinds + kind, rows.start + slot * n_kinds + kind)

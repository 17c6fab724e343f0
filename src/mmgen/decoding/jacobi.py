"""Exact Jacobi decoding: several codes of a picture in one pass, the same codes as one by one. Knows no files.

Every pass looks at a window of places: the next one, and guesses for those after it. What the network chooses behind
right guesses is what it would have chosen step by step, because a place's noise stays the same however often it is
looked at. Wrong guesses are replaced by what was chosen, and looked at again. Of a picture that is edited the first
guesses are its source's codes.

Predictive sampling (Wiggers & Hoogeboom, ICML 2020, arXiv 2002.09928), speculative Jacobi decoding (arXiv 2410.01699),
shared noise between guesses (MC-SJD, arXiv 2510.24211).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmgen.decoding import coupling
from mmgen.decoding.coupling import Source
from mmgen.decoding.grammar import Canvas
from mmgen.decoding.sampling import Noise, log_probabilities, mix, pick
from mmgen.decoding.stepwise import Cache, Network, forward
from mmgen.request import ImageSampling

# Places of a pass beyond which guesses are wrong too often to be worth it: on a CPU as benchmarks/README.md says, on a
# GPU not measured yet.
_MOST_ON_CPU, _MOST_ON_GPU = 16, 64
TIMED = ((1, 1), (1, 16), (16, 1), (16, 16))  # rows and places of the passes that a choice is made by
_BLOCK = 64  # places that are chosen at once, at most: of each the noise is held, and what every code is worth
# Codes that a pass over so many places settles: the built-in model, with guidance and without.
_SETTLED = {1: 1.0, 2: 1.4, 4: 1.9, 8: 2.65, 16: 3.5}


def choose_window(device: torch.device, n_rows: int, pass_tokens: int, times: Sequence[float] = ()) -> int:
    """Choose how many places a pass looks at, for pictures of `n_rows` rows in all: as many as cost little more.

    Args:
        pass_tokens: tokens of one pass over all its rows beyond which it takes longer in proportion.
        times: what passes of `TIMED` were measured to take, in any unit: then the quickest for a picture is chosen.
    """
    if times:
        rows = min(1.0, (n_rows - 1) / 15)
        one, sixteen = (few + rows * (many - few) for few, many in zip(times[:2], times[2:], strict=True))
        return max(_SETTLED, key=lambda places: _SETTLED[places] / (one + (places - 1) / 15 * (sixteen - one)))
    most = _MOST_ON_CPU if device.type == "cpu" else _MOST_ON_GPU
    return max(1, min(most, pass_tokens // n_rows))


@dataclass
class _Draft:
    """A picture under way.

    Attributes:
        index: among the pictures.
        row_end: the code that stands for what is between rows.
        starts: in each of its rows of the cache, where its first place will be.
        codes: of its places; the first `n` are settled, those after them are guesses.
        gumbel: noise of the places from `n` on, as far as they were looked at.
        source: what it is an edit of; then each place has one more number of noise.
        later: guesses that take the place of its codes once one has departed from them.
    """

    index: int
    noise: Noise
    canvas: Canvas
    row_end: int
    starts: list[int]
    codes: list[int] = field(default_factory=list)
    n: int = 0
    gumbel: list[Tensor] = field(default_factory=list)
    source: Source | None = None
    later: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.source is not None:
            self.later = self.canvas.lay_out(self.source.guesses, self.row_end)
            self.codes = [self.row_end if code < 0 else code for code in self.source.codes.tolist()]

    def noise_of(self, width: int, n_codes: int) -> Tensor:
        """Noise of the next `width` places: [width, n_codes]. Only codes draw some, each once, in their order."""
        n_codes += self.source is not None
        while len(self.gumbel) < width:
            is_end = self.canvas.is_row_end(self.n + len(self.gumbel))
            self.gumbel.append(torch.zeros(n_codes) if is_end else self.noise.row(n_codes))
        return torch.stack(self.gumbel[:width])

    def guess(self, width: int) -> list[int]:
        """Codes to look at: the last that is settled, and guesses; where there was none yet, the code beside it."""
        while len(self.codes) < self.n + width - 1:
            is_end = self.canvas.is_row_end(len(self.codes))
            self.codes.append(self.row_end if is_end else self._neighbour(len(self.codes)))
        return self.codes[self.n - 1 : self.n - 1 + width]

    def _neighbour(self, place: int) -> int:
        """The code to the left; at a row's start the one above."""
        stride = self.canvas.columns + (self.canvas.row_end is not None)
        return self.codes[place - 1 if place % stride else place - stride]

    def settle(self, chosen: Sequence[int]) -> list[int]:
        """Take what was chosen at the places from `n` on; return the codes that are settled by it.

        The first is right, and each one whose left neighbour was guessed as it was then chosen. The rest are guesses.
        """
        room = self.canvas.n_places - self.n
        new = [self.row_end if self.canvas.is_row_end(self.n + i) else code for i, code in enumerate(chosen[:room])]
        guesses = self.codes[self.n :]
        n_new = 1
        while n_new < len(new) and new[n_new - 1] == guesses[n_new - 1]:
            n_new += 1
        self.codes[self.n : self.n + len(new)] = new
        if n_new < len(new) and self.source is not None and self.later:
            self.codes[self.n + n_new :], self.later = self.later[self.n + n_new :], []
        del self.gumbel[:n_new]
        self.n += n_new
        return [code for code in new[:n_new] if code != self.row_end]


def picture(
    network: Network,
    cache: Cache,
    hidden: Tensor,
    weights: Sequence[float],
    sampling: ImageSampling,
    noises: Sequence[Noise],
    canvas: Canvas,
    window: int,
    sources: Sequence[Source] = (),
) -> Iterator[list[tuple[int, list[int]]]]:
    """Choose the codes of B pictures, each at its own pace. A picture that is done leaves its rows.

    Args:
        hidden: of pictures that are edited [B * G, n, D], behind what precedes each place in their sources.
        window: most places that a pass looks at; the others, and what is yielded, as in stepwise.picture.
        sources: what the pictures are edits of, one each, if they are.
    """
    n_kinds = len(weights)
    row_end = len(network.code_ids)  # stands for what is between rows
    between = network.code_ids.new_tensor([] if canvas.row_end is None else [canvas.row_end])
    ids = torch.cat([network.code_ids, between])
    drafts = [
        _Draft(
            index,
            noise,
            canvas,
            row_end,
            cache.lengths[index * n_kinds :][:n_kinds],
            source=sources[index] if sources else None,
        )
        for index, noise in enumerate(noises)
    ]
    ahead = hidden if sources else hidden[:, None]  # [B * G, T, D], at first of begin-image alone
    while True:
        settled: list[list[int]] = [[] for _ in drafts]
        n_looked_at = drafts[0].n
        while ahead.shape[1]:
            hidden, ahead = ahead[:, :_BLOCK], ahead[:, _BLOCK:]
            chosen = _choose(network, hidden, weights, sampling, drafts)
            for codes, draft, new in zip(settled, drafts, chosen.tolist(), strict=True):
                codes += draft.settle(new)
            n_looked_at += hidden.shape[1]
            if any(draft.n < n_looked_at for draft in drafts):
                break
        yield [(draft.index, codes) for draft, codes in zip(drafts, settled, strict=True)]
        for slot, draft in enumerate(drafts):
            for kind, start in enumerate(draft.starts):
                cache.lengths[slot * n_kinds + kind] = start + draft.n - 1
        _leave(drafts, cache, n_kinds)
        if not drafts:
            return
        fed = torch.tensor([draft.guess(window) for draft in drafts], device=ids.device)
        ahead = forward(network, cache, range(len(drafts) * n_kinds), ids[fed].repeat_interleave(n_kinds, 0))


def _choose(
    network: Network, hidden: Tensor, weights: Sequence[float], sampling: ImageSampling, drafts: Sequence[_Draft]
) -> Tensor:
    """Choose codes of the next places of each picture: hidden [B * G, T, D] -> [B, T] int64."""

    def mixed_of(hidden: Tensor) -> Tensor:  # [B, T, K]
        logits = network.code_head(hidden)  # [B * G, T, K]
        return mix(logits.reshape(-1, len(weights), *logits.shape[1:]), weights)

    mixed = mixed_of(hidden)
    if sampling.temperature == 0 and drafts[0].source is None:
        return mixed.argmax(-1)
    n_places, n_codes = mixed.shape[1:]
    noise = torch.stack([draft.noise_of(n_places, n_codes) for draft in drafts])
    sources = [draft.source for draft in drafts if draft.source is not None]
    if not sources:
        return pick(log_probabilities(mixed, sampling), noise)
    last = drafts[0].canvas.n_places - 1
    places = torch.stack([torch.arange(draft.n, draft.n + n_places).clamp(max=last) for draft in drafts])
    under_source = [
        source.hidden[:, at.to(source.hidden.device)]
        for source, at in zip(sources, places, strict=True)
        if source.hidden is not None
    ]
    mixed_a = mixed_of(torch.cat(under_source)) if under_source else None
    return coupling.choose(mixed, mixed_a, sampling, noise, sources, places)


def _leave(drafts: list[_Draft], cache: Cache, n_kinds: int) -> None:
    """Drop pictures that are done; the last ones move into their rows, so that rows in use are neighbours."""
    for slot in reversed(range(len(drafts))):
        if drafts[slot].n < drafts[slot].canvas.n_places:
            continue
        last = drafts.pop()
        if slot < len(drafts):
            drafts[slot] = last
            for kind in range(n_kinds):
                cache.copy(len(drafts) * n_kinds + kind, slot * n_kinds + kind)

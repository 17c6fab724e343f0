"""Editing a picture through its codes: each is kept, or drawn anew, so that the words decide. Torch only; no files.

A place's code is kept with probability min(1, P_B / P_A): P_A is that of the code under words that describe the source,
P_B under the new words, given what was drawn so far. Else one is drawn from what B has beyond A, (P_B - P_A)+. That is
maximal coupling, the acceptance rule of speculative sampling (Leviathan et al., arXiv 2211.17192, section 2.3) with the
source as the draft: if the source is a sample of A, the result is one of B. To keep more, the ratio is multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mmgen.decoding.sampling import log_probabilities, pick
from mmgen.request import ImageSampling

Passes = Iterator[list[tuple[int, list[int]]]]  # as stepwise.picture yields: after each, pictures and their next codes
Made = Sequence[tuple[int, list[int] | None]]  # the same of one pass; None begins a picture anew

_NEAR = 0.02  # of the codes, by which one that kept more or fewer than was wanted is near enough
_ATTEMPTS = 5  # at most, to keep as many codes as a strength says; the first is that of strength 1
# Of the built-in model the log-odds of a code to be kept grow by about half of log k (benchmarks/README.md, "Editing").
# It only says where to look next.
_GROWTH = 0.55


@dataclass(frozen=True)
class Source:
    """A picture that is edited.

    Attributes:
        codes: [n] int64 of its places; -1 is between rows.
        is_forced: [n] bool, of those that are kept whatever the words say.
        hidden: [G, n, D] behind what precedes each place, under the words that describe it; None: what is not forced is
            drawn from the new words alone.
        is_own: it was drawn as the new one is, so that its codes come of what was cut as here.
        k: how many times the ratio counts; at 1 the result is a sample of the new words.
        guesses: codes that are likelier than these where what is drawn has departed from them, if there are any.
    """

    codes: Tensor
    is_forced: Tensor
    hidden: Tensor | None = None
    is_own: bool = True
    k: float = 1.0
    guesses: Sequence[int] = ()

    @property
    def n_codes(self) -> int:
        return int((self.codes >= 0).sum())

    def count_kept(self, codes: Sequence[int]) -> int:
        """Say how many of an edited picture's codes are those of this one."""
        return int((self.codes[self.codes >= 0] == torch.tensor(codes)).sum())


def choose(
    mixed: Tensor,
    mixed_a: Tensor | None,
    sampling: ImageSampling,
    noise: Tensor,
    sources: Sequence[Source],
    places: Tensor,
) -> Tensor:
    """Choose codes of edited pictures.

    Args:
        mixed, mixed_a: [B, T, K] logits under the new words, and under those of the source.
        noise: [B, T, K + 1], Gumbel's; the last of a place decides whether its code is kept.
        places: [B, T] int64, which those are.

    Returns:
        [B, T] int64.
    """

    def along(each: Sequence[object], like: Tensor) -> Tensor:
        return torch.tensor(each, device=like.device)[:, None]  # [B, 1]

    log_b = log_probabilities(mixed, sampling)
    codes = torch.stack([source.codes[at] for source, at in zip(sources, places, strict=True)]).to(log_b.device)
    is_kept = torch.stack([source.is_forced[at] for source, at in zip(sources, places, strict=True)]).to(log_b.device)
    left = log_b
    if mixed_a is not None:
        own = along([source.is_own for source in sources], log_b)
        loose_a, loose_b = (log_probabilities(each, _uncut(sampling)) for each in (mixed_a, mixed))
        log_a = torch.where(own[..., None], log_probabilities(mixed_a, sampling), loose_a)

        def of_codes(log_p: Tensor) -> Tensor:  # [B, T]
            return log_p.gather(-1, codes.clamp(min=0)[..., None])[..., 0]

        # 1) The exact rule. A code that A could not give is kept if B gives it; if neither does, nothing is cut
        new, old = of_codes(torch.where(own[..., None], log_b, loose_b)), of_codes(log_a)
        loose = of_codes(loose_b) - of_codes(loose_a)
        ratio = torch.where(new > -torch.inf, new - old, torch.where(old > -torch.inf, new, loose))
        # 2) Beyond it nothing is cut either, or what the new words cut could not be kept
        more = along([math.log(source.k - 1) if source.k > 1 else -math.inf for source in sources], log_b)
        log_u = -torch.exp(-noise[..., -1].to(log_b.device))  # of the uniform number that this noise was made of
        is_kept = is_kept | (log_u < torch.logaddexp(ratio, loose + more))
        # 3) The rest
        beyond = (log_b.exp() - log_a.exp()).clamp(min=0)
        left = torch.where(beyond.sum(-1, keepdim=True) > 0, beyond.log(), log_b)
    return torch.where(is_kept, codes, pick(left, noise[..., :-1]))


def search(
    draw: Callable[[Sequence[int], Sequence[Source]], Passes], sources: Sequence[Source], strength: float
) -> Iterator[Made]:
    """Draw edited pictures so that the share of codes kept falls evenly from strength 0 to 1.

    How many are kept shows as they are drawn: a code that departs changes what is likely after it. So a picture is
    drawn with k = 1, then with what k the first attempt suggests, until it has kept about the right number; of all
    attempts the nearest is taken. They share their noise.

    Args:
        draw: draws some of the pictures, given which, and their sources.

    Yields:
        (index of the picture, its next codes); None in their place begins it anew, and all codes at once end it.
    """
    left = list(range(len(sources)))
    if strength in (0, 1):
        k = math.inf if strength == 0 else 1.0
        yield from draw(left, [replace(source, k=k) for source in sources])
        return
    tried: list[list[_Attempt]] = [[] for _ in sources]
    wanted = [0] * len(sources)
    for number in range(_ATTEMPTS):
        weighed = [_weighed(sources[index], tried[index], wanted[index]) for index in left]
        codes = yield from _attempted(draw(left, weighed), left, sources)
        for index, source, made in zip(list(left), weighed, codes, strict=True):
            n_kept, n_codes = source.count_kept(made), len(made)
            tried[index].append(_Attempt(math.log(source.k), n_kept, made))
            if number == 0:
                wanted[index] = round(n_codes - strength * (n_codes - n_kept))
            best = min(tried[index], key=lambda each: abs(each.n_kept - wanted[index]))
            if abs(best.n_kept - wanted[index]) <= _NEAR * n_codes or number == _ATTEMPTS - 1:
                left.remove(index)
                yield [(index, best.codes)]
        if not left:
            return


def best_draft(
    draw: Callable[[int], Passes],
    sources: Sequence[Source],
    n_drafts: int,
    fit: Callable[[Sequence[Sequence[int]]], list[float]],
) -> Iterator[Made]:
    """Draw edited pictures several times, and take of each the one that fits best; yields as `search` does.

    Args:
        draw: draws them, given the number of the draft.
        fit: says of the codes of each picture how well they fit: the more the better.
    """
    found: list[list[tuple[float, int, list[int]]]] = [[] for _ in sources]
    for number in range(n_drafts):
        codes = yield from _attempted(draw(number), range(len(sources)), sources)
        for some, score, each in zip(found, fit(codes), codes, strict=True):
            some.append((score, -number, each))
    yield [(index, max(some)[2]) for index, some in enumerate(found)]


def score_below(source: Source, mixed: Tensor, sampling: ImageSampling) -> float:
    """Say how likely the forced codes are that come after the first that is drawn: mixed [n, K] logits -> nats."""
    counts = source.is_forced & (source.codes >= 0) & (~source.is_forced).cummax(0).values
    log_p = log_probabilities(mixed[counts.to(mixed.device)], _uncut(sampling))
    return float(log_p.gather(-1, source.codes[counts].to(mixed.device)[:, None]).double().sum())


def _uncut(sampling: ImageSampling) -> ImageSampling:
    return replace(sampling, top_p=1.0, top_k=0, min_p=0.0)


def _attempted(
    drawn: Passes, which: Sequence[int], sources: Sequence[Source]
) -> Generator[Made, None, list[list[int]]]:
    """Pass on what is drawn of some pictures, to be begun anew; return the codes of each."""
    indices = list(which)
    codes: list[list[int]] = [[] for _ in indices]
    for made in drawn:
        shown: list[tuple[int, list[int] | None]] = []
        for position, new in made:
            codes[position] += new
            # One that is whole is not shown as such: its last code is held back
            is_whole = len(codes[position]) == sources[indices[position]].n_codes
            shown.append((indices[position], new[:-1] if is_whole else new))
        yield shown
    yield [(index, None) for index in indices]
    return codes


class _Attempt(NamedTuple):
    log_k: float
    n_kept: int
    codes: list[int]


def _weighed(source: Source, tried: Sequence[_Attempt], wanted: int) -> Source:
    """Give a source the next k to try, so that as many codes are kept as wanted, and what guesses to begin from."""

    def log_odds(n_kept: int) -> float:
        return math.log((n_kept + 0.5) / (source.n_codes - n_kept + 0.5))

    if not tried:
        return source
    below = max((each for each in tried if each.n_kept < wanted), default=None)
    above = min((each for each in tried if each.n_kept >= wanted), default=None)
    if below is None or above is None or above.log_k <= below.log_k:
        log_k = max(0.0, tried[-1].log_k + (log_odds(wanted) - log_odds(tried[-1].n_kept)) / _GROWTH)
    else:
        part = (log_odds(wanted) - log_odds(below.n_kept)) / (log_odds(above.n_kept) - log_odds(below.n_kept))
        log_k = below.log_k + min(0.85, max(0.15, part)) * (above.log_k - below.log_k)
    # Guesses are the codes of what kept about as many under the same noise: an attempt, or the source itself
    nearest = min(tried, key=lambda each: abs(each.n_kept - wanted))
    is_nearer = abs(nearest.n_kept - wanted) < source.n_codes - wanted
    return replace(source, k=math.exp(log_k), guesses=nearest.codes if is_nearer else ())

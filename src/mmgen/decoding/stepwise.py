"""The key-value cache, and the loop over it, one token at a time: prompt ids in, ids out. Knows no text and no files.

Slot p of a row of the cache holds position p. So a query at position p may look at slots 0..p and nowhere else: the
mask follows from the positions alone, rows of different lengths need no padding rules, and to go back is to set a
length. A pass from the first slot on is in plain causal order, which attention kernels keep without a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmgen.decoding.constraint import Constraint
from mmgen.decoding.grammar import Canvas, Grammar, Step, forbidden
from mmgen.decoding.sampling import Noise, choose, mix, penalise_repetition
from mmgen.request import ImageSampling

_GPU_STEP = 256  # slots


class Cache:
    """Keys and values of R rows of at most `capacity` positions; it fits the `update` call of transformers' layers.

    Attributes:
        lengths: positions taken in each row.
        rows: of the pass under way.
        slots: [r * T] int64, where it writes, of all rows one after the other.
        extent: slots that it has to look at. On a GPU more, in steps, so that passes of one shape come again and again.
        graphs: of such passes (decoding.graphs); they know where keys and values lie.
    """

    def __init__(self, n_rows: int, capacity: int) -> None:
        self.capacity = capacity
        self.lengths = [0] * n_rows
        self.rows, self.extent = range(0), 0
        self.slots = torch.empty(0)
        self.graphs: dict[object, Any] = {}
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}  # keys and values, each [R, capacity, heads, D]

    def aim(self, rows: range, positions: Tensor) -> Tensor | None:
        """Say where the next pass writes: `rows` (neighbours), positions [r, T] int64 from each row's length on.

        Returns:
            Which slots each token may look at: [r or 1, 1, T, extent] bool. None is plain causal order: the slots are
            the tokens' own, or those of a single token and all before it.
        """
        lengths = [self.lengths[row] for row in rows]
        start, n_tokens = max(lengths), positions.shape[1]
        self.extent, self.rows = start + n_tokens, rows
        if positions.is_cuda and start:
            self.extent = min(self.capacity, -(-self.extent // _GPU_STEP) * _GPU_STEP)
        each = torch.arange(rows.start, rows.stop, device=positions.device)
        self.slots = (each[:, None] * self.capacity + positions).flatten()
        begin_alike = min(lengths) == start
        if begin_alike and (start == 0 or n_tokens == 1) and self.extent == start + n_tokens:
            return None
        slots = torch.arange(self.extent, device=positions.device)
        unlike = positions[:1] if begin_alike else positions
        return (slots <= unlike[:, :, None])[:, None]

    def copy(self, source: int, target: int) -> None:
        """Give one row what another holds."""
        n = self.lengths[source]  # beyond it nothing counts
        for keys, values in self._layers.values():
            keys[target, :n], values[target, :n] = keys[source, :n], values[source, :n]
        self.lengths[target] = self.lengths[source]

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write keys and values [r, heads, T, D] of one layer; return all that is cached: [r, heads, extent, D]."""
        if layer_idx not in self._layers:
            shape = (len(self.lengths), self.capacity, key.shape[1], key.shape[3])
            self._layers[layer_idx] = (key.new_zeros(shape), value.new_zeros(shape))
        found = []
        for stored, new in zip(self._layers[layer_idx], (key, value), strict=True):
            stored.flatten(0, 1).index_copy_(0, self.slots.to(key.device), new.transpose(1, 2).flatten(0, 1))
            found.append(stored[self.rows.start : self.rows.stop, : self.extent].transpose(1, 2))
        return found[0], found[1]


@dataclass(frozen=True)
class Network:
    """A language model, as far as the loops need it.

    Attributes:
        body: ids [r, T], positions [r, T], cache, visible slots (see Cache.aim) -> hidden [r, T, D].
        head: hidden [r, D] -> logits [r, V] over the vocabulary.
        code_head: hidden [..., D] -> logits [..., K] over the image codes, in the order of the codes.
        code_ids: [K] int64, the id of each code.
    """

    body: Callable[[Tensor, Tensor, Cache, Tensor | None], Tensor]
    head: Callable[[Tensor], Tensor]
    code_head: Callable[[Tensor], Tensor]
    code_ids: Tensor


def forward(network: Network, cache: Cache, rows: range, ids: Tensor) -> Tensor:
    """Make one pass over the next positions of neighbouring rows: ids [r, T] -> hidden [r, T, D].

    The entries that it wrote to the cache stand only as far as `cache.lengths` is then moved.
    """
    starts = torch.tensor([cache.lengths[row] for row in rows], device=ids.device)
    positions = starts[:, None] + torch.arange(ids.shape[1], device=ids.device)
    return network.body(ids, positions, cache, cache.aim(rows, positions))


def extend(network: Network, cache: Cache, rows: range, ids: Sequence[Sequence[int]] | Tensor) -> Tensor:
    """Append ids to neighbouring rows of the cache, as many to each as it is given (at least one).

    Returns:
        Hidden state of the last token of each row: [r, D].
    """
    if isinstance(ids, Tensor):  # [r, T]
        counts = [ids.shape[1]] * len(rows)
    else:
        counts = [len(row) for row in ids]
        longest = max(counts)
        # Shorter rows are filled up on the right: those slots are beyond their lengths, so nothing looks at them.
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids], device=network.code_ids.device)
    hidden = forward(network, cache, rows, ids)
    for row, count in zip(rows, counts, strict=True):
        cache.lengths[row] += count
    return hidden[torch.arange(len(rows)), torch.tensor(counts) - 1]


def read(network: Network, cache: Cache, rows: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> Tensor:
    """Fill an empty cache with rows of ids, and look ahead at ids after each, which do not count as its own.

    Returns:
        Hidden states [R, T + 1, D] from the last id of each row on; T is the length of the longest ids after a row.
    """
    longest = max(len(row) + len(ids) for row, ids in zip(rows, after, strict=True))
    filled = [[*row, *ids, *[0] * (longest - len(row) - len(ids))] for row, ids in zip(rows, after, strict=True)]
    hidden = forward(network, cache, range(len(rows)), torch.tensor(filled, device=network.code_ids.device))
    cache.lengths = [len(row) for row in rows]
    ends = torch.tensor(cache.lengths)[:, None] + torch.arange(max(map(len, after)) + 1) - 1
    return hidden[torch.arange(len(rows))[:, None], ends.clamp(max=longest - 1)]


def words(
    network: Network,
    cache: Cache,
    hidden: Tensor,
    grammars: Sequence[Grammar],
    noises: Sequence[Noise],
    seen: Sequence[list[int]],
    constraints: Sequence[Constraint | None] = (None,),
) -> Iterator[list[tuple[int, int]]]:
    """Choose words in the first rows of the cache, in step, until each has ended or begins a picture.

    The token that ends a row (an end, begin-image, the last that was allowed) is yielded and not fed.

    Args:
        hidden: [B, D] after the prompt.
        grammars, noises: one for each row; all requests are sampled alike.
        seen: ids of each row so far, for the repetition penalty; grows.
        constraints: of each row, if it has one.

    Yields:
        (row, id) of each row under way.
    """
    sampling = grammars[0].request.text
    masks: dict[Step, Tensor] = {}
    under_way = list(range(len(grammars)))
    last = [0] * len(grammars)
    while True:
        logits = network.head(hidden).float()  # [B, V]
        chosen: list[tuple[int, int]] = []
        for row in list(under_way):
            grammar, scores = grammars[row], logits[row]
            step = grammar.next(cache.lengths[row])
            if step == "end":
                under_way.remove(row)
                continue
            if step not in masks:
                masks[step] = torch.zeros_like(scores)
                masks[step][forbidden(grammar.vocabulary, step)] = -torch.inf
            if sampling.repetition_penalty != 1:
                so_far = torch.tensor(seen[row], device=scores.device)
                scores = penalise_repetition(scores, so_far, sampling.repetition_penalty)
            allowed, constraint = scores + masks[step], constraints[row]
            if constraint is not None:
                allowed = constraint.cut(allowed)
            id_ = int(choose(allowed[None], sampling, [noises[row]]))
            if constraint is not None:
                constraint.push(id_)
            grammar.saw_word(id_)
            seen[row].append(id_)
            last[row] = id_
            chosen.append((row, id_))
            if id_ == grammar.vocabulary.begin_image or grammar.next(cache.lengths[row] + 1) == "end":
                under_way.remove(row)
        if chosen:
            yield chosen
        if not under_way:
            return
        lengths = list(cache.lengths)
        hidden = extend(network, cache, range(len(grammars)), [[id_] for id_ in last])
        for row in set(range(len(grammars))).difference(under_way):  # one that has ended runs along, and stays
            cache.lengths[row] = lengths[row]


def picture(
    network: Network,
    cache: Cache,
    hidden: Tensor,
    weights: Sequence[float],
    sampling: ImageSampling,
    noises: Sequence[Noise],
    canvas: Canvas,
) -> Iterator[list[tuple[int, list[int]]]]:
    """Choose the codes of B pictures, in step. The last code is yielded and not fed.

    Args:
        hidden: [B * G, D] after begin-image, of the first rows of the cache, those of one picture side by side.
        weights: of each of the G kinds of guidance row.
        noises: one for each picture.

    Yields:
        After each pass, of each picture under way: (its index, its next codes, in row-major order).
    """
    for place in range(canvas.n_places):
        if canvas.is_row_end(place):  # was fed with the code before it
            continue
        logits = network.code_head(hidden)  # [B * G, K]
        mixed = mix(logits.view(len(noises), len(weights), -1), weights)
        codes = choose(mixed, sampling, noises)
        yield [(index, [code]) for index, code in enumerate(codes.tolist())]
        if place < canvas.n_places - 1:
            fed = network.code_ids[codes.to(network.code_ids.device)][:, None]
            if canvas.row_end is not None and canvas.is_row_end(place + 1):
                fed = torch.cat([fed, torch.full_like(fed, canvas.row_end)], dim=1)
            hidden = extend(network, cache, range(len(hidden)), fed.repeat_interleave(len(weights), dim=0))

"""Whole replies: words, pictures, or both over one cache. Joins the loops, the grammar and the pieces; knows no files.

Every function takes requests that are decoded alike and their prompts, and yields (index of the request, piece). What a
request gets does not depend on the others beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mmgen.decoding import jacobi, stepwise
from mmgen.decoding.cache import Cache
from mmgen.decoding.grammar import Canvas, Grammar, Prompt, Vocabulary
from mmgen.decoding.jacobi import choose_window
from mmgen.decoding.pieces import Detokenizer, to_picture, to_sketch
from mmgen.decoding.sampling import Noise, guidance_weights
from mmgen.decoding.stepwise import Network, feed, words
from mmgen.request import ImageSampling, Picture, Piece, Progress, Request


@dataclass(frozen=True)
class Speaker:
    """A language model that says words and image codes.

    Attributes:
        context: most positions of one reply, prompt included.
        detokenise: words' ids -> text.
        vq_decode: codes [1, h, w] int64 -> pixels [1, 3, H, W] float in [-1, 1].
        window: most places of a picture that one pass looks at; None chooses, 1 is one by one.
        is_small: see jacobi.choose_window.
    """

    network: Network
    vocabulary: Vocabulary
    context: int
    detokenise: Callable[[Sequence[int]], str]
    vq_decode: Callable[[Tensor], Tensor]
    window: int | None = None
    is_small: bool = False


def say(speaker: Speaker, requests: Sequence[Request], prompts: Sequence[Prompt]) -> Iterator[tuple[int, Piece]]:
    """Answer in words, B requests in step."""
    rows = range(len(requests))
    sampling = requests[0].text
    cache = Cache(len(rows), min(speaker.context, max(len(p.ids) for p in prompts) + sampling.max_tokens))
    hidden = feed(speaker.network, cache, rows, [prompt.ids for prompt in prompts])
    texts = [Detokenizer(speaker.detokenise, strip=not request.completion) for request in requests]
    grammars = [Grammar(speaker.vocabulary, r.want, speaker.context, sampling.max_tokens) for r in requests]
    noises = [Noise(request.seed, words=True) for request in requests]
    size = speaker.vocabulary.size
    seen = [[id_ for id_ in prompt.ids if id_ < size] for prompt in prompts]
    for said in words(speaker.network, cache, rows, hidden, grammars, sampling, noises, seen):
        for index, id_ in said:
            if new := texts[index].push(id_):
                yield index, new
    for index, text in enumerate(texts):
        if new := text.end():
            yield index, new


def draw(speaker: Speaker, requests: Sequence[Request], prompts: Sequence[Prompt]) -> Iterator[tuple[int, Piece]]:
    """Answer with one picture each, all of one size, B at a time; either all prompts have pictures or none."""
    v, sampling = speaker.vocabulary, requests[0].image
    canvas = v.canvas(prompts[0].grid)
    weights = guidance_weights(sampling.guidance, sampling.image_guidance, has_pictures=bool(prompts[0].pictures))
    fed = [_guidance_row(v, kind, prompt) for prompt in prompts for kind in weights]
    cache = Cache(len(fed), max(len(ids) for ids in fed) + canvas.n_places)
    hidden = _feed_once(speaker.network, cache, fed)
    seeds = [request.seed for request in requests]
    yield from _pictures(speaker, cache, range(len(fed)), hidden, weights, sampling, seeds, canvas)


def _feed_once(network: Network, cache: Cache, fed: Sequence[tuple[int, ...]]) -> Tensor:
    """Feed every row of a cache; rows that begin alike are computed once: hidden of the last id [r, D]."""
    unlike = list(dict.fromkeys(fed))
    hidden = feed(network, cache, range(len(unlike)), unlike)
    sources = [unlike.index(ids) for ids in fed]  # at or before the row itself, so from the end none is lost
    for row, source in reversed(list(enumerate(sources))):
        if row != source:
            cache.copy(source, row)
    return hidden[sources]


def _pictures(
    speaker: Speaker,
    cache: Cache,
    rows: range,
    hidden: Tensor,
    weights: Mapping[str, float],
    sampling: ImageSampling,
    seeds: Sequence[int],
    canvas: Canvas,
) -> Iterator[tuple[int, Progress | Picture]]:
    """Choose the codes of a picture for each seed, given what its guidance rows hold, and decode what is whole."""
    window = speaker.window or choose_window(hidden.device, len(rows), is_small=speaker.is_small)
    loop = stepwise.picture if window == 1 else partial(jacobi.picture, window=window)
    codes: list[list[int]] = [[] for _ in seeds]
    passes = [0] * len(seeds)
    noises = [Noise(seed) for seed in seeds]
    for made in loop(speaker.network, cache, rows, hidden, list(weights.values()), sampling, noises, canvas):
        for index, new in made:
            codes[index] += new
            passes[index] += 1
            sketch = partial(to_sketch, speaker.vq_decode, codes[index], canvas.rows, canvas.columns)
            yield index, Progress(len(codes[index]), canvas.n_codes, sketch)
            if len(codes[index]) == canvas.n_codes:
                yield index, to_picture(speaker.vq_decode, codes[index], canvas.rows, seeds[index], passes[index])


def tell(speaker: Speaker, request: Request, prompt: Prompt) -> Iterator[Piece]:
    """Answer in words and pictures over one cache.

    Row 0 holds the whole reply and is fed each token once; the guidance rows begin anew with every picture, because
    what they hold (the pictures so far) has changed.
    """
    v, network = speaker.vocabulary, speaker.network
    cache = Cache(3, speaker.context)
    grammar = Grammar(v, request.want, speaker.context, request.text.max_tokens)
    text = Detokenizer(speaker.detokenise, strip=not request.completion)
    word_noise, seen = [Noise(request.seed, words=True)], [list(prompt.ids)]
    pictures = list(prompt.pictures)
    hidden = feed(network, cache, range(1), [prompt.ids])
    while True:
        last = v.eos
        for [(_, last)] in words(network, cache, range(1), hidden, [grammar], request.text, word_noise, seen):
            if new := text.push(last):
                yield new
        if new := text.end():
            yield new
        if last != v.begin_image:
            return
        seed = request.seed + len(pictures) - len(prompt.pictures)
        ids: list[int] = []
        for piece in _next_picture(speaker, cache, pictures, request.image, seed):
            yield piece
            if isinstance(piece, Picture):
                ids = [v.code_ids[code] for code in piece.codes or ()]
        pictures.append((v.begin_image, *ids, v.end_image))
        seen[0] += [*ids, v.end_image]
        hidden = feed(network, cache, range(1), [[ids[-1], v.end_image]])


def _next_picture(
    speaker: Speaker, cache: Cache, pictures: Sequence[tuple[int, ...]], sampling: ImageSampling, seed: int
) -> Iterator[Progress | Picture]:
    v, network = speaker.vocabulary, speaker.network
    weights = guidance_weights(sampling.guidance, sampling.image_guidance, has_pictures=bool(pictures))
    hidden = feed(network, cache, range(1), [[v.begin_image]])
    rows = range(len(weights))
    if guidance := rows[1:]:
        for row in guidance:
            cache.lengths[row] = 0
        so_far = Prompt((), tuple(pictures))
        fed = [_guidance_row(v, kind, so_far) for kind in weights if kind != "full"]
        hidden = torch.cat([hidden, feed(network, cache, guidance, fed)])
    for _, piece in _pictures(speaker, cache, rows, hidden, weights, sampling, [seed], v.canvas()):
        yield piece


def _guidance_row(v: Vocabulary, kind: str, prompt: Prompt) -> tuple[int, ...]:
    """What a kind of guidance row holds before the first code (see sampling.guidance_weights)."""
    if kind == "full":
        return (*prompt.ids, v.begin_image)
    if kind == "pictures":
        return (v.bos, *(id_ for ids in prompt.pictures for id_ in ids), v.begin_image)
    return (*(prompt.away_from or (v.bos,)), v.begin_image)

"""Whole replies: words, pictures, or both over one cache. Joins the loops, the grammar and the pieces; knows no files.

Every function takes requests that are decoded alike and their prompts, and yields (index of the request, piece). What a
request gets does not depend on the others beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmgen.decoding.cache import Cache
from mmgen.decoding.grammar import Grammar, Prompt, Vocabulary
from mmgen.decoding.pieces import Detokenizer, to_picture
from mmgen.decoding.sampling import Noise, guidance_weights
from mmgen.decoding.stepwise import Network, feed, picture, words
from mmgen.request import Piece, Progress, Request


@dataclass(frozen=True)
class Speaker:
    """A language model that says words and image codes.

    Attributes:
        context: most positions of one reply, prompt included.
        detokenise: words' ids -> text.
        vq_decode: codes [1, h, w] int64 -> pixels [1, 3, H, W] float in [-1, 1].
    """

    network: Network
    vocabulary: Vocabulary
    context: int
    detokenise: Callable[[Sequence[int]], str]
    vq_decode: Callable[[Tensor], Tensor]


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
    """Answer with one picture each, all of one size, B requests in step; either all prompts have pictures or none."""
    v = speaker.vocabulary
    height, width = prompts[0].grid or (v.side, v.side)
    codes: list[list[int]] = [[] for _ in requests]
    for done, step in enumerate(_codes(speaker, requests, prompts, height, width), 1):
        for index, code in enumerate(step.tolist()):
            codes[index].append(code)
            yield index, Progress(done, height * width)
    for index, request in enumerate(requests):
        yield index, to_picture(speaker.vq_decode, codes[index], height, request.seed)


def _codes(
    speaker: Speaker, requests: Sequence[Request], prompts: Sequence[Prompt], height: int, width: int
) -> Iterator[Tensor]:
    """Choose the codes of B pictures, row by row if something stands between rows: yields [B] of each place."""
    v, network, sampling = speaker.vocabulary, speaker.network, requests[0].image
    weights = guidance_weights(sampling.guidance, sampling.image_guidance, has_pictures=bool(prompts[0].pictures))
    fed = [_guidance_row(v, kind, prompt) for kind in weights for prompt in prompts]
    rows = range(len(fed))
    lines = [height * width] if v.row_end is None else [width] * height
    cache = Cache(len(rows), max(len(ids) for ids in fed) + height * width + len(lines) - 1)
    hidden = feed(network, cache, rows, fed)
    noises = [Noise(request.seed) for request in requests]
    step = torch.empty(0)
    for line, n_codes in enumerate(lines):
        if line:
            last = network.code_ids[step.to(network.code_ids.device)]
            between = torch.stack([last, torch.full_like(last, v.row_end or 0)], dim=1)
            hidden = feed(network, cache, rows, between.repeat(len(weights), 1))
        for step in picture(network, cache, rows, hidden, list(weights.values()), sampling, noises, n_codes):
            yield step


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
        codes: list[int] = []
        for code in _next_picture(network, cache, v, pictures, request, Noise(seed)):
            codes.append(code)
            yield Progress(len(codes), v.n_codes)
        yield to_picture(speaker.vq_decode, codes, v.side, seed)
        ids = [v.code_ids[code] for code in codes]
        pictures.append((v.begin_image, *ids, v.end_image))
        seen[0] += [*ids, v.end_image]
        hidden = feed(network, cache, range(1), [[ids[-1], v.end_image]])


def _next_picture(
    network: Network, cache: Cache, v: Vocabulary, pictures: Sequence[tuple[int, ...]], request: Request, noise: Noise
) -> Iterator[int]:
    sampling = request.image
    weights = guidance_weights(sampling.guidance, sampling.image_guidance, has_pictures=bool(pictures))
    hidden = feed(network, cache, range(1), [[v.begin_image]])
    rows = range(len(weights))
    if guidance := rows[1:]:
        for row in guidance:
            cache.lengths[row] = 0
        so_far = Prompt((), tuple(pictures))
        fed = [_guidance_row(v, kind, so_far) for kind in weights if kind != "full"]
        hidden = torch.cat([hidden, feed(network, cache, guidance, fed)])
    for step in picture(network, cache, rows, hidden, list(weights.values()), sampling, [noise], v.n_codes):
        yield int(step)


def _guidance_row(v: Vocabulary, kind: str, prompt: Prompt) -> list[int]:
    """What a kind of guidance row holds before the first code (see sampling.guidance_weights)."""
    if kind == "full":
        return [*prompt.ids, v.begin_image]
    if kind == "pictures":
        return [v.bos, *(id_ for ids in prompt.pictures for id_ in ids), v.begin_image]
    return [*(prompt.away_from or (v.bos,)), v.begin_image]

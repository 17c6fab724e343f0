"""Whole replies: words, pictures, or both over one cache. Joins the loops, the grammar and the pieces; knows no files.

Every function takes requests that are decoded alike and their prompts, and yields (index of the request, piece), a Done
last. The reply to a request does not depend on the others beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from mmgen.codes import Maker, carry
from mmgen.decoding import jacobi, stepwise
from mmgen.decoding.constraint import Constraint, no_constraint
from mmgen.decoding.coupling import Made, Passes, Source, best_draft, score_below, search
from mmgen.decoding.grammar import Canvas, Grammar, PromptIds, Vocabulary
from mmgen.decoding.pieces import Detokenizer, to_image, to_sketch
from mmgen.decoding.sampling import EDITS_STREAM, WORDS_STREAM, Noise, guidance_weights, mix
from mmgen.decoding.stepwise import Cache, Network, extend, read
from mmgen.request import Done, Picture, Piece, Progress, Request


@dataclass(frozen=True)
class LanguageModel:
    """An autoregressive model of words and image codes.

    Attributes:
        context: most positions of one reply, prompt included.
        detokenise: words' ids -> text.
        vq_decode: codes [1, h, w] int64 -> pixels [1, 3, H, W] float in [-1, 1].
        window: most places of a picture that one pass looks at; None chooses, 1 is one by one.
        maker: says with what pictures are made; called once one is whole.
        choose_window: chooses it, for so many rows of the cache.
        constrain: gives what keeps a reply to a JSON schema, if there is one.
    """

    network: Network
    vocabulary: Vocabulary
    context: int
    detokenise: Callable[[Sequence[int]], str]
    vq_decode: Callable[[Tensor], Tensor]
    maker: Callable[[], Maker]
    window: int | None = None
    choose_window: Callable[[int], int] = lambda n_rows: max(1, 16 // n_rows)
    constrain: Callable[[str | None], Constraint | None] = no_constraint


def generate_text(
    model: LanguageModel, requests: Sequence[Request], prompts: Sequence[PromptIds]
) -> Iterator[tuple[int, Piece | Done]]:
    """Answer in words, B requests in step."""
    rows = range(len(requests))
    n_tokens = max(len(prompt.ids) for prompt in prompts) + requests[0].text.max_tokens
    cache = Cache(len(rows), min(model.context, n_tokens))
    hidden = extend(model.network, cache, rows, [prompt.ids for prompt in prompts])
    texts = [Detokenizer(model.detokenise, strip=not request.completion) for request in requests]
    grammars = [Grammar(model.vocabulary, request, model.context) for request in requests]
    noises = [Noise(request.seed, WORDS_STREAM) for request in requests]
    size = model.vocabulary.size
    seen = [[id_ for id_ in prompt.ids if id_ < size] for prompt in prompts]
    under_way = list(rows)
    constraints = [model.constrain(request.text.json_schema) for request in requests]
    steps = stepwise.words(model.network, cache, hidden, grammars, noises, seen, constraints)
    for chosen in chain(steps, [[]]):  # after the last step there may be rows that ended without a token
        for index, id_ in chosen:
            if new := texts[index].push(id_):
                yield index, new
        for index in [index for index in under_way if grammars[index].reason]:
            under_way.remove(index)
            if new := texts[index].end():
                yield index, new
            yield (
                index,
                Done(grammars[index].reason or "end", grammars[index].n_words, n_prompt=len(prompts[index].ids)),
            )


def draw(
    model: LanguageModel, requests: Sequence[Request], prompts: Sequence[PromptIds]
) -> Iterator[tuple[int, Piece | Done]]:
    """Answer with one picture each, all of one size, B at a time; either all prompts have pictures or none."""
    v, sampling = model.vocabulary, requests[0].image
    canvas = prompts[0].canvas or v.canvas
    weights = guidance_weights(sampling.guidance, sampling.image_guidance, has_pictures=bool(prompts[0].images))
    ids = [guidance_row(v, kind, prompt) for prompt in prompts for kind in weights]
    window = _window(model, len(ids))
    cache = Cache(len(ids), max(map(len, ids)) + canvas.n_places + window)  # the last pass guesses beyond the end
    hidden = _prefill(model.network, cache, ids)
    yield from _pictures(model, cache, hidden, weights, requests, canvas, window)


def edit(
    model: LanguageModel,
    requests: Sequence[Request],
    prompts: Sequence[PromptIds],
    sources: Sequence[Source],
    described: Sequence[PromptIds] = (),
    strength: float = 1.0,
    n_drafts: int = 1,
) -> Iterator[tuple[int, Piece | Done]]:
    """Answer with one picture each, made of the codes of another (see decoding.coupling); else as `draw`.

    Args:
        sources: what each is made of, without hidden states.
        described: what the sources show, as prompts; if there are none, what is not forced goes by the new words alone.
        n_drafts: of each, without `described`: the one after which what is forced below it is likeliest is taken.
    """
    v, network, sampling = model.vocabulary, model.network, requests[0].image
    canvas = prompts[0].canvas or v.canvas
    weights = guidance_weights(sampling.guidance, sampling.image_guidance, has_pictures=False)
    window = _window(model, len(prompts) * len(weights))

    def look(prompts: Sequence[PromptIds], codes: Sequence[Sequence[int]]) -> tuple[Cache, Tensor]:
        rows = [guidance_row(v, kind, prompt) for prompt in prompts for kind in weights]
        cache = Cache(len(rows), max(map(len, rows)) + canvas.n_places + window)
        ahead = [place_ids(v, canvas, each)[:-1] for each in codes for _ in weights]
        return cache, read(network, cache, rows, ahead)  # [B * G, n, D]

    own = [[code for code in source.codes.tolist() if code >= 0] for source in sources]
    if described:
        hidden = torch.split(look(described, own)[1], len(weights))
        sources = [replace(source, hidden=each) for source, each in zip(sources, hidden, strict=True)]

    def attempt(which: Sequence[int], sources: Sequence[Source], draft: int = 0) -> Passes:
        noises = [Noise(requests[index].seed + draft, EDITS_STREAM) for index in which]
        # Looked at anew: the attempt before has written its own codes over the source's
        cache, hidden = look([prompts[index] for index in which], [own[index] for index in which])
        given = list(weights.values()), sampling, noises, canvas, window, sources
        yield from jacobi.picture(network, cache, hidden, *given)

    def fit(codes: Sequence[Sequence[int]]) -> list[float]:
        hidden = torch.split(look(prompts, codes)[1], len(weights))
        mixed = (mix(network.code_head(each)[None], list(weights.values()))[0] for each in hidden)
        return [score_below(source, each, sampling) for source, each in zip(sources, mixed, strict=True)]

    made: Iterable[Made] = attempt(range(len(sources)), sources)
    if described:
        made = search(attempt, sources, strength)
    elif n_drafts > 1:
        made = best_draft(partial(attempt, range(len(sources)), sources), sources, n_drafts, fit)
    yield from _pieces(model, made, requests, canvas, sources)


def interleave(
    model: LanguageModel, requests: Sequence[Request], prompts: Sequence[PromptIds]
) -> Iterator[tuple[int, Piece | Done]]:
    """Answer one request in words and pictures over one cache.

    Row 0 holds the whole reply and is fed each token once; the guidance rows begin anew with every picture, because
    what they hold (the pictures so far) has changed.
    """
    [request], [prompt] = requests, prompts
    v, network, sampling = model.vocabulary, model.network, request.image
    cache, main, guidance = Cache(3, model.context + _window(model, 1)), range(1), range(1, 3)
    grammar = Grammar(v, request, model.context)
    text = Detokenizer(model.detokenise, strip=not request.completion)
    noise, seen = [Noise(request.seed, WORDS_STREAM)], [list(prompt.ids)]
    pictures, n_codes = list(prompt.images), 0
    hidden = extend(network, cache, main, [prompt.ids])
    while True:
        # 1) Words, until the end or begin-image.
        last: int | None = None
        for [(_, last)] in stepwise.words(network, cache, hidden, [grammar], noise, seen):
            if new := text.push(last):
                yield 0, new
        if new := text.end():
            yield 0, new
        if last != v.begin_image:
            yield 0, Done(grammar.reason or "end", grammar.n_words + n_codes, n_prompt=len(prompt.ids))
            return
        # 2) A picture, guided by those before it.
        weights = guidance_weights(sampling.guidance, sampling.image_guidance, has_pictures=bool(pictures))
        hidden = extend(network, cache, main, [[v.begin_image]])
        cache.lengths[1:] = [0, 0]
        so_far = PromptIds((), tuple(pictures))
        if rows := [guidance_row(v, kind, so_far) for kind in weights if kind != "full"]:
            hidden = torch.cat([hidden, extend(network, cache, guidance[: len(rows)], rows)])
        own = replace(request, seed=request.seed + len(pictures) - len(prompt.images))
        ids: list[int] = []
        for _, piece in _pictures(model, cache, hidden, weights, [own], v.canvas, _window(model, len(weights))):
            if isinstance(piece, Done):
                n_codes += piece.n_tokens
            else:
                yield 0, piece
            if isinstance(piece, Picture):
                ids = [v.code_ids[code] for code in piece.codes or ()]
        if not ids:
            yield 0, Done("cancelled", grammar.n_words + n_codes)
            return
        pictures.append((v.begin_image, *ids, v.end_image))
        seen[0] += [*ids, v.end_image]
        hidden = extend(network, cache, main, [[ids[-1], v.end_image]])


def _prefill(network: Network, cache: Cache, rows: Sequence[tuple[int, ...]]) -> Tensor:
    """Give every row of a cache its ids; rows that begin alike are computed once: hidden of the last id [r, D]."""
    unlike = list(dict.fromkeys(rows))
    hidden = extend(network, cache, range(len(unlike)), unlike)
    sources = [unlike.index(ids) for ids in rows]  # at or before the row itself, so from the end none is lost
    for row, source in reversed(list(enumerate(sources))):
        if row != source:
            cache.copy(source, row)
    return hidden[sources]


def _pictures(
    model: LanguageModel,
    cache: Cache,
    hidden: Tensor,
    weights: Mapping[str, float],
    requests: Sequence[Request],
    canvas: Canvas,
    window: int,
) -> Iterator[tuple[int, Piece | Done]]:
    """Choose the codes of a picture for each request, given what its guidance rows hold.

    Args:
        hidden: [B * G, D] of the first rows of the cache, after begin-image.
    """
    loop = stepwise.picture if window == 1 else partial(jacobi.picture, window=window)
    noises = [Noise(request.seed) for request in requests]
    made = loop(model.network, cache, hidden, list(weights.values()), requests[0].image, noises, canvas)
    yield from _pieces(model, made, requests, canvas)


def _pieces(
    model: LanguageModel,
    made: Iterable[Made],
    requests: Sequence[Request],
    canvas: Canvas,
    sources: Sequence[Source] = (),
) -> Iterator[tuple[int, Piece | Done]]:
    """Turn codes as they are made (see coupling.search) into pieces: decode what is whole."""
    codes: list[list[int]] = [[] for _ in requests]
    passes, is_over = [0] * len(requests), [False] * len(requests)
    for each in made:
        for index, new in each:
            if is_over[index]:
                continue
            if new is None:
                codes[index].clear()
                continue
            codes[index] += new
            passes[index] += len(new) < canvas.n_codes or not passes[index]
            sketch = partial(to_sketch, model.vq_decode, codes[index], canvas.rows, canvas.columns)
            yield index, Progress(len(codes[index]), canvas.n_codes, sketch)
            is_whole = len(codes[index]) == canvas.n_codes
            is_over[index] = is_whole or requests[index].cancelled.is_set()
            if is_whole:
                image = to_image(model.vq_decode, codes[index], canvas.rows)
                carry(image, codes[index], canvas.rows, model.maker())
                kept = sources[index].count_kept(codes[index]) if sources else None
                yield index, Picture(image, requests[index].seed, tuple(codes[index]), passes[index], kept)
            if is_over[index]:
                yield index, Done("end" if is_whole else "cancelled", len(codes[index]))
        if all(is_over) and any(len(each) < canvas.n_codes for each in codes):
            return  # else the loop has an end of its own, and leaves the cache in order


def _window(model: LanguageModel, n_rows: int) -> int:
    return model.window or model.choose_window(n_rows)


def guidance_row(v: Vocabulary, kind: str, prompt: PromptIds) -> tuple[int, ...]:
    """Give the ids that a kind of guidance row holds before the first code (see sampling.guidance_weights)."""
    if kind == "full":
        return (*prompt.ids, v.begin_image)
    if kind == "pictures":
        return (v.bos, *(id_ for ids in prompt.images for id_ in ids), v.begin_image)
    return (*(prompt.unconditional or (v.bos,)), v.begin_image)


def place_ids(v: Vocabulary, canvas: Canvas, codes: Sequence[int]) -> list[int]:
    """Give the ids of codes, and of what stands between their rows."""
    return canvas.lay_out([v.code_ids[code] for code in codes], canvas.row_end or 0)

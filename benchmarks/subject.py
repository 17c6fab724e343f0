"""mmgen's own drawing, timed by its parts. The one benchmark module that knows what is inside the decoding."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmgen import tasks
from mmgen.decoding.body import Body
from mmgen.decoding.sampling import Noise, guidance_weights, log_probabilities, mix, pick
from mmgen.decoding.stepwise import Cache, extend, forward
from mmgen.decoding.vq import to_uint8
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.outputs.pictures import encode_image
from mmgen.request import ImageSampling, Picture, Progress, Request

from .measures import Clock, Run, forget_peak, peak_bytes

PROMPT = "a snowman"


def make_request(seed: int, sampling: ImageSampling | None = None) -> Request:
    """The request that all benchmarks draw."""
    return tasks.draw(PROMPT, image=sampling, seed=seed)


def draw(model: AutoregressiveModel, n: int, sampling: ImageSampling, window: int | None, seed: int) -> Run:
    """Draw n pictures as `mmgen draw -n` does, without the command line, and without writing files.

    Args:
        window: codes looked at in one pass; None is what mmgen chooses.
    """
    return draw_all(model, [make_request(seed + i, sampling) for i in range(n)], window)


def warm_up(model: AutoregressiveModel, n: int, sampling: ImageSampling, window: int | None) -> None:
    """Begin such a drawing and leave it when a picture has 16 codes; turn a picture's codes into pixels once."""
    before, v = model.language_model, model.language_model.vocabulary
    model.language_model = replace(before, window=window)
    try:
        for _, piece in model.replies([make_request(i, sampling) for i in range(n)]):
            if not isinstance(piece, Progress) or piece.done >= 16:
                break
    finally:
        model.language_model = before
    encode_image(to_image(model.decode, [0] * v.canvas.n_codes))


def to_image(vq_decode: Callable[[Tensor], Tensor], codes: Sequence[int]) -> Image.Image:
    """Decode a square picture's codes, as mmgen does it."""
    pixels = vq_decode(torch.tensor(codes).view(1, math.isqrt(len(codes)), -1))[0]
    return Image.fromarray(to_uint8(pixels).cpu().numpy())


def draw_all(model: AutoregressiveModel, requests: Sequence[Request], window: int | None) -> Run:
    """Draw a picture for each request; all are sampled alike."""
    device = model.model.device
    clock, vq, png = Clock(device), Clock(device), Clock(device)
    encode = png.around(encode_image)
    before, n = model.language_model, len(requests)
    pictures: dict[int, Picture] = {}
    first: float | None = None
    answer, batches = model.answer, []

    def noted(some: Sequence[Request]) -> Any:
        batches.append(len(some))
        return answer(some)

    forget_peak(device)
    model.language_model = replace(before, window=window, vq_decode=vq.around(before.vq_decode))
    model.answer = noted
    try:
        started = clock.now()
        for index, piece in model.replies(requests):
            if isinstance(piece, Exception):
                raise piece
            if first is None and isinstance(piece, Progress):
                first = clock.now()
            if isinstance(piece, Picture):
                encode(piece.image)
                pictures[index] = piece
        ended = clock.now()
    finally:
        model.language_model = before
        model.answer = answer
    prefill = (first or started) - started
    told = [picture.passes for picture in pictures.values() if picture.passes is not None]
    return Run(
        n_pictures=n,
        prefill=prefill,
        decode=max(0.0, ended - started - prefill - vq.seconds - png.seconds),
        vq=vq.seconds,
        png=png.seconds,
        n_codes=model.language_model.vocabulary.canvas.n_codes,
        passes=sum(told) / n if told else None,
        peak_bytes=peak_bytes(device),
        codes=tuple(pictures[index].codes or () for index in range(n)),
        n_groups=math.ceil(len(batches) / max(1, model.n_lanes)),
    )


def capture_nothing(model: AutoregressiveModel) -> None:
    """Let a model make its passes one by one from now on, none of them replayed as a CUDA graph."""
    decoder, embedding = model.model.get_decoder(), model.model.get_input_embeddings()
    body = Body(decoder)
    network = replace(
        model.language_model.network,
        body=lambda ids, positions, cache, visible: body(embedding(ids), positions, cache, visible),
    )
    model.language_model = replace(model.language_model, network=network)


@dataclass(frozen=True)
class Tie:
    """How near two codes were at one place.

    Attributes:
        margin: between their scores, noise included and nothing cut.
        edge: how far the probability of all likelier codes was from top-p, for the one of the two nearer to it.
    """

    margin: float
    edge: float

    @property
    def is_near(self) -> bool:
        """Whether rounding explains it: float32 logits move by about 1e-5 to 4e-5."""
        return self.margin < 1e-3 or self.edge < 1e-4


@torch.inference_mode()
def tie(model: AutoregressiveModel, request: Request, codes: Sequence[int], place: int, other: int) -> Tie:
    """Look at a place of a picture where `other` was chosen, too, and say how near the two were."""
    v, network, sampling = model.language_model.vocabulary, model.language_model.network, request.image
    weights = guidance_weights(sampling.guidance, sampling.image_guidance, has_pictures=False)
    so_far = [v.code_ids[code] for code in codes[:place]]
    prompts = {"full": model.prompts([request])[0].ids, "nothing": (v.bos,)}
    fed = [[*prompts[kind], v.begin_image, *so_far] for kind in weights]
    hidden = extend(network, Cache(len(fed), max(len(ids) for ids in fed)), range(len(fed)), fed)
    mixed = mix(network.code_head(hidden)[None], list(weights.values()))  # [1, K]
    log_p = log_probabilities(mixed, replace(sampling, top_p=1.0))[0].cpu()
    noise = Noise(request.seed)
    gumbel = [noise.row(len(log_p)) for _ in range(place + 1)][-1]
    pair = [codes[place], other]
    scores = (log_p + gumbel)[pair].tolist()
    before = [float(log_p[log_p > log_p[code]].exp().sum()) for code in pair]
    return Tie(abs(scores[0] - scores[1]), min(abs(probability - sampling.top_p) for probability in before))


@torch.inference_mode()
def seconds_of_pass(model: AutoregressiveModel, n_pictures: int, n_kinds: int, width: int, repeat: int = 9) -> float:
    """Time one pass halfway through pictures, with its choices: the median, in seconds.

    Args:
        n_kinds: rows of each picture: 2 with guidance.
        width: tokens in each row.
    """
    network, rows, device = model.language_model.network, range(n_pictures * n_kinds), model.model.device
    n_rows, n_cached, sampling = len(rows), model.language_model.vocabulary.canvas.n_codes // 2, ImageSampling()
    weights = [1.0] if n_kinds == 1 else [sampling.guidance, 1 - sampling.guidance]
    cache = Cache(n_rows, n_cached + width)
    id_ = int(network.code_ids[0])
    extend(network, cache, rows, torch.full((n_rows, n_cached), id_, device=device))
    prompt = model.prompts([make_request(0)])[0]
    shorter = len(prompt.ids) - 1  # the row without the prompt has bos alone before the picture
    cache.lengths[:] = [max(0, n_cached - row % n_kinds * shorter) for row in rows]
    ids = torch.full((n_rows, width), id_, device=device)
    gumbel = torch.zeros(n_pictures, width, len(network.code_ids), device=device)
    clock, spent = Clock(device), []
    for _ in range(repeat + 2):
        started = clock.now()
        logits = network.code_head(forward(network, cache, rows, ids))  # [B * G, T, K]
        mixed = mix(logits.view(n_pictures, n_kinds, *logits.shape[1:]), weights)
        pick(log_probabilities(mixed, sampling), gumbel)
        spent.append(clock.now() - started)
    return sorted(spent[2:])[repeat // 2]


def bytes_of_pass(model: AutoregressiveModel, n_rows: int, n_cached: int) -> int:
    """Bytes that a pass cannot do without: the layers, the head's rows of image codes, the cache of each row."""
    decoder, config = model.model.get_decoder(), model.model.config.get_text_config()
    weights = sum(p.nbytes for part in (decoder.layers, decoder.norm) for p in part.parameters())
    one = model.model.lm_head.weight.element_size()
    head = len(model.language_model.vocabulary.code_ids) * config.hidden_size * one
    n_heads = config.num_key_value_heads or config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * n_heads * (config.hidden_size // config.num_attention_heads) * one
    return weights + head + n_rows * n_cached * per_token

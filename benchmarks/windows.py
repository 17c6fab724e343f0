"""The same pictures for every window, and how many passes each takes: `python -m benchmarks.windows`.

24 prompts and seeds, guidance 1 and 3, float32: the codes of each window, and of batches of 3 and 8, beside those of
one by one alone. Where they differ, the margin at the first difference is shown: below 1e-3 it is a near tie, which
another order of additions may decide otherwise (DECODING.md). With --statistics N also bfloat16: N pictures a window,
each of a seed of its own, are tested for coming from one distribution with N drawn one by one: the energy distance
(Székely & Rizzo, 2013, doi 10.1016/j.jspi.2013.03.018) of the pictures, and of how often each code is in them, under
999 permutations within each prompt. Pictures drawn colder (temperature 0.9) show that the test sees a difference.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

import mmgen
from mmgen import tasks
from mmgen.decoding.grammar import PromptIds
from mmgen.decoding.replies import LanguageModel, draw
from mmgen.decoding.sampling import Noise, guidance_weights, log_probabilities, mix
from mmgen.decoding.stepwise import Cache, forward
from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.request import ImageSampling, Loading, Picture, Request

PROMPTS = (
    "a snowman", "a red cat on the grass", "a blue car at night", "a house", "a green tree at sunset",
    "a boat on the beach", "a pink flower", "two fish", "an orange balloon at night", "a white mushroom in the snow",
    "draw a purple boat", "a yellow house on the beach",
)  # fmt: skip
WINDOWS = (2, 8, 16, 32, 64)
BATCHES = (3, 8)


def pictures(language_model: LanguageModel, model: AutoregressiveModel, requests: Sequence[Request]) -> list[Picture]:
    """Draw requests in one batch."""
    with torch.inference_mode():
        pieces = list(draw(language_model, requests, [model.prompts([request])[0] for request in requests]))
    found = {index: piece for index, piece in pieces if isinstance(piece, Picture)}
    return [found[index] for index in range(len(requests))]


@torch.inference_mode()
def scores(
    model: AutoregressiveModel, prompt: PromptIds, sampling: ImageSampling, seed: int, codes: Sequence[int]
) -> Tensor:
    """Score every code at each place of a picture, alone: the first before all of these codes, the last after them.

    Returns:
        log P + noise [n + 1, K] for n codes; the logits at temperature 0.
    """
    v, network = model.language_model.vocabulary, model.language_model.network
    canvas = prompt.canvas or v.canvas
    weights = guidance_weights(sampling.guidance, sampling.image_guidance, has_pictures=bool(prompt.images))
    made, ends = [v.begin_image], [0]  # what is fed of the picture, and where in it what precedes each place ends
    for number, code in enumerate(codes, 1):
        made.append(int(network.code_ids[code]))
        if canvas.row_end is not None and number % canvas.columns == 0:
            made.append(canvas.row_end)
        ends.append(len(made) - 1)
    shown = [id_ for ids in prompt.images for id_ in ids]
    starts = {"full": list(prompt.ids), "pictures": [v.bos, *shown], "nothing": list(prompt.unconditional or [v.bos])}
    rows = [[*starts[kind], *made] for kind in weights]
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=network.code_ids.device)
    hidden = forward(network, Cache(len(rows), longest), range(len(rows)), ids)  # [G, T, D]
    before = torch.stack(
        [row[[len(starts[kind]) + end for end in ends]] for kind, row in zip(weights, hidden, strict=True)]
    )
    mixed = mix(network.code_head(before)[None], list(weights.values()))[0]  # [n + 1, K]
    if sampling.temperature == 0:
        return mixed
    noise = Noise(seed)
    gumbel = torch.stack([noise.row(mixed.shape[-1]) for _ in ends])
    return log_probabilities(mixed, sampling) + gumbel


def margin(model: AutoregressiveModel, request: Request, codes: Sequence[int], place: int) -> float:
    """By how much the choice at a place, after these codes, was ahead of the next."""
    best = scores(model, model.prompts([request])[0], request.image, request.seed, codes[:place])[-1].topk(2).values
    return float(best[0] - best[1])


def compare(
    model: AutoregressiveModel, requests: Sequence[Request], found: Sequence[Picture], base: Sequence[Picture]
) -> str:
    """Say how many pictures are the same, and how near a tie the others were."""
    ties = []
    for request, one, two in zip(requests, found, base, strict=True):
        if one.codes != two.codes:
            pairs = zip(one.codes or (), two.codes or (), strict=True)
            place = next(i for i, (a, b) in enumerate(pairs) if a != b)
            ties.append(margin(model, request, two.codes or (), place))
    same = f"{len(base) - len(ties)} of {len(base)} the same"
    return same + (f", margins of the others {', '.join(f'{tie:.1e}' for tie in ties)}" if ties else "")


def exactness(model: AutoregressiveModel, n: int) -> dict[str, float]:
    """Compare windows and batches with one by one; return the passes of each as a share of the codes."""
    shares: dict[str, float] = {}
    for guidance in (1.0, 3.0):
        image = ImageSampling(guidance=guidance)
        requests = [tasks.draw(PROMPTS[i % len(PROMPTS)], seed=100 + i, image=image) for i in range(n)]
        base = [pictures(replace(model.language_model, window=1), model, [request])[0] for request in requests]
        for window in WINDOWS:
            language_model = replace(model.language_model, window=window)
            found = [pictures(language_model, model, [request])[0] for request in requests]
            passes = [picture.passes or 0 for picture in found]
            n_codes = len(base[0].codes or ())
            share = shares[f"guidance {guidance:g}, window {window}"] = sum(passes) / len(passes) / n_codes
            told = f"passes {min(passes)} to {max(passes)}, {share:.3f} of {n_codes} codes"
            print(
                f"guidance {guidance:g}  window {window:>2}  {compare(model, requests, found, base)}; {told}",
                flush=True,
            )
        for size in BATCHES:
            for window in (1, 16):
                language_model = replace(model.language_model, window=window)
                found = []
                for start in range(0, n, size):
                    found += pictures(language_model, model, requests[start : start + size])
                told = compare(model, requests, found, base)
                print(f"guidance {guidance:g}  window {window:>2}  batches of {size}: {told}", flush=True)
    return shares


def sample(model: AutoregressiveModel, n: int, window: int, first_seed: int, temperature: float = 1.0) -> list[Picture]:
    """Draw n pictures, the prompts in turn, eight at a time."""
    language_model, image = replace(model.language_model, window=window), ImageSampling(temperature=temperature)
    requests = [tasks.draw(PROMPTS[i % len(PROMPTS)], seed=first_seed + i, image=image) for i in range(n)]
    return [
        picture for start in range(0, n, 8) for picture in pictures(language_model, model, requests[start : start + 8])
    ]


def as_pixels(picture: Picture) -> Tensor:
    """A picture in small: [3 * 24 * 24]."""
    return torch.frombuffer(bytearray(picture.image.convert("RGB").resize((24, 24)).tobytes()), dtype=torch.uint8) / 255


def as_counts(picture: Picture) -> Tensor:
    """How often each code is in it, as roots of shares: their distance is in proportion to Hellinger's."""
    codes = torch.tensor(picture.codes)
    return (torch.bincount(codes, minlength=int(codes.max()) + 1) / len(codes)).sqrt()


def energy_test(one: Sequence[Tensor], two: Sequence[Tensor], n_permutations: int = 999) -> float:
    """Test that two samples, whose items are of the prompts in turn, come from one distribution: the p-value."""
    vectors = torch.nn.utils.rnn.pad_sequence([*one, *two], batch_first=True).double()
    distances = torch.cdist(vectors, vectors)
    signs = torch.tensor([1.0 / len(one)] * len(one) + [-1.0 / len(two)] * len(two), dtype=torch.float64)
    strata = torch.tensor([i % len(PROMPTS) for some in (one, two) for i in range(len(some))])
    generator = torch.Generator().manual_seed(0)

    def energy() -> float:
        return float(-signs @ distances @ signs)

    observed, n_larger = energy(), 0
    of_prompts = [(strata == prompt).nonzero()[:, 0] for prompt in range(len(PROMPTS))]
    for _ in range(n_permutations):
        for places in of_prompts:
            signs[places] = signs[places[torch.randperm(len(places), generator=generator)]]
        n_larger += energy() >= observed
    return (n_larger + 1) / (n_permutations + 1)


def statistics(n: int) -> None:
    """Test the bfloat16 pictures of windows, and colder ones, against others drawn one by one."""
    model = mmgen.load("demo", loading=Loading(dtype="bfloat16"))
    assert isinstance(model, AutoregressiveModel)
    base = sample(model, n, window=1, first_seed=0)
    others = {
        "one by one": lambda seed: sample(model, n, 1, seed),
        "window 8": lambda seed: sample(model, n, 8, seed),
        "window 32": lambda seed: sample(model, n, 32, seed),
        "one by one, temperature 0.9": lambda seed: sample(model, n, 1, seed, 0.9),
    }
    for number, (name, draw_others) in enumerate(others.items(), 1):
        found = draw_others(10_000 * number)
        p_values = {
            kind: energy_test([view(each) for each in base], [view(each) for each in found])
            for kind, view in (("pixels", as_pixels), ("codes", as_counts))
        }
        told = ", ".join(f"{kind} p = {p_value:.3f}" for kind, p_value in p_values.items())
        print(f"bfloat16, {n} pictures, {name} against one by one: {told}", flush=True)


def main() -> None:
    """Compare, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--statistics", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    model = mmgen.load("demo", loading=Loading(dtype="float32"))
    assert isinstance(model, AutoregressiveModel)
    if arguments.prompts:
        print(json.dumps({name: round(share, 3) for name, share in exactness(model, arguments.prompts).items()}))
    if arguments.statistics:
        statistics(arguments.statistics)


if __name__ == "__main__":
    main()

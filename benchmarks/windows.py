"""The same pictures for every window, and how many passes each takes: `python -m benchmarks.windows`.

24 prompts and seeds, guidance 1 and 3, float32: the codes of each window, and of batches of 3 and 8, beside those of
one by one alone. Where they differ, the margin at the first difference is shown: below 1e-3 it is a near tie, which
another order of additions may decide otherwise (DECODING.md). With --statistics N also bfloat16: N pictures a window,
whose codes' frequencies are compared by a chi-squared test, and their subjects' by the judge.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch

import mmgen
from mmgen import tasks
from mmgen.decoding.cache import Cache
from mmgen.decoding.replies import Speaker, draw
from mmgen.decoding.sampling import Noise, guidance_weights, log_probabilities, mix
from mmgen.decoding.stepwise import feed
from mmgen.families.speaking import SpeakingModel
from mmgen.request import ImageSampling, Loading, Picture, Request

PROMPTS = (
    "a snowman", "a red cat on the grass", "a blue car at night", "a house", "a green tree at sunset",
    "a boat on the beach", "a pink flower", "two fish", "an orange balloon at night", "a white mushroom in the snow",
    "draw a purple boat", "a yellow house on the beach",
)  # fmt: skip
WINDOWS = (2, 8, 16, 32, 64)
BATCHES = (3, 8)


def pictures(speaker: Speaker, model: SpeakingModel, requests: Sequence[Request]) -> list[Picture]:
    """Draw requests in one batch."""
    with torch.inference_mode():
        pieces = list(draw(speaker, requests, [model.prompt(request) for request in requests]))
    found = {index: piece for index, piece in pieces if isinstance(piece, Picture)}
    return [found[index] for index in range(len(requests))]


@torch.inference_mode()
def margin(model: SpeakingModel, request: Request, codes: Sequence[int], place: int) -> float:
    """By how much the choice at a place, after these codes, was ahead of the next: the difference of log P + g."""
    v, network, sampling, prompt = model.speaker.vocabulary, model.speaker.network, request.image, model.prompt(request)
    weights = guidance_weights(sampling.guidance, sampling.image_guidance, has_pictures=bool(prompt.pictures))
    before = [v.code_ids[code] for code in codes[:place]]
    shown = [id_ for ids in prompt.pictures for id_ in ids]
    starts = {"full": list(prompt.ids), "pictures": [v.bos, *shown], "nothing": [v.bos]}
    rows = [[*starts[kind], v.begin_image, *before] for kind in weights]
    hidden = feed(network, Cache(len(rows), max(map(len, rows)) + 1), range(len(rows)), rows)
    mixed = mix(network.code_head(hidden)[None], list(weights.values()))
    noise = Noise(request.seed)
    gumbel = [noise.row(mixed.shape[-1]) for _ in range(place + 1)][-1]
    scores = log_probabilities(mixed, sampling.temperature, sampling.top_k, sampling.top_p)[0] + gumbel
    best = scores.topk(2).values
    return float(best[0] - best[1])


def compare(
    model: SpeakingModel, requests: Sequence[Request], found: Sequence[Picture], base: Sequence[Picture]
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


def exactness(model: SpeakingModel, n: int) -> dict[str, float]:
    """Compare windows and batches with one by one; return the passes of each as a share of the codes."""
    shares: dict[str, float] = {}
    for guidance in (1.0, 3.0):
        image = ImageSampling(guidance=guidance)
        requests = [tasks.draw(PROMPTS[i % len(PROMPTS)], seed=100 + i, image=image) for i in range(n)]
        base = [pictures(replace(model.speaker, window=1), model, [request])[0] for request in requests]
        for window in WINDOWS:
            speaker = replace(model.speaker, window=window)
            found = [pictures(speaker, model, [request])[0] for request in requests]
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
                speaker = replace(model.speaker, window=window)
                found = []
                for start in range(0, n, size):
                    found += pictures(speaker, model, requests[start : start + size])
                told = compare(model, requests, found, base)
                print(f"guidance {guidance:g}  window {window:>2}  batches of {size}: {told}", flush=True)
    return shares


def statistics(n: int) -> None:
    """Compare the codes and subjects of bfloat16 pictures of each window with those of one by one."""
    from scipy.stats import chi2_contingency

    from tools.demo.judge import load_judge, see

    model = mmgen.load("demo", loading=Loading(dtype="bfloat16"))
    assert isinstance(model, SpeakingModel)
    judge = load_judge()
    codes: dict[int, Counter[int]] = {}
    seen: dict[int, Counter[str]] = {}
    for number, window in enumerate((1, 8, 32)):
        found: list[Picture] = []
        speaker = replace(model.speaker, window=window)
        for start in range(0, n, 8):  # other seeds for each window: samples that know nothing of each other
            requests = [
                tasks.draw(PROMPTS[i % len(PROMPTS)], seed=10_000 * number + i) for i in range(start, min(n, start + 8))
            ]
            found += pictures(speaker, model, requests)
        # Codes of one picture depend on each other, so only one of each counts.
        codes[window] = Counter((picture.codes or ())[i % 144] for i, picture in enumerate(found))
        seen[window] = Counter(scene.caption for scene in see(judge, [picture.image for picture in found]))
    for window in (8, 32):
        told = []
        for name, counts in (("codes", codes), ("scenes", seen)):
            kinds = sorted(counts[1] | counts[window], key=str)
            common = [
                kind for kind in kinds if counts[1][kind] + counts[window][kind] >= 10
            ]  # chi-squared needs 5 each
            rest = [sum(counts[w].values()) - sum(counts[w][kind] for kind in common) for w in (1, window)]
            table = [[counts[w][kind] for kind in common] + [other] for w, other in zip((1, window), rest, strict=True)]
            told.append(f"{name}: p = {chi2_contingency(table).pvalue:.3f} ({len(common) + 1} kinds)")
        print(f"bfloat16, {n} pictures, window {window} against 1: {'; '.join(told)}", flush=True)


def main() -> None:
    """Compare, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--statistics", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    model = mmgen.load("demo", loading=Loading(dtype="float32"))
    assert isinstance(model, SpeakingModel)
    if arguments.prompts:
        print(json.dumps({name: round(share, 3) for name, share in exactness(model, arguments.prompts).items()}))
    if arguments.statistics:
        statistics(arguments.statistics)


if __name__ == "__main__":
    main()

"""Drawing: mmgen step by step, in windows and as it chooses, beside transformers' `generate`, in one run.

Each baseline has a process of its own, and there the number of threads with which it is quickest.

`python -m benchmarks.draw [--model demo|290m|7b] [--pictures 1 4 16] [--guidance 1 3] [--windows 1 8 16 32]`. All have
the same weights, and take turns after a warm-up; what counts is the median of the rounds, and the median of the
ratios within a round. The time begins with the prompt and ends with the bytes of a PNG. For each number of pictures
and each guidance a table, and a line of JSON.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
import transformers

from mmgen.families.autoregressive import AutoregressiveModel
from mmgen.request import ImageSampling

from . import subject
from .baselines import Apart
from .checkpoints import DTYPES, SHAPES, open_subject
from .measures import Run, copy_bandwidth, environment, median

WARM_UP_CODES = 16  # of a baseline: it has compiled by then what it compiles
BASELINES = {"A": "A: generate", "B": "B: static cache"}

Way = Callable[[int], Run]  # of a seed


def take_turns(ways: Mapping[str, Way], repeat: int, seconds: float) -> dict[str, list[Run]]:
    """Run all in turn, `repeat` times or for as long as the seconds last, at least once."""
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    started = time.monotonic()
    for done in range(1, repeat + 1):
        for name, way in ways.items():
            runs[name].append(way(done))
        if (time.monotonic() - started) * (done + 1) / done > seconds:
            break
    return runs


def warmed_up(
    model: AutoregressiveModel, n: int, sampling: ImageSampling, windows: Sequence[int | None],
    stocks: Mapping[str, Apart], baseline_codes: int | None,
) -> dict[str, Way]:  # fmt: skip
    """Say what takes turns, each having run for some codes."""
    ways: dict[str, Way] = {}
    for window in windows:
        subject.warm_up(model, n, sampling, window)
        ways[_name(window)] = partial(_draw, model, n, sampling, window)
    for letter, stock in stocks.items():
        stock.warm_up(n, sampling, min(WARM_UP_CODES, model.language_model.vocabulary.canvas.n_codes))
        ways[BASELINES[letter]] = partial(stock.draw, n, sampling, n_codes=baseline_codes)
    return ways


def _draw(model: AutoregressiveModel, n: int, sampling: ImageSampling, window: int | None, seed: int) -> Run:
    return subject.draw(model, n, sampling, window, seed)


def _name(window: int | None) -> str:
    return {None: "mmgen, as it chooses", 1: "mmgen, step by step"}.get(window, f"mmgen, window {window}")


# --- what is shown ------------------------------------------------------------------------------------------------


def against(runs: Mapping[str, Sequence[Run]], baseline: str, name: str, part: str = "seconds") -> float | None:
    """How many times as fast as a baseline, in all or in a part: the median over the rounds."""
    if baseline not in runs:
        return None
    pairs = zip(runs[baseline], runs[name], strict=True)
    return statistics.median(getattr(stock, part) / getattr(own, part) for stock, own in pairs)


def rows_of(
    model: AutoregressiveModel, runs: Mapping[str, Sequence[Run]], n_guidance_rows: int, bandwidth: float, trained: bool
) -> dict[str, dict[str, float | None]]:
    """Sum up each way: seconds for each picture, ratios, passes, share of the bandwidth, peak."""
    rows: dict[str, dict[str, float | None]] = {}
    n_cached = (
        len(model.prompts([subject.make_request(0)])[0].ids) + model.language_model.vocabulary.canvas.n_codes // 2
    )
    for name, found in runs.items():
        run = median(found)
        own = name not in BASELINES.values()
        n_rows = math.ceil(run.n_pictures / run.n_groups) * n_guidance_rows
        rate = subject.bytes_of_pass(model, n_rows, n_cached) / run.seconds_of_pass
        rows[name] = {
            "seconds": statistics.median(run.seconds for run in found),
            **{letter: against(runs, BASELINES[letter], name) for letter in BASELINES},
            **{part: getattr(run, part) / run.n_pictures for part in ("prefill", "decode", "vq", "png")},
            **{f"decode_{letter}": against(runs, BASELINES[letter], name, "decode") for letter in BASELINES},
            "passes": run.passes if own and trained else None,
            "bandwidth": rate / bandwidth if own else None,
            "peak_gb": run.peak_bytes / 1e9,
        }
    return rows


def table(rows: Mapping[str, Mapping[str, float | None]]) -> str:
    """Write the rows beneath each other."""
    titles = ("s/picture", "x A", "x B", "prefill", "decode", "VQ", "PNG", "dec. x A", "dec. x B")
    titles += ("passes", "bandwidth", "peak GB")
    formats = (".3f", ".2f", ".2f", ".3f", ".3f", ".3f", ".3f", ".2f", ".2f", ".1f", ".0%", ".2f")
    lines = [f"{'':<22}" + "".join(f"{title:>10}" for title in titles)]
    for name, row in rows.items():
        cells = zip(row.values(), formats, strict=True)
        lines.append(
            f"{name:<22}" + "".join(f"{'-' if cell is None else format(cell, how):>10}" for cell, how in cells)
        )
    return "\n".join(lines)


def show(
    model: AutoregressiveModel, facts: Mapping[str, object], runs: Mapping[str, Sequence[Run]], n: int, guidance: float,
    bandwidth: float, widths: Sequence[int],
) -> None:  # fmt: skip
    """Print one case: its table, what a pass with more tokens costs, and all of it as JSON."""
    trained, n_kinds = facts["model"] == "demo", 1 if guidance == 1 else 2
    rows = rows_of(model, runs, n_kinds, bandwidth, trained)
    passes = {width: subject.seconds_of_pass(model, n, n_kinds, width) for width in widths}
    print(f"\n{n} picture(s), guidance {guidance:g}")
    print(table(rows))
    if not trained:
        print("random weights: what a pass takes means something; how many there are would not, and is not shown")
    if facts["baseline_codes"] is not None:
        print(f"baselines made {facts['baseline_codes']} codes, and their time is scaled")
    costs = ", ".join(f"{width}: {1000 * spent:.1f}" for width, spent in passes.items())
    print(f"a pass over {n * n_kinds} row(s), in ms by tokens in each: {costs}")
    case = {"pictures": n, "guidance": guidance, "rounds": max(len(found) for found in runs.values())}
    print(json.dumps({**facts, **case, "ways": rows, "curve_seconds": passes}), flush=True)


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("demo", *SHAPES), default="demo")
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument(
        "--windows", type=int, nargs="*", help="0 is what mmgen chooses (1 8 16 32 0; of a random model 1)"
    )
    parser.add_argument("--curve", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32, 64], help="tokens in a pass")
    parser.add_argument("--codes", type=int, help="of a picture of a random model: a square (290m 256, 7b 1024)")
    parser.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="a random model's is bfloat16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no further round after these")
    parser.add_argument("--baselines", nargs="*", choices=tuple(BASELINES), default=list(BASELINES))
    parser.add_argument("--baseline-codes", type=int, help="make only so many in a baseline, and scale its time")
    asked = parser.parse_args(arguments)
    if asked.codes is not None and (asked.model == "demo" or math.isqrt(asked.codes) ** 2 != asked.codes):
        parser.error("--codes is a square number, and for random models")
    if asked.windows is None:
        asked.windows = [1, 8, 16, 32, 0] if asked.model == "demo" else [1]
    return asked


def main(arguments: Sequence[str] | None = None) -> None:
    """Time all and print tables and JSON."""
    asked = read_arguments(arguments)
    device = torch.device(asked.device)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        model = open_subject(asked.model, asked.dtype, device, asked.codes, Path(folder))
        stocks = {
            letter: Apart(letter == "B", asked.model, asked.dtype, device, asked.codes) for letter in asked.baselines
        }
        bandwidth = copy_bandwidth(device, 2**24 if asked.model == "tiny" else None)
        facts = {
            "model": model.name,
            "dtype": str(model.model.dtype).removeprefix("torch."),
            "codes": model.language_model.vocabulary.canvas.n_codes,
            "baseline_codes": asked.baseline_codes,
            "copy_gb_s": round(bandwidth / 1e9, 1),
            **environment(device),
        }
        print(", ".join(f"{name} {value}" for name, value in facts.items() if value is not None), flush=True)
        for guidance in asked.guidance:
            for n in asked.pictures:
                windows = [window or None for window in asked.windows]
                ways = warmed_up(model, n, ImageSampling(guidance=guidance), windows, stocks, asked.baseline_codes)
                runs = take_turns(ways, asked.repeat, asked.seconds)
                show(model, facts, runs, n, guidance, bandwidth, asked.curve)


if __name__ == "__main__":
    main()

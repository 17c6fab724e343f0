"""Count the captions of the built-in model that stay the same when its weights are quantised.

`python -m benchmarks.quantized_captions` greedily captions 200 fresh renders, with the weights whole and quantised in
each way, on the CPU and one at a time, as `mmgen caption` does for one picture.
"""

import argparse
from collections.abc import Sequence

from PIL import Image

import mmgen
from mmgen.request import Loading
from tools.demo.judge import fresh_renders

BARS = {"8bit": 0.95, "4bit": 0.90, "quanto-int8": None}  # shares that must stay the same
SEED = 601


def captions(images: Sequence[Image.Image], quantize: str | None) -> list[str]:
    """Caption pictures with the weights quantised in one way, or whole."""
    model = mmgen.load("demo", Loading(quantize=quantize, device_map="cpu"))
    return [mmgen.caption(model, image) for image in images]


def compare(n: int, ways: Sequence[str] = tuple(BARS)) -> dict[str, list[tuple[str, str]]]:
    """Caption n renders: by quantisation, each caption with the one that the whole model gives."""
    _, images = fresh_renders(n, SEED)
    whole = captions(images, None)
    return {way: list(zip(captions(images, way), whole, strict=True)) for way in ways}


def main() -> None:
    """Print how many stay the same, and those that do not."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-n", type=int, default=200, help="pictures")
    for way, pairs in compare(parser.parse_args().n).items():
        n_same = sum(ours == whole for ours, whole in pairs)
        bar = BARS[way]
        wanted = f", wanted {bar:.0%}" if bar else ""
        print(f"{way}: {n_same} of {len(pairs)} captions are the same ({n_same / len(pairs):.1%}{wanted})")
        for ours, whole in pairs:
            if ours != whole:
                print(f"  {whole!r} became {ours!r}")


if __name__ == "__main__":
    main()

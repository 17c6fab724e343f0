"""Draw a picture and edit it at four strengths, unchosen: `python -m tools.demo.editing_row OUT.png`."""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import mmgen

from .contact_sheet import LABEL, SIDE

SOURCE, EDITED, SEED = "a red cat on the grass", "a blue cat on the grass", 7
STRENGTHS = (0.25, 0.5, 0.75, 1.0)


def main() -> None:
    """Write the row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    model = mmgen.load("demo", mmgen.Loading(dtype="float32"))
    [source] = mmgen.draw(model, SOURCE, seed=SEED)
    shown = [(SOURCE, source)]
    for strength in STRENGTHS:
        [edited] = mmgen.vary(model, source, EDITED, strength=strength, seed=SEED)
        shown.append((f"--strength {strength:g}: {edited.kept} of 144 kept", edited))
    row = Image.new("RGB", (len(shown) * (SIDE + 8), SIDE + LABEL), "white")
    pen, font = ImageDraw.Draw(row), ImageFont.load_default(12)
    for i, (words, picture) in enumerate(shown):
        left = i * (SIDE + 8) + 4
        row.paste(picture.image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (left, 0))
        pen.text((left + SIDE // 2, SIDE + 3), words, "black", font, anchor="ma")
    row.quantize(256).save(out, optimize=True)


if __name__ == "__main__":
    main()

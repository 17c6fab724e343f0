"""Draw 24 prompts with seeds 0 to 23, unchosen: `python -m tools.demo.contact_sheet FOLDER OUT.png`."""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import mmgen
from mmgen import tasks

from .evaluate import answers, images_of
from .scene import COLOURS, PLACES, SUBJECTS
from .text import a

N, COLUMNS, SIDE, LABEL = 24, 6, 192, 22  # pictures; a row; shown at twice their size; height of the words below


def prompt_of(seed: int) -> str:
    """Return the prompt that goes with a seed: every subject twice or more, every colour and place in turn."""
    thing = a(f"{COLOURS[(seed * 3 + seed // 8) % 8]} {SUBJECTS[seed % 10]}")
    return f"{thing} {PLACES[(seed + seed // 10) % 5]}"


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    prompts = [prompt_of(seed) for seed in range(N)]
    model = mmgen.load(str(arguments.folder))
    images = images_of(answers(model, [tasks.draw(prompt, seed=seed) for seed, prompt in enumerate(prompts)]))
    sheet = Image.new("RGB", (COLUMNS * (SIDE + 8), N // COLUMNS * (SIDE + LABEL)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for i, (prompt, image) in enumerate(zip(prompts, images, strict=True)):
        left, top = i % COLUMNS * (SIDE + 8) + 4, i // COLUMNS * (SIDE + LABEL)
        sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (left, top))
        pen.text((left + SIDE // 2, top + SIDE + 3), prompt, "black", font, anchor="ma")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()

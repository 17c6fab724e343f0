"""Pictures edited through their codes, and the best of several: what comes, what is said of it, what is refused."""

from __future__ import annotations

import io

from PIL import Image

from tests.contract.row import ABSENT, CAT, RED, Row, png

OTHER = '"a blue cat on the grass"'


def _hole() -> bytes:
    mask, buffer = Image.new("L", (12, 12)), io.BytesIO()
    mask.paste(255, (4, 4, 8, 8))
    mask.save(buffer, "PNG")
    return buffer.getvalue()


FILES = {"cat.png": CAT, "mask.png": _hole()}
NOWHERE = "-m ./nowhere"

REFUSED = (
    ("--strength 2", "strength 2 is out of range", "from 0"),
    ("--strength -0.1", "strength -0.1 is out of range", "from 0"),
    ("--strength much", "…--strength", ""),
    ("--strength 0.5 --temperature 0", "a picture cannot be edited at temperature 0", "leave it out"),
    ("--mask mask.png --temperature 0", "a picture cannot be edited at temperature 0", "leave it out"),
    ("--from ''", "--from is empty", "say what the picture shows"),
    ("--keep 0", "--keep 0 is no number of rows", "as in 12"),
    ("--keep some", "--keep some is no number of rows", "as in 12"),
    ("--keep 4 --drafts 0", "drafts 0 is out of range", "it is a number"),
    ("--keep 4 --drafts 3", "--drafts is about --mask", "add --mask"),
    ("--strength 1 --mask mask.png --drafts 3", "--drafts is about --mask", "leave one out"),
    ("--min-p 1", "min-p 1 is out of range", "it is at least 0"),
)

ROWS = (
    Row(
        "a picture is edited through its codes, and the record says how",
        f"mmgen vary cat.png {OTHER} --strength 0.5 --seed 1 --json",
        records={
            "-": [
                {
                    "command": "vary",
                    "prompt": "a blue cat on the grass",
                    "edit": {"strength": 0.5},
                    "seed": 1,
                    "output": "a-blue-cat-on-the-grass-1.png",
                    "score": ABSENT,
                }
            ]
        },
        writes="a-blue-cat-on-the-grass-1.png",
        files=FILES,
    ),
    Row(
        "at strength 0 it is the picture",
        f"mmgen vary cat.png {OTHER} --strength 0 --seed 1 -o same.png",
        out="same.png\n",
        writes="same.png",
        files=FILES,
        same=("cat.png", "same.png"),
    ),
    Row(
        "words that say what it shows already give it back",
        'mmgen vary cat.png "a red cat on the grass" --from "a red cat on the grass" --strength 1 --seed 1 -o same.png',
        out="same.png\n",
        writes="same.png",
        files=FILES,
        same=("cat.png", "same.png"),
    ),
    Row(
        "with --from alone it goes half of the way",
        f'mmgen vary cat.png {OTHER} --from "a red cat on the grass" --seed 1 -o b.png',
        out="b.png\n",
        first=(f"mmgen vary cat.png {OTHER} --strength 0.5 --seed 1 -o a.png",),
        writes="b.png",
        files=FILES,
        same=("a.png", "b.png"),
    ),
    Row(
        "rows are kept, and -v says how much it came to",
        "mmgen vary cat.png --keep 50% --seed 1 -v -o new.png",
        out="new.png\n",
        says=["seed 1: 144 image tokens, … kept in …"],
        writes="new.png",
        files=FILES,
        differ=("cat.png", "new.png"),
    ),
    Row(
        "an edit is repeated from its file",
        "mmgen vary cat.png --like a.png -o b.png",
        out="b.png\n",
        first=(f"mmgen vary cat.png {OTHER} --strength 0.6 --seed 4 -o a.png",),
        writes="b.png",
        files=FILES,
        same=("a.png", "b.png"),
    ),
    Row(
        "a hole is filled by the words of the file, the best of several drafts",
        "mmgen vary cat.png --mask mask.png --drafts 2 --seed 1 -o new.png",
        out="new.png\n",
        writes="new.png",
        files=FILES,
        tells={"new.png": ["a red cat on the grass"]},
        differ=("cat.png", "new.png"),
    ),
    Row(
        "a folder is edited, and what cannot be does not end the others",
        f"mmgen vary photos {OTHER} --strength 0.4 --seed 1 -o new/",
        code=1,
        out="new/a.png\nnew/b.png\n",
        error="photos/bad.png",
        says=["2 done, 0 skipped, 1 failed…"],
        writes="new/a.png new/b.png new/mmgen.jsonl",
        files={"photos/a.png": CAT, "photos/b.png": RED, "photos/bad.png": "no picture"},
    ),
    *(
        Row(
            f"an edit is refused before the model is looked for: {flags}",
            f"mmgen vary cat.png {OTHER} {flags} {NOWHERE}",
            code=2,
            error=error,
            hint=hint,
            files=FILES,
        )
        for flags, error, hint in REFUSED
    ),
    Row(
        "a strength needs words",
        f"mmgen vary cat.png --strength 0.5 {NOWHERE}",
        code=2,
        error="--strength needs words",
        hint="give them as PROMPT",
        files=FILES,
    ),
    Row(
        "a mask has to be there",
        f"mmgen vary cat.png --mask none.png {NOWHERE}",
        code=1,
        error="no such file: none.png",
        hint="check the name",
        files=FILES,
    ),
    Row(
        "a mask has the picture's size, or that of its codes",
        "mmgen vary cat.png --mask mask.png -o new.png",
        code=2,
        error="the mask is 8 x 8",
        hint="it is of the size of the picture or of its image tokens: 96 x 96 or 12 x 12",
        files={"cat.png": CAT, "mask.png": RED},
    ),
    Row(
        "a mask has white in it",
        "mmgen vary cat.png --mask mask.png -o new.png",
        code=2,
        error="the mask has no white in it",
        hint="white is what is drawn anew",
        files={"cat.png": CAT, "mask.png": png("black", (12, 12))},
    ),
    Row(
        "as many rows as there are cannot be kept",
        "mmgen vary cat.png --keep 12 -o new.png",
        code=2,
        error="--keep 12 leaves nothing to draw",
        hint="there are 12 rows of image tokens",
        files=FILES,
    ),
    Row(
        "what the picture shows has to fit into the context",
        f"mmgen vary cat.png {OTHER} --strength 1 --from '{'a cat ' * 3000}' -o new.png",
        code=1,
        error="the prompt is … too long",
        hint="…",
        files=FILES,
    ),
    # The best of several
    Row(
        "the best of several are kept, named by rank, and each can be verified",
        "mmgen verify a-pink-boat-at-night-1.png a-pink-boat-at-night-2.png",
        first=('mmgen draw "a pink boat at night" -n 2 --best-of 4 --seed 5',),
        out="a-pink-boat-at-night-1.png\tequal\na-pink-boat-at-night-2.png\tequal\n",
    ),
    Row(
        "what the judge said is in the record",
        'mmgen draw "a pink boat at night" --best-of 3 --seed 5 -o a.png --json',
        records={"-": [{"command": "draw", "best_of": 3, "output": "a.png", "edit": ABSENT}]},
        writes="a.png",
        tells={"a.png": ["score"]},
    ),
    Row(
        "a name that is taken is found before anything is drawn",
        f"mmgen draw boat --best-of 3 -n 2 {NOWHERE}",
        code=2,
        error="boat-2.png exists",
        hint="choose another name",
        files={"boat-2.png": RED},
    ),
    *(
        Row(
            f"the best of several is refused before the model is looked for: {flags}",
            f"mmgen draw boat {flags} {NOWHERE}",
            code=2,
            error=error,
            hint=hint,
        )
        for flags, error, hint in (
            ("--best-of 0", "--best-of 0 is fewer", "so many are drawn"),
            ("--best-of 1000001", "--best-of 1000001 is out of range", "it is a number from 1"),
            ("--best-of 2 -n 3", "--best-of 2 is fewer", "so many are drawn"),
            ("--best-of 2 --temperature 0", "at temperature 0 all pictures are equal", "leave --best-of out"),
            ("--best-of 2 -o '{seed}.png'", "the best are named by rank", "name them by {n}"),
            ("--best-of 2 --seed 4294967295", "the seed 4294967296 is out of range", "it goes from"),
        )
    ),
)

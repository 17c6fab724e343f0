"""Pictures: results of draw, vary and interleave, what files are called and hold, what is overwritten, seeds."""

from __future__ import annotations

from tests.contract.row import ABSENT, ANY, CAT, RED, Row

IMAGE = {"temperature": 0.7, "top_p": 0.9, "top_k": 0, "guidance": 3}
STORY = "Can you draw a snowman and explain how to build one?"

RESULTS = (
    Row(
        "several pictures are numbered",
        'mmgen draw "a red cat" -n 2 --seed 7 -o cat.png',
        out="cat-1.png\ncat-2.png\n",
        writes="cat-1.png cat-2.png",
        differ=("cat-1.png", "cat-2.png"),
    ),
    Row(
        "without -o a picture is called after its prompt and its seed",
        'mmgen draw "A snowman!" --seed 7',
        out="a-snowman-7.png\n",
        writes="a-snowman-7.png",
    ),
    Row(
        "two prompts are two pictures",
        'mmgen draw "a red cat" "a blue boat" --seed 7',
        out="a-red-cat-7.png\na-blue-boat-7.png\n",
        writes="a-red-cat-7.png a-blue-boat-7.png",
    ),
    Row(
        "equal prompts under one seed are equal pictures in files of their own",
        'mmgen draw "a red cat" "a red cat" --seed 7',
        out="a-red-cat-7.png\na-red-cat-7-2.png\n",
        writes="a-red-cat-7.png a-red-cat-7-2.png",
        same=("a-red-cat-7.png", "a-red-cat-7-2.png"),
    ),
    Row(
        "pictures as JSON are an object each",
        'mmgen draw "a red cat" -n 2 --seed 7 -o cat.png --json',
        records={
            "-": [
                {
                    "command": "draw",
                    "model": {"name": "demo", "revision": None},
                    "prompt": "a red cat",
                    "output": "cat-1.png",
                    "seed": 7,
                    "sampling": {"image": IMAGE, "text": ABSENT},
                    "seconds": ANY,
                    "error": ABSENT,
                },
                {"output": "cat-2.png", "seed": 8},
            ]
        },
        writes="cat-1.png cat-2.png",
    ),
    Row(
        "a picture is varied without words",
        "mmgen vary cat.png --seed 7",
        out="variation-7.png\n",
        writes="variation-7.png",
        files={"cat.png": CAT},
    ),
    Row(
        "a picture is varied by words",
        'mmgen vary cat.png "make it blue" --seed 7 -o blue.png',
        out="blue.png\n",
        writes="blue.png",
        files={"cat.png": CAT},
        hides={"blue.png": ["cat.png"]},
    ),
    Row(
        "a varied picture as JSON is one object",
        'mmgen vary cat.png "make it blue" --seed 7 -o blue.png --json',
        records={
            "-": [
                {
                    "command": "vary",
                    "image": "cat.png",
                    "prompt": "make it blue",
                    "output": "blue.png",
                    "seed": 7,
                    "sampling": {"image": {**IMAGE, "image_guidance": 1.2}},
                    "seconds": ANY,
                }
            ]
        },
        writes="blue.png",
        files={"cat.png": CAT},
    ),
    Row(
        "a story is Markdown, and lies in a folder with its pictures",
        f'mmgen interleave "{STORY}" --seed 7 -o story',
        out="…![picture 1](story/001.png)…\n",
        writes="story/index.md story/0*.png",
        holds={"story/index.md": "…![picture 1](001.png)…\n"},
        tells={"story/001.png": [STORY]},
    ),
    Row(
        "a story as JSON has its parts in order, picture k the seed + k, and is the same again",
        f'mmgen interleave "{STORY}" --seed 7 -o story --json',
        records={
            "-": [
                {
                    "command": "interleave",
                    "images": [],
                    "prompt": STORY,
                    "output": "story",
                    "seed": 7,
                    "parts": [{"text": ANY}, {"image": "story/001.png", "seed": 7}, ANY],
                    "sampling": {"text": {"temperature": 0.7}, "image": {"temperature": 0.7}},
                    "seconds": ANY,
                }
            ]
        },
        writes="story/index.md story/0*.png",
        first=(f'mmgen interleave "{STORY}" --seed 7 -o before',),
        same=("before/001.png", "story/001.png"),
    ),
    Row(
        "a story may be about a picture, and its words and pictures have temperatures of their own",
        "mmgen interleave 'Describe it: ' --image cat.png -o story/ --json --temperature 0.3 --image-temperature 0.9",
        records={
            "-": [
                {
                    "images": ["cat.png"],
                    "seed": ANY,
                    "sampling": {"text": {"temperature": 0.3}, "image": {"temperature": 0.9}},
                }
            ]
        },
        says=["seed: …"],
        writes="story/*",
        files={"cat.png": CAT},
    ),
    Row(
        "what a picture took is told to those who ask",
        'mmgen draw "a red cat" -o cat.png --seed 7 -v',
        out="cat.png\n",
        says=["…passes…"],
        writes="cat.png",
    ),
    Row(
        "to guess ahead changes no picture in float32",
        'mmgen draw "a red cat on the grass" --seed 7 --dtype float32 --window 1 -o slow.png',
        out="slow.png\n",
        writes="slow.png",
        first=('mmgen draw "a red cat on the grass" --seed 7 --dtype float32 -o fast.png',),
        same=("fast.png", "slow.png"),
    ),
)

FORMATS = (
    *(
        Row(
            f"the format follows the ending: {name}",
            f"mmgen draw 'a red cat' --seed 7 -o {name}",
            out=f"{name}\n",
            writes=name,
            holds={name: beginning + "…".encode()},
            tells={name: ['"prompt": "a red cat"', '"model": "demo"', '"revision": null', '"seed": 7', '"mmgen": "']},
        )
        for name, beginning in (
            ("cat.png", b"\x89PNG\r\n\x1a\n"),
            ("cat.jpg", b"\xff\xd8\xff"),
            ("CAT.JPEG", b"\xff\xd8\xff"),
            ("cat.webp", b"RIFF"),
        )
    ),
    *(
        Row(
            f"files say nothing of how they were made where that is not wanted: {name}",
            f"mmgen draw 'a red cat' --seed 7 --no-metadata -o {name}",
            out=f"{name}\n",
            writes=name,
            hides={name: ["a red cat", "demo", "mmgen"]},
        )
        for name in ("cat.png", "cat.jpg", "cat.webp")
    ),
    Row(
        "what a file says of its sampling are the options",
        "mmgen draw 'a red cat' --seed 7 --guidance 2 --temperature 0.5 --top-p 0.8 --top-k 99 -o cat.png",
        out="cat.png\n",
        writes="cat.png",
        tells={"cat.png": ['"guidance": 2', '"temperature": 0.5', '"top_p": 0.8', '"top_k": 99']},
    ),
    *(
        Row(
            f"a picture needs an ending of a format: {name}",
            f"mmgen draw a -o {name} -m ./nowhere",
            code=2,
            error=f"cannot tell a picture's format from {name}",
            hint="end its name in .png, .jpg or .webp",
        )
        for name in ("cat.gif", "cat", "cat.txt")
    ),
)

OVERWRITING = (
    Row(
        "what exists is not overwritten",
        "mmgen draw a -o mine.png -m ./nowhere",
        code=2,
        error="mine.png exists",
        hint="choose another name with -o, or overwrite it with -f",
        files={"mine.png": RED},
    ),
    Row(
        "of several pictures none is overwritten, and none is drawn",
        "mmgen draw a -n 2 -o out.png -m ./nowhere",
        code=2,
        error="out-2.png exists",
        hint="choose another name",
        files={"out-2.png": "mine"},
    ),
    Row(
        "a variation overwrites nothing",
        "mmgen vary a.png -o a.png -m ./nowhere",
        code=2,
        error="a.png exists",
        files={"a.png": RED},
    ),
    Row(
        "a name from prompt and seed overwrites nothing",
        "mmgen draw a --seed 7 -m ./nowhere",
        code=2,
        error="a-7.png exists",
        files={"a-7.png": "mine"},
    ),
    Row(
        "a link is a file that exists, wherever it leads",
        "ln -s nowhere.png link.png; mmgen draw a -o link.png -m ./nowhere",
        code=2,
        error="link.png exists",
        shell=True,
    ),
    Row(
        "what exists is overwritten by force",
        "mmgen draw 'a red cat on the grass' --seed 7 -o mine.png -f",
        out="mine.png\n",
        writes="mine.png",
        files={"mine.png": "mine", "cat.png": CAT},
        same=("mine.png", "cat.png"),
    ),
    Row(
        "several that exist are overwritten by force",
        "mmgen draw 'a red cat' -n 2 --seed 7 -o out.png --force",
        out="out-1.png\nout-2.png\n",
        writes="out-1.png out-2.png",
        files={"out-2.png": "mine"},
    ),
    Row(
        "a folder that is not empty gets no story",
        "mmgen interleave a -o story -m ./nowhere",
        code=2,
        error="story is not empty",
        hint="choose another folder with -o",
        files={"story/mine.txt": "mine"},
    ),
    Row(
        "a folder that is not empty gets a story by force",
        "mmgen interleave 'Once upon a time' --seed 7 --max-tokens 2 -o story -f -q",
        out="…\n",
        err="",
        writes="story/*",
        files={"story/mine.txt": "mine"},
        holds={"story/mine.txt": "mine", "story/index.md": "…\n"},
    ),
    Row(
        "an empty folder gets a story",
        "mmgen interleave 'Once upon a time' --seed 7 --max-tokens 2 -o story",
        out="…\n",
        writes="story/*",
        files={"story/": ""},
    ),
    Row(
        "a story needs a folder", "mmgen interleave a -m ./nowhere", code=2, error="no folder", hint="name one with -o"
    ),
    Row(
        "a story is no file",
        "mmgen interleave a -o a.txt -m ./nowhere",
        code=2,
        error="a.txt is not a folder",
        files={"a.txt": "mine"},
    ),
    *(
        Row(
            f"where nothing can be written it fails before the model is looked for: {words}",
            f"mmgen {words} -m no-such-model",
            code=1,
            error=error,
            files={"a.png": RED},
        )
        for words, error in (
            ("draw a -o none/a.png", "no such folder: none"),
            ("vary a.png -o none/b.png", "no such folder: none"),
            ("interleave a -o none/story", "no such folder"),
            ("draw a -o /proc/a.png", "cannot write into /proc"),
            ("draw a -o /proc/a.png -f", "cannot write into /proc"),
            ("interleave a -o /proc/story", "cannot write into /proc"),
        )
    ),
    Row(
        "what fails leaves nothing",
        f"mmgen draw '{'very ' * 2000}' -o long.png",
        code=1,
        error="the prompt is … tokens too long",
        hint="shorten",
    ),
)

SEEDS = (
    Row(
        "a seed that is drawn is noted on stderr, and stands in the file",
        'mmgen draw "a red cat" -o cat.png',
        out="cat.png\n",
        says=["seed: …"],
        writes="cat.png",
        tells={"cat.png": ['"seed": ']},
    ),
    Row(
        "a seed that is drawn stands in JSON, and in the name",
        'mmgen draw "a red cat" --json',
        records={"-": [{"output": "a-red-cat-…png", "seed": ANY}]},
        says=["seed: …"],
        writes="a-red-cat-*.png",
    ),
    Row(
        "a seed that was given is not noted",
        'mmgen draw "a red cat" --seed 7 -o cat.png',
        out="cat.png\n",
        never=["seed", "passes"],
        writes="cat.png",
    ),
    Row(
        "a seed and a prompt give the same picture again",
        'mmgen draw "a red cat on the grass" --seed 7 -o again.png',
        out="again.png\n",
        writes="again.png",
        files={"cat.png": CAT},
        same=("cat.png", "again.png"),
    ),
    Row(
        "four pictures from seed 7 on contain that of seed 8",
        'mmgen draw "a house at night" --seed 8 -o one.png',
        out="one.png\n",
        writes="one.png",
        first=('mmgen draw "a house at night" -n 4 --seed 7 -o many.png',),
        same=("many-2.png", "one.png"),
    ),
    Row(
        "variations are numbered, and those from seed 7 on contain that of seed 8",
        "mmgen vary cat.png -n 2 --seed 7 -o many.png",
        out="many-1.png\nmany-2.png\n",
        writes="many-1.png many-2.png",
        files={"cat.png": CAT},
        first=("mmgen vary cat.png --seed 8 -o one.png",),
        same=("many-2.png", "one.png"),
    ),
    Row(
        "another seed is another picture",
        'mmgen draw "a red cat on the grass" --seed 9 -o other.png',
        out="other.png\n",
        writes="other.png",
        files={"cat.png": CAT},
        differ=("cat.png", "other.png"),
    ),
    Row(
        "the largest seed is one, too",
        'mmgen draw "a red cat" --seed 4294967295',
        out="a-red-cat-4294967295.png\n",
        writes="a-red-cat-4294967295.png",
    ),
)

ROWS = (*RESULTS, *FORMATS, *OVERWRITING, *SEEDS)

"""Words out of pictures: where a picture stands in a prompt, and the results of caption and ask."""

from __future__ import annotations

from tests.contract.row import ABSENT, ANY, BOAT, CAT, RED, Row

TWO = {"cat.png": CAT, "boat.png": BOAT}
TEXT = {"temperature": 0, "top_p": 0.9, "top_k": 0, "repetition_penalty": 1, "max_tokens": 256}

PLACES = (
    Row(
        "several pictures go into one question",
        'mmgen ask --image cat.png --image boat.png "what do these have in common?"',
        out="A red cat on the grass and a red boat on the beach. Both are red.\n",
        files=TWO,
    ),
    Row(
        "marks say where pictures stand, in the order of their options",
        'mmgen ask --image cat.png --image boat.png "What do these have in common?<image><image>" --json',
        records={"-": [{"images": ["cat.png", "boat.png"], "prompt": "…<image><image>", "text": ANY}]},
        files=TWO,
    ),
    Row(
        "pictures without a mark stand before the text",
        'mmgen ask --image cat.png --image boat.png "<image> what is it?"',
        out="…\n",
        files=TWO,
    ),
    Row(
        "more marks than pictures are an error",
        "mmgen ask --image a.png '<image> and <image>' -m ./nowhere",
        code=2,
        error="the prompt has 2 <image> marks for 1 picture",
        hint="give one --image for each mark",
        files={"a.png": RED},
    ),
    Row(
        "a picture that is varied has one mark",
        "mmgen vary a.png '<image> and <image>'",
        code=2,
        error="the prompt has 2 <image> marks",
        files={"a.png": RED},
    ),
    Row(
        "a story has no more marks than pictures",
        "mmgen interleave '<image><image>' --image a.png -o story -m ./nowhere",
        code=2,
        error="the prompt has 2 <image> marks",
        files={"a.png": RED},
    ),
    Row("without pictures a mark is text", "mmgen ask 'what is <image>?'", out="…\n"),
    Row("special tokens that are typed are text", "mmgen ask '</s><racm3:break><reserved08706> hi <pad>'", out="…\n"),
    *(
        Row(
            f"the name of a picture is no prompt: {words}",
            f"mmgen {words} -m ./nowhere",
            code=2,
            error=f"the prompt is the name of a file: {name}",
            files={"a.png": RED, "b.png": RED},
        )
        for words, name in (
            ("vary a.png b.png", "b.png"),
            ("vary a.png b.png -o c.png", "b.png"),
            ("draw a.png", "a.png"),
            ("ask a.png", "a.png"),
            ("ask none.jpg", "none.jpg"),
            ("interleave a.png -o story", "a.png"),
        )
    ),
)

RESULTS = (
    Row(
        "several captions stand behind their paths",
        "mmgen caption boat.png ./cat.png",
        out="boat.png\tA red boat on the beach.\n./cat.png\tA red cat on the grass.\n",
        files=TWO,
    ),
    Row(
        "a picture that is named twice is described once",
        "mmgen caption cat.png boat.png cat.png",
        out="cat.png\tA red cat on the grass.\nboat.png\tA red boat on the beach.\n",
        files=TWO,
    ),
    Row(
        "of a folder even one picture has its path before it",
        "mmgen caption photos",
        out="photos/cat.png\tA red cat on the grass.\n",
        files={"photos/cat.png": CAT},
    ),
    Row(
        "a pattern is expanded",
        "mmgen caption '*.png'",
        out="boat.png\tA red boat on the beach.\ncat.png\tA red cat on the grass.\n",
        files=TWO,
    ),
    Row(
        "a caption as JSON is one object",
        "mmgen caption cat.png --json --seed 3",
        records={
            "-": [
                {
                    "command": "caption",
                    "model": {"name": "demo", "revision": None},
                    "image": "cat.png",
                    "images": ABSENT,
                    "prompt": ANY,
                    "text": "A red cat on the grass.",
                    "error": ABSENT,
                    "seed": ABSENT,
                    "sampling": {"text": TEXT},
                    "seconds": ANY,
                }
            ]
        },
        files={"cat.png": CAT},
    ),
    Row(
        "captions as JSON are an object a line",
        "mmgen caption cat.png boat.png --json",
        records={
            "-": [
                {"image": "cat.png", "text": "A red cat on the grass."},
                {"image": "boat.png", "text": "A red boat on the beach."},
            ]
        },
        files=TWO,
    ),
    Row(
        "a failed item has its error in place of the result",
        "mmgen caption cat.png bad.jpg boat.png --json",
        code=1,
        error="bad.jpg is not a picture",
        hint="give a picture",
        records={
            "-": [
                {"image": "cat.png", "text": ANY, "error": ABSENT},
                {"command": "caption", "image": "bad.jpg", "text": ABSENT, "error": "bad.jpg is not a picture…"},
                {"image": "boat.png", "text": ANY},
            ]
        },
        files={**TWO, "bad.jpg": "hello"},
    ),
    Row(
        "a broken picture among others fails alone",
        "mmgen caption cat.png bad.jpg boat.png",
        code=1,
        out="cat.png\tA red cat on the grass.\nboat.png\tA red boat on the beach.\n",
        error="bad.jpg is not a picture",
        files={**TWO, "bad.jpg": "hello"},
    ),
    Row("a question may be about nothing to see", "mmgen ask 'what is a snowman?'", out="…\n"),
    Row(
        "without a question a picture is described",
        "mmgen ask --image cat.png",
        out="A red cat on the grass.\n",
        files={"cat.png": CAT},
    ),
    Row(
        "an answer as JSON is one object",
        'mmgen ask --json --image cat.png "where is it?" --seed 5',
        records={
            "-": [
                {
                    "command": "ask",
                    "model": {"name": "demo", "revision": None},
                    "image": ABSENT,
                    "images": ["cat.png"],
                    "prompt": "where is it?",
                    "text": "On the grass.",
                    "seed": ABSENT,
                    "sampling": {"text": TEXT, "image": ABSENT},
                    "seconds": ANY,
                }
            ]
        },
        files={"cat.png": CAT},
    ),
    Row(
        "a question is asked of each picture",
        "mmgen ask --each 'what is it?' --image '*.png'",
        out="boat.png\tA boat.\ncat.png\tA cat.\n",
        files=TWO,
    ),
    Row(
        "of each picture a folder may be asked",
        "mmgen ask --each 'what color is it?' --image photos",
        out="photos/boat.png\tRed.\nphotos/cat.png\tRed.\n",
        files={"photos/cat.png": CAT, "photos/boat.png": BOAT},
    ),
    Row(
        "whitespace is folded to single spaces in lines",
        "mmgen ask --prompts prompts.jsonl",
        out="what is it?\t…\n",
        files={"cat.png": CAT, "prompts.jsonl": '{"prompt": "what \\t is\\n it?", "images": ["cat.png"]}\n'},
    ),
    Row("a text is continued", 'mmgen ask "Once upon a time" --complete --max-tokens 5', out="…\n"),
    Row(
        "an answer is no longer than it may be",
        'mmgen ask "what is a snowman?" --json --max-tokens 1',
        records={"-": [{"sampling": {"text": {**TEXT, "max_tokens": 1}}}]},
    ),
    Row(
        "the temperature of words is the option's",
        "mmgen ask hello --json --temperature 0.5 --top-p 0.8 --top-k 9 --repetition-penalty 1.1 --seed 1",
        records={
            "-": [{"sampling": {"text": {"temperature": 0.5, "top_p": 0.8, "top_k": 9, "repetition_penalty": 1.1}}}]
        },
    ),
)

SEEDS = (
    Row("a greedy answer has no seed to note", "mmgen ask hello", out="…\n", never=["seed: "]),
    Row("an answer by chance has its seed noted", "mmgen ask hello --temperature 1", out="…\n", says=["seed: …"]),
    Row(
        "a seed that was given for words is not noted",
        "mmgen ask hello --temperature 1 --seed 1",
        out="…\n",
        never=["seed: "],
    ),
    Row(
        "captions by chance have the seed that each would have alone",
        "mmgen caption cat.png boat.png --temperature 1 --seed 5 --json",
        records={"-": [{"seed": 5}, {"seed": 5}]},
        files=TWO,
    ),
)

ROWS = (*PLACES, *RESULTS, *SEEDS)

"""What cannot work: pictures and models that are not there or not whole, and what an interruption leaves."""

from __future__ import annotations

import json

from tests.contract.row import CAT, RED, Row, png

CUT = png("red", (64, 64))[:-60]  # most of its rows are in what is missing
HUGE = png("white", (30_000, 30_000), "1")  # 900 megapixels in 100 KB
CONFIG = json.dumps({"model_type": "chameleon"})
ONE_CALL = "draw 'a red cat' -n 40 --seed 7 --batch-size 1 -o cat.png -q"

# Commands that are given a picture, and where it stands in them.
GIVEN = ("caption {}", "ask what --image {}", "vary {} -o out.png", "interleave a --image {} -o story")
BAD = (
    ("none.png", {}, "no such file: none.png", "check the name"),
    ("text.jpg", {"text.jpg": "hello"}, "text.jpg is not a picture", "give a picture"),
    ("empty.png", {"empty.png": ""}, "empty.png is empty", "give a picture"),
    ("cut.png", {"cut.png": CUT}, "cut.png is broken", "get a whole copy"),
    ("huge.png", {"huge.png": HUGE}, "huge.png is too large: 30000 x 30000 pixels", "the limit is"),
)

LONG = "x" * 300  # no file system takes it
LONG_NAMES = (
    ("caption {}.png", 1),
    ("vary {}.png -o out.png", 1),
    ("ask --files-from {} --each", 2),
    ("draw 'a cat' -o {}.png", 2),
    ("draw 'a cat' -o {}/", 2),
    ("interleave 'a cat' -o {}", 2),
    ("export {}", 2),
)

PICTURES = (
    *(
        Row(
            f"a name that is too long is told in a line: {words.format('…')}",
            f"mmgen {words.format(LONG)}",
            code=code,
            error="cannot open",
            hint="",
        )
        for words, code in LONG_NAMES
    ),
    Row("a folder is no journal", "mmgen export .", code=2, error=". is a folder", hint="name a file in it"),
    *(
        Row(
            f"it is an error before anything loads: {words.format(name)}",
            f"mmgen {words.format(name)}",
            code=1,
            error=error,
            hint=hint,
            never=["note:"],
            files=files,
        )
        for words in GIVEN
        for name, files, error, hint in BAD
    ),
    *(
        Row(
            f"a folder is no picture: {words}",
            f"mmgen {words}",
            code=1,
            error="photos is a folder, not a picture",
            hint="name the pictures in it",
            never=["note:"],
            files={"photos/a.png": RED},
        )
        for words in ("ask what --image photos", "interleave a --image photos -o story")
    ),
    Row(
        "one of several pictures that is not there is an error for all of a question",
        "mmgen ask what --image cat.png --image none.png",
        code=1,
        error="no such file: none.png",
        never=["note:"],
        files={"cat.png": CAT},
    ),
    Row(
        "one of several pictures that is not there is an error before anything loads",
        "mmgen caption cat.png none.png",
        code=1,
        error="no such file: none.png",
        never=["note:"],
        files={"cat.png": CAT},
    ),
    Row(
        "an address that gives no picture is an error",
        "mmgen caption http://127.0.0.1:9/cat.png",
        code=1,
        error="cannot download http://127.0.0.1:9/cat.png",
        hint="check the address",
    ),
    Row("pictures have to be named", "mmgen caption", code=2, error="missing IMAGE", hint="name files"),
    Row("a picture to vary has to be named", "mmgen vary", code=2, error="missing IMAGE", hint="name files"),
    Row("a prompt has to be given", "mmgen draw", code=2, error="missing PROMPT", hint="say in words"),
    Row("there must be something to tell", "mmgen interleave -o story", code=2, error="missing PROMPT"),
    Row("there must be something to ask", "mmgen ask", code=2, error="nothing to ask", hint="give a question"),
    *(
        Row(f"an empty prompt is none: {words}", f"mmgen {words} -m ./nowhere", code=2, error="the prompt is empty")
        for words in ("draw ''", "ask ' '", "interleave '' -o story")
    ),
    *(
        Row(
            f"a prompt that is too long is told by how much: {words.split()[0]}",
            f"mmgen {words.format('very ' * 2000)}",
            code=1,
            error="the prompt is … tokens too long",
            hint="shorten",
            never=["note:"],
        )
        for words in ("ask '{}'", "draw '{}' --seed 7", "interleave '{}' -o story")
    ),
)

MODELS = (
    Row(
        "an unknown model is an error that lists those there are",
        "mmgen draw a -m no-such-model",
        code=1,
        error="unknown model: no-such-model",
        hint="There are demo, anole-7b,",
    ),
    Row(
        "an alias that is mistyped is guessed",
        "mmgen ask hi -m anole7b",
        code=1,
        error="unknown model: anole7b",
        hint="did you mean anole-7b?",
    ),
    *(
        Row(f"a model's folder {what}", "mmgen ask hi -m ./model", code=1, error=error, files=files)
        for what, error, files in (
            ("is there", "no such folder: model", {}),
            ("is a folder", "not a checkpoint folder but a file: model", {"model": "hello"}),
            ("has a config", "not a checkpoint folder: model has no config.json", {"model/": ""}),
            ("has a config that is JSON", "model/config.json is not valid JSON", {"model/config.json": "hello"}),
            ("has a config that says its type", "model/config.json names no model_type", {"model/config.json": "{}"}),
            ("has weights", "no model.safetensors in model", {"model/config.json": CONFIG}),
            (
                "has weights that are no pickles",
                "model has only pickled weights (pytorch_model.bin)",
                {"model/config.json": CONFIG, "model/pytorch_model.bin": "hello"},
            ),
        )
    ),
    *(
        Row(
            f"without a network only what is here is used: {command}",
            command,
            code=1,
            error="facebook/chameleon-7b is not on this machine",
            hint="fetch it once",
            env={"HF_HOME": "hub", **env},
            shell=True,
        )
        for command, env in (
            ("mmgen ask hi -m chameleon-7b --offline", {}),
            ("HF_HUB_OFFLINE=1 mmgen ask hi -m chameleon-7b", {}),
            ("mmgen ask hi", {"MMGEN_MODEL": "chameleon-7b", "MMGEN_OFFLINE": "1"}),
        )
    ),
)

# As a terminal's Ctrl-C: to a process that has not been told to ignore it, once its first picture is there.
STARTED = f"set -m; mmgen {ONE_CALL} > out & pid=$!; until [ -s out ] || ! kill -0 $pid; do sleep 0.05; done; "

SIGNALS = (
    Row(
        "who is interrupted keeps what is finished, and nothing half",
        STARTED + 'kill -INT $pid; wait $pid; echo "code $?"; python -c "import sys; from PIL import Image; '
        '[Image.open(name).load() for name in sys.argv[1:]]" cat-*.png; ls -A | grep -v "^cat-[0-9]*.png$"',
        out="code 130\nout\n",
        never=["Traceback"],
        writes="out cat-*.png",
        shell=True,
    ),
    Row(
        "an interrupt that was ignored when mmgen began stays ignored",
        "mmgen draw 'a red cat' -n 4 --seed 7 -o cat.png -q > out & pid=$!; "  # in a script bash starts it like that
        'until [ -s out ] || ! kill -0 $pid; do sleep 0.05; done; kill -INT $pid; wait $pid; echo "code $?"',
        out="code 0\n",
        writes="out cat-1.png cat-2.png cat-3.png cat-4.png",
        shell=True,
    ),
    Row(
        "who is terminated leaves nothing half",
        STARTED + 'kill -TERM $pid; wait $pid; echo "code $?"; python -c "import sys; from PIL import Image; '
        '[Image.open(name).load() for name in sys.argv[1:]]" cat-*.png; rm -f .mmgen-*',
        out="code 143\n",
        writes="out cat-*.png",
        shell=True,
    ),
)

ROWS = (*PICTURES, *MODELS, *SIGNALS)

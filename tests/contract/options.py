"""Options and their environment variables: what they take, what they refuse, and which goes first; the models."""

from __future__ import annotations

from tests.contract.row import ANY, CAT, RED, Row

# An option that is understood gets as far as a model that is not there, which is another exit code than misuse.
ACCEPTED = (
    *(f"ask hi --dtype {value}" for value in ("auto", "bfloat16", "float16", "float32")),
    *(f"ask hi --quantize {value}" for value in ("4bit", "8bit", "quanto-int8")),
    *(f"ask hi --attn {value}" for value in ("auto", "sdpa", "flash_attention_2", "eager")),
    *(f"ask hi --device-map {value}" for value in ("auto", "cpu", "cuda", "cuda:1", "balanced", "sequential")),
    "ask hi --offline --no-fit-check --complete --batch-size 3 --limit 1 --shard 1/2",
    "ask hi --seed 0 --max-tokens 1 --temperature 0 --top-p 1 --top-k 0 --repetition-penalty 1.2",
    "draw a -n 2 --seed 4294967294 --guidance 0 --temperature 0 --top-p 0.5 --top-k 9 --window 1 --no-preview -v",
    "draw a --negative-prompt blur --ratio 16:9",
    "vary a.png --image-guidance 0 --guidance 1",
    "interleave a -o story --image-temperature 0 --image-guidance 1.5 --image a.png",
    "caption a.png --dtype float32 --device-map cpu --attn eager",
)

REFUSED = (
    ("--seed x", "--seed"),
    ("--seed -1", "the seed -1 is out of range"),
    ("--seed 4294967296", "the seed 4294967296 is out of range"),
    ("--seed 4294967295 -n 2", "the seed 4294967296 is out of range"),
    ("-n 0", "-n 0 is out of range"),
    ("-n x", "-n"),
    ("--temperature -1", "temperature -1 is out of range"),
    ("--temperature nan", "temperature nan is out of range"),
    ("--top-p 0", "top-p 0 is not a probability"),
    ("--top-p 1.5", "top-p 1.5 is not a probability"),
    ("--top-k -1", "top-k -1 is out of range"),
    ("--guidance -2", "guidance -2 is out of range"),
    ("--guidance inf", "guidance inf is out of range"),
    ("--window 0", "window 0 is out of range"),
    ("--ratio wide", "'wide' is no ratio"),
    ("--ratio 0:1", "'0:1' is no ratio"),
    ("--dtype float8", "--dtype"),
    ("--quantize 3bit", "--quantize"),
    ("--attn fast", "--attn"),
    ("--batch-size 0", "--batch-size 0 is out of range"),
    ("--limit 0", "--limit 0 is out of range"),
    ("--shard 3", "--shard 3 is not I/N"),
    ("--shard 0/2", "--shard 0/2 is out of range"),
    ("--shard 3/2", "--shard 3/2 is out of range"),
    ("--jsonl -", "--jsonl keeps results in a file"),
    ("--html page.txt", "page.txt is not a name for a page"),
)
REFUSED_OF_WORDS = (
    ("ask hi --max-tokens 0", "max tokens 0 is out of range"),
    ("ask hi --max-tokens many", "--max-tokens"),
    ("ask hi --repetition-penalty 0", "repetition penalty 0"),
    ("caption a.png --temperature -1", "temperature -1 is out of range"),
    ("caption a.png --seed -1", "the seed -1 is out of range"),
    ("vary a.png --image-guidance -1", "image guidance -1 is out of range"),
    ("interleave a -o story --image-temperature -1", "temperature -1 is out of range"),
)
# Each stands for an option: with a value that this refuses, the command must be misuse.
VARIABLES = (
    ("draw a", "MMGEN_SEED", "-1", "the seed -1"),
    ("draw a", "MMGEN_N", "0", "-n 0"),
    ("draw a", "MMGEN_TEMPERATURE", "-1", "temperature -1"),
    ("draw a", "MMGEN_TOP_P", "7", "top-p 7"),
    ("draw a", "MMGEN_TOP_K", "-1", "top-k -1"),
    ("draw a", "MMGEN_GUIDANCE", "-1", "guidance -1"),
    ("draw a", "MMGEN_RATIO", "wide", "'wide' is no ratio"),
    ("draw a", "MMGEN_WINDOW", "0", "window 0"),
    ("draw a", "MMGEN_DTYPE", "float8", "…MMGEN_DTYPE"),
    ("draw a", "MMGEN_QUANTIZE", "3bit", "…MMGEN_QUANTIZE"),
    ("draw a", "MMGEN_ATTN", "fast", "…MMGEN_ATTN"),
    ("draw a", "MMGEN_BATCH_SIZE", "0", "--batch-size 0"),
    ("vary a.png", "MMGEN_IMAGE_GUIDANCE", "-1", "image guidance -1"),
    ("interleave a -o story", "MMGEN_IMAGE_TEMPERATURE", "-1", "temperature -1"),
    ("ask hi", "MMGEN_MAX_TOKENS", "many", "…MMGEN_MAX_TOKENS"),
    ("ask hi", "MMGEN_REPETITION_PENALTY", "0", "repetition penalty 0"),
    ("draw a -o -", "MMGEN_JSON", "1", "-o - and --json"),
    ("ask hi --history talk.json", "MMGEN_COMPLETE", "1", "--complete and --history"),
)
NOWHERE = {"code": 1, "error": "no such folder: nowhere", "hint": "check the path"}

VALUES = (
    *(
        Row(
            f"it is understood: {words}",
            f"mmgen {words} -m ./nowhere",
            code=1,
            error="no such folder: nowhere",
            hint="check the path",
            files={"a.png": RED},
        )
        for words in ACCEPTED
    ),
    *(
        Row(
            f"it is refused before the model is looked for: {words}",
            f"mmgen {words} -m ./nowhere",
            code=2,
            error=f"…{beginning}" if beginning.startswith("-") else beginning,
            files={"a.png": RED},
        )
        for words, beginning in (*((f"draw a {flags}", beginning) for flags, beginning in REFUSED), *REFUSED_OF_WORDS)
    ),
    *(
        Row(
            f"{variable} stands for its option",
            f"mmgen {words} -m ./nowhere",
            code=2,
            error=beginning,
            env={variable: value},
            files={"a.png": RED},
        )
        for words, variable, value, beginning in VARIABLES
    ),
)

LOADING = (
    *(
        Row(
            f"the built-in model answers with {flags}",
            f'mmgen ask --image cat.png "what color is it?" {flags}',
            out=out,
            files={"cat.png": CAT},
        )
        for flags, out in (
            ("--dtype float32 --device-map cpu --attn sdpa", "Red.\n"),
            ("--dtype bfloat16 --attn eager", "…\n"),
        )
    ),
    *(
        Row(f"a way of loading is refused: {flags}", f"mmgen ask hi {flags}", code=2, error=error)
        for flags, error in (
            ("--device-map nowhere", "unknown device map: nowhere"),
            ("--revision main", "demo is a folder on this machine: it has no revision main"),
        )
    ),
    *(
        Row(f"{variable} stands for its option", f"mmgen {words}", code=2, error=error, env={variable: value})
        for words, variable, value, error in (
            ("ask hi", "MMGEN_DEVICE_MAP", "nowhere", "unknown device map: nowhere"),
            ("ask hi", "MMGEN_REVISION", "main", "demo is a folder on this machine: it has no revision main"),
            ("draw a", "MMGEN_NEGATIVE_PROMPT", "blur", "demo has no use for a negative prompt"),
        )
    ),
    Row(
        "the built-in model cannot steer away from words, and says so",
        "mmgen draw a --negative-prompt blur",
        code=2,
        error="demo has no use for a negative prompt",
        hint="leave --negative-prompt out",
    ),
    Row(
        "the built-in model has one ratio, and says so",
        "mmgen draw a --ratio 16:9",
        code=2,
        error="demo draws pictures of one shape",
        hint="leave --ratio out",
    ),
)

ENVIRONMENT = (
    Row(
        "variables stand for options: seed, number, JSON, quiet and metadata",
        "mmgen draw 'a red cat'",
        records={"-": [{"output": "a-red-cat-7.png", "seed": 7}, {"seed": 8}]},
        err="",
        writes="a-red-cat-7.png a-red-cat-8.png",
        hides={"a-red-cat-7.png": ["a red cat"]},
        env={"MMGEN_SEED": "7", "MMGEN_N": "2", "MMGEN_JSON": "1", "MMGEN_QUIET": "1", "MMGEN_NO_METADATA": "1"},
    ),
    Row(
        "options go before variables",
        "mmgen ask hello --seed 1 --temperature 0.1 --max-tokens 2 -m demo --json",
        records={"-": [{"seed": 1, "sampling": {"text": {"max_tokens": 2, "top_k": 5}}}]},
        env={"MMGEN_SEED": "7", "MMGEN_MAX_TOKENS": "5", "MMGEN_MODEL": "./nowhere", "MMGEN_TOP_K": "5"},
    ),
    Row("a variable says which model", "mmgen ask hello", env={"MMGEN_MODEL": "./nowhere"}, **NOWHERE),
    Row(
        "a variable says what a picture took",
        "mmgen draw 'a red cat' --seed 7",
        out="a-red-cat-7.png\n",
        says=["…passes…"],
        writes="a-red-cat-7.png",
        env={"MMGEN_VERBOSE": "1"},
    ),
    Row(
        "debugging adds the traceback, and the error comes last",
        "mmgen caption none.png",
        code=1,
        error="no such file: none.png",
        err="Traceback…\nerror: …\nhint: …\n",
        env={"MMGEN_DEBUG": "1"},
    ),
    Row(
        "0 is no debugging",
        "mmgen caption none.png",
        code=1,
        error="no such file: none.png",
        err="error: …\nhint: …\n",
        env={"MMGEN_DEBUG": "0"},
    ),
)

MODELS = (
    Row(
        "models are listed",
        "mmgen models",
        out="NAME…CAN…WEIGHTS…HERE…LICENCE\ndemo…caption ask draw vary interleave…MB…yes…Apache-2.0\n…anole-7b…"
        "chameleon-7b…gated\n…chameleon-30b…llama-3.2-11b-vision…idefics2-8b…gemma-3-4b…smolvlm…smolvlm-256m…"
        "janus-pro-1b…janus-pro-7b…emu3-chat…emu3-gen…\n",
        err="",
    ),
    Row(
        "models are listed as JSON",
        "mmgen models --json",
        records={
            "-": [
                {
                    "command": "models",
                    "model": {"name": "demo", "revision": None},
                    "can": ["caption", "ask", "draw", "vary", "interleave"],
                    "licence": "Apache-2.0",
                    "gated": False,
                    "here": True,
                },
                {"model": {"name": "anole-7b"}, "repo": "leloy/Anole-7b-v0.1-hf", "gated": False},
                {"model": {"name": "chameleon-7b"}, "can": ["caption", "ask"], "gated": True},
                *({"model": {"name": ANY}, "repo": ANY, "n_bytes": ANY} for _ in range(16)),
            ]
        },
        err="",
    ),
    Row("of one model is told what it takes", "mmgen models demo", out="model:…demo\n…float32…\ntry: mmgen …\n"),
    Row(
        "of one model as JSON, too",
        "mmgen models demo --json",
        records={"-": [{"command": "models", "gives": ["text", "image"], "here": True, "ways": [ANY, ANY, ANY, ANY]}]},
    ),
    Row(
        "an unknown model is an error that guesses",
        "mmgen models anole-7",
        code=1,
        error="unknown model: anole-7",
        hint="did you mean anole-7b?",
    ),
)

ROWS = (*VALUES, *LOADING, *ENVIRONMENT, *MODELS)

"""Streams: results alone on stdout, stdin only where `-` says so, pipes, terminals, help and the version."""

from __future__ import annotations

from tests.contract.row import BOAT, CAT, RED, Row

TWO = {"cat.png": CAT, "boat.png": BOAT}
TWO_LINES = "cat.png\tA red cat on the grass.\nboat.png\tA red boat on the beach.\n"
PNG = b"\x89PNG\r\n\x1a\n" + "…".encode() + b"IEND\xaeB`\x82"  # the first and the last bytes of every PNG
COMMANDS = ("caption", "ask", "draw", "vary", "interleave", "chat", "models", "report")

STDOUT = (
    Row("a caption is all of stdout", "mmgen caption cat.png", out="A red cat on the grass.\n", files={"cat.png": CAT}),
    Row(
        "quiet, an answer is all that is said",
        'mmgen ask --image cat.png "what color is it?" -q',
        out="Red.\n",
        err="",
        files={"cat.png": CAT},
    ),
    Row(
        "quiet, not even a seed is noted",
        'mmgen draw "a red cat" -o cat.png --quiet',
        out="cat.png\n",
        err="",
        writes="cat.png",
    ),
    Row(
        "quiet, errors are said all the same",
        "mmgen caption nowhere.png -q",
        code=1,
        error="no such file: nowhere.png",
        hint="check",
    ),
    Row(
        "a picture goes to stdout as a PNG",
        'mmgen draw "a yellow car at night" --seed 4 -o -',
        out=PNG,
    ),
    Row(
        "a picture that is varied goes to stdout as a PNG",
        "mmgen vary cat.png --seed 4 -o -",
        out=PNG,
        files={"cat.png": CAT},
    ),
    *(
        Row(
            f"stdout takes one picture alone: {words}",
            f"mmgen {words} -o - -m ./nowhere",
            code=2,
            error="2 pictures do not go through one stdout",
            hint="give a file name",
            files={"a.png": RED},
        )
        for words in ("draw a b", "draw a -n 2", "vary a.png -n 2")
    ),
    Row(
        "a picture and JSON do not go to one stdout",
        "mmgen draw a -o - --json -m ./nowhere",
        code=2,
        error="-o - and --json",
        hint="give a file name",
    ),
    Row(
        "a picture does not go onto a terminal",
        "mmgen draw a -o - -m ./nowhere",
        code=2,
        error="a picture is no text for a terminal",
        hint="redirect",
        terminal=True,
    ),
)

STDIN = (
    Row(
        "a question of one dash is read from stdin",
        "mmgen ask --image cat.png -",
        stdin="what is it?\n",
        out="A cat.\n",
        files={"cat.png": CAT},
    ),
    Row(
        "a prompt of one dash is read from stdin",
        "mmgen draw - --seed 7",
        stdin="a red cat on the grass\n",
        out="a-red-cat-on-the-grass-7.png\n",
        writes="a-red-cat-on-the-grass-7.png",
        files={"cat.png": CAT},
        same=("a-red-cat-on-the-grass-7.png", "cat.png"),
    ),
    Row(
        "a change of one dash is read from stdin",
        "mmgen vary cat.png - --seed 7 --json",
        stdin="make it blue\n",
        records={"-": [{"prompt": "make it blue", "output": "make-it-blue-7.png"}]},
        writes="make-it-blue-7.png",
        files={"cat.png": CAT},
    ),
    Row(
        "what to tell may be read from stdin",
        "mmgen interleave - -o story --seed 7 --json --max-tokens 2",
        stdin="Once upon a time\n",
        records={"-": [{"prompt": "Once upon a time", "output": "story"}]},
        writes="story/*",
    ),
    Row(
        "a prompt on stdin is UTF-8",
        "mmgen ask - -m ./nowhere",
        stdin=b"caf\xe9",
        code=2,
        error="the prompt on stdin is not UTF-8",
    ),
    Row("an empty stdin is an empty prompt", "mmgen ask -", stdin="", code=2, error="the prompt is empty"),
    Row("stdin holds one prompt", "mmgen draw - -", stdin="a", code=2, error="two prompts are -", hint="stdin"),
    Row(
        "stdin holds a prompt or a list, not both",
        "mmgen vary - --files-from - -o varied/",
        stdin="a",
        code=2,
        error="both the prompt and --files-from are -",
        hint="stdin",
    ),
    Row(
        "names of pictures come from stdin",
        "mmgen caption --files-from -",
        stdin="cat.png\nboat.png\n",
        out=TWO_LINES,
        files=TWO,
    ),
    Row(
        "names of pictures on stdin may end in NUL",
        "mmgen caption --files-from - -0",
        stdin="cat.png\0boat.png\0",
        out=TWO_LINES,
        files=TWO,
    ),
    Row(
        "names of pictures come from a file",
        "mmgen caption --files-from list.txt",
        out=TWO_LINES,
        files={**TWO, "list.txt": "cat.png\nboat.png\n"},
    ),
    Row(
        "a list may begin with a byte-order mark, and have empty lines and lines that end as on Windows",
        "mmgen caption --files-from list.txt",
        out=TWO_LINES,
        files={**TWO, "list.txt": "\ufeffcat.png\r\n\r\nboat.png"},
    ),
    Row(
        "a question is asked about each of a list",
        'mmgen ask --each "what is it?" --files-from -',
        stdin="cat.png\nboat.png\n",
        out="cat.png\tA cat.\nboat.png\tA boat.\n",
        files=TWO,
    ),
    Row(
        "an empty list is an error",
        "mmgen caption --files-from - -m ./nowhere",
        stdin="\n",
        code=1,
        error="no",
    ),
    Row(
        "NUL ends names only in a list",
        "mmgen caption a.png -0",
        code=2,
        error="-0",
        files={"a.png": RED},
    ),
    Row(
        "a list that is not there is an error",
        "mmgen caption --files-from none.txt",
        code=1,
        error="cannot open none.txt",
        hint="name a list",
    ),
    Row(
        "prompts come from stdin",
        "mmgen ask --prompts -",
        stdin='{"prompt": "what is it?", "images": ["cat.png"]}\n{"prompt": "what is it?", "images": ["boat.png"]}\n',
        out="what is it?\tA cat.\nwhat is it?\tA boat.\n",
        files=TWO,
    ),
)

SHELL = (
    Row(
        "a loop over a list keeps its list",
        'while read f; do mmgen ask --image "$f" "what is it?" -q; done < list.txt',
        out="A cat.\nA boat.\n",
        err="",
        files={**TWO, "list.txt": "cat.png\nboat.png\n"},
        shell=True,
    ),
    Row(
        "a picture is redirected into a file, which says how it was made",
        'mmgen draw "a red cat on the grass" --seed 7 -o - > out.png; ls -A',
        out="cat.png\nout.png\n",
        writes="out.png",
        files={"cat.png": CAT},
        same=("out.png", "cat.png"),
        tells={"out.png": ['"prompt": "a red cat on the grass"', '"seed": 7']},
        shell=True,
    ),
    Row(
        "who has gone from the other end of a pipe is told from a failure",
        '{ mmgen ask "what is a snowman?" -q; echo "code $?" >&2; } | true',
        err="code 141\n",
        shell=True,
    ),
    Row(
        "help for nobody ends quietly",
        '{ sleep 0.5; mmgen draw --help; echo "code $?" >&2; } | true',
        err="code 141\n",
        shell=True,
    ),
    Row(
        "a full disk behind stdout is an error",
        "mmgen --help > /dev/full",
        code=1,
        error="cannot write to stdout: No space left on device",
        shell=True,
    ),
    Row("a closed stdout is no traceback", "mmgen models >&-", err="", shell=True),
    Row("a closed stdin is an empty one", "mmgen ask - <&-", code=2, error="the prompt is empty", shell=True),
    Row("a closed stderr is no traceback", "mmgen models no-such-model 2>&-", code=1, shell=True),
    Row(
        "a file's name comes out as it went in, in any locale",
        "LC_ALL=C mmgen caption 'ein Kätzchen.png' boat.png",
        out="ein Kätzchen.png\tA red cat on the grass.\nboat.png\tA red boat on the beach.\n",
        files={"ein Kätzchen.png": CAT, "boat.png": BOAT},
        shell=True,
    ),
    Row(
        "Python runs it as a module",
        "python -m mmgen --version",
        out="mmgen …\n",
        shell=True,
    ),
    Row(
        "a picture may come through no pipe",
        "mkfifo pipe.png; mmgen caption pipe.png",
        code=1,
        error="pipe.png is not a regular file",
        hint="save",
        shell=True,
    ),
)

TERMINAL = (
    Row(
        "a file's name steers no terminal",
        'mmgen caption "\x1b[31mcat.png" boat.png',
        out="[31mcat.png\tA red cat on the grass.\nboat.png\tA red boat on the beach.\n",
        files={"\x1b[31mcat.png": CAT, "boat.png": BOAT},
        terminal=True,
    ),
    Row(
        "a file's name that is not UTF-8 comes out as it went in",
        "mmgen caption \udcff.png boat.png",
        out=b"\xff.png\tA red cat on the grass.\nboat.png\tA red boat on the beach.\n",
        files={"\udcff.png": CAT, "boat.png": BOAT},
    ),
    Row(
        "an error that names a file steers no terminal",
        "mmgen caption '\x1b[31mnone.png'",
        code=1,
        error="no such file: [31mnone.png",
        terminal=True,
        never=["\x1b[31m"],
    ),
    Row(
        "nothing is coloured where NO_COLOR is set",
        'mmgen draw "a red cat" --seed 7',
        out="a-red-cat-7.png\n",
        writes="a-red-cat-7.png",
        env={"NO_COLOR": "1"},
        terminal=True,
        never=["\x1b[3", "\x1b[4", "\x1b[9"],
    ),
)

HELP = (
    *(
        Row(
            f"{command or 'mmgen'} has help with two examples at its end: {flag}",
            f"mmgen {command} {flag}",
            out=f"Usage: mmgen {command}…Examples:\n…$ mmgen {command}…\n…$ mmgen {command or 'caption'}…\n",
            err="",
        )
        for command in ("", *COMMANDS)
        for flag in ("--help", "-h")
    ),
    Row("the version is printed", "mmgen --version", out="mmgen …\n", err=""),
    Row("without a command it is misuse, and help is said on stderr", "mmgen", code=2, says=["…interleave…"]),
    Row("there is no such command", "mmgen drw a", code=2, error="no such command", hint="see mmgen --help"),
    Row(
        "there is no such option",
        "mmgen draw a --sed 7",
        code=2,
        error="no such option: --sed",
        hint="see mmgen draw --help",
    ),
)

ROWS = (*STDOUT, *STDIN, *SHELL, *TERMINAL, *HELP)

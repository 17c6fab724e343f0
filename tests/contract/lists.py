"""Many at once: lists of prompts, names of a template, folders of results, and pages to look at."""

from __future__ import annotations

from tests.contract.folders import JOURNAL, PHOTOS, PROMPTS, SMALL
from tests.contract.row import ABSENT, ANY, CAT, RED, Row

NAMED = "mmgen draw --prompts prompts.txt --seed 7 -o 'pictures/{index:03d}-{slug}.png'"

LISTS = (
    Row(
        "prompts are drawn into files that a template names",
        NAMED,
        out="pictures/001-a-red-cat.png\npictures/002-a-blue-boat.png\n",
        writes="pictures/001-a-red-cat.png pictures/002-a-blue-boat.png pictures/mmgen.jsonl",
        files=PROMPTS,
    ),
    Row(
        "prompts that are drawn are not drawn again",
        NAMED,
        says=["0 done, 2 skipped, 0 failed…"],
        files=PROMPTS,
        first=(NAMED,),
    ),
    Row(
        "a picture that was taken away is there again",
        NAMED,
        out="pictures/002-a-blue-boat.png\n",
        says=["1 done, 1 skipped, 0 failed…"],
        writes="pictures/002-a-blue-boat.png pictures/mmgen.jsonl",
        files=PROMPTS,
        first=(NAMED, "rm pictures/002-a-blue-boat.png"),
    ),
    Row(
        "prompts are drawn into a folder",
        "mmgen draw --prompts - -o pictures/ --seed 7",
        stdin="a red cat\n",
        out="pictures/a-red-cat-7.png\n",
        writes="pictures/a-red-cat-7.png pictures/mmgen.jsonl",
    ),
    Row(
        "JSON lines have a seed and a file of their own",
        "mmgen draw --prompts - -o pictures/ --seed 1",
        stdin='{"prompt": "a red cat on the grass", "seed": 7, "output": "mine.png"}\n',
        out="pictures/mine.png\n",
        writes="pictures/mine.png pictures/mmgen.jsonl",
        files={"cat.png": CAT},
        same=("pictures/mine.png", "cat.png"),
    ),
    Row(
        "lines that are wrong fail alone",
        "mmgen ask --prompts -",
        stdin='{"prompt": "what is it?", "images": ["cat.png"]}\n{"images": []}\n{"prompt": "a", "size": 3}\nhello\n'
        '{"prompt": ""}\n{"prompt": "a", "images": ["none.png"]}\n{"prompt": "a", "seed": -1}\n',
        code=1,
        out="what is it?\tA cat.\n",
        error=[
            "line 2: no prompt",
            'line 3: unknown key "size"',
            "line 4: not JSON",
            *[f"line {n}: " for n in (5, 6, 7)],
        ],
        says=["1 done, 0 skipped, 6 failed…"],
        files={"cat.png": CAT},
    ),
    Row(
        "pictures of a list are looked up from its folder",
        "mmgen ask --prompts lists/questions.jsonl",
        out="what color is it?\tRed.\n",
        files={
            "lists/cat.png": CAT,
            "lists/questions.jsonl": '\ufeff{"prompt": "what color is it?", "images": ["cat.png"]}',
        },
    ),
    Row(
        "a prompt that is too long has its error in its line",
        "mmgen ask --prompts - --json --max-tokens 1",
        stdin=f"hello\n{'very ' * 2000}\n",
        code=1,
        error="line 2: the prompt is … tokens too long",
        records={"-": [{"text": ANY, "line": 1}, {"text": ABSENT, "error": "the prompt is … tokens too long…"}]},
    ),
    Row(
        "stories of a list have a folder each",
        "mmgen interleave --prompts - -o stories/ --seed 7",
        stdin="Can you draw a snowman and explain how to build one?\n",
        out="stories/can-you-draw-a-snowman…/index.md\n",
        writes="stories/can-you-draw-a-snowman*/index.md stories/can-you-draw-a-snowman*/001.png stories/*",
    ),
    Row(
        "pictures of a folder are varied into another",
        "mmgen vary photos -o varied/ --seed 7",
        out="varied/cat.png\n",
        writes="varied/cat.png varied/mmgen.jsonl",
        files={"photos/cat.png": CAT},
    ),
    Row(
        "variations of a folder have names of a template",
        "mmgen vary photos 'make it blue' -o 'varied/{stem}-{slug}-{seed}-{n}.png' --seed 7",
        out="varied/cat-make-it-blue-7-1.png\n",
        writes="varied/cat-make-it-blue-7-1.png varied/mmgen.jsonl",
        files={"photos/cat.png": CAT},
    ),
    *(
        Row(what, f"mmgen {words}", code=2, error=error, hint=hint, files={**SMALL, **PROMPTS})
        for what, words, error, hint in (
            ("many variations need a folder", "vary photos -m ./nowhere", "no folder for the pictures", "name one"),
            (
                "many variations do not go into one file",
                "vary photos -o a.png -m ./nowhere",
                "-o a.png is one file",
                "end it in /",
            ),
            (
                "many pictures do not go into one file",
                "draw --prompts prompts.txt -o a.png -m ./nowhere",
                "-o a.png is one file",
                "end it in /",
            ),
            (
                "many stories need a folder",
                "interleave --prompts prompts.txt -m ./nowhere",
                "no folder for the stories",
                "name one",
            ),
            (
                "a template has fields that are known",
                "draw a -o '{colour}.png' -m ./nowhere",
                "-o has an unknown field: {colour}",
                "fields are stem, slug, seed, index, n",
            ),
            (
                "a template's fields are whole",
                "draw a -o '{seed.real}.png' -m ./nowhere",
                "-o has an unknown field: {seed.real}",
                "fields are stem",
            ),
            (
                "pictures of one prompt have a bound",
                "draw a -n 1000001",
                "-n 1000001 is out of range",
                "it is a number from",
            ),
            ("a template can be filled in", "draw a -o '{seed' -m ./nowhere", "-o {seed cannot be filled in", "as in"),
            ("prompts are in a list or not", "draw a --prompts prompts.txt", "prompts both on", "leave one out"),
            (
                "a list of questions has their pictures",
                "ask what --prompts prompts.txt",
                "--prompts has the questions",
                "leave out",
            ),
            (
                "a list of stories has their pictures",
                "interleave --prompts prompts.txt --image photos/1.png -o stories/",
                "--prompts has the prompts",
                "leave out --image",
            ),
            ("many pictures are asked about with --each", "ask what --image photos/1.png -r", "one question", "add it"),
        )
    ),
    Row(
        "somebody else's file in the folder is not overwritten",
        "mmgen draw --prompts - -o pictures/ --seed 7",
        stdin="a red cat\n",
        code=1,
        error="line 1: pictures/a-red-cat-7.png exists",
        writes="pictures/mmgen.jsonl",
        files={"pictures/a-red-cat-7.png": "mine"},
    ),
    Row(
        "no line leads out of the folder",
        "mmgen draw --prompts - -o pictures/ --seed 7",
        stdin='{"prompt": "a", "output": "../a.png"}\n',
        code=1,
        error="line 1: ../a.png leads out of pictures",
        writes="pictures/mmgen.jsonl",
    ),
    Row(
        "a list of prompts is there",
        "mmgen draw --prompts none.txt -o a/",
        code=1,
        error="cannot open none.txt",
    ),
    Row("a list of prompts is not empty", "mmgen ask --prompts -", stdin="\n", code=1, error="no prompts on stdin"),
)

PAGES = (
    Row(
        "a page is written when a batch is done",
        "mmgen caption photos --html page.html",
        out="photos/boat.png\tA red boat on the beach.\nphotos/cat.png\tA red cat on the grass.\n",
        writes="page.html",
        tells={"page.html": ["A red cat on the grass.", "data:image/", "mmgen caption"]},
        files=PHOTOS,
    ),
    Row(
        "a report is made of what was kept: words, errors and commands",
        "mmgen report c.jsonl",
        out="c.html\n",
        writes="c.html",
        tells={"c.html": ["A red cat on the grass.", "bad.png", "is not a picture", "mmgen caption ", "data:image/"]},
        files={"photos/cat.png": CAT, "photos/bad.png": "hello"},
        first=(JOURNAL,),
    ),
    Row(
        "a report is made of what was printed as JSON",
        "mmgen report printed.jsonl -o page.html",
        out="page.html\n",
        writes="page.html",
        tells={"page.html": ["on the grass"]},
        files={"printed.jsonl": '{"command": "ask", "prompt": "where is it?", "text": "on the grass"}\n'},
    ),
    *(
        Row(f"a report {what}", f"mmgen report {words}", code=code, error=error, files=files)
        for what, words, code, error, files in (
            ("overwrites nothing", "c.jsonl", 2, "c.html exists", {"c.jsonl": "", "c.html": "mine"}),
            ("is a page", "c.jsonl -o page.txt", 2, "page.txt is not a name for a page", {"c.jsonl": ""}),
            ("is made of records", "c.jsonl", 1, "c.jsonl: line 1 is not a record", {"c.jsonl": "mine\n"}),
            ("is made of something", "c.jsonl", 1, "no records in c.jsonl", {"c.jsonl": ""}),
            ("is made of a file that is there", "none.jsonl", 1, "cannot open none.jsonl", {}),
        )
    ),
    Row(
        "a report overwrites by force",
        "mmgen report c.jsonl -f",
        out="c.html\n",
        writes="c.html",
        files={"c.jsonl": '{"command": "ask", "prompt": "a", "text": "b"}\n', "c.html": "mine"},
    ),
    Row(
        "a page of others is not overwritten",
        "mmgen caption a.png --html mine.html -m ./nowhere",
        code=2,
        error="mine.html exists",
        files={"a.png": RED, "mine.html": "<p>mine"},
    ),
)

ROWS = (*LISTS, *PAGES)

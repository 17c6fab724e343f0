"""Folders and lists: what is taken in, what is done again and what is not, where results go, and pages to look at."""

from __future__ import annotations

from tests.contract.row import ABSENT, ANY, BLUE, BOAT, CAT, GREEN, RED, Row

PHOTOS = {"photos/cat.png": CAT, "photos/boat.png": BOAT}
SMALL = {"photos/1.png": RED, "photos/2.png": BLUE, "photos/10.png": GREEN}
JOURNAL = "mmgen caption photos --jsonl c.jsonl"
LISTED = "mmgen caption photos --jsonl c.jsonl --plan"  # a cheap look at what counts: it loads no model
PROMPTS = {"prompts.txt": "a red cat\n\na blue boat\n"}
NAMED = "mmgen draw --prompts prompts.txt --seed 7 -o 'pictures/{index:03d}-{slug}.png'"

FOUND = (
    *(
        Row(f"of a folder {what}", f"{LISTED} {flags}", out=f"new {n}, done 0, stale 0, failed 0\n", files=files)
        for what, flags, n, files in (
            ("the pictures count, and nothing else", "", 3, {**SMALL, "photos/notes.txt": "hello"}),
            ("hidden files do not count", "", 3, {**SMALL, "photos/.4.png": RED}),
            ("those below do not count", "", 3, {**SMALL, "photos/below/4.png": RED}),
            ("those below count with -r", "-r", 4, {**SMALL, "photos/below/4.png": RED}),
            ("some are included", "--include '1*.png'", 2, SMALL),
            ("several patterns include", "--include 1.png --include 2.png", 2, SMALL),
            ("some are excluded", "--exclude '1*'", 1, SMALL),
            ("some are included, and some of these excluded", "--include '1*' --exclude 10.png", 1, SMALL),
            ("a folder below is excluded", "-r --exclude below", 3, {**SMALL, "photos/below/4.png": RED}),
        )
    ),
    Row(
        "a folder is read as people count",
        "mmgen caption photos --limit 3 --json --max-tokens 1",
        records={"-": [{"image": "photos/1.png"}, {"image": "photos/2.png"}, {"image": "photos/10.png"}]},
        files=SMALL,
    ),
    Row(
        "a folder without pictures is an error",
        "mmgen caption photos -m demo",
        code=1,
        error="no pictures in photos",
        files={"photos/notes.txt": "hello"},
    ),
    Row(
        "a folder with pictures below alone is an error that says so",
        "mmgen caption photos",
        code=1,
        error="no pictures in photos",
        hint="there are some in its folders: -r",
        files={"photos/below/1.png": RED},
    ),
    Row(
        "a pattern that nothing fits is an error", "mmgen caption 'none*.png'", code=1, error="no such file: none*.png"
    ),
)

KEPT = (
    Row(
        "results are kept in a file of JSON lines, and none are printed",
        JOURNAL,
        says=["2 done, 0 skipped, 0 failed…"],
        writes="c.jsonl",
        records={
            "c.jsonl": [
                {"command": "caption", "image": "photos/boat.png", "text": "A red boat on the beach."},
                {"command": "caption", "image": "photos/cat.png", "text": "A red cat on the grass."},
            ]
        },
        files=PHOTOS,
    ),
    Row(
        "the same command again does nothing",
        JOURNAL,
        says=["0 done, 2 skipped, 0 failed…"],
        files=PHOTOS,
        first=(JOURNAL,),
    ),
    Row(
        "what is missing is done, and nothing else",
        JOURNAL,
        says=["1 done, 1 skipped, 0 failed…"],
        writes="c.jsonl",
        records={"c.jsonl": [{"image": "photos/boat.png"}, {"image": "photos/cat.png"}]},
        files=PHOTOS,
        first=(f"{JOURNAL} --limit 1",),
    ),
    Row(
        "a picture that was renamed or touched is not asked about again, a changed one is",
        f"{LISTED} --max-tokens 1",
        out="new 0, done 2, stale 1, failed 0\n",
        files={**SMALL, "new.png": BOAT},
        first=(
            f"{JOURNAL} --max-tokens 1",
            "mv photos/1.png photos/renamed.png",
            "touch -d 2001-01-01 photos/2.png",
            "cp new.png photos/10.png",
        ),
    ),
    Row(
        "other sampling is another result",
        f"{LISTED} --max-tokens 2",
        out="new 0, done 0, stale 3, failed 0\n",
        files=SMALL,
        first=(f"{JOURNAL} --max-tokens 1",),
    ),
    Row(
        "a picture that cannot be read has its error in its line, and on it goes",
        JOURNAL,
        code=1,
        error="photos/bad.png is not a picture",
        says=["2 done, 0 skipped, 1 failed…"],
        writes="c.jsonl",
        records={
            "c.jsonl": [
                {"image": "photos/bad.png", "error": "photos/bad.png is not a picture…", "text": ABSENT},
                {"image": "photos/boat.png", "text": ANY},
                {"image": "photos/cat.png", "text": ANY},
            ]
        },
        files={**PHOTOS, "photos/bad.png": "hello"},
    ),
    Row(
        "what failed is tried again, and nothing else",
        JOURNAL,
        says=["1 done, 1 skipped, 0 failed…"],
        writes="c.jsonl",
        records={"c.jsonl": [{"image": "photos/boat.png"}, {"image": "photos/cat.png", "text": ANY, "error": ABSENT}]},
        files={"photos/cat.png": "hello", "photos/boat.png": BOAT, "cat.png": CAT},
        first=(f"{JOURNAL} -q", "cp cat.png photos/cat.png"),
    ),
    Row(
        "a batch may stop at the first that fails",
        f"{JOURNAL} --fail-fast --batch-size 1 --max-tokens 1",
        code=1,
        error="photos/2.png is not a picture",
        writes="c.jsonl",
        records={"c.jsonl": [{"image": "photos/1.png"}, {"image": "photos/2.png", "error": ANY}]},
        files={**SMALL, "photos/2.png": "hello"},
    ),
    Row(
        "a plan counts, writes nothing and needs no weights",
        LISTED,
        out="new 2, done 0, stale 0, failed 0\n",
        files=PHOTOS,
        never=["note:"],
    ),
    Row(
        "a plan tells what is done from what is new, stale or failed",
        f"{LISTED} --max-tokens 1",
        out="new 1, done 2, stale 1, failed 1\n",
        files={**SMALL, "photos/bad.png": "hello", "cat.png": CAT, "boat.png": BOAT},
        first=(f"{JOURNAL} --max-tokens 1", "cp cat.png photos/10.png", "cp boat.png photos/11.png"),
    ),
    Row(
        "parts make up the whole",
        f"{LISTED} --max-tokens 1",
        out="new 0, done 3, stale 0, failed 0\n",
        files=SMALL,
        first=tuple(f"{JOURNAL} --max-tokens 1 --shard {i}/3" for i in (1, 2, 3)),
    ),
    Row(
        "a part is not the whole",
        "cat parts/* | sort | uniq -c | sed 's/photos.*//' | sort -u | tr -d ' '",
        out="1\n",
        files={**SMALL, "parts/": ""},
        first=(
            *(f"mmgen caption photos --max-tokens 1 --jsonl {i}.jsonl --shard {i}/2" for i in (1, 2)),
            "for i in 1 2; do grep -o 'photos/[0-9]*.png\", \"prompt' $i.jsonl > parts/$i || true; done",
        ),
        shell=True,
    ),
    Row(
        "of a batch only so many are computed",
        f"{JOURNAL} --limit 2 --max-tokens 1",
        says=["2 done, 0 skipped, 0 failed…"],
        writes="c.jsonl",
        records={"c.jsonl": [{"image": "photos/1.png"}, {"image": "photos/2.png"}]},
        files=SMALL,
    ),
    Row(
        "one at a time is the same",
        f"{JOURNAL} --batch-size 1",
        says=["2 done…"],
        writes="c.jsonl",
        records={"c.jsonl": [{"text": "A red boat on the beach."}, {"text": "A red cat on the grass."}]},
        files=PHOTOS,
    ),
    Row(
        "questions are kept, too",
        "mmgen ask --each 'what is it?' --image photos --jsonl a.jsonl",
        says=["2 done…"],
        writes="a.jsonl",
        records={"a.jsonl": [{"prompt": "what is it?", "text": "A boat."}, {"command": "ask", "text": "A cat."}]},
        files=PHOTOS,
    ),
    Row(
        "what is kept is printed as JSON where that is wanted",
        f"{JOURNAL} --json",
        writes="c.jsonl",
        records={"-": [{"image": "photos/boat.png"}, {"image": "photos/cat.png"}]},
        files=PHOTOS,
    ),
    Row(
        "a seed that was drawn is used again when a batch is restarted",
        "ls pictures/*.png | sed 's/.*-//' | sort -u | wc -l | tr -d ' '",
        out="1\n",
        files=PROMPTS,
        first=(
            "mmgen draw --prompts prompts.txt -o pictures/ --limit 1",
            "mmgen draw --prompts prompts.txt -o pictures/",
            "ls pictures/a-blue-boat-*.png pictures/a-red-cat-*.png",
        ),
        shell=True,
    ),
    Row(
        "a file that is no journal is left as it is",
        JOURNAL,
        code=2,
        error="c.jsonl is not the journal of a batch",
        hint="name a new file",
        files={**SMALL, "c.jsonl": "mine\n" * 200},
    ),
    Row(
        "a journal is a file",
        "mmgen caption photos --jsonl -",
        code=2,
        error="--jsonl keeps results in a file",
        hint="--json",
        files=SMALL,
    ),
)

SIDECARS = (
    Row(
        "words stand beside their pictures",
        "mmgen caption photos --sidecar",
        says=["2 done…"],
        writes="photos/boat.txt photos/cat.txt",
        holds={"photos/boat.txt": "A red boat on the beach.\n", "photos/cat.txt": "A red cat on the grass.\n"},
        files=PHOTOS,
    ),
    Row(
        "what stands there already is left alone",
        "mmgen caption photos --sidecar",
        says=["1 done, 1 skipped, 0 failed…"],
        writes="photos/boat.txt",
        files={**PHOTOS, "photos/cat.txt": "mine"},
    ),
    Row(
        "what stands there already is overwritten where that is wanted",
        "mmgen caption photos --sidecar --existing overwrite",
        writes="photos/boat.txt photos/cat.txt",
        files={**PHOTOS, "photos/cat.txt": "mine"},
    ),
    Row(
        "what was edited is known from what is out of date",
        "mmgen caption photos --sidecar --jsonl c.jsonl",
        says=["1 done, 1 skipped, 0 failed…"],
        writes="photos/boat.txt c.jsonl",
        holds={"photos/boat.txt": "A red cat on the grass.\n", "photos/cat.txt": "edited"},
        files={**PHOTOS, "other.png": CAT, "third.png": BOAT},
        first=(
            "mmgen caption photos --sidecar --jsonl c.jsonl",
            "cp other.png photos/boat.png; cp third.png photos/cat.png; printf edited > photos/cat.txt",
        ),
    ),
    Row(
        "words have an ending, a beginning and a folder of their own",
        "mmgen caption photos -r --sidecar --outdir words --ext .caption --prefix 'sks, ' --suffix ' end'",
        writes="words/boat.caption words/below/cat.caption",
        holds={"words/below/cat.caption": "sks, A red cat on the grass. end\n"},
        files={"photos/boat.png": BOAT, "photos/below/cat.png": CAT},
    ),
    Row(
        "answers stand beside their pictures, too",
        "mmgen ask --each 'what is it?' --image photos --sidecar",
        writes="photos/boat.txt photos/cat.txt",
        holds={"photos/cat.txt": "A cat.\n"},
        files=PHOTOS,
    ),
    *(
        Row(
            f"sidecars have options of their own: {flags}",
            f"mmgen caption a.png {flags} -m ./nowhere",
            code=2,
            error="--outdir, --prefix, --suffix and --existing are about --sidecar",
            hint="add --sidecar",
            files={"a.png": RED},
        )
        for flags in ("--outdir words", "--prefix a", "--suffix a", "--existing overwrite")
    ),
    *(
        Row(
            f"a sidecar's ending is none of a picture, and no path: {ending}",
            f"mmgen caption a.png --sidecar --ext {ending} -m ./nowhere",
            code=2,
            error="--ext",
            hint="as in --ext .txt",
            files={"a.png": RED},
        )
        for ending in (".png", "a/b")
    ),
)

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

ROWS = (*FOUND, *KEPT, *SIDECARS, *LISTS, *PAGES)

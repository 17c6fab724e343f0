"""Folders of pictures: what is taken in, what is kept, what is done again and what is not, and sidecars."""

from __future__ import annotations

from tests.contract.row import ABSENT, ANY, BLUE, BOAT, CAT, GREEN, RED, Row

PHOTOS = {"photos/cat.png": CAT, "photos/boat.png": BOAT}
SMALL = {"photos/1.png": RED, "photos/2.png": BLUE, "photos/10.png": GREEN}
JOURNAL = "mmgen caption photos --jsonl c.jsonl"
LISTED = "mmgen caption photos --jsonl c.jsonl --plan"  # a cheap look at what counts: it loads no model
PROMPTS = {"prompts.txt": "a red cat\n\na blue boat\n"}

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
        "pictures in folders below that do not count are spoken of",
        "mmgen caption photos --max-tokens 1 --json",
        says=["note: photos has pictures in folders within it: -r takes them in"],
        records={"-": [{"image": "photos/1.png"}, {"image": "photos/2.png"}, {"image": "photos/10.png"}]},
        files={**SMALL, "photos/below/deep/4.png": RED, "photos/other/notes.txt": "hello"},
    ),
    Row(
        "folders below without pictures are not spoken of",
        "mmgen caption photos --max-tokens 1 --json",
        records={"-": [{"image": "photos/1.png"}, {"image": "photos/2.png"}, {"image": "photos/10.png"}]},
        files={**SMALL, "photos/below/notes.txt": "hello"},
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
            "touch -t 200101010000 photos/2.png",
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
        records={
            "c.jsonl": [
                {"image": "photos/boat.png"},
                {"image": "photos/cat.png", "error": ANY},
                {"image": "photos/cat.png", "text": ANY, "error": ABSENT},
            ]
        },
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

ROWS = (*FOUND, *KEPT, *SIDECARS)

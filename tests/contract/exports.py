"""What is made of a batch that is kept: a page, a table, a data set; and what is left as it is."""

from __future__ import annotations

from tests.contract.folders import JOURNAL, PHOTOS, PROMPTS
from tests.contract.row import CAT, RED, Row

BOAT_LINE = {"file_name": "photos/boat.png", "text": "A red boat on the beach."}
CAT_LINE = {"file_name": "photos/cat.png", "text": "A red cat on the grass."}
PRINTED = '{"command": "ask", "prompt": "=1+1", "text": "a \\"b\\", c\\nd", "seed": 0, "images": ["é.png", "2.png"]}\n'

EXPORTS = (
    *(
        Row(
            f"export has help with two examples at its end: {flag}",
            f"mmgen export {flag}",
            out="Usage: mmgen export…Examples:\n…$ mmgen export…\n…$ mmgen export…\n",
            err="",
        )
        for flag in ("--help", "-h")
    ),
    Row(
        "the commands are listed with export, and without its synonym", "mmgen --help", out="…export…", never=["report"]
    ),
    Row(
        "a page is made beside the journal: words, errors and commands",
        "mmgen export c.jsonl",
        out="c.html\n",
        err="",
        writes="c.html",
        tells={"c.html": ["A red cat on the grass.", "bad.png", "is not a picture", "mmgen caption ", "data:image/"]},
        files={"photos/cat.png": CAT, "photos/bad.png": "hello"},
        first=(JOURNAL,),
    ),
    Row(
        "a table has a row for each item, also for one that failed",
        "mmgen export c.jsonl -o table.csv",
        out="table.csv\n",
        err="",
        writes="table.csv",
        holds={
            "table.csv": "command,model,images,prompt,text,output,seed,seconds,error\r\n"
            "caption,demo,photos/bad.png,…,,,…,…,photos/bad.png is not a picture…\r\n"
            "caption,demo,photos/cat.png,…,A red cat on the grass.,,…,…,\r\n"
        },
        files={"photos/cat.png": CAT, "photos/bad.png": "hello"},
        first=(JOURNAL,),
    ),
    Row(
        "a table's cells are data as they are",
        "mmgen report printed.jsonl -o table.csv",
        out="table.csv\n",
        writes="table.csv",
        holds={"table.csv": '…\r\nask,,"é.png\n2.png",=1+1,"a ""b"", c\nd",,0,,\r\n'},
        files={"printed.jsonl": PRINTED},
    ),
    Row(
        "a data set names its pictures from its own folder",
        "mmgen export c.jsonl -o metadata.jsonl",
        out="metadata.jsonl\n",
        err="",
        writes="metadata.jsonl",
        records={"metadata.jsonl": [BOAT_LINE, CAT_LINE]},
        files=PHOTOS,
        first=(JOURNAL,),
    ),
    Row(
        "a data set may lie beside its pictures, and leaves out those that lie elsewhere, and what failed",
        "mmgen export c.jsonl -o photos/metadata.jsonl",
        out="photos/metadata.jsonl\n",
        says=["note: 1 left out…"],
        writes="photos/metadata.jsonl",
        records={"photos/metadata.jsonl": [BOAT_LINE | {"file_name": "boat.png"}]},
        files=PHOTOS | {"photos/bad.png": "hello", "other/cat.png": CAT},
        first=("mmgen caption photos/boat.png photos/bad.png other/cat.png --jsonl c.jsonl",),
    ),
    Row(
        "of what was drawn the prompt is the text",
        "mmgen export pictures/mmgen.jsonl -o pictures/metadata.jsonl",
        out="pictures/metadata.jsonl\n",
        err="",
        writes="pictures/metadata.jsonl",
        records={
            "pictures/metadata.jsonl": [
                {"file_name": "a-red-cat-7.png", "text": "a red cat"},
                {"file_name": "a-blue-boat-7.png", "text": "a blue boat"},
            ]
        },
        files=PROMPTS,
        first=("mmgen draw --prompts prompts.txt --seed 7 -o pictures/",),
    ),
    *(
        Row(f"an export {what}", f"mmgen export {words}", code=code, error=error, hint=hint, files=files)
        for what, words, code, error, hint, files in (
            ("overwrites nothing", "c.jsonl -o a.csv", 2, "a.csv exists", "choose", {"c.jsonl": "", "a.csv": "mine"}),
            (
                "is no folder",
                "c.jsonl -o a.csv -f",
                2,
                "a.csv is a folder",
                "name a file",
                {"c.jsonl": "", "a.csv/b": ""},
            ),
            ("leaves its journal", "c.jsonl -o c.jsonl -f", 2, "c.jsonl is the file", "choose", {"c.jsonl": "{}"}),
            (
                "has one of its endings",
                "c.jsonl -o a.png",
                2,
                "a.png is not a name for a page, a table or a data set",
                "end it in one of .html, .htm, .csv, .jsonl",
                {"c.jsonl": ""},
            ),
            ("has its folder", "c.jsonl -o no/a.csv", 1, "no such folder: no", "make it", {"c.jsonl": ""}),
            ("is made of records", "a.png -o a.csv", 1, "a.png: line 1 is not a record", "give a file", {"a.png": RED}),
        )
    ),
    Row(
        "an export overwrites by force",
        "mmgen export printed.jsonl -o a.csv -f",
        out="a.csv\n",
        writes="a.csv",
        files={"printed.jsonl": PRINTED, "a.csv": "mine"},
    ),
)

ROWS = EXPORTS

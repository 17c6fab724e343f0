"""Conversations: chat through a pipe with its commands, and ask with a history."""

from __future__ import annotations

from tests.contract.row import ABSENT, ANY, BOAT, CAT, RED, Row

TWO = {"cat.png": CAT, "boat.png": BOAT}
TALK = 'mmgen ask --image boat.png "what color is it?" --history talk.json'
ASKED = {
    "role": "user",
    "content": [{"type": "image", "path": "boat.png"}, {"type": "text", "text": "what color is it?"}],
}
SAID = {"role": "assistant", "content": [{"type": "text", "text": "Red."}]}

PIPE = (
    Row(
        "a pipe is answered line by line, without prompts",
        "mmgen chat --image cat.png",
        stdin="what color is it?\n\nwhat color is it?\n",
        out="Red.\n…\n",
        files={"cat.png": CAT},
        never=["> "],
    ),
    Row("a chat without a line is no failure", "mmgen chat -q", stdin="", err=""),
    Row("a chat is over at its end", "mmgen chat", stdin="/quit\nwhat is a snowman?\n"),
    Row(
        "the last line needs no end",
        "mmgen chat --image cat.png",
        stdin="what color is it?",
        out="Red.\n",
        files={"cat.png": CAT},
    ),
    Row(
        "/image shows a picture",
        "mmgen chat",
        stdin="/image cat.png\nwhat color is it?\n",
        out="Red.\n",
        files={"cat.png": CAT},
    ),
    Row(
        "/draw draws a picture and shows it",
        "mmgen chat --seed 7",
        stdin="/draw a red cat on the grass\nwhat color is it?\n",
        out="a-red-cat-on-the-grass-7.png\nRed.\n",
        writes="a-red-cat-on-the-grass-7.png",
        files={"cat.png": CAT},
        same=("cat.png", "a-red-cat-on-the-grass-7.png"),
    ),
    Row(
        "/draw overwrites nothing",
        "mmgen chat --seed 7",
        stdin="/draw a red cat\n",
        out="a-red-cat-7-2.png\n",
        writes="a-red-cat-7-2.png",
        files={"a-red-cat-7.png": "mine"},
    ),
    Row(
        "/vary draws the last picture anew, or changed",
        "mmgen chat --image cat.png --seed 7",
        stdin="/vary\n/vary make it blue\n",
        out="variation-7.png\nmake-it-blue-8.png\n",
        writes="variation-7.png make-it-blue-8.png",
        files={"cat.png": CAT},
    ),
    Row(
        "/undo takes back a picture",
        "mmgen chat",
        stdin="/image cat.png\n/image boat.png\n/undo\nwhat is it?\n",
        out="A cat.\n",
        says=["…boat.png…"],
        files=TWO,
    ),
    Row(
        "/undo takes back a question with its answer",
        "mmgen chat --image cat.png",
        stdin="what color is it?\n/undo\n/image boat.png\nwhat is it?\n",
        out="Red.\nA boat.\n",
        says=['…"what color is it?"…'],
        files=TWO,
    ),
    Row(
        "/save keeps a conversation as Markdown with its pictures",
        "mmgen chat --image cat.png",
        stdin="what color is it?\n/save story.md\n",
        out="Red.\n",
        says=["…story.md…"],
        writes="story.md story-1.png",
        holds={"story.md": "…(story-1.png)…what color is it?…Red.\n"},
        files={"cat.png": CAT},
        same=("cat.png", "story-1.png"),
    ),
    Row(
        "/save overwrites nothing",
        "mmgen chat --image cat.png",
        stdin="/save mine.md\n/save story.txt\n",
        code=1,
        error=["mine.md exists", "story.txt is not a name for Markdown"],
        files={"cat.png": CAT, "mine.md": "mine"},
    ),
    Row(
        "/help lists the commands",
        "mmgen chat",
        stdin="/help\n",
        says=[f"/{name}…" for name in ("image", "draw", "vary", "undo", "save", "help", "quit")],
    ),
    Row(
        "what is wrong ends no chat, and is told at its end",
        "mmgen chat --seed 1",
        stdin="/bogus\n/image none.png\n/image\n/draw\n/vary\n/undo\n/save\n/save story.md\ncat.png\n"
        "/image cat.png\nwhat color is it?\n",
        code=1,
        out="Red.\n",
        error=[
            "no command /bogus",
            "no such file: none.png",
            "no picture to show",
            "nothing to draw",
            "no picture to vary",
            "nothing to take back",
            "no file to save to",
            "nothing to save yet",
            "the prompt is the name of a file: cat.png",
        ],
        files={"cat.png": CAT},
    ),
    Row("a line of a chat is UTF-8", "mmgen chat", stdin=b"caf\xe9\n", code=1, error="a line is not UTF-8"),
    Row("a line may begin with a slash after a space", "mmgen chat", stdin=" /etc is what?\n", out="…\n"),
    Row(
        "a chat by chance has its seed noted",
        "mmgen chat --temperature 1",
        stdin="hello\n",
        out="…\n",
        says=["seed: …"],
    ),
    *(
        Row(f"a chat is refused from the start: {flags}", f"mmgen chat {flags} -m ./nowhere", code=code, error=error)
        for flags, code, error in (
            ("--image none.png", 1, "no such file: none.png"),
            ("--seed -1", 2, "the seed -1"),
            ("--temperature -1", 2, "temperature -1"),
        )
    ),
)

HISTORY = (
    Row(
        "a conversation is begun in a file",
        TALK,
        out="Red.\n",
        writes="talk.json",
        holds={
            "talk.json": "[\n"
            '  {"role": "user", "content": [{"type": "image", "path": "boat.png"}, '
            '{"type": "text", "text": "what color is it?"}]},\n'
            '  {"role": "assistant", "content": [{"type": "text", "text": "Red."}]}\n]\n'
        },
        files=TWO,
    ),
    Row(
        "a conversation goes on, and what was said stays as it was",
        'mmgen ask "is it a car?" --history talk.json',
        out="…\n",
        writes="talk.json",
        holds={
            "talk.json": '[ {"role":"user", "content":"hello"},\n{"role": "assistant", "content": "Hi."},\n'
            '  {"role": "user", "content": [{"type": "text", "text": "is it a car?"}]},\n'
            '  {"role": "assistant", "content": [{"type": "text", "text": "…"}]}\n]\n'
        },
        files={"talk.json": '[ {"role":"user", "content":"hello"},\n{"role": "assistant", "content": "Hi."} ]\n'},
    ),
    Row(
        "a question that waits in a file is answered",
        "mmgen ask --history talk.json --json",
        records={"-": [{"text": "Red.", "error": ABSENT, "prompt": ANY}]},
        writes="talk.json",
        files={
            "cat.png": CAT,
            "talk.json": '[{"role": "user", "content": [{"type": "image", "path": "cat.png"}, '
            '{"type": "text", "text": "what color is it?"}]}]',
        },
    ),
    *(
        Row(f"a history {what}", f"mmgen ask {words} -m ./nowhere", code=code, error=error, files=files)
        for what, words, code, error, files in (
            ("is JSON", "hello --history talk.json", 1, "talk.json is not JSON", {"talk.json": "hello"}),
            ("is a list", "hello --history talk.json", 1, "talk.json is not a list of messages", {"talk.json": "{}"}),
            (
                "begins with the user",
                "hello --history talk.json",
                1,
                "talk.json: message 1 has the role",
                {"talk.json": '[{"role": "assistant", "content": "a"}]'},
            ),
            (
                "has pictures that are there",
                "hello --history talk.json",
                1,
                "talk.json: message 1: no such file: none.png",
                {"talk.json": '[{"role": "user", "content": [{"type": "image", "path": "none.png"}]}]'},
            ),
            (
                "that waits takes no other question",
                "hello --history talk.json",
                2,
                "talk.json ends in a question of its own",
                {"talk.json": '[{"role": "user", "content": "a"}]'},
            ),
            ("is a file", "hello --history -", 2, "a conversation is read and written", {}),
            ("is no batch", "hello --history talk.json --jsonl a.jsonl", 2, "a conversation is no batch", {}),
            ("is not continued as text", "hello --history talk.json --complete", 2, "--complete and --history", {}),
            ("lies in a folder that is there", "hello --history none/talk.json", 1, "no such folder", {"a.png": RED}),
        )
    ),
)

ROWS = (*PIPE, *HISTORY)

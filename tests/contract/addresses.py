"""A model behind an address, and one that stays loaded: what is refused before anything is asked or started."""

from __future__ import annotations

from tests.contract.row import Row, png

NOWHERE = "--endpoint http://127.0.0.1:9"  # where nobody listens

ROWS = (
    Row(
        "an endpoint is an http(s) address",
        "mmgen ask 'why?' --endpoint ftp://somewhere",
        code=2,
        error="the endpoint is no http(s) address",
        hint="as in --endpoint http://127.0.0.1:8686",
    ),
    Row(
        "where nobody listens, that is said in a line",
        f"mmgen ask 'why?' {NOWHERE}",
        code=1,
        error="cannot reach http://127.0.0.1:9: ",
        hint="start it (mmgen serve), or check the address",
    ),
    Row(
        "how a model is loaded is up to its server",
        f"mmgen draw 'a cat' -o cat.png --quantize 4bit {NOWHERE}",
        code=2,
        error="--quantize is up to the server behind --endpoint",
        hint="leave it out",
    ),
    Row(
        "a server has its model, and none is kept beside it",
        f"mmgen draw 'a cat' -o cat.png --keep-alive 5m {NOWHERE}",
        code=2,
        error="--endpoint has the model already",
        hint="leave one out",
    ),
    Row(
        "how long a model is kept is a time",
        "mmgen caption . --keep-alive forever",
        code=2,
        files={"a.png": png("red", (8, 8))},
        error="--keep-alive forever is no time",
        hint="as in 90s, 10m or 1h",
    ),
    Row(
        "a server for others wants a key",
        "mmgen serve --host 0.0.0.0",
        code=2,
        error="whoever reaches 0.0.0.0 could use this model",
        hint="set a key with --api-key, or say --insecure",
    ),
)

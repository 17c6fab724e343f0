"""`mmgen serve`, asked by real clients: the openai package, curl, llm, and mmgen itself."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image

import mmgen
from mmgen import tasks
from mmgen.model import Model
from mmgen.request import Done, Picture, Progress
from mmgen.serve.guard import Rules
from tests.support.scripted import Scripted, run
from tests.support.serving import Running, serving

PHOTO = Path(__file__).parents[2] / "photo.jpg"


@pytest.fixture(scope="module")
def demo() -> Iterator[Model]:
    with mmgen.load("demo") as model:
        yield model


@pytest.fixture(scope="module")
def served(demo: Model) -> Iterator[Running]:
    with serving(demo) as server:
        yield server


@pytest.fixture(scope="module")
def snowman(demo: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "snowman.png"
    mmgen.draw(demo, "a white snowman", seed=7)[0].save(path)
    return path


@pytest.fixture
def client(served: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key="none", max_retries=0) as client:
        yield client


def address_of(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def about(path: Path, words: str) -> list[Any]:
    image = {"type": "image_url", "image_url": {"url": address_of(path)}}
    return [{"role": "user", "content": [image, {"type": "text", "text": words}]}]


def opened(data: str | None) -> Image.Image:
    assert data is not None
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return image.convert("RGB")


# --- the openai package --------------------------------------------------------------------------------------------


def test_openai_asks_about_a_picture(client: openai.OpenAI, demo: Model, snowman: Path) -> None:
    question = "what color is it?"
    said = client.chat.completions.create(model="demo", messages=about(snowman, question))
    assert said.choices[0].message.content == mmgen.ask(demo, question, snowman)
    assert said.choices[0].finish_reason == "stop"
    assert said.usage is not None
    assert said.usage.prompt_tokens > 64  # of which the picture has most
    assert 0 < said.usage.completion_tokens < 10


def test_openai_hears_words_as_they_come(client: openai.OpenAI, demo: Model, snowman: Path) -> None:
    stream = client.chat.completions.create(
        model="demo", messages=about(snowman, "Describe this picture."), stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    words = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(words) == mmgen.caption(demo, snowman)
    assert sum(map(bool, words)) > 2
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 2


def test_openai_draws(client: openai.OpenAI, demo: Model) -> None:
    made = client.images.generate(model="demo", prompt="a snowman", n=2, extra_body={"seed": 7})
    assert made.data is not None
    pictures = mmgen.draw(demo, "a snowman", n=2, seed=7)
    assert [opened(each.b64_json).tobytes() for each in made.data] == [each.image.tobytes() for each in pictures]


def test_openai_sees_a_picture_grow(client: openai.OpenAI) -> None:
    stream = client.images.generate(model="demo", prompt="a snowman", stream=True, partial_images=3)
    events = list(stream)
    assert [event.type for event in events] == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    whole = opened(events[-1].b64_json)
    assert all(opened(event.b64_json).size == whole.size for event in events)
    with Image.open(io.BytesIO(base64.b64decode(events[0].b64_json))) as first:
        assert first.has_transparency_data  # below what is finished


@pytest.mark.parametrize("fields", [{}, {"strength": 0.5}])
def test_openai_edits(client: openai.OpenAI, demo: Model, snowman: Path, fields: dict[str, float]) -> None:
    made = client.images.edit(
        model="demo", image=snowman.open("rb"), prompt="a blue snowman", extra_body={"seed": 3, **fields}
    )
    assert made.data is not None
    (same,) = mmgen.vary(demo, snowman, "a blue snowman", seed=3, **fields)  # type: ignore[arg-type]  # a share
    assert opened(made.data[0].b64_json).tobytes() == same.image.tobytes()


def test_openai_draws_what_is_transparent_in_a_mask_anew(client: openai.OpenAI, demo: Model, snowman: Path) -> None:
    with Image.open(snowman) as image:
        size = image.size
    hole, white = Image.new("RGBA", size, "black"), Image.new("L", size, 0)
    top = (0, 0, size[0], size[1] // 2)
    hole.paste((0, 0, 0, 0), top)
    white.paste(255, top)
    file = io.BytesIO()
    hole.save(file, "PNG")
    made = client.images.edit(
        model="demo", image=snowman.open("rb"), mask=("mask.png", file.getvalue()), prompt="a red snowman",
        extra_body={"seed": 3},
    )  # fmt: skip
    assert made.data is not None
    (same,) = mmgen.vary(demo, snowman, "a red snowman", seed=3, mask=white)
    assert opened(made.data[0].b64_json).tobytes() == same.image.tobytes()


def test_openai_sees_an_edit_grow(client: openai.OpenAI, snowman: Path) -> None:
    stream = client.images.edit(
        model="demo", image=snowman.open("rb"), prompt="make it blue", stream=True, partial_images=1
    )
    assert [event.type for event in stream] == ["image_edit.partial_image", "image_edit.completed"]


def test_openai_varies(client: openai.OpenAI, snowman: Path) -> None:
    made = client.images.create_variation(model="demo", image=snowman.open("rb"), n=2)
    assert made.data is not None
    assert len({each.b64_json for each in made.data}) == 2


def test_openai_gets_words_and_pictures(client: openai.OpenAI, demo: Model) -> None:
    prompt = "Can you draw a snowman and explain how to build one?"
    said = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": prompt}], seed=4,
        extra_body={"modalities": ["text", "image"]},
    ).choices[0].message  # fmt: skip
    pieces = list(mmgen.interleave(demo, prompt, seed=4))
    assert said.content == "".join(piece for piece in pieces if isinstance(piece, str))
    images = said.images  # type: ignore[attr-defined]  # which the package passes on
    assert len(images) == sum(isinstance(piece, Picture) for piece in pieces) > 0


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (openai.NotFoundError, {"model": "gpt-9"}),
        (openai.BadRequestError, {"messages": []}),
        (openai.BadRequestError, {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        (openai.BadRequestError, {"logprobs": True}),
        (openai.BadRequestError, {"temperature": -1}),
        (openai.BadRequestError, {"messages": [{"role": "user", "content": "long " * 5000}]}),
        (openai.BadRequestError, {"response_format": {"type": "json_object"}}),
        (openai.BadRequestError, {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 5}}}}),
        (openai.BadRequestError, {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": ""}]}),
    ],
)
def test_openai_raises_its_own_errors(client: openai.OpenAI, error: type[Exception], fields: dict[str, Any]) -> None:
    body: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "why?"}], **fields}
    with pytest.raises(error) as raised:
        client.chat.completions.create(**body)
    assert isinstance(raised.value, openai.APIStatusError)
    said = raised.value.body
    assert isinstance(said, dict)
    assert said["type"] in ("invalid_request_error", "not_found_error")
    assert said["message"]
    with pytest.raises(error):
        list(client.chat.completions.create(**body, stream=True))


def test_what_is_refused_is_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "a"}], presence_penalty=1.0)
    assert raised.value.param == "presence_penalty"
    assert "presence_penalty" in raised.value.message


def test_what_asks_for_nothing_is_no_matter(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "a"}], presence_penalty=0.0, logprobs=False, tools=[],
        user="me", max_completion_tokens=3, extra_body={"n": None, "stop": None, "temperature": None},
    )  # fmt: skip
    assert said.usage is not None
    assert said.usage.completion_tokens <= 3


def test_messages_in_a_row_of_one_role_are_one_turn() -> None:
    model = Scripted()
    with serving(model) as server, openai.OpenAI(base_url=f"{server.address}/v1", api_key="none") as client:
        said = [("system", "a"), ("developer", "b"), ("user", "c"), ("user", "d"), ("assistant", "e"), ("user", "f")]
        messages: Any = [{"role": role, "content": words} for role, words in said]
        client.chat.completions.create(model="demo", messages=messages)
    (request,) = model.requests
    assert [(turn.role, turn.parts) for turn in request.turns] == [
        ("system", ("a", "b")), ("user", ("c", "d")), ("assistant", ("e",)), ("user", ("f",))
    ]  # fmt: skip


def test_an_answer_ends_before_a_stop_word(served: Running) -> None:
    model = Scripted(scripts=[["A wh", "ite sn", "owman."], ["A wh", "ite sn", "owman."], ["A wh", "ite snow."]])
    with serving(model) as server, openai.OpenAI(base_url=f"{server.address}/v1", api_key="none") as client:

        def said(*stops: str, stream: bool) -> str:
            messages: Any = [{"role": "user", "content": "a"}]
            if stream:
                chunks = client.chat.completions.create(model="demo", messages=messages, stop=list(stops), stream=True)
                return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            whole = client.chat.completions.create(model="demo", messages=messages, stop=list(stops))
            return str(whole.choices[0].message.content)

        assert said("snowman", "x", stream=True) == "A white "
        assert said("now", stream=False) == "A white s"
        assert said("snowman", stream=True) == "A white snow."  # held back, and not a stop word after all


# --- others --------------------------------------------------------------------------------------------------------


def test_curl_draws_and_asks(served: Running, snowman: Path, tmp_path: Path) -> None:
    def curl(*arguments: str) -> Any:
        done = subprocess.run(["curl", "-sS", "--fail-with-body", *arguments], check=True, capture_output=True)
        return json.loads(done.stdout)

    made = curl(f"{served.address}/v1/images/generations", "--json", '{"prompt": "a red cat", "seed": 1}')
    opened(made["data"][0]["b64_json"])
    made = curl(
        f"{served.address}/v1/images/edits", "-F", f"image=@{snowman}", "-F", "prompt=make it blue", "-F", "seed=1"
    )
    opened(made["data"][0]["b64_json"])
    (tmp_path / "body.json").write_text(json.dumps({"messages": about(snowman, "what color is it?")}))
    said = curl(f"{served.address}/v1/chat/completions", "--json", f"@{tmp_path / 'body.json'}")
    assert said["choices"][0]["message"]["content"] == "White."


def test_llm_asks_about_a_picture(served: Running, demo: Model, snowman: Path, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: mmgen\n  model_name: demo\n  api_base: {served.address}/v1\n  vision: true\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "mmgen", "what color is it?", "-a", str(snowman)],
        env={**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    words_first = mmgen.ask(demo, "what color is it?<image>", snowman)
    assert (done.returncode, done.stdout.strip()) == (0, words_first), done.stderr


def test_the_server_tells_what_it_serves_and_counts(served: Running, client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == "demo"
    import urllib.request

    with urllib.request.urlopen(f"{served.address}/health") as health:
        assert json.load(health) == {"status": "ok"}
    client.images.generate(model="demo", prompt="a cat")
    with urllib.request.urlopen(f"{served.address}/metrics") as metrics:
        text = metrics.read().decode()
    assert 'mmgen_requests_total{path="/v1/images/generations",status="200"}' in text
    for name in ("tokens_total", "pictures_total", "passes_total", "waiting", "under_way"):
        assert f"mmgen_{name} " in text


# --- the same as alone ---------------------------------------------------------------------------------------------

COMMANDS = [
    ["draw", "a red cat", "-n", "3", "--seed", "5", "-o", "cat.png"],
    ["draw", "a red cat", "--seed", "5", "--temperature", "0.9", "--top-p", "0.8", "--guidance", "2", "-o", "a.jpg"],
    ["draw", "a blue cat", "-n", "2", "--best-of", "3", "--seed", "5", "-o", "best.png"],
    ["vary", "snowman.png", "make it blue", "--seed", "3", "-o", "blue.png"],
    ["vary", "snowman.png", "a blue snowman", "--strength", "0.5", "--seed", "3", "-o", "b.webp"],
    ["vary", "snowman.png", "--keep", "40%", "--seed", "3", "-o", "kept.png"],
    ["interleave", "Can you draw a snowman and explain how to build one?", "--seed", "4", "-o", "story"],
    [
        "interleave",
        "Tell a story about <image>",
        "--image",
        "snowman.png",
        "--image-temperature",
        "0.6",
        "--seed",
        "4",
        "-o",
        "t",
    ],
    ["ask", "what color is it?", "--image", "snowman.png"],
    ["ask", "what is it?", "--image", "snowman.png", "--temperature", "1", "--min-p", "0.05", "--seed", "2"],
    ["ask", "what color is it?", "--image", "snowman.png", "--choices", "white,red"],
    ["ask", "a red", "--complete", "--max-tokens", "6"],
    ["caption", "snowman.png", "--max-tokens", "4"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command))
def test_a_command_gives_through_the_server_what_it_gives_alone(
    served: Running, snowman: Path, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name, flags in {"alone": [], "served": ["--endpoint", served.address]}.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "snowman.png").write_bytes(snowman.read_bytes())
        monkeypatch.chdir(folder)
        result = run(*command, "-q", *flags)
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}
        found.append((result.code, result.out, result.err, files))
    assert found[0][0] == 0
    assert found[0] == found[1]


def test_beside_seven_other_clients_too(served: Running, demo: Model, snowman: Path, tmp_path: Path) -> None:
    (alone,) = mmgen.draw(demo, "a red cat", seed=5)
    words = mmgen.caption(demo, snowman)

    def draw(number: int) -> tuple[int, ...]:
        with mmgen.connect(served.address) as model:
            seed = 5 if number == 3 else 100 + number
            assert mmgen.caption(model, snowman) == words
            (picture,) = mmgen.draw(model, "a red cat", seed=seed)
            return (picture.codes or ()) if seed == 5 else ()

    with ThreadPoolExecutor(8) as clients:
        codes = list(clients.map(draw, range(8)))[3]
    assert codes == alone.codes


def test_a_conversation_goes_through_the_server(
    served: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = b"/draw a red cat\nwhat color is it?\n/vary make it blue\nwhat color is it?\n"
    said = []
    for name, flags in {"alone": [], "served": ["--endpoint", served.address]}.items():
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        said.append(run("chat", "--seed", "3", "-q", *flags, stdin=typed).out)
    assert said[0] == said[1]
    assert "ed" in said[0]
    alone = sorted(path.read_bytes() for path in (tmp_path / "alone").glob("*.png"))
    assert alone == sorted(path.read_bytes() for path in (tmp_path / "served").glob("*.png"))
    assert len(alone) == 2


def test_a_journal_goes_on_from_here_to_a_server_and_back(
    served: Running, snowman: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        with Image.open(snowman) as image:
            image.rotate(number).save(f"{number}.png")
    arguments = ["caption", ".", "--jsonl", "j.jsonl"]
    assert run(*arguments, "--limit", "2").code == 0
    assert run(*arguments, "--limit", "2", "--endpoint", served.address).code == 0
    assert run(*arguments).code == 0
    done = run(*arguments, "--endpoint", served.address)
    assert "0 done, 6 skipped" in done.err
    assert len(Path("j.jsonl").read_text().splitlines()) == 6


def test_a_caption_does_not_wait_for_drawings(demo: Model, snowman: Path) -> None:
    """It comes while a picture of the drawings is still to come."""
    with serving(demo) as server, openai.OpenAI(base_url=f"{server.address}/v1", api_key="none") as client:
        drawn = threading.Event()

        def draw() -> None:
            client.images.generate(model="demo", prompt="a snowman", n=16)
            drawn.set()

        thread = threading.Thread(target=draw)
        thread.start()
        while server.scheduler.n_under_way < 16:
            time.sleep(0.005)
        client.chat.completions.create(model="demo", messages=about(snowman, "Describe this picture."))
        assert not drawn.is_set()
        thread.join()


# --- who may ask ---------------------------------------------------------------------------------------------------


def test_a_key_is_asked_for(tmp_path: Path) -> None:
    with serving(Scripted(), Rules(key="sk-right", hosts=None)) as server:
        for key in ("none", "sk-wrong", "sk-righ", ""):
            wrong_key = openai.OpenAI(base_url=f"{server.address}/v1", api_key=key or "x", max_retries=0)
            with wrong_key as client, pytest.raises(openai.AuthenticationError):
                client.models.list()
        assert run("ask", "why?", "--endpoint", server.address).code == 1
        wrong = run("ask", "why?", "--endpoint", server.address, MMGEN_API_KEY="sk-wrong")
        assert "the API key is missing or wrong" in wrong.err
        assert run("ask", "why?", "--endpoint", server.address, MMGEN_API_KEY="sk-right").out == "A snowman.\n"
        assert run("ask", "why?", "--endpoint", server.address, OPENAI_API_KEY="sk-right").out == "A snowman.\n"
        assert not any("sk-" in line for line in server.lines)


def test_whoever_watches_hears_how_far_a_picture_is(served: Running) -> None:
    with mmgen.connect(served.address) as model:
        seen = [type(piece) for piece in model.reply(tasks.draw("a cat", seed=1))]
    assert seen.count(Progress) > 3
    assert seen[-1] is Picture
    assert Done not in seen

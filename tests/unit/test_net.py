"""Whatever is raised over one item is that item's error: its row says so, and all others are done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration

from mmgen.errors import MmgenError
from mmgen.families.chameleon import Chameleon
from mmgen.outputs import records
from mmgen.request import Done, Piece, Request
from tests.support.many_types import build
from tests.support.scripted import Result, Scripted, install, run

BAD = (13, 13)  # the size of the picture over which things fail
FAILURES = [
    RuntimeError("shapes"),
    KeyError("thw"),
    MemoryError(),
    IndexError("index"),
    TypeError("no len"),
    LookupError(),
]


class InGroups(Scripted):
    """Takes all that waits before it answers any, and fails as a whole where the bad picture is among them."""

    def __init__(self, failure: Exception, answered: int = 0) -> None:
        super().__init__()
        self.failure, self.answered, self.sizes = failure, answered, [(0, 0)][:0]

    def replies(self, requests: Iterable[Request | None]) -> Iterator[tuple[int, Piece | Done | MmgenError]]:
        number = 0
        for group in gathered(requests):
            bad = [request.images[0].size for request in group].count(BAD)
            for request in group[: self.answered] if bad else group:
                if request.images[0].size == BAD:
                    break
                self.sizes.append(request.images[0].size)
                yield number, "half "
                yield number, "whole"
                yield number, Done()
                number += 1
            if bad:
                yield number, "half"
                raise self.failure


def gathered(requests: Iterable[Request | None]) -> Iterator[list[Request]]:
    group: list[Request] = []
    for request in requests:
        if request is not None:
            group.append(request)
        elif group:
            yield group
            group = []
    if group:
        yield group


@pytest.fixture
def photos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Twenty pictures, of which two are bad."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number in range(20):
        Image.new("RGB", BAD if number in (3, 17) else (20 + number, 20), (number * 9, 90, 20)).save(
            f"photos/{number:02}.png"
        )
    return [f"photos/{number:02}.png" for number in range(20)]


def check(done: Result, photos: list[str], *words: str) -> None:
    """Each picture has its row, in order; exactly the two bad ones are errors, which say so."""
    found = [json.loads(line) for line in Path("j.jsonl").read_text().splitlines()]
    assert [record["image"] for record in found] == photos
    assert [record["image"] for record in found if "error" in record] == [photos[3], photos[17]]
    assert all("error" in record or "text" in record for record in found)
    for record in (found[3], found[17]):
        for word in (record["image"], *words):
            assert word in record["error"]
    assert done.code == 1
    assert "18 done, 0 skipped, 2 failed" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("answered", [0, 2])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_model_that_fails_over_one_of_a_group_answers_the_others(
    monkeypatch: pytest.MonkeyPatch, photos: list[str], failure: Exception, answered: int
) -> None:
    model = InGroups(failure, answered)
    install(monkeypatch, model)
    done = run("caption", "photos", "--jsonl", "j.jsonl")
    check(done, photos, *([] if isinstance(failure, MemoryError) else [type(failure).__name__, "unit/test_net.py:"]))
    assert "whole" in Path("j.jsonl").read_text()
    assert "half half" not in Path("j.jsonl").read_text()
    assert len(model.sizes) == len(set(model.sizes)) == 18
    if not isinstance(failure, MemoryError):
        assert done.err.count("please report") == 2


def test_a_reader_that_fails_over_one_picture_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, photos: list[str]
) -> None:
    install(monkeypatch)
    opened = records.Item.open

    def fail(item: records.Item, strict: bool = False, reads: bool = True) -> Request:
        request = opened(item, strict, reads)
        if request.images[0].size == BAD:
            raise KeyError("odd")
        return request

    monkeypatch.setattr(records.Item, "open", fail)
    check(run("caption", "photos", "--jsonl", "j.jsonl"), photos, "KeyError")


def test_one_picture_alone_has_its_error_in_a_line_and_its_traceback_if_asked_for(
    monkeypatch: pytest.MonkeyPatch, photos: list[str]
) -> None:
    install(monkeypatch, InGroups(KeyError("odd")))
    done = run("caption", photos[3])
    assert (done.code, done.out) == (1, "half\n")
    assert done.err.startswith(f"error: {photos[3]}: KeyError in unit/test_net.py:")
    assert "Traceback" not in done.err
    assert "Traceback" in run("caption", photos[3], MMGEN_DEBUG="1").err


def test_a_bug_in_the_list_of_items_is_no_items_error(monkeypatch: pytest.MonkeyPatch, photos: list[str]) -> None:
    install(monkeypatch, InGroups(KeyError("odd")))

    def broken(*_: Any) -> Iterator[Any]:
        raise ZeroDivisionError
        yield

    monkeypatch.setattr("mmgen.cli.arguments.Command.of_pictures", broken)
    with pytest.raises(ZeroDivisionError):
        run("caption", "photos", "--jsonl", "j.jsonl")


# --- real models ---------------------------------------------------------------------------------------------------


def failing_over_the_bad(method: Callable[..., Any], failure: Exception) -> Callable[..., Any]:
    """Make a method fail where the bad picture is among its arguments, wherever that is."""

    def fail(self: Any, images: Any, *arguments: Any, **more: Any) -> Any:
        if BAD in [image.size for image in flat(images)]:
            raise failure
        return method(self, images, *arguments, **more)

    return fail


def flat(images: Any) -> Iterator[Image.Image]:
    if isinstance(images, Image.Image):
        yield images
    else:
        for each in images:
            yield from flat(each)


@pytest.mark.parametrize("failure", [RuntimeError("shapes"), KeyError("thw"), MemoryError()], ids=repr)
def test_a_processor_that_fails_over_one_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, photos: list[str], failure: Exception
) -> None:
    folder = build("llava", tmp_path / "llava")
    real = CLIPImageProcessorPil.preprocess
    monkeypatch.setattr(CLIPImageProcessorPil, "preprocess", failing_over_the_bad(real, failure))
    done = run("caption", "photos", "--jsonl", "j.jsonl", "-m", str(folder), "--max-tokens", "4", "--device-map", "cpu")
    check(done, photos)


def test_generate_that_fails_over_one_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, photos: list[str]
) -> None:
    folder = build("llava", tmp_path / "llava")
    generate = LlavaForConditionalGeneration.generate
    Image.new("RGB", BAD, "white").save(photos[3])
    Image.new("RGB", BAD, "white").save(photos[17])

    def fail(self: Any, **inputs: Any) -> Any:
        if (inputs["pixel_values"].flatten(1).amin(1) > 1.5).any():  # white, normalised
            raise IndexError("index 7 is out of bounds")
        return generate(self, **inputs)

    monkeypatch.setattr(LlavaForConditionalGeneration, "generate", fail)
    done = run("caption", "photos", "--jsonl", "j.jsonl", "-m", str(folder), "--max-tokens", "4", "--device-map", "cpu")
    check(done, photos, "IndexError")


def test_our_own_loops_that_fail_over_one_picture(monkeypatch: pytest.MonkeyPatch, photos: list[str]) -> None:
    monkeypatch.setattr(Chameleon, "encode", failing_over_the_bad(Chameleon.encode, KeyError("thw")))
    check(run("caption", "photos", "--jsonl", "j.jsonl"), photos, "KeyError")

"""One way in for all lists of text, one way out for all files beside pictures."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from PIL import Image

from mmgen.request import Request
from tests.support.scripted import Scripted, install, run


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    """A model that answers in two lines, in a folder with pictures."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (8, 8)).save(f"photos/{name}")
    return install(monkeypatch, Scripted(scripts=[["A cat.\nA dog."] for _ in range(9)]))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("length", [2, 70_000])
def test_a_list_of_prompts_is_read_by_its_mark(model: Scripted, encoding: str, length: int) -> None:
    mark = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}.get(encoding, b"")
    prompts = ["a réd 🐈 " + "x" * length, "a blue boat"]
    Path("list.txt").write_bytes(mark + "\r\n".join(prompts).encode(encoding))
    assert run("ask", "--prompts", "list.txt").code == 0
    assert [request.parts for request in model.requests] == [(prompt,) for prompt in prompts]


def test_a_list_of_names_is_read_by_its_mark(model: Scripted) -> None:
    Path("list.txt").write_bytes(codecs.BOM_UTF16_LE + "photos/a.png\r\nphotos/b.png\r\n".encode("utf-16-le"))
    assert run("caption", "--files-from", "list.txt").out.startswith("photos/a.png\t")


def test_a_list_without_its_mark_is_refused_line_by_line(model: Scripted) -> None:
    Path("list.txt").write_bytes("a cat\r\na dog\r\n".encode("utf-16-le"))
    result = run("draw", "--prompts", "list.txt", "-o", "out/")
    assert result.code == 1
    assert "it has NULs in it" in result.err
    assert not model.requests


@pytest.mark.parametrize(("flags", "held"), [([], "A cat. A dog.\n"), (["--multiline"], "A cat.\nA dog.\n")])
def test_a_sidecar_is_one_line_unless_asked_otherwise(model: Scripted, flags: list[str], held: str) -> None:
    assert run("caption", "photos/a.png", "--sidecar", *flags).code == 0
    assert Path("photos/a.txt").read_text() == held


def test_lines_are_put_back_from_the_journal_without_a_model(model: Scripted) -> None:
    batch = ["caption", "photos", "--sidecar", "--jsonl", "j.jsonl"]
    run(*batch)
    n_asked = len(model.requests)
    assert run(*batch, "--multiline").code == 0
    assert len(model.requests) == n_asked
    assert Path("photos/b.txt").read_text() == "A cat.\nA dog.\n"


def test_a_sidecar_that_was_written_meanwhile_is_left(model: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = model.answer

    def slowly(request: Request) -> object:
        Path("photos/b.txt").write_text("by hand\n")
        return answer(request)

    monkeypatch.setattr(model, "answer", slowly)
    result = run("caption", "photos", "--sidecar")
    assert (result.code, Path("photos/b.txt").read_text()) == (1, "by hand\n")
    assert "photos/b.txt was written meanwhile, and is left" in result.err
    assert Path("photos/c.txt").read_text() == "A cat. A dog.\n"


def test_sidecars_that_cannot_be_made_are_known_before_anything_is_captioned(model: Scripted) -> None:
    Path("file").write_text("no folder")
    result = run("caption", "photos", "--sidecar", "--outdir", "file/below")
    assert (result.code, result.err.count("error:"), model.requests) == (1, 1, [])


def test_a_name_with_a_newline_in_it_stays_on_its_line(model: Scripted) -> None:
    Path("photos/a.png").rename("photos/a\nb\t.png")
    out = run("caption", "photos").out
    assert [line.split("\t")[0] for line in out.splitlines()] == ["photos/a?b?.png", "photos/b.png", "photos/c.png"]

"""Batches of many rows: an index in little memory, records read from several files, tables and archives."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmgen.errors import MmgenError
from mmgen.outputs.index import Index
from mmgen.outputs.reading import Records
from tests.support.scripted import Scripted, install, run


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1) | st.integers(-20, 20), st.integers(0, 2**60))))
def test_an_index_finds_what_a_dict_finds(pairs: list[tuple[int, int]]) -> None:
    index, expected = Index(), dict[int, int]()
    for key, value in pairs:
        index.put(key or 1, value)
        expected[key or 1] = value
    for key in [key for key, _ in pairs] + list(range(-25, 25)):
        assert index.get(key or 1) == expected.get(key or 1)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    monkeypatch.chdir(tmp_path)
    return install(monkeypatch)


def captioned(n: int) -> list[str]:
    """Caption pictures in two shards; give the journals."""
    Path("in").mkdir()
    for number in range(n):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(f"in/{number:03d}.png")
    for shard in ("1/2", "2/2"):
        assert run("caption", "in", "--jsonl", f"{shard[0]}.jsonl", "--shard", shard, "--seed", "3").code == 0
    return ["1.jsonl", "2.jsonl"]


def test_the_journals_of_several_shards_are_one(model: Scripted) -> None:
    journals = captioned(20)
    records = Records(*journals)
    assert len(records) == 20
    assert sorted(str(record["image"]) for record in records) == [f"in/{number:03d}.png" for number in range(20)]
    assert [*records] == [records[number] for number in range(20)]
    assert run("export", *journals, "-o", "in/metadata.jsonl").code == 0
    assert len(Path("in/metadata.jsonl").read_text().splitlines()) == 20
    Path("both.jsonl").write_bytes(b"".join(Path(each).read_bytes() for each in journals))
    assert [*Records("both.jsonl")] == [*records]


def test_of_an_item_in_two_files_the_last_record_counts(model: Scripted) -> None:
    captioned(3)
    first = json.loads(Path("1.jsonl").read_text().splitlines()[0])
    Path("again.jsonl").write_text(json.dumps({**first, "text": "Another."}) + "\n")
    texts = [record["text"] for record in Records("1.jsonl", "2.jsonl", "again.jsonl")]
    assert len(texts) == 3
    assert texts[-1] == "Another."


def test_a_damaged_record_of_a_journal_is_said(model: Scripted) -> None:
    captioned(2)
    line = Path("1.jsonl").read_bytes() or Path("2.jsonl").read_bytes()
    Path("bad.jsonl").write_bytes(line.splitlines()[0].replace(b'"model"', b"model") + b"\n")
    with pytest.raises(MmgenError, match=r"bad\.jsonl"):
        list(Records("bad.jsonl"))


def test_a_table_has_a_row_of_each_item(model: Scripted) -> None:
    Path("bad.png").write_bytes(b"none")
    journals = captioned(5)
    assert run("caption", "bad.png", "in/000.png", "--jsonl", "more.jsonl").code == 1
    assert run("export", *journals, "more.jsonl", "-o", "table.parquet").code == 0
    rows = pq.read_table("table.parquet").to_pylist()
    assert len(rows) == 6
    assert {row["path"]: row["text"] for row in rows if row["error"] is None} == {
        f"in/{number:03d}.png": "A snowman." for number in range(5)
    }
    (bad,) = [row for row in rows if row["error"] is not None]
    assert bad["path"] == "bad.png"
    assert bad["text"] is None
    assert all(len(row["key"]) == 32 and row["model"] == "demo" for row in rows)


def image_bytes(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["bytes", "feature", "path", "feature with paths"])
def test_the_pictures_of_a_table_are_called_by_their_keys(model: Scripted, kind: str) -> None:
    Path("in").mkdir()
    data = [image_bytes("red"), image_bytes("blue")]
    for number, each in enumerate(data):
        Path(f"in/{number}.png").write_bytes(each)
    paths = [f"{number}.png" for number in range(2)]
    cells: list[object] = {
        "bytes": data,
        "feature": [{"bytes": each, "path": "x.png"} for each in data],
        "path": paths,
        "feature with paths": [{"bytes": None, "path": each} for each in paths],
    }[kind]  # type: ignore[assignment]  # one of them
    table = pa.table({"image": cells, "id": ["one", "../two"], "ask": ["what?", None]})
    pq.write_table(table, "in/t.parquet")
    result = run("caption", "in/t.parquet", "--key-column", "id", "--prompt-column", "ask", "--prompt", "else?")
    assert result.code == 0, result.err
    assert [line.partition("\t")[0] for line in result.out.splitlines()] == ["in/t.parquet/one", "in/t.parquet/../two"]
    assert [request.parts[-1] for request in model.requests] == ["what?", "else?"]
    assert [request.images[0].getpixel((0, 0)) for request in model.requests] == [(255, 0, 0), (0, 0, 255)]
    out = run("caption", "in/t.parquet", "--key-column", "id", "--sidecar", "--outdir", "out")
    assert out.code == 0, out.err
    assert sorted(str(path) for path in Path("out").rglob("*.txt")) == ["out/2.txt", "out/one.txt"]


def test_other_tables_are_said_in_a_line_and_bad_cells_in_their_row(model: Scripted) -> None:
    pq.write_table(pa.table({"name": ["a"]}), "none.parquet")
    pq.write_table(pa.table({"png": [image_bytes("red"), b"none", None]}), "some.parquet")
    Path("broken.parquet").write_bytes(b"PAR1 none")
    for arguments, says in (
        (["none.parquet"], "none.parquet has no column of pictures"),
        (["none.parquet", "--image-column", "image"], "none.parquet has no column image"),
        (["broken.parquet"], "broken.parquet is broken"),
    ):
        result = run("caption", *arguments)
        assert result.code == 1
        assert says in result.err
    result = run("caption", "some.parquet")
    assert result.out == "some.parquet/1\tA snowman.\n"
    assert "some.parquet/2 is not a picture" in result.err
    assert "row 3 has no picture" in result.err


def test_an_archive_has_a_sample_of_each_item_and_can_be_read_again(model: Scripted) -> None:
    journals = captioned(4)
    Path("other").mkdir()
    Image.new("RGB", (8, 8), "white").save("other/000.png")
    assert run("caption", "other", "--jsonl", "other.jsonl").code == 0
    assert run("export", *journals, "other.jsonl", "-o", "out.tar").code == 0
    with tarfile.open("out.tar") as archive:
        names = archive.getnames()
        texts = {name: archive.extractfile(name).read() for name in names if name.endswith(".txt")}  # type: ignore[union-attr]
    stems = sorted({name.partition(".")[0] for name in names})
    assert stems == ["000", "000-2", "001", "002", "003"]
    assert sorted(names) == sorted(f"{stem}{ending}" for stem in stems for ending in (".json", ".png", ".txt"))
    assert set(texts.values()) == {b"A snowman."}
    model.requests.clear()
    assert run("caption", "out.tar", "--prompt", "not {caption}").code == 0
    assert [request.parts[-1] for request in model.requests] == ["not A snowman."] * 5


def test_a_batch_of_an_archive_is_exported_with_its_words(model: Scripted) -> None:
    captioned(4)
    assert run("export", "1.jsonl", "2.jsonl", "-o", "out.tar").code == 0
    assert run("caption", "out.tar", "--jsonl", "again.jsonl").code == 0
    assert run("export", "again.jsonl", "-o", "again.tar").code == 0
    with tarfile.open("again.tar") as archive:
        names = [f"{number:03d}{ending}" for number in range(4) for ending in (".json", ".txt")]
        assert sorted(archive.getnames()) == names  # the pictures themselves are in the other

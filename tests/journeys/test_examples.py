"""Every script of examples/, run on the built-in model."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.support.shell import run

EXAMPLES = Path(__file__).parents[2] / "examples"
TESTED = {"caption-folder.sh", "draw-list.sh", "ask-all.sh", "picture-book.sh", "slurm-array.sh", "ray-two-machines.sh"}


def example(name: str, *arguments: str, folder: Path) -> str:
    """Run an example in a folder; return what it prints."""
    done = run([str(EXAMPLES / name), *arguments], folder)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what draw-list.sh makes of two prompts; tests copy from it."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "prompts.txt").write_text("a red cat on the grass\na blue boat at night\n")
    assert example("draw-list.sh", "prompts.txt", "pictures", folder=folder).split() == [
        "pictures/001.png",
        "pictures/002.png",
    ]
    return folder / "pictures"


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == TESTED


def test_draw_list_draws_a_picture_for_each_line(pictures: Path) -> None:
    for path in pictures.glob("*.png"):
        with Image.open(path) as image:
            assert image.size[0] >= 96
    assert example("draw-list.sh", "prompts.txt", "pictures", folder=pictures.parent) == ""  # all done before


def test_caption_folder_goes_on_where_it_stopped(pictures: Path, tmp_path: Path) -> None:
    for path in pictures.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "002.txt").write_text("Mine.\n")
    assert example("caption-folder.sh", ".", folder=tmp_path) == ""
    assert (tmp_path / "001.txt").read_text() == "A red cat on the grass.\n"
    assert (tmp_path / "002.txt").read_text() == "Mine.\n"


def test_caption_folder_tells_of_a_broken_picture(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    done = run([str(EXAMPLES / "caption-folder.sh"), "."], tmp_path)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert not (tmp_path / "broken.txt").exists()


def test_ask_all_answers_a_line_for_each_picture(pictures: Path) -> None:
    said = example("ask-all.sh", "what color is it?", "001.png", "002.png", folder=pictures)
    assert said == "001.png\tRed.\n002.png\tBlue.\n"


def test_picture_book_has_a_chapter_for_each_hero(tmp_path: Path) -> None:
    assert example("picture-book.sh", "book", "a red cat", folder=tmp_path) == "book/index.md\n"
    book = (tmp_path / "book" / "index.md").read_text()
    assert book.startswith("# 1. The story of a red cat\n")
    assert "red cat" in book.partition("\n")[2]
    assert "](1/001.png)" in book
    assert (tmp_path / "book" / "1" / "001.png").exists()


def test_slurm_array_does_each_picture_in_one_part(pictures: Path, tmp_path: Path) -> None:
    for part in ("1", "2"):
        environment = {"SLURM_ARRAY_TASK_ID": part, "SLURM_ARRAY_TASK_COUNT": "2"}
        done = run([str(EXAMPLES / "slurm-array.sh"), str(pictures), "parts"], tmp_path, **environment)
        assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for path in (tmp_path / "parts").iterdir() for line in path.read_text().splitlines()]
    assert sorted(row["text"] for row in rows) == ["A blue boat at night.", "A red cat on the grass."]


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_ray_two_machines_starts_a_head_and_has_another_machine_join(pictures: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = str(listening.getsockname()[1])
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/usr/bin/env bash\nshift\necho "$@" > asked\n"$@"\n')
    ssh.chmod(0o755)
    command = f"PATH={tmp_path}:$PATH {EXAMPLES / 'ray-two-machines.sh'} other {pictures} rows.jsonl"
    try:
        done = run(command, tmp_path, RAY_PORT=port, HOME=str(tmp_path))
    finally:
        for process in psutil.process_iter(["cmdline"]):
            if any(f":{port}" in word or f"port={port}" in word for word in process.info["cmdline"] or ()):
                process.kill()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text().startswith("ray start --address=")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert sorted(row["text"] for row in rows) == ["A blue boat at night.", "A red cat on the grass."]

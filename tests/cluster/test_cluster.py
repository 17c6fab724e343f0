"""A Ray cluster of two machines on loopback: each item once, whatever dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import mmgen
from tests.support.clusters import MMGEN, Machines, head, machines, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
pytest.importorskip("ray", reason="the extra `ray` is not installed; the development environment has it")

ALONE = {"OMP_NUM_THREADS": "1"}  # as a worker with one CPU


@pytest.fixture(scope="module")
def two() -> Iterator[Machines]:
    with machines() as found:
        yield found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "pictures"
    folder.mkdir()
    for number in range(60):
        Image.new("RGB", (96, 96), (number * 4, 255 - number * 3, number % 7 * 30)).save(folder / f"{number:02}.png")
    (folder / "10.png").rename(folder / "10-poison.png")
    (folder / "30.png").rename(folder / "30-hang.png")
    (folder / "50.png").write_bytes(b"no picture")
    return folder


def rows(path: Path) -> dict[str, dict[str, object]]:
    listed = [json.loads(line) for line in path.read_text().splitlines()]
    found = {str(row["image"]): row for row in listed}
    assert len(found) == len(listed), "an item has two rows"
    return found


def test_each_item_has_one_row_though_workers_machines_and_the_driver_die(two: Machines, pictures: Path) -> None:
    folder = pictures.parent
    alone = subprocess.run(
        [*MMGEN, "caption", "pictures", "--jsonl", "alone.jsonl", "-q"],
        cwd=folder, env=os.environ | ALONE, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert alone.returncode == 1  # of 50.png
    journal = folder / "rows.jsonl"
    command = two.command("caption", "pictures", "--jsonl", "rows.jsonl", "--json", "--batch-size", "2")
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    # 1) A driver that is killed
    first = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: journal.exists() and len(journal.read_text().splitlines()) > 3)
    first.kill()
    first.wait()
    # 2) Its successor loses a worker and a machine; a poison item, one that hangs and one that is broken go with it
    with subprocess.Popen(
        [*command, "--item-timeout", "15"], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as second:  # fmt: skip
        wait_until(lambda: len(two.workers()) > 1)
        wait_until(lambda: len(journal.read_text().splitlines()) > 6)
        two.workers()[0].send_signal(signal.SIGKILL)
        wait_until(lambda: len(journal.read_text().splitlines()) > 8)
        two.lose()
        two.add()
        out, said = second.communicate(timeout=200)
    assert second.returncode == 1, said
    found, expected = rows(journal), rows(folder / "alone.jsonl")
    bad = {Path(name).stem: row["error"] for name, row in found.items() if "error" in row}
    assert bad.keys() == {"10-poison", "30-hang", "50"}
    assert bad["10-poison"] == "its worker died 3 times"
    assert "note: a worker died; what it had is tried again\n" in said
    assert "15 s" in str(bad["30-hang"])
    assert {name: row["text"] for name, row in found.items() if "error" not in row} == {
        name: row["text"] for name, row in expected.items() if Path(name).stem not in bad
    }
    assert all(json.loads(line)["image"] in found for line in out.splitlines())  # results alone


def test_what_is_drawn_is_the_same_to_the_byte(two: Machines, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\na snowman\na cat\n")
    draw = ("draw", "--prompts", "prompts.txt", "--seed", "4", "-q", "-o")
    under_ray = two.run(tmp_path, *draw, "ray/")
    assert under_ray.returncode == 0, under_ray.stderr
    subprocess.run([*MMGEN, *draw, "alone/"], cwd=tmp_path, env=os.environ | ALONE, check=True)
    drawn = sorted(tmp_path.glob("ray/*.png"))
    assert len(drawn) == 3
    assert all(each.read_bytes() == (tmp_path / "alone" / each.name).read_bytes() for each in drawn)


def test_a_batch_goes_on_elsewhere(two: Machines, pictures: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        shutil.copy(pictures / f"0{number}.png", tmp_path)
    journal = ("--jsonl", str(tmp_path / "rows.jsonl"))
    under_ray = two.run(tmp_path, "caption", ".", "--limit", "2", *journal)
    assert "2 done" in under_ray.stderr, under_ray.stderr
    alone = subprocess.run([*MMGEN, "caption", ".", *journal], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "2 done, 2 skipped" in alone.stderr
    assert two.run(tmp_path, "caption", ".", "--plan", *journal).stdout == "new 0, done 4, stale 0, failed 0\n"


def test_a_worker_of_another_version_is_refused(pictures: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(Path(mmgen.__file__).parent, other / "mmgen", ignore=shutil.ignore_patterns("checkpoints"))
    (other / "mmgen" / "checkpoints").symlink_to(Path(mmgen.__file__).parent / "checkpoints")
    code = other / "mmgen" / "__init__.py"
    code.write_text(code.read_text().replace(f'__version__ = "{mmgen.__version__}"', '__version__ = "0.0.7"'))
    with machines(1, PYTHONPATH=str(other)) as found:
        refused = found.run(pictures, "caption", "01.png")
    assert refused.returncode == 1
    assert "mmgen 0.0.7, not" in refused.stderr
    assert "hint: install the same versions" in refused.stderr
    assert refused.stdout == ""


def test_a_cluster_with_a_token_says_so(pictures: Path, tmp_path: Path) -> None:
    with head(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="right" * 12, HOME=str(tmp_path)) as address:
        refused = subprocess.run(
            [*MMGEN, "caption", "01.png", "--ray", address],
            cwd=pictures, env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert refused.returncode == 1
    assert "does not let us in" in refused.stderr
    assert "RAY_AUTH_TOKEN" in refused.stderr
    assert len(refused.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--ray", "127.0.0.1:1"), "no Ray cluster at 127.0.0.1:1"),
        (("--ray", "nowhere"), "is no address of a cluster"),
        (("--ray", "auto", "--endpoint", "http://127.0.0.1:1"), "--ray opens the model on its own workers"),
        (("--workers", "2"), "are about --ray"),
        (("--item-timeout", "5"), "--item-timeout is about --endpoint and --ray"),
        (("--ray", "auto", "--workers", "0"), "--workers 0 is out of range"),
        (("--ray", "auto", "--worker-gpus", "-1"), "--worker-gpus -1 is out of range"),
    ],
)
def test_what_cannot_be_is_said_in_a_line_and_a_hint(pictures: Path, flags: tuple[str, ...], said: str) -> None:
    command = [*MMGEN, "caption", "01.png", *flags]
    refused = subprocess.run(command, cwd=pictures, capture_output=True, text=True, check=False)
    assert said in refused.stderr
    assert len(refused.stderr.splitlines()) == 2
    assert refused.returncode in (1, 2)


def test_more_workers_than_there_is_room_for_are_refused(two: Machines, pictures: Path) -> None:
    refused = two.run(pictures, "caption", "01.png", "--workers", "9")
    assert "the cluster has room for 2 workers" in refused.stderr


def test_without_the_package_it_is_named(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ray'] = None\n")
    refused = subprocess.run(
        [*MMGEN, "caption", "01.png", "--ray", "auto"],
        cwd=pictures, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "pip install 'mmgen-cli[ray]'" in refused.stderr

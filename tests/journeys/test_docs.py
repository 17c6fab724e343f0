"""The documentation: it builds without a warning, lists what there is, and its commands do what they show."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmgen.outputs.records import Record
from tests.journeys.test_readme import commands, looks_like
from tests.support.shell import run
from tools import reference

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(page.name for page in DOCS.glob("*.md") if _BLOCK.search(page.read_text("utf-8")))


def test_the_site_and_the_man_page_are_made_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(DOCS.parent / "mkdocs.yml", tmp_path)
    monkeypatch.setattr(reference, "DOCS", tmp_path / "docs")
    reference.main()
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    listed = (tmp_path / "docs/commands.md").read_text("utf-8")
    for name in reference.COMMANDS:
        assert f"Usage: mmgen {name}" in listed
        assert f".SH {name.upper()}\n" in (tmp_path / "docs/mmgen.1").read_text("utf-8")
    assert "## mmgen.caption" in (tmp_path / "docs/python.md").read_text("utf-8")


def test_the_record_s_page_lists_its_fields_in_their_order() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", (DOCS / "record.md").read_text("utf-8"), re.MULTILINE)
    assert listed == list(Record.__annotations__)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_print_what_it_shows(tmp_path: Path, page: str) -> None:
    blocks = _BLOCK.findall((DOCS / page).read_text("utf-8"))
    for command, shown in (each for block in blocks for each in commands(block)):
        if re.search(r"\bjq\b", command) and shutil.which("jq") is None:
            print(f"not run, as there is no jq here: {command}")
            continue
        done = run(command, tmp_path)
        assert done.returncode == 0, f"$ {command}\n{done.stderr}"
        assert looks_like(shown, done.stdout), f"$ {command}\n{done.stdout}"

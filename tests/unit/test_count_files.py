"""Files are counted in which functions run, and not those that are merely imported."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from tools.count_files import HOME, WAYS, main, noted

SOURCES = {
    "imported": "X = [n for n in range(3)]\ndef double(n): return 2 * n\nclass Body:\n    size = double(4)\n",
    "called": "def call(): return (lambda: 1)()\n",
    "threaded": "def call(): return 1\n",
}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_runs_is_noted_in_order_and_what_importing_runs_is_not(tmp_path: Path) -> None:
    for name, source in SOURCES.items():
        (tmp_path / f"{name}.py").write_text(source)
    with noted(tmp_path) as found:
        modules = {name: load(tmp_path / f"{name}.py") for name in SOURCES}
        thread = threading.Thread(target=modules["threaded"].call)
        thread.start()
        thread.join()
        modules["called"].call()
        assert found == []
    assert found == [Path("threaded.py"), Path("called.py")]
    assert sys.getprofile() is None
    modules["imported"].double(1)  # not meanwhile
    assert len(found) == 2


@pytest.mark.parametrize("way", WAYS)
def test_the_files_of_each_way_are_listed_and_counted(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([way, "--list"])
    *files, number = capsys.readouterr().out.splitlines()
    assert int(number) == len(files) == len(set(files))
    assert all((HOME / file).is_file() for file in files)
    assert 1 < len(files) < len(list(HOME.rglob("*.py")))

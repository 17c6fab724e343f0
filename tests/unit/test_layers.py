"""The house plan, held: imports go down only, heavy packages stay in their rooms, models are named in one place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mmgen
from mmgen.checkpoints.aliases import ALIASES
from tests.support import elsewhere

SOURCE = Path(mmgen.__file__).parent

# Rooms from the ground up: a room may import what stands on a lower floor, and its modules each other, in no circle.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "text"),
    ("codes", "files"),
    ("request",),
    ("limits", "tasks", "model", "inputs", "checkpoints", "decoding"),
    ("families", "outputs"),
    ("jobs", "engines"),
    ("api", "batches", "serve"),
    ("cli",),
    ("__init__", "__main__"),
)

# Which modules may import a heavy package as they are imported themselves.
ROOMS = {
    "torch": ("decoding.*", "checkpoints.tuning", "checkpoints.x86", "checkpoints.loading", "families.*"),
    "transformers": ("checkpoints.loading", "families.*"),
    "PIL": ("inputs.images", "outputs.pictures", "decoding.pieces", "families.*", "serve.bodies"),
    "tokenizers": ("families.*",),
    "safetensors": ("checkpoints.loading",),
    "huggingface_hub": ("checkpoints.loading",),
    "accelerate": (),
    "bitsandbytes": (),
    "httpx2": ("serve.fetching",),
    "fastapi": ("serve.app",),
    "starlette": ("serve.*",),
    "uvicorn": ("serve.running",),
    "pydantic": ("serve.bodies",),
    "prometheus_client": ("serve.app",),
    "numpy": (),
    "pyarrow": (),
    "ray": (),
    "rich": (),
}
LIGHT = (
    "decoding.grammar",
    "families.*_prompt",
    "families.prompting",
)  # run before the weights are read: these never import torch

MISSING = "ImportError|ModuleNotFoundError|AttributeError"  # raised for a module or a name that is not there

MODEL_TYPES = ("chameleon", "anole", "mllama", "idefics", "janus", "emu3", "llava", "paligemma", "qwen", "gemma")


def module_name(path: Path) -> str:
    """Name a module from its file, without `mmgen.`; a package goes by its folder."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def fits(module: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(module, pattern) for pattern in patterns)


def floor(module: str) -> int:
    """Return the floor that a module's room stands on; one that the plan does not name has none."""
    room = module.partition(".")[0]
    found = next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)
    assert found is not None, f"mmgen.{module} stands on no floor: give it one in tests/unit/test_layers.py"
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of everything a tree imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(tree: ast.AST) -> set[str]:
    """Return the modules of our own that a tree imports."""
    found = set()
    for name in imported(tree):
        inside = name.removeprefix("mmgen.")
        if inside == name or inside == "__version__":
            continue
        found.add(inside if inside in MODULES else inside.rpartition(".")[0])
    return found


def run_at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the import statements that run when a module is imported: in no function, and not for types only."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not for_types and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_lower_floors_and_its_own_room(module: str) -> None:
    room = module.partition(".")[0]
    for other in imported_modules(ast.parse(MODULES[module].read_text())):
        assert other.partition(".")[0] == room or floor(other) < floor(module), f"mmgen.{module} imports mmgen.{other}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    arrows = {module: imported_modules(ast.parse(path.read_text())) for module, path in MODULES.items()}
    TopologicalSorter(arrows).prepare()  # raises CycleError


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_stay_in_their_rooms(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    packages = {name.partition(".")[0] for node in run_at_import(tree) for name in imported(node)}
    for package in packages & set(ROOMS):
        assert fits(module, ROOMS[package]), f"mmgen.{module} imports {package} at its top"
    if fits(module, LIGHT):
        assert not packages & {"torch", "transformers"}


def unguarded(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a tree's nodes, but not what is only tried: below `try` or `suppress` of what is missing, or `hasattr`."""
    match node:
        case ast.Try(body, handlers):
            tries = any(h.type is None or re.search(MISSING, ast.unparse(h.type)) for h in handlers)
            children = [each for each in ast.iter_child_nodes(node) if not (tries and each in body)]
        case ast.With(items) if any(re.search(rf"suppress\(.*({MISSING})", ast.unparse(item)) for item in items):
            children = []
        case ast.If(test) | ast.IfExp(test) if "hasattr" in ast.unparse(test):
            children = []
        case _:
            children = list(ast.iter_child_nodes(node))
    yield node
    for child in children:
        yield from unguarded(child)


@pytest.mark.parametrize("module", MODULES)
def test_what_windows_lacks_is_asked_for_with_care(module: str) -> None:
    for node in unguarded(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            packages = {name.partition(".")[0] for name in imported(node)}
            assert not packages & elsewhere.MODULES, f"mmgen.{module}: {ast.unparse(node)}"
            names = set(imported(node))
        else:
            names = {ast.unparse(node)} if isinstance(node, ast.Attribute) else set()
        for package, hidden in elsewhere.NAMES.items():
            assert not names & {f"{package}.{name}" for name in hidden}, f"mmgen.{module}: {ast.unparse(node)}"


def spoken(tree: ast.AST) -> Iterator[str]:
    """Yield a tree's names and strings, docstrings apart."""
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node.value
        elif isinstance(node, ast.Name | ast.Attribute | ast.arg):
            yield ast.unparse(node)


@pytest.mark.parametrize("module", [name for name in MODULES if not fits(name, ("families", "families.*"))])
def test_model_types_are_named_in_families_and_the_alias_table_alone(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    tree.body = [node for node in tree.body if not ast.unparse(node).startswith("ALIASES")]
    aliases = "|".join(sorted(map(re.escape, ALIASES), key=len, reverse=True))
    for text in spoken(tree):
        without_aliases = re.sub(aliases, "", text)
        found = re.search(rf"({'|'.join(MODEL_TYPES)})", without_aliases)
        assert found is None, f"mmgen.{module} names {found[0]}: {text}"


@pytest.mark.parametrize("arguments", [["--help"], ["draw", "--help"], ["--version"]])
def test_help_comes_without_torch(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mmgen", *arguments], capture_output=True, text=True, check=True
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "mmgen" in loaded
    assert not loaded & {"torch", "transformers", "huggingface_hub", "PIL", "numpy", "httpx2", "rich"}


def test_what_is_checked_before_the_weights_needs_no_torch() -> None:
    code = "import sys, mmgen.api, mmgen.families.chameleon_prompt; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers"} & set(done.stdout.split())


@pytest.mark.parametrize("module", MODULES)
def test_a_file_and_its_functions_are_read_at_a_glance(module: str) -> None:
    text = MODULES[module].read_text()
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 70, node.name
            arguments = node.args
            assert len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]) <= 14, node.name


@pytest.mark.parametrize(
    ("package", "rooms"), [("ray", {"engines.cluster"}), ("pyarrow", {"inputs.tables", "outputs.archives"})]
)
def test_what_few_need_is_imported_by_few(package: str, rooms: set[str]) -> None:
    trees = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}
    assert {
        module for module, tree in trees.items() if package in {n.partition(".")[0] for n in imported(tree)}
    } == rooms

"""transformers without what mmgen does not use: three quarters of its import. Knows it and torch; no model.

transformers decorates a few functions with torch's compiler's directives and asks whether torch can work in many
processes. Each brings in `torch._dynamo` or `torch.distributed.tensor`, and those SymPy. It imports SciPy's optimisers
for the losses of object detection, and looks through the files of all its models twice. That is about two seconds
before the first word. Until the first model is loaded, stand-ins are there, in all threads; what compiles later finds
the real ones. The list of what transformers' models define is made when somebody asks for one of its names.
"""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from threading import Lock
from typing import Any

_COMPILER = "torch._dynamo"
_HOOK = f"{_COMPILER}._trace_wrapped_higher_order_op"
_ALGEBRA = "sympy"
_SHAPES = "torch.fx.experimental.symbolic_shapes"  # asked for whenever something is made on the meta device
_OPTIMISERS = "scipy.optimize"
_MODELS = "transformers.models"
_PACKAGE = "transformers"
_LISTS = "transformers.utils.import_utils"  # makes lists of what models define


@contextmanager
def without_unused() -> Iterator[None]:
    """Let what is imported meanwhile do without them, unless transformers or the compiler is there already."""
    with without_collection():
        import torch

    if _COMPILER in sys.modules or "transformers.modeling_utils" in sys.modules:
        yield
        return
    is_available = torch.distributed.is_available
    hook = types.ModuleType(_HOOK)
    hook.TransformGetItemToIndex = _TransformGetItemToIndex  # type: ignore[attr-defined]
    stand_ins = {_COMPILER: _StandIn(_COMPILER), _HOOK: hook}
    if _ALGEBRA not in sys.modules:
        stand_ins |= {_SHAPES: _Shortcut(_SHAPES, _CHECKS), _ALGEBRA: _Shortcut(_ALGEBRA, {"Basic": _Symbol})}
    if _OPTIMISERS not in sys.modules:
        stand_ins[_OPTIMISERS] = _Shortcut(_OPTIMISERS, {"linear_sum_assignment": _linear_sum_assignment})
    sys.modules |= stand_ins
    torch._dynamo = sys.modules[_COMPILER]
    torch.distributed.is_available = lambda: False
    try:
        with without_collection():
            _import_transformers()
        yield
    finally:
        torch.distributed.is_available = is_available
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
        del torch._dynamo


@contextmanager
def without_collection() -> Iterator[None]:
    """Do not look for garbage meanwhile: imports make hundreds of thousands of objects, and all of them stay."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _StandIn(types.ModuleType):
    """Every directive of the compiler leaves a function as it is."""

    __path__: list[str] = []  # noqa: RUF012 -- a package, so that one of its modules can stand in, too

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _as_it_is


def _as_it_is(function: Callable[..., Any] | None = None, *_: object, **__: object) -> Callable[..., Any]:
    return _as_it_is if function is None else function


class _Shortcut(types.ModuleType):
    """A few names of a module that takes long to import; whoever asks for another gets it from the real one."""

    def __init__(self, name: str, names: Mapping[str, Any]) -> None:
        super().__init__(name)
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # `from ... import` asks for __path__, too
            raise AttributeError(name)
        for module in (_SHAPES, _ALGEBRA, _OPTIMISERS):
            if isinstance(sys.modules.get(module), _Shortcut):
                del sys.modules[module]
        return getattr(import_module(self.__name__), name)


class _Symbol:
    """What no size is."""


# What torch asks of sizes while it makes something on the meta device, where all of them are plain numbers.
_CHECKS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("expect_true", "guard_or_false", "guard_or_true", "guard_size_oblivious"), bool),
    "statically_known_true": bool,
    "has_guarding_hint": lambda size: True,
    "guarding_hint_or_throw": lambda size: size,
    "is_nested_int": lambda size: False,
    "sym_eq": lambda one, other: bool(one == other),
    "sym_or": lambda *said: any(said),
    "sym_and": lambda *said: all(said),
}


def _linear_sum_assignment(*arguments: object, **named: object) -> Any:
    return import_module(_OPTIMISERS).linear_sum_assignment(*arguments, **named)


def _import_transformers() -> None:
    """Import it without what its models define: it finds that out if it is asked."""
    lists = _Lists()
    sys.meta_path.insert(0, lists)
    try:
        import transformers
    finally:
        sys.meta_path.remove(lists)
    sys.modules.setdefault(_MODELS, _Models(transformers))


class _Lists(MetaPathFinder):
    """Finds transformers' module that lists what its packages define, and has it leave out what the models do."""

    def find_spec(self, fullname: str, path: Any, target: types.ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname == _LISTS else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                execute(module)
                _list_later(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _list_later(lists: Any) -> None:
    lazy: Any = getattr(lists, "_LazyModule", None)
    define: Any = getattr(lists, "define_import_structure", None)
    if lazy is None or define is None:
        return  # another version of transformers, whose lists are left alone
    lock = Lock()

    class Listing(lazy):  # type: ignore[misc]
        """transformers, which looks through its models when it is asked for what it does not know."""

        def __new__(cls, name: str, *arguments: Any, **named: Any) -> Any:
            return super().__new__(cls, name) if name == _PACKAGE else lazy(name, *arguments, **named)

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            del self.__all__

        def __getattr__(self, name: str) -> Any:
            # Before the package's own way is asked: that would take the next best tokenizer for one it does not know.
            is_known = name in self._class_to_module or name in self._modules or name in self._objects
            if name == "__all__" or not (is_known or name.startswith("_") or self._has_file(name)):
                self._list()
                return getattr(self, name)
            return super().__getattr__(name)

        def __dir__(self) -> list[str]:
            self._list()
            return dir(self)

        def _has_file(self, name: str) -> bool:
            return PathFinder.find_spec(f"{_PACKAGE}.{name}", self.__path__) is not None

        def _list(self) -> None:
            with lock:
                if type(self) is Listing:
                    found = define(Path(self.__path__[0], "models"), prefix="models")
                    found[frozenset()].update(self._import_structure)
                    self.__dict__.update(vars(lazy(_PACKAGE, self.__file__, found, self.__spec__, self._objects)))
                    self.__class__ = lazy

    def define_later(path: Any, prefix: str | None = None) -> Any:
        of_all_models = prefix == "models" and Path(path).parent == Path(lists.__file__).parents[1]
        return {frozenset(): {"models": set()}} if of_all_models else define(path, prefix)

    lists._LazyModule, lists.define_import_structure = Listing, define_later


class _Models(types.ModuleType):
    """`transformers.models` without a list of its own: a folder of packages, which is asked. It stays."""

    def __init__(self, transformers: Any) -> None:
        super().__init__(_MODELS)
        self.__path__ = [str(Path(transformers.__path__[0], "models"))]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return import_module(f"{_MODELS}.{name}")
        except ModuleNotFoundError:
            return getattr(import_module("transformers"), name)  # a class of one of them


class _TransformGetItemToIndex:
    """The real one, when somebody makes one."""

    def __new__(cls) -> Any:
        from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

        return TransformGetItemToIndex()

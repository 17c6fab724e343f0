"""transformers without torch's compiler: two thirds of its import. Knows the two packages; no model.

transformers decorates a few functions with the compiler's directives and asks whether torch can work in many processes.
Each brings in `torch._dynamo` or `torch.distributed.tensor`, and those SymPy: about a second before the first word,
for what mmgen does not use. Until the first model is loaded, stand-ins are there, in all threads; what compiles later
finds the real ones.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

_COMPILER = "torch._dynamo"
_HOOK = f"{_COMPILER}._trace_wrapped_higher_order_op"
_ALGEBRA = "sympy"
_SHAPES = "torch.fx.experimental.symbolic_shapes"  # asked for whenever something is made on the meta device


@contextmanager
def without_compiler() -> Iterator[None]:
    """Let what is imported meanwhile do without the compiler, unless it is there already."""
    import torch

    if _COMPILER in sys.modules or "transformers.modeling_utils" in sys.modules:
        yield
        return
    is_available = torch.distributed.is_available
    hook = types.ModuleType(_HOOK)
    hook.TransformGetItemToIndex = _TransformGetItemToIndex  # type: ignore[attr-defined]
    stand_ins = {_COMPILER: _StandIn(_COMPILER), _HOOK: hook}
    if "sympy" not in sys.modules:
        stand_ins |= {_SHAPES: _Shortcut(_SHAPES, _CHECKS), _ALGEBRA: _Shortcut(_ALGEBRA, {"Basic": _Symbol})}
    sys.modules |= stand_ins
    torch._dynamo = sys.modules[_COMPILER]
    torch.distributed.is_available = lambda: False
    try:
        yield
    finally:
        torch.distributed.is_available = is_available
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
        del torch._dynamo


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
        for module in (_SHAPES, _ALGEBRA):
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


class _TransformGetItemToIndex:
    """The real one, when somebody makes one."""

    def __new__(cls) -> Any:
        from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

        return TransformGetItemToIndex()

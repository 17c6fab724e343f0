"""transformers without torch's compiler: two thirds of its import. Knows the two packages; no model.

transformers decorates a few functions with the compiler's directives and asks whether torch can work in many processes.
Each brings in `torch._dynamo` or `torch.distributed.tensor`, and those SymPy: about a second before the first word,
for what mmgen does not use. For as long as transformers is imported, stand-ins are there; what compiles later finds the
real ones.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

_COMPILER = "torch._dynamo"
_HOOK = f"{_COMPILER}._trace_wrapped_higher_order_op"
_SHAPES = "torch.fx.experimental.symbolic_shapes"  # asked for whenever something is made on the meta device


@contextmanager
def unfilled() -> Iterator[None]:
    """Let models that are built meanwhile on the meta device have no values: there are none to fill in.

    torch would go through its reference code for it, and import SymPy: half a second for nothing.
    """
    from torch.nn import init

    fillers = {name: fill for name, fill in vars(init).items() if name.endswith("_") and not name.startswith("_")}
    for name, fill in fillers.items():
        setattr(init, name, _only_where_values_are(fill))
    try:
        yield
    finally:
        for name, fill in fillers.items():
            setattr(init, name, fill)


def _only_where_values_are(fill: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(fill)
    def filled(tensor: Any, *arguments: Any, **named: Any) -> Any:
        return tensor if tensor.is_meta else fill(tensor, *arguments, **named)

    return filled


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
        algebra = _StandIn("sympy")
        algebra.Basic = _Symbol  # type: ignore[attr-defined]
        stand_ins |= {_SHAPES: _StandIn(_SHAPES), "sympy": algebra}
    sys.modules |= stand_ins
    torch._dynamo = sys.modules[_COMPILER]
    torch.distributed.is_available = lambda: False
    try:
        yield
    finally:
        torch.distributed.is_available = is_available
        for name in stand_ins:
            del sys.modules[name]
        del torch._dynamo


class _StandIn(types.ModuleType):
    """Every directive of the compiler leaves a function as it is, and every check of a size the size."""

    __path__: list[str] = []  # noqa: RUF012 -- a package, so that one of its modules can stand in, too

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _as_it_is


def _as_it_is(function: Callable[..., Any] | None = None, *_: object, **__: object) -> Callable[..., Any]:
    return _as_it_is if function is None else function


class _Symbol:
    """What no value is."""


class _TransformGetItemToIndex:
    """The real one, when somebody makes one."""

    def __new__(cls) -> Any:
        from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

        return TransformGetItemToIndex()

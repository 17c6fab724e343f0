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
from typing import Any

_COMPILER = "torch._dynamo"
_HOOK = f"{_COMPILER}._trace_wrapped_higher_order_op"


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
    sys.modules |= {_COMPILER: _StandIn(_COMPILER), _HOOK: hook}
    torch._dynamo = sys.modules[_COMPILER]
    torch.distributed.is_available = lambda: False
    try:
        yield
    finally:
        torch.distributed.is_available = is_available
        del sys.modules[_COMPILER], sys.modules[_HOOK], torch._dynamo


class _StandIn(types.ModuleType):
    """Every directive of the compiler leaves a function as it is."""

    __path__: list[str] = []  # noqa: RUF012 -- a package, so that one of its modules can stand in, too

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _as_it_is


def _as_it_is(function: Callable[..., Any] | None = None, *_: object, **__: object) -> Callable[..., Any]:
    return _as_it_is if function is None else function


class _TransformGetItemToIndex:
    """The real one, when somebody makes one."""

    def __new__(cls) -> Any:
        from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

        return TransformGetItemToIndex()

"""mmgen: caption, ask, draw, vary and tell stories with local models.

The Python API (see mmgen.api) is reached lazily: importing mmgen loads neither torch nor a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mmgen.api import ask, caption, connect, draw, interleave, load, vary
    from mmgen.batches import caption_all, draw_all
    from mmgen.errors import MmgenError
    from mmgen.request import ImageSampling, Loading, Picture, Progress, TextSampling, Turn

_HOMES = {
    "mmgen.api": ("ask", "caption", "connect", "draw", "interleave", "load", "vary"),
    "mmgen.batches": ("caption_all", "draw_all"),
    "mmgen.errors": ("MmgenError",),
    "mmgen.request": ("ImageSampling", "Loading", "Picture", "Progress", "TextSampling", "Turn"),
}

__all__ = [
    "ImageSampling",
    "Loading",
    "MmgenError",
    "Picture",
    "Progress",
    "TextSampling",
    "Turn",
    "__version__",
    "ask",
    "caption",
    "caption_all",
    "connect",
    "draw",
    "draw_all",
    "interleave",
    "load",
    "vary",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'mmgen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)

"""Sizes of a VQGAN, by a checkpoint's config: its codes, and the memory that its decoder takes. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MAPS = 6  # of an image's full size that the decoder holds at once in float32, as measured for Chameleon's


def count_codes(config: Mapping[str, Any]) -> int:
    """Count the codes of a square image: each level of the VQ but the first halves its sides."""
    vq, widths = _read(config)
    side: int = vq.get("resolution", 512) // 2 ** (len(widths) - 1)
    return side * side


def decoder_bytes(config: Mapping[str, Any], n_codes: int) -> int:
    """Say how many bytes the decoder takes in passing for an image of so many codes."""
    vq, widths = _read(config)
    n_pixels = n_codes * 4 ** (len(widths) - 1)
    return int(_MAPS * 4 * n_pixels * widths[0] * vq.get("base_channels", 128))


def _read(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[int]]:
    vq = config.get("vq_config") or {}
    return vq, vq.get("channel_multiplier") or (1, 1, 2, 2, 4)

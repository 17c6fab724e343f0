"""What safetensors files say of their tensors, without the tensors. Knows nothing of models.

Format: 8 bytes of header length (little-endian), the header in JSON, the data
(github.com/huggingface/safetensors, README).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgen.errors import MmgenError

_MOST_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class TensorHeader:
    """What is known of a tensor without reading it."""

    dtype: str  # as safetensors calls it: F32, BF16, …
    shape: tuple[int, ...]
    n_bytes: int

    @property
    def n_values(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether it is loaded in the type that was asked for; whole numbers stay as they are."""
        return self.dtype in ("F64", "F32", "F16", "BF16")


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Read what a safetensors file says of its tensors, and check that the file is whole.

    Raises:
        MmgenError: the file is truncated, a stand-in left by git lfs, or no safetensors at all.
    """
    try:
        n_bytes = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            n_header = int.from_bytes(start, "little")
            raw = file.read(n_header) if n_header <= _MOST_HEADER_BYTES else b""
    except OSError as error:
        raise MmgenError(f"cannot read {path}: {error.strerror}", "check its permissions") from error
    if start == b"version ":
        raise MmgenError(f"{path} is only a git lfs pointer to the weights", "run `git lfs pull` in its folder")
    if len(start) < 8 or n_header > len(raw):
        raise MmgenError(f"{path} is truncated or no safetensors file ({n_bytes} bytes)", "fetch the file again")
    tensors = _parse(raw, str(path))
    whole = 8 + n_header + sum(tensor.n_bytes for tensor in tensors.values())
    if whole != n_bytes:
        raise MmgenError(f"{path} is truncated: {n_bytes} of {whole} bytes", "fetch the file again")
    return tensors


def _parse(raw: bytes, name: str) -> dict[str, TensorHeader]:
    """Read a header's JSON; the data of its tensors must lie end to end, as the format demands."""
    try:
        entries = {name: entry for name, entry in json.loads(raw).items() if name != "__metadata__"}
        spans = sorted(tuple(entry["data_offsets"]) for entry in entries.values())
        ends = [0, *(end for _, end in spans)]
        if any(start != end for (start, _), end in zip(spans, ends, strict=False)):
            raise ValueError("gaps between tensors")
        return {name: _tensor(entry) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # each a way in which the header is not one
        raise MmgenError(f"{name} has a broken safetensors header", "fetch the file again") from error


def _tensor(entry: dict[str, Any]) -> TensorHeader:
    start, end = entry["data_offsets"]
    return TensorHeader(str(entry["dtype"]), tuple(entry["shape"]), end - start)

"""What safetensors files say of their tensors, without the tensors. Knows nothing of models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmgen.errors import MmgenError

if TYPE_CHECKING:
    from huggingface_hub.utils import TensorInfo


def stored_bytes(tensor: TensorInfo) -> int:
    """Say how many bytes a tensor takes in its file."""
    start, end = tensor.data_offsets
    return end - start


NO_HEADER = (ValueError, TypeError, AttributeError)  # what a header that is none makes of its readers


def is_float(tensor: TensorInfo) -> bool:
    """Whether a tensor is loaded in the type that was asked for; whole numbers stay as they are."""
    return tensor.dtype in ("F64", "F32", "F16", "BF16")


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Read what a safetensors file says of its tensors, and check that the file is whole.

    Raises:
        MmgenError: the file is truncated, a stand-in left by git lfs, or no safetensors at all.
    """
    from huggingface_hub import parse_local_safetensors_file_metadata
    from huggingface_hub.errors import SafetensorsParsingError

    try:
        n_bytes = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
        if start == b"version ":
            raise MmgenError(f"{path} is only a git lfs pointer to the weights", "run `git lfs pull` in its folder")
        whole = 8 + int.from_bytes(start, "little")
        if n_bytes < whole:
            raise MmgenError(f"{path} is truncated or no safetensors file ({n_bytes} bytes)", "fetch the file again")
        tensors = parse_local_safetensors_file_metadata(path).tensors
        end = 0
        for first, last in sorted(tensor.data_offsets for tensor in tensors.values()):
            if first != end:  # the data lie end to end, as the format demands
                raise ValueError("gaps between tensors")
            end = last
    except OSError as error:
        raise MmgenError(f"cannot read {path}: {error.strerror}", "check its permissions") from error
    except (SafetensorsParsingError, *NO_HEADER) as error:
        raise MmgenError(f"{path} has a broken safetensors header", "fetch the file again") from error
    if n_bytes != whole + end:
        raise MmgenError(f"{path} is truncated: {n_bytes} of {whole + end} bytes", "fetch the file again")
    return tensors

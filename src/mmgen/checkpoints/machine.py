"""What this machine is, and what memory it has free. Without torch where that has no CUDA; knows no model."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from mmgen.errors import MmgenError, first_line

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Gpu:
    """A CUDA device."""

    name: str
    free: int  # bytes
    total: int


@dataclass(frozen=True)
class Machine:
    """Memory, in bytes.

    Attributes:
        gpus: those that torch sees, in its order.
    """

    free: int
    total: int
    gpus: tuple[Gpu, ...] = ()


def is_x86() -> bool:
    """Whether this is an x86-64 processor."""
    return platform.machine() in ("x86_64", "AMD64")


def install_command(package: str) -> str:
    """Say how to install a package in such a way that torch stays as it is."""
    if package != "torchvision":  # each of which goes with one torch alone
        return f"pip install {package}"
    version = importlib.metadata.version("torch")  # such as 2.13.0+cpu
    _, _, build = version.partition("+")
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    return f"pip install torchvision torch=={version}{index}"


def check_torchvision() -> None:
    """Refuse a torchvision that cannot be imported: transformers imports it wherever it finds the package.

    Raises:
        MmgenError: it is there, and broken, as one is that was built for another torch.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # as seen of one for another torch
        raise MmgenError(
            f"the torchvision that is installed cannot be imported: {first_line(error)}",
            f"pip uninstall torchvision; if you need it, then {install_command('torchvision')}",
        ) from error


def look(*, with_gpus: bool = True) -> Machine:
    """Look at this machine as it is now; at GPUs through torch, which has to open each that it asks."""
    return Machine(*ram(), _gpus() if with_gpus and _torch_has_cuda() else ())


def ram() -> tuple[int, int]:
    """Free and total bytes: of the machine, or of the control group where that allows less."""
    import psutil

    memory = psutil.virtual_memory()
    limit, used = _control_group()
    return (
        (min(memory.available, limit - used), min(memory.total, limit)) if limit else (memory.available, memory.total)
    )


def _control_group() -> tuple[int, int]:
    """The limit and the use of this process's control group (version 2), page cache apart; 0 is no limit."""
    try:
        own = re.search(r"^0::(.*)$", Path("/proc/self/cgroup").read_text("utf-8"), re.MULTILINE)
    except OSError:  # no Linux
        return 0, 0
    for folder in (_CGROUP / own[1].strip("/"), _CGROUP) if own else ():  # inside a container its own group is the root
        try:
            limit, used = (int((folder / name).read_text("ascii")) for name in ("memory.max", "memory.current"))
            spare = re.search(r"^inactive_file (\d+)$", (folder / "memory.stat").read_text("ascii"), re.MULTILINE)
        except (OSError, ValueError):  # "max": no limit
            continue
        return limit, max(0, used - int(spare[1] if spare else 0))
    return 0, 0


def _torch_has_cuda() -> bool:
    """Whether the torch that is installed was built for CUDA: its version file says so, without importing it."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    version = Path(found.origin).with_name("version.py")
    return version.is_file() and re.search(r"^cuda\b.*= None", version.read_text("utf-8"), re.MULTILINE) is None


def _gpus() -> tuple[Gpu, ...]:
    """The GPUs that torch sees, in its order; one that is too full even to be asked has nothing free."""
    from torch import cuda

    found = []
    for number in range(cuda.device_count() if cuda.is_available() else 0):
        properties = cuda.get_device_properties(number)
        try:
            free = cuda.mem_get_info(number)[0]
        except RuntimeError:
            free = 0
        found.append(Gpu(properties.name, free, properties.total_memory))
    return tuple(found)

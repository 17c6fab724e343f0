"""The machine that runs us, and the memory it has free. Without torch where that has no CUDA; knows no model."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mmgen.errors import refused

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Gpu:
    """A CUDA device."""

    name: str
    free: int  # bytes
    total: int


@dataclass(frozen=True)
class Machine:
    """Memory, in bytes."""

    free: int
    total: int
    gpus: tuple[Gpu, ...] = ()  # those that torch sees, in its order


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
    remedy = f"pip uninstall torchvision; if you need it, then {install_command('torchvision')}"
    said = (ImportError, OSError, RuntimeError, AttributeError)  # by one that was built for another torch
    with refused("the torchvision that is installed cannot be imported", remedy, *said):
        importlib.import_module("torchvision")


def look(*, with_gpus: bool = True) -> Machine:
    """Look at this machine as it is now; at GPUs through torch, which has to open each that it asks."""
    is_cpu_build = importlib.metadata.version("torch").endswith("+cpu")  # known without importing it
    return Machine(*ram(), () if is_cpu_build or not with_gpus else _gpus())


def ram() -> tuple[int, int]:
    """Free and total bytes: of the machine, or of the control group where that allows less."""
    import psutil

    memory = psutil.virtual_memory()
    limit, used = _control_group() or (memory.total, 0)
    return min(memory.available, limit - used), min(memory.total, limit)


def _control_group() -> tuple[int, int] | None:
    """Read the limit and the use, page cache apart, of this process's control group (version 2), if it has a limit."""
    with suppress(OSError):  # no Linux
        own = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
        for folder in (_CGROUP / own, _CGROUP):  # inside a container its own group is the root
            with suppress(OSError, ValueError):  # not there; "max": no limit
                limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                return limit, max(0, used - int(stat["inactive_file"]))
    return None


def _gpus() -> tuple[Gpu, ...]:
    """List the GPUs that torch sees, in its order; one that is too full even to be asked has nothing free."""
    from torch import cuda

    found = []
    for number in range(cuda.device_count()):
        properties = cuda.get_device_properties(number)
        try:
            free = cuda.mem_get_info(number)[0]
        except RuntimeError:
            free = 0
        found.append(Gpu(properties.name, free, properties.total_memory))
    return tuple(found)

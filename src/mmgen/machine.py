"""What this machine is, and what memory it has free. Without torch; knows no model."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mmgen.errors import MmgenError

_CGROUPS = Path("/sys/fs/cgroup")


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
        gpus: those that torch would see, in its order as far as that is known.
        unsure: there are GPUs, but not what they have free.
    """

    free: int
    total: int
    gpus: tuple[Gpu, ...] = ()
    unsure: bool = False


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
        command = install_command("torchvision")
        raise MmgenError(
            f"the torchvision that is installed cannot be imported: {str(error).splitlines()[0]}",
            f"pip uninstall torchvision, or install the one for this torch: {command}",
        ) from error


def look() -> Machine:
    """Look at this machine as it is now."""
    free, total = ram()
    if not _torch_has_cuda():
        return Machine(free, total)
    gpus = _gpus()
    return Machine(free, total, gpus or (), unsure=gpus is None)


def ram() -> tuple[int, int]:
    """Free and total bytes: of the machine, or of the control group where that allows less."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        told = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        free, total = told["MemAvailable"], told["MemTotal"]
    except (OSError, KeyError, ValueError):  # no Linux: what is there is all that is known
        free = total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = _control_group()
    return (min(free, limit - used), min(total, limit)) if limit else (free, total)


def _control_group() -> tuple[int, int]:
    """The limit and the use of this process's control group, page cache apart; 0 is no limit."""
    try:
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines()]
    except OSError:
        return 0, 0
    for _, controllers, path in groups:
        if controllers == "":  # version 2
            root, limit, use, cached = _CGROUPS, "memory.max", "memory.current", "inactive_file"
        elif controllers == "memory":  # version 1
            root, limit, use, cached = (
                _CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            )  # fmt: skip
        else:
            continue
        for folder in (root / path.strip("/"), root):  # inside a container its own group is the root
            if (folder / limit).is_file():
                found = _read_group(folder, limit, use, cached)
                if found is not None:
                    return found
    return 0, 0


def _read_group(folder: Path, limit: str, use: str, cached: str) -> tuple[int, int] | None:
    try:
        allowed, used = int((folder / limit).read_text("ascii")), int((folder / use).read_text("ascii"))
        spare = re.search(rf"^{cached} (\d+)$", (folder / "memory.stat").read_text("ascii"), re.MULTILINE)
    except (OSError, ValueError):  # "max": no limit
        return None
    return allowed, max(0, used - int(spare[1] if spare else 0))


def _torch_has_cuda() -> bool:
    """Whether the torch that is installed was built for CUDA: its version file says so, without importing it."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    version = Path(found.origin).with_name("version.py")
    return version.is_file() and re.search(r"^cuda\b.*= None", version.read_text("utf-8"), re.MULTILINE) is None


def _gpus() -> tuple[Gpu, ...] | None:
    """Ask the driver's own tool; None where it answers in a way that is not understood."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=index,uuid,name,memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout
        rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines() if line.strip()]
        gpus = [(row[0], row[1], Gpu(row[2], int(row[3]) * 2**20, int(row[4]) * 2**20)) for row in rows]
    except (subprocess.SubprocessError, OSError):
        return ()  # no driver: torch will find none either
    except (ValueError, IndexError):  # slices of a GPU (MIG) have no figures here
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(gpu for _, _, gpu in gpus)
    chosen: list[Gpu] = []
    for word in filter(None, (word.strip() for word in visible.split(","))):
        named = [gpu for index, uuid, gpu in gpus if word == index or (len(word) > 3 and uuid.startswith(word))]
        if not named:
            return None if word.startswith("MIG") else tuple(chosen)  # CUDA stops at the first that is not there
        chosen.append(named[0])
    return tuple(chosen)

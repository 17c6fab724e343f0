"""What a Python on Windows lacks or refuses, for mmgen's own code in this process; libraries keep what they need.

Missing: modules and names for POSIX alone, /proc and /sys. Refused: to open a folder, to move, replace or remove a file
that is open, to read a locked one through another handle than the one that locked it (as LockFileEx does).
"""

from __future__ import annotations

import builtins
import os
import sys
import sysconfig
import types
from collections.abc import Mapping
from contextlib import suppress
from errno import EACCES, ENOENT
from pathlib import Path
from typing import Any

# From the headings "Availability" of Python 3.11's documentation.
MODULES = frozenset("crypt curses fcntl grp nis posix pty pwd readline resource syslog termios tty".split())  # noqa: SIM905
_OS = """
O_CLOEXEC O_DIRECTORY O_DSYNC O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH O_SYNC O_TMPFILE WNOHANG chown chroot
confstr copy_file_range fchdir fchmod fchown fdatasync fork forkpty get_blocking getegid geteuid getgid getgroups
getloadavg getpgid getpgrp getpriority getsid getuid killpg lchown lockf mkfifo mknod nice openpty pathconf pidfd_open
pipe2 posix_fadvise posix_fallocate posix_spawn pread preadv pwrite pwritev readv sched_getaffinity sched_setaffinity
sched_yield sendfile set_blocking setpgid setpriority setsid setuid statvfs sync sysconf tcgetpgrp tcsetpgrp ttyname
uname wait3 wait4 waitid writev
"""
_SIGNAL = """
ITIMER_REAL SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGUSR1 SIGUSR2
SIGWINCH alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigwait
"""
NAMES = {"os": frozenset(_OS.split()), "signal": frozenset(_SIGNAL.split())}

_LIBRARY = (sysconfig.get_path("stdlib"), "<frozen ")
_PACKAGES = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))


class _Rest(types.ModuleType):
    """A module without some of its names."""

    def __init__(self, module: types.ModuleType, hidden: frozenset[str]) -> None:
        super().__init__(module.__name__)
        self._module, self._hidden = module, hidden

    def __getattr__(self, name: str) -> Any:
        if name in self._hidden:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on Windows")
        return getattr(self._module, name)


def move_to_windows(source: Path) -> None:
    """Take away from the code below `source`, in this process and for good, what Windows does not have."""
    rest = {name: _Rest(__import__(name), hidden) for name, hidden in NAMES.items()}
    bring, inside = builtins.__import__, str(source) + os.sep

    def import_rest(name: str, whose: Mapping[str, Any] | None = None, *more: Any, **others: Any) -> Any:
        if whose is not None and str(whose.get("__file__")).startswith(inside):
            if name in MODULES:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name in rest:
                return rest[name]
        return bring(name, whose, *more, **others)

    builtins.__import__ = import_rest  # type: ignore[assignment]

    def is_ours() -> bool:
        """Whether it is mmgen that asks the standard library; for a temporary file that goes its own ways there."""
        frame = sys._getframe(2)
        while frame.f_back and frame.f_code.co_filename.startswith(_LIBRARY):
            if frame.f_code.co_filename.endswith("tempfile.py") or frame.f_code.co_filename.startswith(_PACKAGES):
                return False
            frame = frame.f_back
        return frame.f_code.co_filename.startswith(inside)

    locked: set[tuple[int, int]] = set()  # device and number of each file that was locked, perhaps closed by now

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        match event, arguments:
            case "open", (str() | os.PathLike() as path, mode, _) if is_ours():
                if os.fspath(path).startswith(("/proc/", "/sys/")):
                    raise FileNotFoundError(ENOENT, os.strerror(ENOENT), path)
                other_handle = mode == "r" or mode == "rb"
                if Path(path).is_dir() or (other_handle and _number_if_open(path) in locked):
                    raise PermissionError(EACCES, os.strerror(EACCES), path)
            case "os.rename" | "os.remove", (path, *rest) if is_ours():
                places = [path, rest[0]] if event == "os.rename" else [path]
                if any(_number_if_open(place) for place in places):
                    raise PermissionError(EACCES, os.strerror(EACCES), path)
            case "fcntl.flock", (descriptor, _):
                locked.add(_number(os.fstat(descriptor)))

    sys.addaudithook(refuse)


def _number(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _number_if_open(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """A file's device and number, if this process has it open."""
    with suppress(OSError):
        number = _number(os.lstat(path))
        for descriptor in range(3, 256):
            with suppress(OSError):
                if _number(os.fstat(descriptor)) == number:
                    return number
    return None

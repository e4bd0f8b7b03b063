"""Makes a process look like one on another system, as far as Python code can tell; run before anything of ours.

What was built for this system (NumPy, OpenCV, FFmpeg) and the standard library are loaded first, as they are; then
goes all that the other system has not: modules, functions of `os`, folders of the kernel. `sys.platform` and the
locks of Windows are put in its place.
"""

from __future__ import annotations

import errno
import importlib
import importlib.abc
import os
import pkgutil
import shutil
import sys
import types
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from typing import Any

import psutil

#: Of POSIX, which Windows is not.
POSIX_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_FUNCTIONS = {
    "O_DIRECTORY", "fchmod", "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getloadavg", "getpgid",
    "getuid", "killpg", "mkfifo", "nice", "pread", "pwrite", "register_at_fork", "setsid", "statvfs", "sync",
    "sysconf", "uname", "wait3", "wait4",
}  # fmt: skip
#: Of Linux, which macOS is not either.
LINUX_FUNCTIONS = {
    "copy_file_range", "eventfd", "getrandom", "memfd_create", "pidfd_open", "posix_fadvise", "posix_fallocate",
    "sched_getaffinity", "sched_getscheduler", "sched_setaffinity", "setns", "splice", "timerfd_create", "unshare",
}  # fmt: skip


class _Absent(importlib.abc.MetaPathFinder):
    def __init__(self, names: set[str]) -> None:
        self._names = names

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: object = None) -> ModuleSpec | None:
        if name in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def become(system: str) -> None:
    """Turn this process into one on ``win32`` or ``darwin``, with nothing of ours imported."""
    load_everything()
    for name in ("structureflow_local.cli", "structureflow_local.run_here", "structureflow_local.validate_command"):
        importlib.import_module(name)
    # psutil is built for each system, and asks each in its own way
    memory = psutil.virtual_memory()
    psutil.virtual_memory = lambda: memory
    for name in [name for name in sys.modules if name.partition(".")[0] in {"structureflow", "structureflow_local"}]:
        del sys.modules[name]
    gone = set(LINUX_FUNCTIONS)
    if system == "win32":
        # before fcntl goes: what stands for it needs it
        locks = _windows_locks()
        _take_away(POSIX_MODULES)
        sys.modules["msvcrt"] = locks
        gone |= POSIX_FUNCTIONS
        # computed from what the standard library found when it was loaded
        shutil._use_fd_functions = False  # type: ignore[attr-defined]
        os.kill = _no_signals
    for name in gone & set(dir(os)):
        delattr(os, name)
    sys.platform = system
    sys.addaudithook(_no_kernel_folders)


def load_everything() -> list[str]:
    """Import every module of the library but its tests', and what they load; return their names."""
    import structureflow

    names = [
        found.name
        for found in pkgutil.walk_packages(structureflow.__path__, "structureflow.")
        if not found.name.startswith("structureflow.testing")
    ]
    for name in names:
        __import__(name)
    return names


def _take_away(names: set[str]) -> None:
    for name in names:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Absent(names))


def _windows_locks() -> types.ModuleType:
    """What `msvcrt.locking` does, as its documentation has it, by the locks of this system."""
    import fcntl

    module: Any = types.ModuleType("msvcrt")
    module.LK_UNLCK, module.LK_LOCK, module.LK_NBLCK = 0, 1, 2

    def locking(handle: int, mode: int, count: int) -> None:
        assert count == 1
        if mode == module.LK_UNLCK:
            fcntl.lockf(handle, fcntl.LOCK_UN, 1)
            return
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except BlockingIOError as error:
            # it gives up after ten seconds; here at once
            raise OSError(errno.EDEADLK, os.strerror(errno.EDEADLK)) from error

    module.locking = locking
    made: types.ModuleType = module
    return made


def _no_signals(process: int, number: int) -> None:
    raise AssertionError(f"os.kill({process}, {number}): on Windows this ends processes")


def _no_kernel_folders(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and str(arguments[0]).startswith(("/proc/", "/sys/", "/dev/shm")):
        raise AssertionError(f"{arguments[0]} is opened, which only Linux has")

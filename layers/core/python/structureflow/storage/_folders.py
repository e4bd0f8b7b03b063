"""What a folder that several processes share needs, on any system: a lock, names, and moving files into it."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from structureflow.locks import FOLDERS_TOO, lock, unlock

# A plain value, which a type checker does not decide by the system that it runs on.
_WINDOWS: bool = sys.platform == "win32"
#: Where a folder itself cannot be locked; nothing is ever written to it.
_LOCK_FILE: Final = "lock"
#: What no name on Windows has in it.
_NOT_ON_WINDOWS: Final = frozenset('<>:"|?*')
#: Windows moves and deletes no file that somebody has open, which ends soon; seconds, times the attempt's number.
_IN_USE_WAIT_S: Final = 0.01
_IN_USE_ATTEMPTS: Final = 20


class Clock:
    """Hands out modification times that never repeat, so that every write has its own ETag."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next_ns(self) -> int:
        """Return a time in nanoseconds since the epoch."""
        with self._lock:
            # Some file systems keep 100 ns; steps of a microsecond survive there.
            self._last = max(self._last + 1000, time.time_ns() // 1000 * 1000)
            return self._last


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, as far as they ask in the same way, until the block ends.

    The system unlocks for a process that is killed.

    Raises:
        NoLocksError: nothing can be locked there; the block is not entered.
    """
    if FOLDERS_TOO:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    else:
        handle = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT)
    try:
        lock(handle)
        try:
            yield
        finally:
            unlock(handle)
    finally:
        os.close(handle)


def is_name_here(key: str) -> bool:
    """Tell whether this system takes a key for a file's name."""
    return not _WINDOWS or not _NOT_ON_WINDOWS.intersection(key)


def create(scratch: Path, path: Path) -> None:
    """Put a file at a path where nothing is; `scratch` may go, or stay.

    Raises:
        FileExistsError: something is there.
    """
    if not _WINDOWS:
        os.link(scratch, path)
        return
    # Not every file system of Windows has links, and none renames over a file; others are locked out.
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    scratch.rename(path)


def when_free(path: Path, action: Callable[[], None]) -> None:
    """Do something to a file, again where somebody has it open and the system minds."""
    for attempt in range(1, _IN_USE_ATTEMPTS + 1):
        try:
            action()
        except PermissionError:
            if not _WINDOWS or not path.is_file() or attempt == _IN_USE_ATTEMPTS:
                raise
            time.sleep(_IN_USE_WAIT_S * attempt)
        else:
            return


def names_in(folder: Path, *, left_out: str = "") -> list[str]:
    """Return what lies in a folder but symbolic links, in the order of keys; names of folders end in a slash.

    A folder sorts by its name with the slash, as its keys do: "a-b" comes before "a/b".
    """
    with os.scandir(folder) as scan:
        found = [
            f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
            for entry in scan
            if not entry.is_symlink() and entry.name != left_out
        ]
    return sorted(found, key=os.fsencode)

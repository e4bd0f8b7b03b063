"""Locks of open files between processes, on any system; who is killed or closes the file has it no longer."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["FOLDERS_TOO", "NoLocksError", "lock", "try_lock", "unlock"]

# Which of the two is there depends on the system, whatever a type checker runs on.
fcntl: Any
msvcrt: Any
try:
    import fcntl
except ImportError:
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None

#: Whether a folder itself can be locked; elsewhere only a file can, by its first byte, which need not be there.
FOLDERS_TOO: Final = fcntl is not None
#: What file systems say that know no locks (some network ones).
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
#: What a system says of a lock that somebody else holds; ``msvcrt.locking`` after ten seconds, if it waits.
_HELD: Final = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


class NoLocksError(OSError):
    """The file system, or the system itself, knows no locks."""


def lock(handle: int) -> None:
    """Lock an open file once nobody else has.

    Raises:
        NoLocksError: nothing can be locked there.
    """
    with _naming_no_locks():
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        else:
            while not _byte_locked(handle, waits=True):
                pass


def try_lock(handle: int) -> bool:
    """Lock an open file; False if somebody else has.

    Raises:
        NoLocksError: nothing can be locked there.
    """
    with _naming_no_locks():
        if fcntl is None:
            return _byte_locked(handle, waits=False)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                return False
            raise
        return True


def unlock(handle: int) -> None:
    """Let others have a file that is locked: on Windows, closing alone does so some time later."""
    if msvcrt is not None:
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)


def _byte_locked(handle: int, *, waits: bool) -> bool:
    if msvcrt is None:
        raise NoLocksError(errno.ENOSYS, f"no file locks on {sys.platform}")
    try:
        msvcrt.locking(handle, msvcrt.LK_LOCK if waits else msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


@contextmanager
def _naming_no_locks() -> Iterator[None]:
    try:
        yield
    except NoLocksError:
        raise
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise NoLocksError(error.errno, error.strerror) from error
        raise

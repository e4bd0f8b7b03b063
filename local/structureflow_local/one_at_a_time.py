"""One run of a job at a time over a store: a run takes its job's folder for its own, and clears it when it ends."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from structureflow import keys
from structureflow.errors import OutputError

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

#: Empty files that are locked, one for each job's name; beside what the store holds.
_LOCKS: Final = "locks"
_POLL_S: Final = 0.1
#: What a system says of a lock that somebody else holds.
_HELD: Final = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})


@contextmanager
def alone(store: Path, task_id: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Wait until no other process runs that job over the store, and keep others waiting until the block ends.

    The system unlocks for a process that is killed. File systems that know no locks keep nobody waiting.

    Args:
        store: folder of the caches.
        task_id: of the job.
        waiting: called once, if somebody else has it.

    Raises:
        OutputError: the folder cannot be made or written to.
    """
    folder = store / _LOCKS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / keys.check_id(task_id, "task_id"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(f"store: {folder} cannot be written to: {error.strerror}", path=str(folder)) from error
    try:
        told = False
        while not _locked(handle):
            if not told:
                waiting()
                told = True
            time.sleep(_POLL_S)
        yield
    finally:
        # unlocks
        os.close(handle)


def _locked(handle: int) -> bool:
    """Lock a file if nobody else has; True also where nothing can be locked."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        return error.errno not in _HELD
    return True

"""One run of a job at a time over a store: a run takes its job's folder for its own, and clears it when it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from structureflow import keys
from structureflow.errors import OutputError
from structureflow.locks import try_lock

#: Empty files that are locked, one for each job's name; beside what the store holds.
_LOCKS: Final = "locks"
_POLL_S: Final = 0.1


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
        return try_lock(handle)
    except OSError:
        return True

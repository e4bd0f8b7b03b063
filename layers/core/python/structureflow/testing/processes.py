"""Processes of functions that die, the bucket that they work on, and how likely all that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from structureflow.storage.base import ObjectInfo, Storage
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.faults import Clock
from structureflow.testing.storage import WrapperStorage


class KilledError(BaseException):
    """The process of a function is gone. No handler may think that it can go on."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


@dataclass(frozen=True)
class Hostility:
    """How likely things are, from 0 to 1, and how many of a kind there are at most in one `Deployment`.

    Attributes:
        kill: a function, or a GPU task, is killed before or after a request.
        kills: in all.
        again: an event is delivered once more.
        late: that second time is when all else has ended.
        between: another event is delivered while a function makes a request.
        throttle: a call is refused for want of concurrency.
        unheard: a function's answer, after it did its work, does not reach who called it.
        no_gpu: no GPU task can be had.
        meddle: somebody does something to the bucket before a request.
        meddlings: in all.
    """

    kill: float = 0.0
    kills: int = 3
    again: float = 0.0
    late: float = 0.0
    between: float = 0.0
    throttle: float = 0.0
    unheard: float = 0.0
    no_gpu: float = 0.0
    meddle: float = 0.0
    meddlings: int = 3


class Bucket(MemoryStorage):
    """The data bucket: tells of every object that is created."""

    def __init__(self, clock: Clock, created: Callable[[str, str], None]) -> None:
        super().__init__(now=clock.now)
        self._created = created

    def put(self, key: str, data: bytes | bytearray | memoryview, **options: Any) -> ObjectInfo:
        """See `Storage.put`."""
        info = super().put(key, data, **options)
        self._created(key, info.etag)
        return info


class Surroundings(Protocol):
    """What happens around a process's requests; either may raise `KilledError`."""

    def before(self, process: Process, operation: str, key: str, number: int) -> None:
        """Before request `number` of that operation on that key."""
        ...

    def after(self, process: Process, operation: str, key: str, number: int) -> None:
        """After it was done."""
        ...


class Process(WrapperStorage):
    """The store as one process of a function sees it, while it lives."""

    def __init__(self, store: Storage, name: str, timeout_s: float, clock: Clock, around: Surroundings) -> None:
        super().__init__(store)
        self.name = name
        self.dead = False
        self._death: KilledError | None = None
        self._clock = clock
        self._around = around
        self._ends_at = clock() + timeout_s
        self._asked: Counter[tuple[str, str]] = Counter()

    def remaining_s(self) -> float:
        """Return the seconds until Lambda kills the process."""
        return self._ends_at - self._clock()

    @contextmanager
    def _request(self, operation: str, key: str) -> Iterator[None]:
        self._asked[operation, key] += 1
        number = self._asked[operation, key]
        self._must_live()
        try:
            self._around.before(self, operation, key, number)
            yield
            self._must_live()
            self._around.after(self, operation, key, number)
        except KilledError as death:
            self._death = self._death or death
            self.dead = True
            raise

    def _must_live(self) -> None:
        if self.dead:
            # Whichever thread comes first tells of it.
            raise self._death or KilledError("Runtime.ExitError", "its call has ended")

"""Faults by seed: a store and an HTTP server that misbehave the same way each time the same seed is given.

What happens to a request follows from the seed, the operation, the key and how often that was asked before, not from
the order in which threads come by. So a failure is replayed by its seed alone, which `Faults` prints.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from structureflow.errors import TransientStorageError
from structureflow.storage.base import ByteRange, ObjectInfo, Storage, StoredObject, Suffix
from structureflow.testing.storage import PAGE_KEYS, WrapperStorage

Kind = Literal["error", "lost", "flip", "truncate", "delay", "stale", "drop", "header"]


class Clock:
    """Time that passes only when somebody waits: for deadlines, pauses and ages in tests."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """Return the seconds, as `time.monotonic`."""
        with self._lock:
            return self._now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now += max(0.0, seconds)

    def now(self) -> datetime:
        """Return the moment in UTC."""
        return datetime.fromtimestamp(0, UTC) + timedelta(seconds=self())


@dataclass(frozen=True, slots=True)
class Rates:
    """How often each kind of fault strikes a request that it can strike, from 0 to 1.

    Attributes:
        error: fails as transient before anything is done; the next ones on the same key too, up to `burst` in all.
        lost: is done, and then fails as transient.
        flip: one bit of what is read is another one.
        truncate: what is read ends early; stores count, so this is a transient error, seen after half a transfer.
        delay: takes up to `delay_s` more.
        stale: a listing is as it was some writes ago.
        drop: HTTP only: the connection ends without an answer, before or after the request is done.
        header: HTTP only: ``ETag``, ``Last-Modified`` or ``Content-Length`` is missing.
    """

    error: float = 0.0
    lost: float = 0.0
    flip: float = 0.0
    truncate: float = 0.0
    delay: float = 0.0
    stale: float = 0.0
    drop: float = 0.0
    header: float = 0.0
    burst: int = 3
    delay_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that struck: the request's number among those on the key, and what happened to it."""

    operation: str
    key: str
    number: int
    kind: Kind


@dataclass
class Faults:
    """Decides what happens to every request.

    Attributes:
        seed: all follows from it.
        rates: how often.
        clock: passes with delays.
        active: False lets every request through, and counts none.
        struck: every fault so far.
    """

    seed: int
    rates: Rates
    clock: Clock = field(default_factory=Clock)
    active: bool = True
    struck: list[Struck] = field(default_factory=list)
    _asked: Counter[tuple[str, str]] = field(default_factory=Counter, repr=False)
    _bursts: dict[tuple[str, str], int] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __str__(self) -> str:
        kinds = Counter(one.kind for one in self.struck)
        return f"faults of seed {self.seed}: {dict(kinds)}"

    def count(self, operation: str, key: str) -> int:
        """Return the number of this request among those of its operation on the key."""
        with self._lock:
            self._asked[operation, key] += 1
            return self._asked[operation, key]

    def chance(self, *what: object) -> float:
        """Return a number from 0 (inclusive) to 1 that follows from the seed and `what`."""
        digest = hashlib.blake2b(repr((self.seed, *what)).encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64

    def strikes(self, kind: Kind, operation: str, key: str, number: int) -> bool:
        """Tell whether a fault strikes, and note it."""
        rate: float = getattr(self.rates, kind)
        if not self.active or self.chance(kind, operation, key, number) >= rate:
            return False
        self.note(kind, operation, key, number)
        return True

    def note(self, kind: Kind, operation: str, key: str, number: int) -> None:
        """Note a fault."""
        with self._lock:
            self.struck.append(Struck(operation, key, number, kind))

    def in_burst(self, operation: str, key: str, number: int) -> bool:
        """Tell whether a request fails outright: struck itself, or one of those that follow one that was."""
        if not self.active:
            return False
        with self._lock:
            left = self._bursts.get((operation, key), 0)
            if left:
                self._bursts[operation, key] = left - 1
        if left:
            self.note("error", operation, key, number)
            return True
        if self.strikes("error", operation, key, number):
            more = int(self.chance("burst", operation, key, number) * self.rates.burst)
            with self._lock:
                self._bursts[operation, key] = more
            return True
        return False

    def wait(self, operation: str, key: str, number: int) -> None:
        """Let time pass where a delay strikes."""
        if self.strikes("delay", operation, key, number):
            self.clock.sleep(self.chance("delay_s", operation, key, number) * self.rates.delay_s)

    def flipped(self, data: bytes, operation: str, key: str, number: int) -> bytes:
        """Return the bytes, one bit flipped where that strikes."""
        if not data or not self.strikes("flip", operation, key, number):
            return data
        bit = int(self.chance("bit", operation, key, number) * len(data) * 8)
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)


class SeededStorage(WrapperStorage):
    """A store under faults. Reads that nobody verifies may have a flipped bit, as ranges of S3 may.

    Args:
        inner: the store.
        faults: decide.
        checks_objects: whole objects that are read into memory have no flipped bits, as the SDK compares them with
            S3's checksums; ranges and files may.
    """

    def __init__(self, inner: Storage, faults: Faults, *, checks_objects: bool = False) -> None:
        super().__init__(inner)
        self.faults = faults
        self._checks_objects = checks_objects
        self._listings: dict[str, list[tuple[ObjectInfo, ...]]] = {}

    @contextmanager
    def _request(self, operation: str, key: str) -> Iterator[None]:
        faults = self.faults
        number = faults.count(operation, key)
        faults.wait(operation, key, number)
        if faults.in_burst(operation, key, number):
            raise TransientStorageError(f"{operation} {key}: injected error, {faults}", key=key)
        yield
        if faults.strikes("lost", operation, key, number):
            raise TransientStorageError(f"{operation} {key}: injected lost reply, {faults}", key=key)

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """See `Storage.get`; the bytes may have a flipped bit, or break off."""
        found = super().get(key, byte_range=byte_range, if_match=if_match)
        number = self.faults.count("read", key)
        self._check_whole("read", key, number)
        if self._checks_objects and byte_range is None:
            return found
        return replace(found, data=self.faults.flipped(found.data, "read", key, number))

    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, if_match: str | None = None
    ) -> ObjectInfo:
        """See `Storage.get_to_file`; the file may have a flipped bit."""
        number = self.faults.count("download", key)
        self._check_whole("download", key, number)
        info = super().get_to_file(key, path, max_bytes=max_bytes, if_match=if_match)
        data = path.read_bytes()
        if (changed := self.faults.flipped(data, "download", key, number)) is not data:
            path.write_bytes(changed)
        return info

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """See `Storage.list`; a listing may be an earlier one of the same prefix."""
        entries = tuple(self.inner.list(prefix, start_after=start_after))
        number = self.faults.count("listing", prefix)
        earlier = self._listings.setdefault(prefix, [])
        if earlier and self.faults.strikes("stale", "listing", prefix, number):
            entries = earlier[int(self.faults.chance("which", prefix, number) * len(earlier))]
        else:
            earlier.append(entries)
            del earlier[:-_KEPT_LISTINGS]
        remaining = iter(entries)
        while True:
            with self._request("list", prefix):
                page = tuple(islice(remaining, PAGE_KEYS))
            yield from page
            if len(page) < PAGE_KEYS:
                return

    def _check_whole(self, operation: str, key: str, number: int) -> None:
        if self.faults.strikes("truncate", operation, key, number):
            raise TransientStorageError(f"{operation} {key}: injected broken transfer, {self.faults}", key=key)


_KEPT_LISTINGS: Final = 4

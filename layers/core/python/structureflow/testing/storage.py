"""Stores that wrap another store: injected latency, injected faults, and counts of what was asked."""

from __future__ import annotations

import fnmatch
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from structureflow.storage.base import ByteRange, Checksum, ObjectInfo, Storage, StoredObject, Suffix
from structureflow.storage.wrapper import PAGE_KEYS as PAGE_KEYS
from structureflow.storage.wrapper import WrapperStorage as WrapperStorage


class LatencyStorage(WrapperStorage):
    """Waits `latency_s` before every request; S3 documents 0.1 to 0.2 s to the first byte."""

    def __init__(self, inner: Storage, latency_s: float = 0.1) -> None:
        super().__init__(inner)
        self.latency_s = latency_s

    @contextmanager
    def _request(self, operation: str, key: str) -> Iterator[None]:  # noqa: ARG002 - all alike
        time.sleep(self.latency_s)
        yield


class CountingStorage(WrapperStorage):
    """Counts requests by operation, and how many were in flight at once.

    Attributes:
        requests: number of requests by operation: ``get``, ``put``, ``list``, …
        keys: (operation, key) of every request, in order of their start.
        most_in_flight: the highest number of requests under way at one moment.
    """

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.requests: Counter[str] = Counter()
        self.keys: list[tuple[str, str]] = []
        self.most_in_flight = 0
        self._in_flight = 0
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """Number of requests so far."""
        return self.requests.total()

    def reset(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self.requests.clear()
            self.keys.clear()
            self.most_in_flight = 0

    @contextmanager
    def _request(self, operation: str, key: str) -> Iterator[None]:
        with self._lock:
            self.requests[operation] += 1
            self.keys.append((operation, key))
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1


@dataclass
class Fault:
    """What goes wrong, with which requests, how often.

    Attributes:
        operation: name of the method, or ``*``.
        pattern: of the key, as in `fnmatch.fnmatchcase` (``*`` matches ``/`` too).
        error: is raised; or None, and `change` is applied to the bytes that are read.
        change: replaces the bytes that `get` returns, or `get_to_file` writes.
        times: how many matching requests are struck; None for all.
        skip: how many matching requests pass before the first is struck.
        after: do the request, then raise: a lost reply.
    """

    operation: str
    pattern: str = "*"
    error: Exception | None = None
    change: Callable[[bytes], bytes] | None = None
    times: int | None = 1
    skip: int = 0
    after: bool = False
    struck: int = field(default=0, init=False)

    def matches(self, operation: str, key: str) -> bool:
        """Tell whether this fault is about such a request."""
        return self.operation in ("*", operation) and fnmatch.fnmatchcase(key, self.pattern)


class FaultStorage(WrapperStorage):
    """Raises chosen errors, before or after the request is done, and changes bytes that are read."""

    def __init__(self, inner: Storage, *faults: Fault) -> None:
        super().__init__(inner)
        self.faults = list(faults)
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Add a fault, and return it."""
        with self._lock:
            self.faults.append(fault)
        return fault

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """See `Storage.get`; faults with `change` are applied to the bytes."""
        found = super().get(key, byte_range=byte_range, if_match=if_match)
        for fault in self._striking("get", key, changing=True):
            if fault.change is not None:
                found = StoredObject(fault.change(found.data), found.info, found.start)
        return found

    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, if_match: str | None = None
    ) -> ObjectInfo:
        """See `Storage.get_to_file`; faults with `change` are applied to the file."""
        info = super().get_to_file(key, path, max_bytes=max_bytes, if_match=if_match)
        for fault in self._striking("get_to_file", key, changing=True):
            if fault.change is not None:
                path.write_bytes(fault.change(path.read_bytes()))
        return info

    @contextmanager
    def _request(self, operation: str, key: str) -> Iterator[None]:
        striking = self._striking(operation, key, changing=False)
        for fault in striking:
            if fault.error is not None and not fault.after:
                raise fault.error
        yield
        for fault in striking:
            if fault.error is not None:
                raise fault.error

    def _striking(self, operation: str, key: str, *, changing: bool) -> Sequence[Fault]:
        struck = []
        with self._lock:
            for fault in self.faults:
                if (fault.change is not None) != changing or not fault.matches(operation, key):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                elif fault.times is None or fault.struck < fault.times:
                    fault.struck += 1
                    struck.append(fault)
        return struck


class OpaqueStorage(WrapperStorage):
    """A store that says nothing of the bytes: no checksums, and ETags that are no digests of them.

    Such are file servers, and stores that encrypt with keys of their own.
    """

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """See `Storage.get`."""
        found = super().get(key, byte_range=byte_range, if_match=self._inner_etag(if_match))
        return StoredObject(found.data, self._opaque(found.info), found.start)

    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, if_match: str | None = None
    ) -> ObjectInfo:
        """See `Storage.get_to_file`."""
        return self._opaque(super().get_to_file(key, path, max_bytes=max_bytes, if_match=self._inner_etag(if_match)))

    def put(
        self,
        key: str,
        data: bytes | bytearray | memoryview,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """See `Storage.put`."""
        etag = self._inner_etag(if_match)
        return self._opaque(super().put(key, data, content_type=content_type, if_absent=if_absent, if_match=etag))

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """See `Storage.put_file`."""
        etag = self._inner_etag(if_match)
        return self._opaque(super().put_file(key, path, content_type=content_type, if_absent=if_absent, if_match=etag))

    def head(self, key: str) -> ObjectInfo:
        """See `Storage.head`."""
        return self._opaque(super().head(key))

    def checksums(self, info: ObjectInfo) -> Sequence[Checksum]:  # noqa: ARG002 - alike for all
        """Return none."""
        return ()

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """See `Storage.list`."""
        return (self._opaque(info) for info in super().list(prefix, start_after=start_after))

    def copy(self, source_key: str, target_key: str, *, if_match: str | None = None) -> ObjectInfo:
        """See `Storage.copy`."""
        return self._opaque(super().copy(source_key, target_key, if_match=self._inner_etag(if_match)))

    @staticmethod
    def _opaque(info: ObjectInfo) -> ObjectInfo:
        return replace(info, etag=f"opaque-{info.etag}", checksums=())

    @staticmethod
    def _inner_etag(etag: str | None) -> str | None:
        return None if etag is None else etag.removeprefix("opaque-")

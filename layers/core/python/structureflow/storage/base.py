"""The storage port: the few operations on whole objects and byte ranges that the system needs.

A `Storage` is bound to one bucket (or one folder). Keys are the strings that `structureflow.keys` builds;
adapters add nothing to them. All methods may be called from several threads at once.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start` (inclusive) to `stop` (exclusive) of an object; cut at its end."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"expected 0 <= start < stop, got {self.start}, {self.stop}")


@dataclass(frozen=True, slots=True)
class Suffix:
    """The last `length` bytes of an object, or all of it if it is shorter."""

    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"expected length >= 1, got {self.length}")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store knows of an object without its bytes. `etag` has no quotes and is opaque."""

    key: str
    size_bytes: int
    etag: str
    last_modified: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Bytes read from an object: the whole, or the range asked for. `info.size_bytes` is the whole's size."""

    data: bytes
    info: ObjectInfo
    start: int = 0


class Storage(abc.ABC):
    """Objects of one bucket. Every error is a `structureflow.errors.StorageError` or its descendant.

    Common to all methods: `StorageError` when access is denied or the bucket does not exist,
    `TransientStorageError` when the store does not answer, throttles or breaks off (after the adapter's own
    retries).
    """

    @property
    @abc.abstractmethod
    def uri(self) -> str:
        """Where this store is, for people: ``s3://bucket`` or ``file:///folder``."""

    @abc.abstractmethod
    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """Read an object, or a part of it, in one request.

        Raises:
            ObjectNotFoundError: no such object.
            ObjectChangedError: `if_match` is given and the object's ETag is another one.
            RangeNotSatisfiableError: the range starts at or past the end.
        """

    @abc.abstractmethod
    def get_to_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> ObjectInfo:
        """Download an object into the file `path` with bounded memory; no partial file stays behind.

        Raises:
            ObjectNotFoundError: no such object.
            StorageError: the object is larger than `max_bytes`.
        """

    @abc.abstractmethod
    def put(
        self,
        key: str,
        data: bytes | bytearray | memoryview,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
    ) -> ObjectInfo:
        """Write an object in one piece; readers see the old object or the new one, never a mixture.

        With `if_absent`, create only: a lost reply whose write did arrive counts as success.

        Raises:
            ObjectExistsError: `if_absent` and an object with other bytes is there.
        """

    @abc.abstractmethod
    def put_file(self, key: str, path: Path, *, content_type: str | None = None, if_absent: bool = False) -> ObjectInfo:
        """Write an object from the file `path` with bounded memory; otherwise as `put`."""

    @abc.abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """Return what the store knows of an object.

        Raises:
            ObjectNotFoundError: no such object.
        """

    @abc.abstractmethod
    def exists(self, key: str) -> bool:
        """Tell whether an object is there, in one request."""

    @abc.abstractmethod
    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Iterate over objects whose key starts with `prefix`, in UTF-8 order, a page at a time."""

    @abc.abstractmethod
    def delete(self, keys: Iterable[str]) -> int:
        """Delete objects in batches, consuming `keys` a page at a time; missing ones are no error.

        Returns the number of keys asked for.
        """

    @abc.abstractmethod
    def copy(self, source_key: str, target_key: str) -> ObjectInfo:
        """Copy an object inside the store without moving its bytes through this process.

        Raises:
            ObjectNotFoundError: no such source.
        """

    @abc.abstractmethod
    def presigned_url(self, key: str, *, expires_s: int = 3600) -> str:
        """Return a URL that reads the object without credentials for `expires_s` seconds."""

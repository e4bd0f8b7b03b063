"""Byte ranges of one object, and what lies in them: the ZIP directory and small arrays."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from structureflow.errors import (
    FlowCacheCorruptError,
    FlowCacheError,
    FlowCacheFormatError,
    FlowCacheLimitError,
    InputNotFoundError,
    ObjectChangedError,
    RangeNotSatisfiableError,
)
from structureflow.flow.archive import zipdir
from structureflow.flow.archive.blocks import inflate
from structureflow.flow.archive.limits import TAIL_BYTES, FlowLimits
from structureflow.flow.archive.npy import broken, parse_npy_header
from structureflow.flow.archive.zipdir import ZipMember
from structureflow.storage.base import ByteRange, ObjectInfo, StoredObject, Suffix


class RangeReader(Protocol):
    """What the archive needs of a store; every `structureflow.storage.base.Storage` has it."""

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """Read an object or a part of it, in one request (`Storage.get`)."""
        ...


class FileReader:
    """Read byte ranges of local files; the key is the path. The ETag tells size and time of change."""

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """Read a file or a part of it (`Storage.get`).

        Raises:
            InputNotFoundError: no such file.
            ObjectChangedError: `if_match` is not the file's present ETag.
            RangeNotSatisfiableError: the range starts at or past the end.
        """
        path = Path(key)
        if not path.is_file():
            raise InputNotFoundError(f"flow archive: expected a file, got {key!r:.300}")
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            etag = f"{state.st_size:x}-{state.st_mtime_ns:x}"
            if if_match is not None and if_match != etag:
                raise ObjectChangedError(f"{key}: changed since it was opened")
            start, stop = 0, state.st_size
            if isinstance(byte_range, Suffix):
                start = max(0, stop - byte_range.length)
            elif byte_range is not None:
                start, stop = byte_range.start, min(stop, byte_range.stop)
                if start >= stop:
                    raise RangeNotSatisfiableError(f"{key}: {start} is past the end, {state.st_size}")
            file.seek(start)
            return StoredObject(file.read(stop - start), ObjectInfo(key, state.st_size, etag), start)


class ByteSource:
    """Byte ranges of one object; counts requests, answers from the tail what lies in it."""

    def __init__(self, storage: RangeReader, key: str) -> None:
        """Ask for the last bytes of the object; every later request demands the ETag that came with them."""
        self.key = key
        self.requests = 0
        self._storage = storage
        self._lock = threading.Lock()
        stored = self._get(Suffix(TAIL_BYTES), None)
        self.info = stored.info
        self.etag = stored.info.etag
        self._tail = stored.data
        self._tail_start = stored.info.size_bytes - len(stored.data)
        if self._tail_start < 0 or len(stored.data) < min(TAIL_BYTES, stored.info.size_bytes):
            raise self.broken(f"the store gave {len(stored.data)} bytes of {stored.info.size_bytes}")

    def broken(self, why: str) -> FlowCacheFormatError:
        """Return the error of an archive that can't be read."""
        return broken(self.key, why)

    def damaged(self, why: str) -> FlowCacheCorruptError:
        """Return the error of an archive whose bytes are not those that were written."""
        return FlowCacheCorruptError(f"{self.key}: {why}", key=self.key)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say of which object an error of `zipdir` is, which has bytes only."""
        try:
            yield
        except FlowCacheError as error:
            raise error if error.message.startswith(self.key) else error.within(self.key) from error

    def _get(self, byte_range: ByteRange | Suffix, etag: str | None) -> StoredObject:
        with self._lock:
            self.requests += 1
        try:
            return self._storage.get(self.key, byte_range=byte_range, if_match=etag)
        except ObjectChangedError as error:
            raise self.damaged("overwritten while it was read") from error
        except RangeNotSatisfiableError as error:
            raise FlowCacheFormatError(f"{self.key}: empty, or shorter than it says", key=self.key) from error

    def read(self, start: int, stop: int) -> memoryview:
        """Return bytes `start` (inclusive) to `stop` (exclusive), which must all be there."""
        if not 0 <= start <= stop <= self.info.size_bytes:
            raise self.broken(f"bytes {start} to {stop} of {self.info.size_bytes}")
        if start >= self._tail_start or start == stop:
            return memoryview(self._tail)[start - self._tail_start : stop - self._tail_start]
        data = self._get(ByteRange(start, stop), self.etag).data
        if len(data) != stop - start:
            raise self.broken(f"expected {stop - start} bytes at {start}, got {len(data)}")
        return memoryview(data)

    def read_directory(self, limits: FlowLimits) -> dict[str, ZipMember]:
        """Read the ZIP directory, and with it all that lies uncompressed in front of it."""
        with self._named():
            extent = zipdir.find_directory(self._tail, self.info.size_bytes)
        if extent.size_bytes > limits.max_tail_bytes:
            raise FlowCacheLimitError(
                f"{self.key}: a directory of {extent.size_bytes} bytes, at most {limits.max_tail_bytes}"
            )
        records = self.read(extent.offset, extent.offset + extent.size_bytes)
        with self._named():
            members = zipdir.parse_directory(bytes(records), extent, max_members=limits.max_members)
        # Metadata lies in front of the directory: have it all with one request, were it longer than the tail.
        stored = [m.header_offset for m in members.values() if m.method == zipdir.STORED]
        first = min((offset for offset in stored if offset >= extent.offset - limits.max_tail_bytes), default=0)
        if "format_version.npy" in members and stored and first < self._tail_start:
            self._tail = bytes(self.read(first, self.info.size_bytes))
            self._tail_start = first
        return members

    def member_data(self, member: ZipMember) -> int:
        """Return where a member's data starts."""
        stop = min(member.header_offset + zipdir.local_header_bytes(member.name, wide=False), self.info.size_bytes)
        with self._named():
            start = zipdir.data_offset(bytes(self.read(member.header_offset, stop)), member)
        if start + member.compressed_bytes > self.info.size_bytes:
            raise self.broken(f"{member.name} ends behind the object")
        return start

    def read_array(self, member: ZipMember, limits: FlowLimits) -> NDArray[Any]:
        """Read a small array of no or one dimension whole, checked against ZIP's CRC-32."""
        if max(member.size_bytes, member.compressed_bytes) > limits.max_tail_bytes:
            raise FlowCacheLimitError(
                f"{self.key}: {member.name} declares {member.size_bytes} bytes, at most {limits.max_tail_bytes}"
            )
        start = self.member_data(member)
        data = bytes(self.read(start, start + member.compressed_bytes))
        if member.method == zipdir.DEFLATED:
            data = inflate(data, member.size_bytes, self.key)
        if len(data) != member.size_bytes or isal_zlib.crc32(data) != member.crc32:
            raise self.damaged(f"{member.name} does not have its CRC-32")
        header = parse_npy_header(data, self.key)
        if len(header.shape) > 1 or len(data) - header.data_start != header.size_bytes:
            raise self.broken(f"{member.name} does not hold its shape {header.shape}")
        count = header.shape[0] if header.shape else 1
        return np.frombuffer(data, header.dtype, count, offset=header.data_start).reshape(header.shape)

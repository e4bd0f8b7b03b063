"""The flow archive: an ordinary ``.npz`` that is written as a stream and read by byte ranges.

``numpy.load`` opens it like any other. Beyond that, each of its flow members is one deflate stream that is
flushed in full after the array header and after every flow field, so that fields i to j can be inflated on
their own, and a seek table (``*_offsets``, ``*_crc32``) lies uncompressed beside the central directory, so
that the last bytes of the object tell everything but the flows.

Layout, in file order (``N`` flows of ``h`` x ``w``; the members from ``flows_shape`` on are uncompressed)::

    flows.npy                    (N, h, w, 2) float16, forward
    flows_backward.npy           the same, backward; absent when only forward flow is known
    flows_shape.npy              (4,) int64: N, h, w, 2
    flows_offsets.npy            (N + 1,) int64: flow i is the bytes [i] (inclusive) to [i + 1] (exclusive)
    flows_crc32.npy              (N,) uint32: CRC-32 of those (compressed) bytes
    flows_backward_offsets.npy, flows_backward_crc32.npy
    source_video, total_flows, original_fps, original_resolution (width, height), engine, engine_params
    (JSON), quantization_px, timestamps_s, scene_cuts, display_max_px, source_sha256 or source_etag, format_version

A range read bypasses ZIP's own checksum; the CRC-32 of every block is therefore checked on each read.
Archives that ``numpy.savez`` or ``numpy.savez_compressed`` wrote are read too, but from the front: they have
one checksum for all flows, and no way to start in the middle.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import math
import os
import struct
import threading
import zlib
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

import numpy as np
from isal import igzip_lib, isal_zlib
from numpy.typing import NDArray

from structureflow.errors import (
    FlowCacheCorruptError,
    FlowCacheFormatError,
    FlowCacheLimitError,
    FlowCacheVersionError,
    FlowError,
    InputNotFoundError,
    ObjectChangedError,
    RangeNotSatisfiableError,
)
from structureflow.flow import zipdir
from structureflow.flow.archive_writer import (
    FLOW_HEADER_BYTES,
    FORMAT_VERSION,
    MAX_VECTOR_PX,
    PREFIX_BYTES,
    STREAM_END,
    FlowArchiveWriter,
    FlowBlock,
    compress_flow,
    quantise,
)
from structureflow.flow.fields import Direction, FlowMeta
from structureflow.flow.npy import NpyHeader, broken, parse_npy_header
from structureflow.flow.zipdir import ZipMember
from structureflow.limits import MAX_FLOWS
from structureflow.storage.base import ByteRange, ObjectInfo, StoredObject, Suffix

__all__ = [
    "FORMAT_VERSION",
    "MAX_VECTOR_PX",
    "TAIL_BYTES",
    "WINDOW_BYTES",
    "ArrayFlows",
    "FileReader",
    "FlowArchive",
    "FlowArchiveWriter",
    "FlowBlock",
    "FlowLimits",
    "RangeReader",
    "check_range",
    "compress_flow",
    "open_flow_archive",
    "open_flow_file",
    "quantise",
]

#: The first request asks for this much of the end: the seek table of some 5,000 flows in both directions.
TAIL_BYTES: Final = 192 * 1024

# The package's stubs declare the class as an instance.
_ISAL_ERROR = cast("type[Exception]", igzip_lib.IsalError)
_MEMBERS: Final[dict[Direction, str]] = {"forward": "flows", "backward": "flows_backward"}
_PLAIN_CHUNK_BYTES: Final = 8 * 1024 * 1024
#: `FlowArchive.expect` asks for so many compressed bytes at once, and holds up to two such windows per direction.
WINDOW_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """Bounds of what an archive may declare; checked before memory is allocated.

    Attributes:
        max_flows: most flow fields.
        max_side_px: largest height or width of the stored grid.
        max_read_bytes: most bytes that one `read` returns.
        max_tail_bytes: most bytes of directory, metadata and seek table.
        max_members: most ZIP members.
        max_stream_bytes: most bytes inflated from a plain archive, which has to be read from its start.
    """

    max_flows: int = MAX_FLOWS
    max_side_px: int = 4096
    max_read_bytes: int = 2 * 1024**3
    max_tail_bytes: int = 4 * 1024**2
    max_members: int = 64
    max_stream_bytes: int = 16 * 1024**3


class RangeReader(Protocol):
    """What the archive needs of a store; every `structureflow.storage.base.Storage` has it."""

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """Read an object or a part of it, in one request (`Storage.get`)."""
        ...


def open_flow_archive(
    storage: RangeReader, key: str, *, limits: FlowLimits | None = None, workers: int = 2
) -> FlowArchive:
    """Open an archive with one request for its last bytes (plain archives may need a few more).

    Args:
        storage, key: where it is.
        limits: bounds of what it may declare.
        workers: threads that inflate blocks in `FlowArchive.read`.

    Raises:
        ObjectNotFoundError, StorageError: the store does not give the object; nothing is known of it.
        FlowCacheError: it is no flow archive, is damaged, of another version or beyond the limits.
    """
    bounds = limits or FlowLimits()
    source = _Source(storage, key)
    directory = source.read_directory(bounds)
    if "format_version.npy" in directory:
        return _SeekableArchive(source, directory, bounds, workers)
    return _PlainArchive(source, directory, bounds)


def open_flow_file(path: Path, *, limits: FlowLimits | None = None, workers: int = 2) -> FlowArchive:
    """Open an archive that is a local file; as `open_flow_archive`.

    Raises:
        InputNotFoundError: no such file.
        FlowCacheError: as `open_flow_archive`.
    """
    return open_flow_archive(FileReader(), str(path), limits=limits, workers=workers)


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


class _Source:
    """Byte ranges of one object; counts requests, answers from the tail what lies in it."""

    def __init__(self, storage: RangeReader, key: str) -> None:
        self.key = key
        self.requests = 0
        self._storage = storage
        self._lock = threading.Lock()
        stored = self._get(Suffix(TAIL_BYTES), None)
        self.info = stored.info
        self.etag = stored.info.etag
        self._tail = stored.data
        self._tail_start = stored.info.size_bytes - len(stored.data)
        if self._tail_start < 0:
            raise self.broken(f"the store gave {len(stored.data)} bytes of {stored.info.size_bytes}")

    def broken(self, why: str) -> FlowCacheFormatError:
        return broken(self.key, why)

    def _get(self, byte_range: ByteRange | Suffix, etag: str | None) -> StoredObject:
        with self._lock:
            self.requests += 1
        try:
            return self._storage.get(self.key, byte_range=byte_range, if_match=etag)
        except ObjectChangedError as error:
            raise FlowCacheCorruptError(f"{self.key}: overwritten while it was read", key=self.key) from error
        except RangeNotSatisfiableError as error:
            raise FlowCacheFormatError(f"{self.key}: empty, or shorter than it says", key=self.key) from error

    def read(self, start: int, stop: int) -> memoryview:
        """Return bytes `start` (inclusive) to `stop` (exclusive), which must all be there."""
        if not 0 <= start <= stop <= self.info.size_bytes:
            raise self.broken(f"bytes {start} to {stop} of {self.info.size_bytes}")
        if start >= self._tail_start:
            return memoryview(self._tail)[start - self._tail_start : stop - self._tail_start]
        data = self._get(ByteRange(start, stop), self.etag).data
        if len(data) != stop - start:
            raise self.broken(f"expected {stop - start} bytes at {start}, got {len(data)}")
        return memoryview(data)

    def read_directory(self, limits: FlowLimits) -> dict[str, ZipMember]:
        extent = zipdir.find_directory(self._tail, self.info.size_bytes)
        if extent.size_bytes > limits.max_tail_bytes:
            raise FlowCacheLimitError(
                f"{self.key}: a directory of {extent.size_bytes} bytes, at most {limits.max_tail_bytes}"
            )
        records = self.read(extent.offset, extent.offset + extent.size_bytes)
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
        stop = min(member.header_offset + 30, self.info.size_bytes)
        start = zipdir.data_offset(bytes(self.read(member.header_offset, stop)), member)
        if start + member.compressed_bytes > self.info.size_bytes:
            raise self.broken(f"{member.name} ends behind the object")
        return start

    def read_array(self, member: ZipMember, limits: FlowLimits) -> NDArray[Any]:
        """Read a small array whole, checked against ZIP's CRC-32."""
        if max(member.size_bytes, member.compressed_bytes) > limits.max_tail_bytes:
            raise FlowCacheLimitError(
                f"{self.key}: {member.name} declares {member.size_bytes} bytes, at most {limits.max_tail_bytes}"
            )
        start = self.member_data(member)
        data = bytes(self.read(start, start + member.compressed_bytes))
        if member.method == zipdir.DEFLATED:
            data = _inflate(data, member.size_bytes, self.key)
        if len(data) != member.size_bytes or isal_zlib.crc32(data) != member.crc32:
            raise FlowCacheCorruptError(f"{self.key}: {member.name} does not have its CRC-32", key=self.key)
        header = parse_npy_header(data, self.key)
        expected = math.prod(header.shape) * header.dtype.itemsize
        if header.fortran or len(data) - header.data_start != expected:
            raise self.broken(f"{member.name} does not hold its shape {header.shape}")
        return np.frombuffer(data, header.dtype, offset=header.data_start).reshape(header.shape)


class FlowArchive:
    """An opened archive; a `FlowSource`. Its reads may run in several threads at once.

    Attributes:
        meta: what is known without reading flows.
        etag: the object's ETag when it was opened; each later request demands it.
        info: the object's key, size and ETag.
        members: the ZIP members by name.
        seekable: whether ranges are read alone (our own format) or from the start (plain archives).
    """

    seekable: bool

    def __init__(self, source: _Source, members: dict[str, ZipMember], limits: FlowLimits) -> None:
        self._source = source
        self._limits = limits
        self.members = members
        self.info = source.info
        self.etag = source.etag

    @property
    def meta(self) -> FlowMeta:
        """What is known without reading flows."""
        raise NotImplementedError

    @property
    def requests(self) -> int:
        """Requests sent to the store so far."""
        return self._source.requests

    def expect(self, start: int, stop: int) -> None:
        """Say that flows `start` (inclusive) to `stop` (exclusive) will be read, in pieces and in any order.

        A seekable archive then asks for their compressed bytes in windows of `WINDOW_BYTES` (most often one), each
        when its first flow is read: flows far apart cost no request each, for in the time of a request S3 sends
        some 10 MB. Plain archives ignore it.

        Raises:
            FlowError: the range is not inside ``0 <= start < stop <= total_flows``.
        """
        check_range(self.meta, "forward", start, stop)

    def read(self, direction: Direction, start: int, stop: int) -> NDArray[np.float16]:
        """Read flows `start` (inclusive) to `stop` (exclusive), with at most one request if seekable.

        Returns:
            ``(stop - start, height, width, 2)`` float16, finite, (dx, dy) in pixels of the stored grid; a new
            array that the caller owns.

        Raises:
            FlowError: the range is not inside ``0 <= start < stop <= total_flows``, or the direction is not
                there.
            FlowCacheError: the archive is damaged there, was overwritten, or the range exceeds the limits.
        """
        meta = self.meta
        check_range(meta, direction, start, stop)
        size = (stop - start) * meta.height * meta.width * 4
        if size > self._limits.max_read_bytes:
            raise FlowCacheLimitError(
                f"{self._source.key}: {stop - start} flows are {size} bytes, at most {self._limits.max_read_bytes}"
            )
        return self._read(direction, start, stop)

    def _read(self, direction: Direction, start: int, stop: int) -> NDArray[np.float16]:
        raise NotImplementedError

    def _check_grid(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        if len(shape) != 4 or shape[3] != 2 or min(shape) < 1:
            raise self._source.broken(f"flows: expected (N, h, w, 2), got {shape}")
        total, height, width, _ = shape
        if total > self._limits.max_flows or max(height, width) > self._limits.max_side_px:
            raise FlowCacheLimitError(
                f"{self._source.key}: {total} flows of {width}x{height}, at most "
                f"{self._limits.max_flows} of {self._limits.max_side_px}"
            )
        return total, height, width

    def _metadata(self, names: set[str]) -> dict[str, NDArray[Any]]:
        return {
            name: self._source.read_array(self.members[f"{name}.npy"], self._limits)
            for name in sorted(names)
            if f"{name}.npy" in self.members
        }


class _SeekableArchive(FlowArchive):
    seekable = True

    def __init__(self, source: _Source, members: dict[str, ZipMember], limits: FlowLimits, workers: int) -> None:
        super().__init__(source, members, limits)
        self._workers = max(1, workers)
        self._windows: dict[Direction, _Windows] = {}
        version = _integer(self._metadata({"format_version"}), "format_version", source)
        if version != FORMAT_VERSION:
            raise FlowCacheVersionError(
                f"{source.key}: expected format version {FORMAT_VERSION}, got {version}", version=version
            )
        names = {name.removesuffix(".npy") for name in members}
        if not any(
            names == _FORWARD_NAMES | extra | {tag} for extra in (frozenset(), _BACKWARD_NAMES) for tag in _TAGS
        ):
            raise source.broken(f"its members are not those of version {version}: {sorted(names)!r:.600}")
        values = self._metadata(names - set(_MEMBERS.values()))
        shape = _vector(values, "flows_shape", 4, source)
        total, height, width = self._check_grid(tuple(int(side) for side in shape))
        self._tables = {
            direction: self._table(name, values, (total, height, width, 2))
            for direction, name in _MEMBERS.items()
            if direction == "forward" or f"{name}.npy" in members
        }
        self._meta = _read_metadata(values, source, total, height, width, has_backward="backward" in self._tables)
        if self._meta.total_flows != total or len(self._meta.timestamps_s) != total + 1:
            raise source.broken(f"{self._meta.total_flows} flows and {len(self._meta.timestamps_s)} times for {total}")

    @property
    def meta(self) -> FlowMeta:
        return self._meta

    def _table(
        self, name: str, values: dict[str, NDArray[Any]], shape: tuple[int, ...]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        total = shape[0]
        offsets = _vector(values, f"{name}_offsets", total + 1, self._source).astype(np.int64)
        crcs = _vector(values, f"{name}_crc32", total, self._source).astype(np.uint32)
        member = self.members.get(f"{name}.npy")
        if member is None or member.size_bytes != FLOW_HEADER_BYTES + math.prod(shape) * 2:
            raise self._source.broken(f"{name} does not have the size of {shape}")
        start = member.header_offset + zipdir.local_header_bytes(member.name, wide=True)
        lengths = np.diff(offsets)
        # Deflate never grows its input by more than 5 bytes in 16 kB and the flush.
        longest = math.prod(shape[1:]) * 2 * 1.001 + 64
        if (
            offsets[0] != start + PREFIX_BYTES
            or offsets[-1] != start + member.compressed_bytes - len(STREAM_END)
            or lengths.min() < 1
            or lengths.max() > longest
        ):
            raise self._source.broken(f"the offsets of {name} do not rise from its start to its end")
        return offsets, crcs

    def expect(self, start: int, stop: int) -> None:
        super().expect(start, stop)
        self._windows = {direction: _Windows(offsets, start, stop) for direction, (offsets, _) in self._tables.items()}

    def _compressed(self, direction: Direction, start: int, stop: int) -> bytes | memoryview:
        """Return the compressed bytes of flows `start` (inclusive) to `stop` (exclusive)."""
        offsets, _ = self._tables[direction]
        windows = self._windows.get(direction)
        held = None if windows is None else windows.bytes_of(start, stop, self._source)
        return self._source.read(int(offsets[start]), int(offsets[stop])) if held is None else held

    def _read(self, direction: Direction, start: int, stop: int) -> NDArray[np.float16]:
        offsets, crcs = self._tables[direction]
        base = int(offsets[start])
        data = self._compressed(direction, start, stop)
        meta = self._meta
        flows = np.empty((stop - start, meta.height, meta.width, 2), np.float16)

        def inflate(index: int) -> None:
            block = data[int(offsets[start + index]) - base : int(offsets[start + index + 1]) - base]
            if isal_zlib.crc32(block) != int(crcs[start + index]):
                raise FlowCacheCorruptError(
                    f"{self._source.key}: {direction} flow {start + index} does not have its CRC-32",
                    key=self._source.key,
                    flow=start + index,
                )
            target = flows[index]
            plain = _inflate(block, target.nbytes, self._source.key)
            target[...] = np.frombuffer(plain, "<f2").reshape(target.shape)
            _check_finite(target, self._source.key)

        count = stop - start
        if self._workers == 1 or count < 4:
            for index in range(count):
                inflate(index)
        else:
            with ThreadPoolExecutor(min(self._workers, count)) as pool:
                for _ in pool.map(inflate, range(count)):
                    pass
        return flows


class _Windows:
    """The compressed bytes of one direction's expected flows, asked for in windows that lie end to end."""

    def __init__(self, offsets: NDArray[np.int64], start: int, stop: int) -> None:
        """Cover flows `start` (inclusive) to `stop` (exclusive); flow i is the bytes `offsets` [i] to [i + 1]."""
        self._offsets = offsets
        self._edges = [start]
        while self._edges[-1] < stop:
            within = int(np.searchsorted(offsets, offsets[self._edges[-1]] + WINDOW_BYTES, side="right")) - 1
            self._edges.append(min(max(within, self._edges[-1] + 1), stop))
        self._held: dict[int, memoryview] = {}
        self._lock = threading.Lock()

    def bytes_of(self, start: int, stop: int, source: _Source) -> bytes | memoryview | None:
        """Return the bytes of flows `start` (inclusive) to `stop` (exclusive); None if windows are no help there."""
        if not self._edges[0] <= start < stop <= self._edges[-1]:
            return None
        first, last = bisect.bisect_right(self._edges, start) - 1, bisect.bisect_left(self._edges, stop) - 1
        if last - first > 1:
            return None
        with self._lock:
            parts = [self._part(number, start, stop, source) for number in range(first, last + 1)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, number: int, start: int, stop: int, source: _Source) -> memoryview:
        edges, offsets = self._edges, self._offsets
        base = int(offsets[edges[number]])
        # Taken out and put in again: the first of the dictionary is the one used longest ago.
        window = self._held.pop(number, None)
        if window is None:
            window = source.read(base, int(offsets[edges[number + 1]]))
            while len(self._held) > 1:
                del self._held[next(iter(self._held))]
        self._held[number] = window
        return window[
            int(offsets[max(start, edges[number])]) - base : int(offsets[min(stop, edges[number + 1])]) - base
        ]


class _PlainArchive(FlowArchive):
    seekable = False

    def __init__(self, source: _Source, members: dict[str, ZipMember], limits: FlowLimits) -> None:
        super().__init__(source, members, limits)
        if "flows.npy" not in members:
            raise source.broken("it has no member 'flows'")
        self._arrays: dict[str, NpyHeader] = {}
        shape = self._open_flows("flows")
        total, height, width = self._check_grid(shape)
        backward = "flows_backward.npy" in members
        if backward and self._open_flows("flows_backward") != shape:
            raise source.broken("flows_backward has another shape than flows")
        values = self._metadata(_METADATA_NAMES)
        self._meta = _read_metadata(values, source, total, height, width, has_backward=backward)
        if self._meta.total_flows != total:
            raise source.broken(f"total_flows says {self._meta.total_flows}, flows holds {total}")

    @property
    def meta(self) -> FlowMeta:
        return self._meta

    def _open_flows(self, name: str) -> tuple[int, ...]:
        member = self.members[f"{name}.npy"]
        if member.size_bytes > self._limits.max_stream_bytes:
            raise FlowCacheLimitError(
                f"{self._source.key}: {name} declares {member.size_bytes} bytes, "
                f"at most {self._limits.max_stream_bytes}"
            )
        with contextlib.closing(self._stream(member, 4096)) as pieces:
            head = b""
            for piece in pieces:
                head += piece
                if len(head) >= 10 and len(head) >= 10 + struct.unpack_from("<H", head, 8)[0]:
                    break
        header = parse_npy_header(head, self._source.key)
        if header.dtype.kind != "f" or header.fortran:
            raise self._source.broken(f"{name}: expected floating C-ordered flows, got {header.dtype}")
        self._check_grid(header.shape)
        expected = math.prod(header.shape) * header.dtype.itemsize
        if header.data_start + expected != member.size_bytes:
            raise self._source.broken(f"{name}: {member.size_bytes} bytes do not hold {header.shape} {header.dtype}")
        self._arrays[name] = header
        return header.shape

    def _stream(self, member: ZipMember, first_bytes: int = _PLAIN_CHUNK_BYTES) -> Generator[bytes, None, None]:
        """Yield a member's plain bytes in pieces, with one request per chunk, and never more than it declares."""
        position = self._source.member_data(member)
        stop = position + member.compressed_bytes
        inflater = zlib.decompressobj(-15) if member.method == zipdir.DEFLATED else None
        left = member.size_bytes
        length = first_bytes
        while position < stop:
            chunk = bytes(self._source.read(position, min(stop, position + length)))
            position += len(chunk)
            length = _PLAIN_CHUNK_BYTES
            while chunk:
                try:
                    piece = inflater.decompress(chunk, _PLAIN_CHUNK_BYTES) if inflater else chunk
                except zlib.error as error:
                    raise FlowCacheCorruptError(f"{self._source.key}: {member.name}: {error}") from error
                chunk = inflater.unconsumed_tail if inflater else b""
                left -= len(piece)
                if left < 0:
                    raise FlowCacheLimitError(f"{self._source.key}: {member.name} inflates beyond its size")
                yield piece

    def _read(self, direction: Direction, start: int, stop: int) -> NDArray[np.float16]:
        name = _MEMBERS[direction]
        member, header = self.members[f"{name}.npy"], self._arrays[name]
        meta = self._meta
        flows = np.empty((stop - start, meta.height, meta.width, 2), np.float16)
        field_bytes = meta.height * meta.width * 2 * header.dtype.itemsize
        pending = bytearray()
        skip = header.data_start
        index, crc, seen = 0, 0, 0
        for piece in self._stream(member):
            crc = isal_zlib.crc32(piece, crc)
            seen += len(piece)
            pending += piece[skip:]
            skip = max(0, skip - len(piece))
            position = 0
            while len(pending) - position >= field_bytes:
                if start <= index < stop:
                    field = np.frombuffer(pending, header.dtype, meta.height * meta.width * 2, position)
                    flows[index - start] = _to_float16(field, self._source.key).reshape(flows.shape[1:])
                    del field
                position += field_bytes
                index += 1
            del pending[:position]
        if seen != member.size_bytes or crc != member.crc32:
            raise FlowCacheCorruptError(f"{self._source.key}: {name} does not have its CRC-32", key=self._source.key)
        return flows


@dataclass(frozen=True)
class ArrayFlows:
    """Flows in memory, as a `FlowSource`; `read` returns views of the arrays, which must not be changed.

    Attributes:
        meta: what describes them.
        forward, backward: ``(total_flows, height, width, 2) float16``, pixels of the grid; backward or None.
    """

    meta: FlowMeta
    forward: NDArray[np.float16]
    backward: NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        expected = (self.meta.total_flows, self.meta.height, self.meta.width, 2)
        for flows in (self.forward,) if self.backward is None else (self.forward, self.backward):
            if flows.shape != expected or flows.dtype != np.float16:
                raise FlowError(f"flows: expected {expected} float16, got {flows.shape} {flows.dtype}")
        if self.meta.has_backward != (self.backward is not None):
            raise FlowError("flows: has_backward and the arrays given contradict each other")

    def read(self, direction: Direction, start: int, stop: int) -> NDArray[np.float16]:
        """Return flows `start` (inclusive) to `stop` (exclusive); see `FlowSource.read`.

        Raises:
            FlowError: the range or the direction is not there.
        """
        check_range(self.meta, direction, start, stop)
        flows = self.forward if direction == "forward" else self.backward
        return cast("NDArray[np.float16]", flows)[start:stop]


def check_range(meta: FlowMeta, direction: Direction, start: int, stop: int) -> None:
    """Check that flows `start` (inclusive) to `stop` (exclusive) are there.

    Raises:
        FlowError: they are not, or the direction is unknown or absent.
    """
    if direction not in _MEMBERS:
        raise FlowError(f"direction: expected forward or backward, got {direction!r:.40}")
    if direction == "backward" and not meta.has_backward:
        raise FlowError("backward flow: expected, but only forward flow is there")
    if not 0 <= start < stop <= meta.total_flows:
        raise FlowError(f"flows: expected 0 <= start < stop <= {meta.total_flows}, got {start}, {stop}")


_METADATA_NAMES: Final = {
    "source_video",
    "total_flows",
    "original_fps",
    "original_resolution",
    "engine",
    "engine_params",
    "quantization_px",
    "timestamps_s",
    "scene_cuts",
    "display_max_px",
    "source_sha256",
    "source_etag",
    "format_version",
}
_TAGS: Final = ("source_sha256", "source_etag")
_FORWARD_NAMES: Final = {"flows", "flows_shape", "flows_offsets", "flows_crc32"} | _METADATA_NAMES - set(_TAGS)
_BACKWARD_NAMES: Final = frozenset({"flows_backward", "flows_backward_offsets", "flows_backward_crc32"})
_DEFAULT_FPS: Final = 16.0


def _read_metadata(
    values: dict[str, NDArray[Any]], source: _Source, total: int, height: int, width: int, *, has_backward: bool
) -> FlowMeta:
    """Build the metadata; what a plain archive lacks is taken from the flows or said to be unknown."""
    resolution = _vector(values, "original_resolution", 2, source) if "original_resolution" in values else None
    fps = _number(values, "original_fps", source, _DEFAULT_FPS)
    if not 0 < fps <= 1000:
        fps = _DEFAULT_FPS
    if "timestamps_s" in values:
        times = _vector(values, "timestamps_s", total + 1, source, "iuf").astype(np.float64)
    else:
        times = np.arange(total + 1, dtype=np.float64) / fps
    cuts = values.get("scene_cuts", np.zeros(0, np.int64))
    if cuts.ndim != 1 or cuts.dtype.kind not in "iu" or (len(cuts) and not (0 <= cuts.min() <= cuts.max() < total)):
        raise source.broken("scene_cuts is no list of flow numbers")
    if not np.isfinite(times).all():
        raise source.broken("timestamps_s is not finite")
    try:
        params = json.loads(_text(values, "engine_params", source) or "{}")
    except (ValueError, RecursionError) as error:
        raise source.broken(f"engine_params is no JSON: {error}") from error
    if not isinstance(params, dict):
        raise source.broken("engine_params is no JSON object")
    return FlowMeta(
        total_flows=_integer(values, "total_flows", source, total),
        height=height,
        width=width,
        original_height=height if resolution is None else int(resolution[1]),
        original_width=width if resolution is None else int(resolution[0]),
        original_fps=fps,
        has_backward=has_backward,
        engine=_text(values, "engine", source) or "unknown",
        engine_params=params,
        quantization_px=_number(values, "quantization_px", source, 0.0),
        timestamps_s=times,
        scene_cuts=tuple(sorted({int(cut) for cut in cuts})),
        display_max_px=_number(values, "display_max_px", source, 0.0),
        source_video=_text(values, "source_video", source),
        source_identity=_text(values, "source_sha256", source) or _text(values, "source_etag", source),
        format_version=_integer(values, "format_version", source, 0),
    )


def _integer(values: dict[str, NDArray[Any]], name: str, source: _Source, default: int | None = None) -> int:
    value = values.get(name)
    if value is None and default is not None:
        return default
    if value is None or value.size != 1 or value.dtype.kind not in "iu":
        raise source.broken(f"{name} is no whole number")
    return int(value.reshape(-1)[0])


def _number(values: dict[str, NDArray[Any]], name: str, source: _Source, default: float) -> float:
    value = values.get(name)
    if value is None:
        return default
    if value.size != 1 or value.dtype.kind not in "iuf" or not math.isfinite(float(value.reshape(-1)[0])):
        raise source.broken(f"{name} is no finite number")
    return float(value.reshape(-1)[0])


def _text(values: dict[str, NDArray[Any]], name: str, source: _Source) -> str:
    value = values.get(name)
    if value is None:
        return ""
    if value.size != 1 or value.dtype.kind != "U":
        raise source.broken(f"{name} is no text")
    try:
        return str(value.reshape(-1)[0])
    except ValueError as error:
        raise source.broken(f"{name} is no text: {error}") from error


def _vector(
    values: dict[str, NDArray[Any]], name: str, length: int, source: _Source, kinds: str = "iu"
) -> NDArray[Any]:
    value = values.get(name)
    if value is None or value.shape != (length,) or value.dtype.kind not in kinds:
        raise source.broken(f"{name}: expected {length} numbers, got {'none' if value is None else value.shape}")
    return value


def _inflate(block: bytes | memoryview, size_bytes: int, key: str) -> bytes:
    """Inflate raw deflate data that must give exactly `size_bytes`; never makes more than that."""
    inflater = isal_zlib.decompressobj(-15)
    try:
        plain = inflater.decompress(block, size_bytes + 1)
    except _ISAL_ERROR as error:
        raise FlowCacheCorruptError(f"{key}: a block does not inflate: {error}", key=key) from error
    if len(plain) != size_bytes:
        raise FlowCacheCorruptError(f"{key}: a block does not inflate to {size_bytes} bytes", key=key)
    return plain


def _check_finite(flow: NDArray[np.float16], key: str) -> None:
    if ((flow.view(np.uint16) & 0x7C00) == 0x7C00).any():
        raise FlowCacheFormatError(f"{key}: a flow is not finite", key=key)


def _to_float16(field: NDArray[Any], key: str) -> NDArray[np.float16]:
    if not np.isfinite(field).all():
        raise FlowCacheFormatError(f"{key}: a flow is not finite", key=key)
    return cast("NDArray[np.float16]", np.clip(field, -MAX_VECTOR_PX, MAX_VECTOR_PX).astype(np.float16))

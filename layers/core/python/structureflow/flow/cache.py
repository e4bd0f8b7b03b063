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

import contextlib
import json
import math
import os
import re
import shutil
import struct
import tempfile
import threading
import zlib
from array import array
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Protocol, cast

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
from structureflow.flow.fields import QUANTIZATION_PX, Direction, FlowMeta
from structureflow.flow.zipdir import ZipMember
from structureflow.storage.base import ByteRange, ObjectInfo, StoredObject, Suffix

FORMAT_VERSION: Final = 1

#: Longer vectors are cut to this length per component: no real motion, and far inside float16.
MAX_VECTOR_PX: Final = 2048.0

#: The first request asks for this much of the end: the seek table of some 5,000 flows in both directions.
TAIL_BYTES: Final = 192 * 1024

_COMPRESSION_LEVEL: Final = 1
# The package's stubs declare the class as an instance.
_ISAL_ERROR = cast("type[Exception]", igzip_lib.IsalError)
_MAGIC: Final = b"\x93NUMPY\x01\x00"
_FLOW_HEADER_BYTES: Final = 128
_FULL_FLUSH: Final = b"\x00\x00\x00\xff\xff"
_STREAM_END: Final = b"\x03\x00"
_MEMBERS: Final[dict[Direction, str]] = {"forward": "flows", "backward": "flows_backward"}
_NPY_HEADER = re.compile(
    r"\{'descr': '([<>|=]?[a-zA-Z]\d{1,7})', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \}\s*"
)
_PLAIN_CHUNK_BYTES: Final = 8 * 1024 * 1024


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

    max_flows: int = 20_000
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


# --- writing -----------------------------------------------------------------------------------------


def quantise(flow: NDArray[Any]) -> NDArray[np.float16]:
    """Round vectors to multiples of 1/16 px, without negative zeros.

    float16 holds multiples of 1/16 exactly up to 128 px. Longer vectors get float16's own step instead: 1/8 px
    up to 256, 1/4 up to 512, 1/2 up to 1024, 1 up to `MAX_VECTOR_PX`, where components are cut off.

    Args:
        flow: ``(..., 2)`` floating, (dx, dy) in pixels; not changed.

    Returns:
        A new array of the same shape, float16, finite.

    Raises:
        FlowError: a vector is not finite.
    """
    steps = np.asarray(flow, np.float32) * np.float32(1 / QUANTIZATION_PX)
    np.rint(steps, out=steps)
    limit = np.float32(MAX_VECTOR_PX / QUANTIZATION_PX)
    lowest, highest = float(steps.min(initial=0)), float(steps.max(initial=0))
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise FlowError("flow: expected finite vectors")
    if lowest < -limit or highest > limit:
        np.clip(steps, -limit, limit, out=steps)
    steps *= np.float32(QUANTIZATION_PX)
    steps += np.float32(0)  # turns -0.0 into 0.0, which packs 9 % smaller
    return steps.astype(np.float16)


@dataclass(frozen=True, slots=True)
class FlowBlock:
    """A flow field ready to be written: raw deflate `data` that ends in a full flush, and two checksums."""

    data: bytes
    block_crc32: int
    plain_crc32: int
    plain_bytes: int


def compress_flow(flow: NDArray[np.float16]) -> FlowBlock:
    """Compress one quantised field ``(h, w, 2) float16``; blocks may be made in any thread or process."""
    plain = memoryview(np.ascontiguousarray(flow, "<f2")).cast("B")
    compressor = isal_zlib.compressobj(_COMPRESSION_LEVEL, isal_zlib.DEFLATED, -15)
    data = compressor.compress(plain) + compressor.flush(isal_zlib.Z_FULL_FLUSH)
    return FlowBlock(data, isal_zlib.crc32(data), isal_zlib.crc32(plain), len(plain))


class _Stream:
    """One flow member under construction: where its blocks go, and what the seek table will say."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.lengths = array("q")
        self.block_crcs = array("L")
        self.plain_crc32 = 0

    def add(self, block: FlowBlock) -> None:
        self.file.write(block.data)
        self.lengths.append(len(block.data))
        self.block_crcs.append(block.block_crc32)
        self.plain_crc32 = isal_zlib.crc32_combine(self.plain_crc32, block.plain_crc32, block.plain_bytes)


class FlowArchiveWriter:
    """Write a flow archive as the flows come, in memory that does not depend on how many there are.

    Forward blocks go straight to their place in a temporary file beside `path`, backward blocks to a second one
    that `finish` appends. The archive appears at `path` only when `finish` succeeds; as a context manager,
    leaving without `finish` removes every trace.

    Args:
        path: where the archive shall be; an older file there is replaced.
        height, width: the stored grid in pixels.
        backward: whether backward flows are given too.
    """

    def __init__(self, path: Path, *, height: int, width: int, backward: bool = True) -> None:
        if not (1 <= height <= 0xFFFF and 1 <= width <= 0xFFFF):
            raise FlowError(f"flow grid: expected sides of 1 to 65535 pixels, got {height} high, {width} wide")
        self._path = Path(path)
        self._shape = (height, width, 2)
        handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        self._temporary = Path(name)
        self._file = os.fdopen(handle, "w+b")
        self._spool: IO[bytes] | None = None
        if backward:
            self._spool = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115 - closed by abort and finish
        self._file.seek(zipdir.local_header_bytes("flows.npy", wide=True) + _PREFIX_BYTES)
        self._forward = _Stream(self._file)
        self._backward = _Stream(self._spool) if self._spool else None
        self._open = True

    def __enter__(self) -> FlowArchiveWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def feed(self, forward: NDArray[Any], backward: NDArray[Any] | None = None) -> None:
        """Quantise, compress and append one pair's flows, each ``(h, w, 2)`` floating, pixels of the grid.

        Raises:
            FlowError: another shape than the archive's, not finite, or backward missing or unexpected.
        """
        for flow in (forward,) if backward is None else (forward, backward):
            if flow.shape != self._shape:
                raise FlowError(f"flow: expected {self._shape}, got {flow.shape}")
        self.feed_blocks(
            compress_flow(quantise(forward)), None if backward is None else compress_flow(quantise(backward))
        )

    def feed_blocks(self, forward: FlowBlock, backward: FlowBlock | None = None) -> None:
        """Append one pair's flows, already compressed by `compress_flow`.

        Raises:
            FlowError: a block's size is not the grid's, or backward is missing or unexpected.
        """
        if not self._open:
            raise FlowError("the archive is already finished or aborted")
        if (backward is None) != (self._backward is None):
            raise FlowError("backward flow: expected for every pair or for none, as the writer was made")
        expected = math.prod(self._shape) * 2
        for block in (forward,) if backward is None else (forward, backward):
            if block.plain_bytes != expected:
                raise FlowError(f"flow block: expected {expected} bytes, got {block.plain_bytes}")
        self._forward.add(forward)
        if self._backward is not None and backward is not None:
            self._backward.add(backward)

    def finish(
        self,
        *,
        original_height: int,
        original_width: int,
        original_fps: float,
        engine: str,
        engine_params: Mapping[str, Any],
        timestamps_s: NDArray[np.float64],
        scene_cuts: tuple[int, ...] = (),
        display_max_px: float = 0.0,
        source_video: str = "",
        source_identity: str = "",
    ) -> FlowMeta:
        """Write metadata and seek table, close the archive and put it at its path.

        Args: as `FlowMeta`.

        Raises:
            FlowError: no flow was fed, or timestamps or cuts don't fit the number of flows.
        """
        if not self._open:
            raise FlowError("the archive is already finished or aborted")
        total = len(self._forward.lengths)
        times = np.asarray(timestamps_s, np.float64)
        if not total:
            raise FlowError("flow archive: expected at least one flow, got none")
        if times.shape != (total + 1,) or not np.isfinite(times).all():
            raise FlowError(f"timestamps_s: expected {total + 1} finite numbers, got shape {times.shape}")
        if any(not 0 <= cut < total for cut in scene_cuts) or sorted(set(scene_cuts)) != list(scene_cuts):
            raise FlowError(f"scene_cuts: expected rising flow numbers below {total}, got {scene_cuts!r:.200}")
        if not (math.isfinite(display_max_px) and display_max_px >= 0):
            raise FlowError(f"display_max_px: expected a length, got {display_max_px}")
        meta = FlowMeta(
            total_flows=total,
            height=self._shape[0],
            width=self._shape[1],
            original_height=original_height,
            original_width=original_width,
            original_fps=original_fps,
            has_backward=self._backward is not None,
            engine=engine,
            engine_params=dict(engine_params),
            timestamps_s=times,
            scene_cuts=tuple(scene_cuts),
            display_max_px=float(display_max_px),
            source_video=source_video,
            source_identity=source_identity,
            format_version=FORMAT_VERSION,
        )
        self._write_rest(meta)
        self._file.close()
        self._temporary.replace(self._path)
        self._close()
        return meta

    def abort(self) -> None:
        """Drop everything written so far; no error after `finish` or a second time."""
        if self._open:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        if self._spool is not None:
            self._spool.close()
        self._open = False

    def _write_rest(self, meta: FlowMeta) -> None:
        shape = (meta.total_flows, *self._shape)
        arrays: dict[str, NDArray[Any]] = {"flows_shape": np.array(shape, np.int64)}
        members = [self._end_stream(self._forward, "flows", 0, shape, arrays)]
        if self._backward is not None and self._spool is not None:
            start = self._file.tell()
            prefix = zipdir.local_header_bytes("flows_backward.npy", wide=True) + _PREFIX_BYTES
            self._file.seek(start + prefix)
            self._spool.seek(0)
            shutil.copyfileobj(self._spool, self._file, 1024 * 1024)
            members.append(self._end_stream(self._backward, "flows_backward", start, shape, arrays))
        for name, value in (arrays | _metadata_arrays(meta)).items():
            members.append(self._write_stored(f"{name}.npy", value))
        self._file.write(zipdir.directory(members, self._file.tell()))

    def _end_stream(
        self, stream: _Stream, name: str, start: int, shape: tuple[int, ...], arrays: dict[str, NDArray[Any]]
    ) -> ZipMember:
        """End a flow member whose blocks end here, write its headers at `start`, add its seek table to `arrays`."""
        self._file.write(_STREAM_END)
        end = self._file.tell()
        prefix, header_crc = _flow_prefix(shape)
        data_start = start + zipdir.local_header_bytes(f"{name}.npy", wide=True)
        plain_bytes = math.prod(shape) * 2
        member = ZipMember(
            f"{name}.npy",
            zipdir.DEFLATED,
            isal_zlib.crc32_combine(header_crc, stream.plain_crc32, plain_bytes),
            end - data_start,
            _FLOW_HEADER_BYTES + plain_bytes,
            start,
        )
        self._file.seek(start)
        self._file.write(zipdir.local_header(member, wide=True) + prefix)
        self._file.seek(end)
        offsets = np.zeros(shape[0] + 1, np.int64)
        np.cumsum(np.frombuffer(stream.lengths, np.int64), out=offsets[1:])
        arrays[f"{name}_offsets"] = offsets + (data_start + _PREFIX_BYTES)
        arrays[f"{name}_crc32"] = np.array(stream.block_crcs, np.uint32)
        return member

    def _write_stored(self, name: str, value: NDArray[Any]) -> ZipMember:
        data = _npy_bytes(value)
        member = ZipMember(name, zipdir.STORED, isal_zlib.crc32(data), len(data), len(data), self._file.tell())
        self._file.write(zipdir.local_header(member, wide=False) + data)
        return member


def _flow_prefix(shape: tuple[int, ...]) -> tuple[bytes, int]:
    """Return what precedes the first block, of the same length for any shape, and the array header's CRC-32.

    The header is held in a stored deflate block, so that it can be written last, when the count is known.
    """
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}"
    header = _MAGIC + struct.pack("<H", _FLOW_HEADER_BYTES - 10) + text.ljust(_FLOW_HEADER_BYTES - 11).encode() + b"\n"
    block = struct.pack("<B2H", 0, len(header), len(header) ^ 0xFFFF) + header
    return block + _FULL_FLUSH, isal_zlib.crc32(header)


_PREFIX_BYTES: Final = 5 + _FLOW_HEADER_BYTES + len(_FULL_FLUSH)


def _npy_bytes(value: NDArray[Any]) -> bytes:
    shape = f"({value.shape[0]},)" if value.ndim == 1 else "()"
    text = f"{{'descr': '{value.dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
    length = -(-(len(text) + 11) // 64) * 64
    return _MAGIC + struct.pack("<H", length - 10) + text.ljust(length - 11).encode() + b"\n" + value.tobytes()


def _metadata_arrays(meta: FlowMeta) -> dict[str, NDArray[Any]]:
    identity = "source_sha256" if re.fullmatch(r"[0-9a-f]{64}", meta.source_identity) else "source_etag"
    return {
        "source_video": np.array(meta.source_video[:2000]),
        "total_flows": np.array(meta.total_flows, np.int64),
        "original_fps": np.array(meta.original_fps, np.float64),
        "original_resolution": np.array([meta.original_width, meta.original_height], np.int64),
        "engine": np.array(meta.engine),
        "engine_params": np.array(json.dumps(dict(meta.engine_params), sort_keys=True)),
        "quantization_px": np.array(meta.quantization_px, np.float64),
        "timestamps_s": np.asarray(meta.timestamps_s, np.float64),
        "scene_cuts": np.array(meta.scene_cuts, np.int64),
        "display_max_px": np.array(meta.display_max_px, np.float64),
        identity: np.array(meta.source_identity[:2000]),
        "format_version": np.array(meta.format_version, np.int64),
    }


# --- reading -----------------------------------------------------------------------------------------


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


@dataclass(slots=True)
class _Array:
    """A parsed ``.npy`` header: what follows it, and after how many bytes."""

    dtype: np.dtype[Any]
    fortran: bool
    shape: tuple[int, ...]
    data_start: int


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
        return _broken(self.key, why)

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
        header = _parse_npy_header(data, self.key)
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
        if member is None or member.size_bytes != _FLOW_HEADER_BYTES + math.prod(shape) * 2:
            raise self._source.broken(f"{name} does not have the size of {shape}")
        start = member.header_offset + zipdir.local_header_bytes(member.name, wide=True)
        lengths = np.diff(offsets)
        # Deflate never grows its input by more than 5 bytes in 16 kB and the flush.
        longest = math.prod(shape[1:]) * 2 * 1.001 + 64
        if (
            offsets[0] != start + _PREFIX_BYTES
            or offsets[-1] != start + member.compressed_bytes - len(_STREAM_END)
            or lengths.min() < 1
            or lengths.max() > longest
        ):
            raise self._source.broken(f"the offsets of {name} do not rise from its start to its end")
        return offsets, crcs

    def _read(self, direction: Direction, start: int, stop: int) -> NDArray[np.float16]:
        offsets, crcs = self._tables[direction]
        base = int(offsets[start])
        data = self._source.read(base, int(offsets[stop]))
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


class _PlainArchive(FlowArchive):
    seekable = False

    def __init__(self, source: _Source, members: dict[str, ZipMember], limits: FlowLimits) -> None:
        super().__init__(source, members, limits)
        if "flows.npy" not in members:
            raise source.broken("it has no member 'flows'")
        self._arrays: dict[str, _Array] = {}
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
        header = _parse_npy_header(head, self._source.key)
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


def _broken(key: str, why: str) -> FlowCacheFormatError:
    return FlowCacheFormatError(f"{key}: no readable flow archive: {why}", key=key)


def _parse_npy_header(data: bytes, key: str) -> _Array:
    """Parse a ``.npy`` header without evaluating it: plain dtypes only, never pickled objects."""
    if len(data) < 10 or data[:6] != _MAGIC[:6] or data[6] != 1:
        raise _broken(key, "a member is no array of .npy version 1")
    stop = 10 + struct.unpack_from("<H", data, 8)[0]
    match = _NPY_HEADER.fullmatch(data[10:stop].decode("latin-1"))
    if len(data) < stop or not match:
        raise _broken(key, f"an array header is not understood: {data[10:stop]!r:.120}")
    shape = tuple(int(side) for side in re.findall(r"\d+", match[3]))
    if len(shape) > 8 or any(side > 2**48 for side in shape):
        raise FlowCacheLimitError(f"{key}: an array header declares the shape {shape!r:.200}")
    try:
        dtype = np.dtype(match[1])
    except TypeError as cause:
        raise _broken(key, f"unknown dtype {match[1]}") from cause
    if dtype.kind not in "fiuU" or not dtype.itemsize:
        raise _broken(key, f"expected numbers or text, got dtype {match[1]}")
    return _Array(dtype, match[2] == "True", shape, stop)


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

"""Archives that `FlowArchiveWriter` wrote: any range of flows is read alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from structureflow.errors import FlowCacheCorruptError, FlowCacheVersionError
from structureflow.flow.archive import zipdir
from structureflow.flow.archive.base import FlowArchive
from structureflow.flow.archive.blocks import FlowBlock, inflate, unpack
from structureflow.flow.archive.layout import (
    BACKWARD_NAMES,
    DESCR,
    FLOW_HEADER_BYTES,
    FORMAT_VERSION,
    FORWARD_NAMES,
    MEMBERS,
    PREFIX_BYTES,
    STREAM_END,
    TAGS,
)
from structureflow.flow.archive.limits import WINDOW_BYTES, FlowLimits, longest_deflate
from structureflow.flow.archive.metadata import MetadataValues
from structureflow.flow.archive.source import ByteSource
from structureflow.flow.archive.windows import Windows
from structureflow.flow.archive.zipdir import ZipMember
from structureflow.flow.fields import Direction, Field32
from structureflow.flow.sources import check_range


class SeekableArchive(FlowArchive):
    """An archive with a seek table. A range read bypasses ZIP's checksum, so every block's own is checked."""

    seekable = True

    def __init__(self, source: ByteSource, members: dict[str, ZipMember], limits: FlowLimits, workers: int) -> None:
        super().__init__(source, members, limits)
        self._workers = max(1, workers)
        self._windows: dict[Direction, Windows] = {}
        version = self._values({"format_version"}).integer("format_version")
        if version not in DESCR:
            raise FlowCacheVersionError(
                f"{source.key}: expected format version 1 to {FORMAT_VERSION}, got {version}", version=version
            )
        self._dtype = np.dtype(DESCR[version])
        names = {name.removesuffix(".npy") for name in members}
        if not any(names == FORWARD_NAMES | more | {tag} for more in (frozenset(), BACKWARD_NAMES) for tag in TAGS):
            raise source.broken(f"its members are not those of version {version}: {sorted(names)!r:.600}")
        values = self._values(names - set(MEMBERS.values()))
        shape = self._check_grid(tuple(int(side) for side in values.vector("flows_shape", 4)))
        self._tables = {
            direction: self._table(name, values, (*shape, 2))
            for direction, name in MEMBERS.items()
            if direction == "forward" or f"{name}.npy" in members
        }
        self.meta = values.meta(shape, has_backward="backward" in self._tables)

    def _table(
        self, name: str, values: MetadataValues, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        total = shape[0]
        offsets = values.vector(f"{name}_offsets", total + 1).astype(np.int64)
        crcs = values.vector(f"{name}_crc32", total).astype(np.uint32)
        member = self.members.get(f"{name}.npy")
        field_bytes = math.prod(shape[1:]) * self._dtype.itemsize
        if member is None or member.size_bytes != FLOW_HEADER_BYTES + total * field_bytes:
            raise self._source.broken(f"{name} does not have the size of {shape}")
        start = member.header_offset + zipdir.local_header_bytes(member.name, wide=True)
        lengths = np.diff(offsets)
        if (
            offsets[0] != start + PREFIX_BYTES
            or offsets[-1] != start + member.compressed_bytes - len(STREAM_END)
            or lengths.min() < 1
            or lengths.max() > longest_deflate(field_bytes)
        ):
            raise self._source.broken(f"the offsets of {name} do not rise from its start to its end")
        return offsets, crcs

    def expect(self, start: int, stop: int) -> None:
        super().expect(start, stop)
        self._windows = {
            direction: Windows(offsets, start, stop, WINDOW_BYTES) for direction, (offsets, _) in self._tables.items()
        }

    def blocks(self, direction: Direction, start: int, stop: int) -> Iterator[FlowBlock]:
        """Give flows `start` (inclusive) to `stop` (exclusive) as they are stored, each checked as `read` does.

        Raises:
            FlowError: the range is not inside ``0 <= start < stop <= total_flows``, or the direction is not there.
            FlowCacheError: the archive is damaged there, was overwritten, or the range exceeds the limits.
        """
        check_range(self.meta, direction, start, stop)
        offsets, crcs = self._tables[direction]
        base = int(offsets[start])
        data = self._compressed(direction, start, stop)
        field_bytes = self.meta.height * self.meta.width * 2 * self._dtype.itemsize
        scratch = np.empty(field_bytes // self._dtype.itemsize, np.float32)
        for index in range(start, stop):
            block = data[int(offsets[index]) - base : int(offsets[index + 1]) - base]
            plain = self._inflated(block, int(crcs[index]), direction, index, field_bytes)
            # as `read` refuses what is not finite
            unpack(np.frombuffer(plain, self._dtype), scratch, self._source.key)
            yield FlowBlock(bytes(block), int(crcs[index]), isal_zlib.crc32(plain), field_bytes)

    def _inflated(
        self, block: bytes | memoryview, crc32: int, direction: Direction, index: int, field_bytes: int
    ) -> bytes:
        if isal_zlib.crc32(block) != crc32:
            raise FlowCacheCorruptError(
                f"{self._source.key}: {direction} flow {index} does not have its CRC-32",
                key=self._source.key,
                flow=index,
            )
        return inflate(block, field_bytes, self._source.key)

    def _compressed(self, direction: Direction, start: int, stop: int) -> bytes | memoryview:
        """Return the compressed bytes of flows `start` (inclusive) to `stop` (exclusive)."""
        offsets, _ = self._tables[direction]
        windows = self._windows.get(direction)
        held = None if windows is None else windows.bytes_of(start, stop, self._source)
        return self._source.read(int(offsets[start]), int(offsets[stop])) if held is None else held

    def _read(self, direction: Direction, start: int, stop: int) -> Field32:
        offsets, crcs = self._tables[direction]
        base = int(offsets[start])
        data = self._compressed(direction, start, stop)
        flows = np.empty((stop - start, self.meta.height, self.meta.width, 2), np.float32)
        field_bytes = flows[0].size * self._dtype.itemsize

        def unpack_one(index: int) -> None:
            block = data[int(offsets[start + index]) - base : int(offsets[start + index + 1]) - base]
            plain = self._inflated(block, int(crcs[start + index]), direction, start + index, field_bytes)
            unpack(np.frombuffer(plain, self._dtype).reshape(flows.shape[1:]), flows[index], self._source.key)

        count = stop - start
        if self._workers == 1 or count < 4:
            for index in range(count):
                unpack_one(index)
        else:
            with ThreadPoolExecutor(min(self._workers, count)) as pool:
                for _ in pool.map(unpack_one, range(count)):
                    pass
        return flows

"""An opened archive as its users see it, whatever wrote it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np

from structureflow.arguments import checked, whole
from structureflow.errors import FlowCacheLimitError
from structureflow.flow.archive.limits import FlowLimits
from structureflow.flow.archive.metadata import MetadataValues
from structureflow.flow.archive.source import ByteSource
from structureflow.flow.archive.zipdir import ZipMember
from structureflow.flow.fields import Direction, Field32, FlowMeta
from structureflow.flow.sources import check_range, shrink_flow

#: Bytes of the stored fields that are averaged down at a time.
_SHRUNK_BYTES: Final = 64 * 1024 * 1024


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
    meta: FlowMeta

    def __init__(self, source: ByteSource, members: dict[str, ZipMember], limits: FlowLimits) -> None:
        self._source = source
        self._limits = limits
        self.members = members
        self.info = source.info
        self.etag = source.etag

    @property
    def requests(self) -> int:
        """Requests sent to the store so far."""
        return self._source.requests

    def expect(self, start: int, stop: int) -> None:
        """Say that flows `start` (inclusive) to `stop` (exclusive) will be read, in pieces and in any order.

        A seekable archive then asks for their compressed bytes in windows of `WINDOW_BYTES` (most often one), each
        when its first flow is read: flows far apart cost no request each, for in the time of a request S3 sends
        some 10 MB. A plain archive in Fortran order puts these flows in order, and no others.

        Raises:
            FlowError: the range is not inside ``0 <= start < stop <= total_flows``.
        """
        check_range(self.meta, "forward", start, stop)

    def read(self, direction: Direction, start: int, stop: int) -> Field32:
        """Read flows `start` (inclusive) to `stop` (exclusive), with at most one request if seekable.

        Returns:
            ``(stop - start, height, width, 2)`` float32, finite, at most `MAX_DISPLACEMENT_PX` per axis, (dx, dy)
            in pixels of the stored grid; a new array that the caller owns.

        Raises:
            FlowError: the range is not inside ``0 <= start < stop <= total_flows``, or the direction is not
                there.
            FlowCacheError: the archive is damaged there, was overwritten, or the range exceeds the limits.
        """
        meta = self.meta
        check_range(meta, direction, start, stop)
        size = (stop - start) * meta.height * meta.width * 8
        if size > self._limits.max_read_bytes:
            raise FlowCacheLimitError(
                f"{self._source.key}: {stop - start} flows are {size} bytes, at most {self._limits.max_read_bytes}"
            )
        return self._read(direction, start, stop)

    @checked(max_grid_px=whole(1))
    def within(self, max_grid_px: int) -> FlowArchive:
        """Return this archive if its grid has at most so many pixels, else one that gives its fields averaged down.

        Both sides are divided by the smallest whole number that makes them fit, and vectors with them; `meta` tells
        the smaller grid. It is for plain archives: of a video in 4K one field takes 66 MB, and carrying motion on
        such a grid 3 GB.
        """
        pixels = self.meta.height * self.meta.width
        if pixels <= max_grid_px:
            return self
        factor = math.ceil(math.sqrt(pixels / max_grid_px))
        return _SmallerArchive(self, self._source, self._limits, factor)

    def _read(self, direction: Direction, start: int, stop: int) -> Field32:
        raise NotImplementedError

    def _check_grid(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        if len(shape) != 4 or shape[3] != 2 or min(shape) < 1:
            raise self._source.broken(f"flows: expected (N, h, w, 2), got {shape}")
        total, height, width, _ = shape
        limits = self._limits
        if total > limits.max_flows or max(height, width) > limits.max_side_px or height * width > limits.max_grid_px:
            raise FlowCacheLimitError(
                f"{self._source.key}: {total} flows of {width}x{height}, at most {limits.max_flows} "
                f"of {limits.max_side_px} pixels a side and {limits.max_grid_px} in all"
            )
        return total, height, width

    def _values(self, names: set[str]) -> MetadataValues:
        """Read the small arrays of these names that are there."""
        arrays = {
            name: self._source.read_array(self.members[f"{name}.npy"], self._limits)
            for name in sorted(names)
            if f"{name}.npy" in self.members
        }
        return MetadataValues(arrays, self._source.broken, self._limits)


class _SmallerArchive(FlowArchive):
    """The same flows on a smaller grid."""

    def __init__(self, archive: FlowArchive, source: ByteSource, limits: FlowLimits, factor: int) -> None:
        super().__init__(source, archive.members, limits)
        self.seekable = archive.seekable
        self._archive = archive
        meta = archive.meta
        self.meta = replace(
            meta,
            height=-(-meta.height // factor),
            width=-(-meta.width // factor),
            quantization_px=meta.quantization_px / factor,
            display_max_px=meta.display_max_px / factor,
        )

    def expect(self, start: int, stop: int) -> None:
        self._archive.expect(start, stop)

    def _read(self, direction: Direction, start: int, stop: int) -> Field32:
        stored = self._archive.meta
        step = max(1, _SHRUNK_BYTES // (stored.height * stored.width * 8))
        flows = np.empty((stop - start, self.meta.height, self.meta.width, 2), np.float32)
        for first in range(start, stop, step):
            for number, flow in enumerate(self._archive.read(direction, first, min(stop, first + step)), first):
                flows[number - start] = shrink_flow(flow, self.meta.height, self.meta.width)
        return flows

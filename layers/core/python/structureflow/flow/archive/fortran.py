"""Flows of a plain archive in Fortran order: the same pixel of all fields lies together, the last field last."""

from __future__ import annotations

import tempfile
import threading
import weakref
from typing import IO, Final

import numpy as np

from structureflow.errors import FlowCacheLimitError
from structureflow.flow.archive.blocks import unpack
from structureflow.flow.archive.limits import FlowLimits
from structureflow.flow.archive.npy import NpyHeader
from structureflow.flow.archive.stream import MemberStream
from structureflow.flow.fields import Field32

#: Plain bytes that are put in order at a time; the larger, the fewer and longer the writes.
_BLOCK_BYTES: Final = 16 * 1024 * 1024


class FortranFields:
    """Fields put in order in a temporary file, with one pass through the member for as many as the file may hold."""

    def __init__(self, stream: MemberStream, header: NpyHeader, key: str, limits: FlowLimits) -> None:
        self._stream = stream
        self._header = header
        self._key = key
        total, height, width, _ = header.shape
        self._field_bytes = height * width * 8
        self._most = max(1, limits.max_spool_bytes // self._field_bytes)
        self._expected = (0, total)
        self._spooled = (0, 0)
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()

    def expect(self, start: int, stop: int) -> None:
        """Put these fields in order, and no others, when the first of them is read."""
        self._expected = (start, stop)

    def read(self, start: int, stop: int) -> Field32:
        """Return fields `start` (inclusive) to `stop` (exclusive)."""
        _, height, width, _ = self._header.shape
        flows = np.empty((stop - start, height, width, 2), np.float32)
        with self._lock:
            for index in range(start, stop):
                data = self._field(index, stop)
                flows[index - start] = np.frombuffer(data, np.float32).reshape(2, width, height).transpose(2, 1, 0)
        return flows

    def _field(self, index: int, stop: int) -> bytes:
        if not self._spooled[0] <= index < self._spooled[1]:
            first, last = self._expected
            if not first <= index < last:
                first, last = index, stop
            if last - first > self._most:
                first, last = index, min(last, index + self._most)
            self._spool(first, last)
        try:
            if self._file is None:
                raise OSError("the temporary file is gone")
            self._file.seek((index - self._spooled[0]) * self._field_bytes)
            data = self._file.read(self._field_bytes)
        except OSError as error:
            raise self._no_room(error) from error
        if len(data) != self._field_bytes:
            raise self._no_room(OSError(f"{len(data)} of {self._field_bytes} bytes came back"))
        return data

    def _no_room(self, error: OSError) -> FlowCacheLimitError:
        return FlowCacheLimitError(f"{self._key}: flows in Fortran order need a temporary file: {error}", key=self._key)

    def _spool(self, first: int, last: int) -> None:
        """Write fields `first` (inclusive) to `last` (exclusive) one after another into a new temporary file."""
        if self._file is not None:
            self._file.close()
        self._file, self._spooled = None, (0, 0)
        try:
            file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it stays open for the reads
        except OSError as error:
            raise self._no_room(error) from error
        try:
            self._put_in_order(file, first, last)
        except OSError as error:
            file.close()
            raise self._no_room(error) from error
        except BaseException:
            file.close()
            raise
        # archives are not closed: the file goes with the last reference to them
        weakref.finalize(self, file.close)
        self._file, self._spooled = file, (first, last)

    def _put_in_order(self, file: IO[bytes], first: int, last: int) -> None:
        header = self._header
        total = header.shape[0]
        row_bytes = total * header.dtype.itemsize
        rows_at_once = max(1, _BLOCK_BYTES // row_bytes)
        pending = bytearray()
        written = 0
        for position, piece in self._stream.pieces(header.data_start, header.data_start + header.size_bytes):
            pending += piece[max(0, header.data_start - position) :]
            rows = len(pending) // row_bytes
            if rows < rows_at_once and written + rows < self._field_bytes // 4:
                continue
            values = np.frombuffer(pending, header.dtype, rows * total).reshape(rows, total)[:, first:last]
            block = np.empty((last - first, rows), np.float32)
            unpack(values.T, block, self._key)
            del values
            for number, part in enumerate(block):
                file.seek(number * self._field_bytes + written * 4)
                file.write(memoryview(part))
            del pending[: rows * row_bytes]
            written += rows

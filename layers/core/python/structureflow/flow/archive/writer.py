"""Write a flow archive as a stream: quantise, compress and place one pair's flows after another.

The layout is described in `structureflow.flow.archive.layout`.
"""

from __future__ import annotations

import math
import os
import shutil
import struct
import tempfile
from array import array
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from structureflow.errors import FlowError
from structureflow.flow.archive import zipdir
from structureflow.flow.archive.blocks import FlowBlock, compress_flow, quantise
from structureflow.flow.archive.layout import (
    DESCR,
    FLOW_HEADER_BYTES,
    FORMAT_VERSION,
    FULL_FLUSH,
    PREFIX_BYTES,
    STREAM_END,
)
from structureflow.flow.archive.limits import FlowLimits
from structureflow.flow.archive.metadata import metadata_arrays
from structureflow.flow.archive.npy import MAGIC, npy_bytes
from structureflow.flow.archive.zipdir import ZipMember
from structureflow.flow.fields import FlowMeta

_ITEM_BYTES: Final = 4
#: Nothing is written that `open_flow_archive` refuses by default.
_LIMITS: Final = FlowLimits()


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
        if not (min(height, width) >= 1 and max(height, width) <= _LIMITS.max_side_px):
            raise FlowError(
                f"flow grid: expected sides of 1 to {_LIMITS.max_side_px} pixels, got {height} high, {width} wide"
            )
        if height * width > _LIMITS.max_grid_px:
            raise FlowError(f"flow grid: expected at most {_LIMITS.max_grid_px} pixels, got {width}x{height}")
        self._path = Path(path)
        self._shape = (height, width, 2)
        handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        self._temporary = Path(name)
        self._file = os.fdopen(handle, "w+b")
        self._spool: IO[bytes] | None = None
        if backward:
            self._spool = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115 - closed by abort and finish
        self._file.seek(zipdir.local_header_bytes("flows.npy", wide=True) + PREFIX_BYTES)
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
        if len(self._forward.lengths) >= _LIMITS.max_flows:
            raise FlowError(f"flow archive: expected at most {_LIMITS.max_flows} flows")
        expected = math.prod(self._shape) * _ITEM_BYTES
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
            prefix = zipdir.local_header_bytes("flows_backward.npy", wide=True) + PREFIX_BYTES
            self._file.seek(start + prefix)
            self._spool.seek(0)
            shutil.copyfileobj(self._spool, self._file, 1024 * 1024)
            members.append(self._end_stream(self._backward, "flows_backward", start, shape, arrays))
        for name, value in (arrays | metadata_arrays(meta)).items():
            members.append(self._write_stored(f"{name}.npy", value))
        self._file.write(zipdir.directory(members, self._file.tell()))

    def _end_stream(
        self, stream: _Stream, name: str, start: int, shape: tuple[int, ...], arrays: dict[str, NDArray[Any]]
    ) -> ZipMember:
        """End a flow member whose blocks end here, write its headers at `start`, add its seek table to `arrays`."""
        self._file.write(STREAM_END)
        end = self._file.tell()
        prefix, header_crc = _flow_prefix(shape)
        data_start = start + zipdir.local_header_bytes(f"{name}.npy", wide=True)
        plain_bytes = math.prod(shape) * _ITEM_BYTES
        member = ZipMember(
            f"{name}.npy",
            zipdir.DEFLATED,
            isal_zlib.crc32_combine(header_crc, stream.plain_crc32, plain_bytes),
            end - data_start,
            FLOW_HEADER_BYTES + plain_bytes,
            start,
        )
        self._file.seek(start)
        self._file.write(zipdir.local_header(member, wide=True) + prefix)
        self._file.seek(end)
        offsets = np.zeros(shape[0] + 1, np.int64)
        np.cumsum(np.frombuffer(stream.lengths, np.int64), out=offsets[1:])
        arrays[f"{name}_offsets"] = offsets + (data_start + PREFIX_BYTES)
        arrays[f"{name}_crc32"] = np.array(stream.block_crcs, np.uint32)
        return member

    def _write_stored(self, name: str, value: NDArray[Any]) -> ZipMember:
        data = npy_bytes(value)
        member = ZipMember(name, zipdir.STORED, isal_zlib.crc32(data), len(data), len(data), self._file.tell())
        self._file.write(zipdir.local_header(member, wide=False) + data)
        return member


def _flow_prefix(shape: tuple[int, ...]) -> tuple[bytes, int]:
    """Return what precedes the first block, of the same length for any shape, and the array header's CRC-32.

    The header is held in a stored deflate block, so that it can be written last, when the count is known.
    """
    text = f"{{'descr': '{DESCR[FORMAT_VERSION]}', 'fortran_order': False, 'shape': {shape}, }}"
    header = MAGIC + struct.pack("<H", FLOW_HEADER_BYTES - 10) + text.ljust(FLOW_HEADER_BYTES - 11).encode() + b"\n"
    block = struct.pack("<B2H", 0, len(header), len(header) ^ 0xFFFF) + header
    return block + FULL_FLUSH, isal_zlib.crc32(header)

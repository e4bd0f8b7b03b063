"""Write a flow archive as a stream: quantise, compress and place one pair's flows after another.

The layout is described in `structureflow.flow.cache`.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
import tempfile
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from structureflow.errors import FlowError
from structureflow.flow import zipdir
from structureflow.flow.fields import QUANTIZATION_PX, FlowMeta
from structureflow.flow.npy import MAGIC, npy_bytes
from structureflow.flow.zipdir import ZipMember

FORMAT_VERSION: Final = 1

#: Longer vectors are cut to this length per component: no real motion, and far inside float16.
MAX_VECTOR_PX: Final = 2048.0

#: Length of a flow member's array header, whatever its shape.
FLOW_HEADER_BYTES: Final = 128
#: What ends a flow member: an empty last deflate block.
STREAM_END: Final = b"\x03\x00"
_COMPRESSION_LEVEL: Final = 1
_FULL_FLUSH: Final = b"\x00\x00\x00\xff\xff"
#: What precedes the first flow in its member: a stored deflate block with the array header, and a flush.
PREFIX_BYTES: Final = 5 + FLOW_HEADER_BYTES + len(_FULL_FLUSH)


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
            prefix = zipdir.local_header_bytes("flows_backward.npy", wide=True) + PREFIX_BYTES
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
        self._file.write(STREAM_END)
        end = self._file.tell()
        prefix, header_crc = _flow_prefix(shape)
        data_start = start + zipdir.local_header_bytes(f"{name}.npy", wide=True)
        plain_bytes = math.prod(shape) * 2
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
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}"
    header = MAGIC + struct.pack("<H", FLOW_HEADER_BYTES - 10) + text.ljust(FLOW_HEADER_BYTES - 11).encode() + b"\n"
    block = struct.pack("<B2H", 0, len(header), len(header) ^ 0xFFFF) + header
    return block + _FULL_FLUSH, isal_zlib.crc32(header)


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

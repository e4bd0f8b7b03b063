"""Everything of an archive but its blocks, from what is known of the blocks alone.

So it does not matter where the blocks were made: a writer that has them in its files, and whoever joins blocks that
lie in the store, get the same bytes.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from structureflow.errors import FlowError
from structureflow.flow.archive import zipdir
from structureflow.flow.archive.blocks import FlowBlock
from structureflow.flow.archive.layout import (
    DESCR,
    FLOW_HEADER_BYTES,
    FORMAT_VERSION,
    FULL_FLUSH,
    MEMBERS,
    PREFIX_BYTES,
    STREAM_END,
)
from structureflow.flow.archive.metadata import metadata_arrays
from structureflow.flow.archive.npy import MAGIC, npy_bytes
from structureflow.flow.archive.zipdir import ZipMember
from structureflow.flow.fields import FlowMeta

_ITEM_BYTES: Final = 4
#: What precedes the blocks of the first flow member.
HEAD_BYTES: Final = zipdir.local_header_bytes(f"{MEMBERS['forward']}.npy", wide=True) + PREFIX_BYTES


@dataclass
class BlockTable:
    """What the seek table says of one direction's blocks, in order.

    Attributes:
        lengths: of each block, in bytes.
        block_crcs: CRC-32 of each block as it is stored.
        plain_crc32: CRC-32 of all fields, one after another, as they are inflated.
    """

    lengths: array[int] = field(default_factory=lambda: array("q"))
    block_crcs: array[int] = field(default_factory=lambda: array("L"))
    plain_crc32: int = 0

    def add(self, block: FlowBlock) -> None:
        """Take one more block."""
        self.lengths.append(len(block.data))
        self.block_crcs.append(block.block_crc32)
        self.plain_crc32 = isal_zlib.crc32_combine(self.plain_crc32, block.plain_crc32, block.plain_bytes)

    def extend(self, other: BlockTable, field_bytes: int) -> None:
        """Take the blocks of `other`, whose fields have `field_bytes` each, behind these."""
        self.lengths.extend(other.lengths)
        self.block_crcs.extend(other.block_crcs)
        self.plain_crc32 = isal_zlib.crc32_combine(
            self.plain_crc32, other.plain_crc32, len(other.lengths) * field_bytes
        )

    @property
    def size_bytes(self) -> int:
        """Of all blocks together."""
        return sum(self.lengths)


@dataclass(frozen=True, slots=True)
class ArchiveParts:
    """The bytes of an archive around its blocks.

    The whole is `head`, the forward blocks, `between`, the backward blocks (where there are any), `tail`.
    """

    head: bytes
    between: bytes
    tail: bytes


def field_bytes(height: int, width: int) -> int:
    """Return the bytes of one inflated field."""
    return height * width * 2 * _ITEM_BYTES


def archive_parts(meta: FlowMeta, forward: BlockTable, backward: BlockTable | None) -> ArchiveParts:
    """Return what stands around the blocks of an archive.

    Args:
        meta: of the archive, as `described` gives it.
        forward, backward: its blocks; backward or None.
    """
    shape = (meta.total_flows, meta.height, meta.width, 2)
    arrays: dict[str, NDArray[Any]] = {"flows_shape": np.array(shape, np.int64)}
    head, member = _stream(MEMBERS["forward"], forward, 0, shape, arrays)
    members = [member]
    offset = len(head) + forward.size_bytes
    between, tail = b"", STREAM_END
    if backward is not None:
        opening, member = _stream(MEMBERS["backward"], backward, offset + len(STREAM_END), shape, arrays)
        between = STREAM_END + opening
        members.append(member)
        offset += len(between) + backward.size_bytes
    for name, value in (arrays | metadata_arrays(meta)).items():
        data = npy_bytes(value)
        start = offset + len(tail)
        member = ZipMember(f"{name}.npy", zipdir.STORED, isal_zlib.crc32(data), len(data), len(data), start)
        tail += zipdir.local_header(member, wide=False) + data
        members.append(member)
    return ArchiveParts(head, between, tail + zipdir.directory(members, offset + len(tail)))


def described(
    total: int,
    height: int,
    width: int,
    *,
    has_backward: bool,
    original_height: int,
    original_width: int,
    original_fps: float,
    engine: str,
    engine_params: Mapping[str, Any],
    timestamps_s: NDArray[np.float64],
    scene_cuts: tuple[int, ...],
    display_max_px: float,
    source_video: str,
    source_identity: str,
) -> FlowMeta:
    """Return the metadata of an archive of `total` flows; the other arguments are as in `FlowMeta`.

    Raises:
        FlowError: there is no flow, or timestamps or cuts don't fit the number of flows.
    """
    times = np.asarray(timestamps_s, np.float64)
    if not total:
        raise FlowError("flow archive: expected at least one flow, got none")
    if times.shape != (total + 1,) or not np.isfinite(times).all():
        raise FlowError(f"timestamps_s: expected {total + 1} finite numbers, got shape {times.shape}")
    if any(not 0 <= cut < total for cut in scene_cuts) or sorted(set(scene_cuts)) != list(scene_cuts):
        raise FlowError(f"scene_cuts: expected rising flow numbers below {total}, got {scene_cuts!r:.200}")
    if not (math.isfinite(display_max_px) and display_max_px >= 0):
        raise FlowError(f"display_max_px: expected a length, got {display_max_px}")
    return FlowMeta(
        total_flows=total,
        height=height,
        width=width,
        original_height=original_height,
        original_width=original_width,
        original_fps=original_fps,
        has_backward=has_backward,
        engine=engine,
        engine_params=dict(engine_params),
        timestamps_s=times,
        scene_cuts=tuple(scene_cuts),
        display_max_px=float(display_max_px),
        source_video=source_video,
        source_identity=source_identity,
        format_version=FORMAT_VERSION,
    )


def _stream(
    name: str, table: BlockTable, start: int, shape: tuple[int, ...], arrays: dict[str, NDArray[Any]]
) -> tuple[bytes, ZipMember]:
    """Return what precedes the blocks of a flow member that begins at `start`; add its seek table to `arrays`."""
    prefix, header_crc = _flow_prefix(shape)
    data_start = start + zipdir.local_header_bytes(f"{name}.npy", wide=True)
    plain_bytes = math.prod(shape) * _ITEM_BYTES
    member = ZipMember(
        f"{name}.npy",
        zipdir.DEFLATED,
        isal_zlib.crc32_combine(header_crc, table.plain_crc32, plain_bytes),
        PREFIX_BYTES + table.size_bytes + len(STREAM_END),
        FLOW_HEADER_BYTES + plain_bytes,
        start,
    )
    offsets = np.zeros(shape[0] + 1, np.int64)
    np.cumsum(np.array(table.lengths, np.int64), out=offsets[1:])
    arrays[f"{name}_offsets"] = offsets + (data_start + PREFIX_BYTES)
    arrays[f"{name}_crc32"] = np.array(table.block_crcs, np.uint32)
    return zipdir.local_header(member, wide=True) + prefix, member


def _flow_prefix(shape: tuple[int, ...]) -> tuple[bytes, int]:
    """Return what precedes the first block, of the same length for any shape, and the array header's CRC-32.

    The header is held in a stored deflate block, so that it can be written last, when the count is known.
    """
    text = f"{{'descr': '{DESCR[FORMAT_VERSION]}', 'fortran_order': False, 'shape': {shape}, }}"
    header = MAGIC + struct.pack("<H", FLOW_HEADER_BYTES - 10) + text.ljust(FLOW_HEADER_BYTES - 11).encode() + b"\n"
    block = struct.pack("<B2H", 0, len(header), len(header) ^ 0xFFFF) + header
    return block + FULL_FLUSH, isal_zlib.crc32(header)

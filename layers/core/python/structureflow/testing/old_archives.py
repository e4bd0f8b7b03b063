"""Flow archives as earlier versions of this package wrote them, made anew: what old caches hold must stay readable."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from structureflow.flow.archive import quantise, zipdir
from structureflow.flow.archive.metadata import metadata_arrays
from structureflow.flow.archive.npy import npy_bytes
from structureflow.flow.archive.zipdir import ZipMember
from structureflow.flow.fields import FlowMeta

_HEADER_BYTES = 128
_FLUSH = b"\x00\x00\x00\xff\xff"
_END = b"\x03\x00"


def format_1_archive(
    forward: NDArray[Any], backward: NDArray[Any] | None = None, *, scene_cuts: tuple[int, ...] = (0,)
) -> bytes:
    """Write flows ``(N, h, w, 2)`` floating, pixels of the grid, into an archive of format 1: float16 vectors.

    float16 holds multiples of 1/16 exactly up to 128 px; longer vectors have its coarser steps.
    """
    total, height, width, _ = forward.shape
    out = bytearray()
    members: list[ZipMember] = []
    tables: dict[str, NDArray[Any]] = {"flows_shape": np.array(forward.shape, np.int64)}
    for name, flows in {"flows": forward, "flows_backward": backward}.items():
        if flows is not None:
            members.append(_add_flows(out, name, quantise(flows).astype("<f2"), tables))
    meta = FlowMeta(
        total_flows=total,
        height=height,
        width=width,
        original_height=2 * height,
        original_width=2 * width,
        original_fps=25.0,
        has_backward=backward is not None,
        engine="dis",
        engine_params={"finest_scale": 0},
        timestamps_s=np.arange(total + 1) / 25,
        scene_cuts=scene_cuts,
        display_max_px=3.5,
        source_video="s3://bucket/video.mp4",
        source_identity="5a" * 32,
        format_version=1,
    )
    for name, value in (tables | metadata_arrays(meta)).items():
        data = npy_bytes(value)
        crc = isal_zlib.crc32(data)
        members.append(ZipMember(f"{name}.npy", zipdir.STORED, crc, len(data), len(data), len(out)))
        out += zipdir.local_header(members[-1], wide=False) + data
    return bytes(out + zipdir.directory(members, len(out)))


def _add_flows(out: bytearray, name: str, stored: NDArray[np.float16], tables: dict[str, NDArray[Any]]) -> ZipMember:
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {stored.shape}, }}"
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", _HEADER_BYTES - 10)
    header += text.ljust(_HEADER_BYTES - 11).encode() + b"\n"
    prefix = struct.pack("<B2H", 0, len(header), len(header) ^ 0xFFFF) + header + _FLUSH
    blocks = []
    for flow in stored:
        compressor = isal_zlib.compressobj(1, isal_zlib.DEFLATED, -15)
        blocks.append(compressor.compress(flow.tobytes()) + compressor.flush(isal_zlib.Z_FULL_FLUSH))
    data = prefix + b"".join(blocks) + _END
    plain = header + stored.tobytes()
    member = ZipMember(f"{name}.npy", zipdir.DEFLATED, isal_zlib.crc32(plain), len(data), len(plain), len(out))
    out += zipdir.local_header(member, wide=True)
    tables[f"{name}_offsets"] = len(out) + len(prefix) + np.cumsum([0, *map(len, blocks)]).astype(np.int64)
    tables[f"{name}_crc32"] = np.array([isal_zlib.crc32(block) for block in blocks], np.uint32)
    out += data
    return member

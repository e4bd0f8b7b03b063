"""Names and numbers of the seekable format, shared by its writer and its reader.

Layout, in file order (``N`` flows of ``h`` x ``w``; the members from ``flows_shape`` on are uncompressed)::

    flows.npy                    (N, h, w, 2) float32, forward
    flows_backward.npy           the same, backward; absent when only forward flow is known
    flows_shape.npy              (4,) int64: N, h, w, 2
    flows_offsets.npy            (N + 1,) int64: flow i is the bytes [i] (inclusive) to [i + 1] (exclusive)
    flows_crc32.npy              (N,) uint32: CRC-32 of those (compressed) bytes
    flows_backward_offsets.npy, flows_backward_crc32.npy
    source_video, total_flows, original_fps, original_resolution (width, height), engine, engine_params
    (JSON), quantization_px, timestamps_s, scene_cuts, display_max_px, source_sha256 or source_etag, format_version

Format 1, which is still read, has float16 vectors.
"""

from __future__ import annotations

from typing import Final

from structureflow.flow.fields import Direction

FORMAT_VERSION: Final = 2
#: What the flow members of each version that is read hold.
DESCR: Final = {1: "<f2", 2: "<f4"}

MEMBERS: Final[dict[Direction, str]] = {"forward": "flows", "backward": "flows_backward"}
METADATA_NAMES: Final = frozenset(
    {
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
)
#: One of these two names the video's bytes.
TAGS: Final = ("source_sha256", "source_etag")
FORWARD_NAMES: Final = frozenset({"flows", "flows_shape", "flows_offsets", "flows_crc32"}) | METADATA_NAMES - {*TAGS}
BACKWARD_NAMES: Final = frozenset({"flows_backward", "flows_backward_offsets", "flows_backward_crc32"})

#: Length of a flow member's array header, whatever its shape.
FLOW_HEADER_BYTES: Final = 128
#: What ends a flow member: an empty last deflate block.
STREAM_END: Final = b"\x03\x00"
FULL_FLUSH: Final = b"\x00\x00\x00\xff\xff"
#: What precedes the first flow in its member: a stored deflate block with the array header, and a flush.
PREFIX_BYTES: Final = 5 + FLOW_HEADER_BYTES + len(FULL_FLUSH)

"""What the methods of `FrameCache` are given, by parameter, and how each is checked."""

from __future__ import annotations

from typing import Final

from structureflow import arguments, keys
from structureflow.arguments import Check, instance, optional, whole
from structureflow.frames.chunks import Chunk
from structureflow.frames.frame import Frame
from structureflow.frames.manifest import FrameManifest
from structureflow.frames.slot import Waiting
from structureflow.storage.base import check_store

CHECKS: Final[dict[str, Check]] = {
    "storage": check_store,
    "concurrency": whole(1),
    "workers": optional(whole(1)),
    "pixel_bytes": whole(1),
    "wait": optional(instance(Waiting, "Waiting")),
    "timeline_id": keys.check_id,
    "frames": arguments.iterable("Frame objects", Frame),
    "chunks": arguments.iterable("Chunk objects", Chunk),
    "manifest": optional(instance(FrameManifest, "what FrameCache.manifest gives")),
    "quality": whole(1, 100),
    "source_identity": optional(arguments.text),
    "max_chunk_bytes": optional(whole(1)),
    "opener": arguments.function,
    "fps": arguments.number(above=0),
    "chunk_id": arguments.text,
    "height": whole(1),
    "width": whole(1),
    "width_px": optional(whole(1)),
    "sequences": optional(arguments.whole_numbers(0)),
}

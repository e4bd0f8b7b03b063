"""Frames that an older program left without a manifest: they get one."""

from __future__ import annotations

import logging
from functools import partial

from structureflow import keys
from structureflow.errors import FrameCacheError, InvalidKeyError, TimelineNotFoundError
from structureflow.frames.fetch import fetch_frame, transfer
from structureflow.frames.manifest import ChunkEntry, FrameManifest, FrameRecord
from structureflow.frames.slot import ManifestSlot, Waiting
from structureflow.frames.writer import describe_frame
from structureflow.storage.base import Storage, StoredObject

_log = logging.getLogger(__name__)


def adopt_frames(
    storage: Storage, timeline_id: str, *, fps: float, chunk_id: str, concurrency: int, workers: int, wait: Waiting
) -> FrameManifest:
    """Write the manifest of frames that lie in a timeline's folder; see `FrameCache.adopt_frames`."""
    found: dict[int, FrameRecord] = {}
    for info in storage.list(keys.timeline_frames_prefix(timeline_id)):
        try:
            sequence = keys.parse_timeline_frame(info.key)
        except InvalidKeyError as error:
            _log.warning("not adopted: %s", error)
            continue
        if sequence in found:
            raise FrameCacheError(
                f"timeline {timeline_id}: {found[sequence].key} and {info.key} are both frame {sequence}",
                sequence=sequence,
            )
        found[sequence] = FrameRecord(sequence, info.key, info.etag, info.size_bytes, 0, sequence / fps, chunk_id, "")
    if not found:
        raise TimelineNotFoundError(f"timeline {timeline_id} has no frames", timeline_id=timeline_id)
    ordered = sorted(found.values(), key=lambda record: record.sequence)
    records: list[FrameRecord] = []
    sizes: set[tuple[int, int]] = set()
    for record, size in transfer(
        ordered, partial(fetch_frame, storage), _adopted, window=concurrency, concurrency=concurrency, workers=workers
    ):
        records.append(record)
        sizes.add(size)
    if len(sizes) != 1:
        raise FrameCacheError(f"timeline {timeline_id}: expected frames of one size, got {sorted(sizes)}")
    height, width = sizes.pop()
    manifest = FrameManifest.build(
        timeline_id,
        records,
        [ChunkEntry(chunk_id=chunk_id, width_px=width, height_px=height)],
        quality=0,
        source_identity="",
    )
    ManifestSlot(storage, timeline_id, wait).commit(manifest, None)
    return manifest


def _adopted(record: FrameRecord, found: StoredObject) -> tuple[FrameRecord, tuple[int, int]]:
    seen, (height, width, _) = describe_frame(record, found)
    return seen, (height, width)

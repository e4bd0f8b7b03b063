"""Putting a single frame anew that was found gone or damaged, without disturbing whoever else writes."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from structureflow import keys
from structureflow.errors import FrameCacheError, ObjectChangedError, ObjectExistsError, ObjectNotFoundError
from structureflow.frames.jpeg import encode_jpeg, hash_distance, perceptual_hash
from structureflow.frames.manifest import FrameManifest, FrameRecord
from structureflow.frames.writer import DEFAULT_QUALITY, SAME_FRAME_BITS
from structureflow.limits import MAX_FRAME_MANIFEST_BYTES
from structureflow.storage.base import Storage
from structureflow.storage.bounded import read_bounded


def repair_frame(storage: Storage, manifest: FrameManifest, sequence: int, image: NDArray[np.uint8]) -> bool:
    """Put a frame of a timeline anew; what other writers have put there meanwhile stays.

    Args:
        storage: where the timeline is.
        manifest: lists the frame.
        sequence: of the frame.
        image: its picture, ``(H, W, 3) uint8 RGB``, decoded from the source that the manifest names.

    Returns:
        Whether the frame is whole now; False where another writer was faster.

    Raises:
        FrameCacheError: the picture is not the one that the manifest describes.
        StorageError: the store refuses or breaks off.
    """
    (record,) = manifest.select([sequence])
    if hash_distance(perceptual_hash(image), record.perceptual_hash) > SAME_FRAME_BITS:
        raise FrameCacheError(
            f"timeline {manifest.timeline_id}: frame {sequence} of the source is not the one that was cached",
            sequence=sequence,
        )
    data = encode_jpeg(image, manifest.quality or DEFAULT_QUALITY)
    try:
        etag = storage.head(record.key).etag
    except ObjectNotFoundError:
        etag = None
    try:
        info = storage.put(record.key, data, content_type="image/jpeg", if_absent=etag is None, if_match=etag)
        repaired = replace(record, etag=info.etag, size_bytes=len(data), crc32=zlib.crc32(data))
        # Another version of the encoder gives other bytes of the same picture.
        if repaired != record:
            _replace_record(storage, manifest, repaired)
    except (ObjectExistsError, ObjectChangedError):
        return False
    return True


def _replace_record(storage: Storage, manifest: FrameManifest, repaired: FrameRecord) -> None:
    """Write the manifest anew with one other record, if it is still the one that was read.

    Raises:
        ObjectChangedError: another writer was faster, or removed it.
    """
    key = keys.timeline_manifest(manifest.timeline_id)
    try:
        found = read_bounded(storage, key, MAX_FRAME_MANIFEST_BYTES)
    except ObjectNotFoundError as error:
        raise ObjectChangedError(f"{key}: was removed", key=key) from error
    if FrameManifest.parse(found.data, manifest.timeline_id) != manifest:
        raise ObjectChangedError(f"{key}: was written anew", key=key)
    changed = FrameManifest.build(
        manifest.timeline_id,
        [repaired if record.sequence == repaired.sequence else record for record in manifest.records()],
        manifest.chunks,
        quality=manifest.quality,
        source_identity=manifest.source_identity,
    )
    storage.put(key, changed.to_json(), content_type="application/json", if_match=found.info.etag)

"""A job's timeline: its default id, and the frames that the extraction pass leaves in the frame cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from structureflow.errors import FrameCacheError, StorageError
from structureflow.frames.cache import FrameCache, FrameCacheWriter
from structureflow.media.decode import DecodedFrame
from structureflow.storage.base import Storage

_SOURCE_CHUNK = "source"


def default_timeline_id(source_identity: str) -> str:
    """Return the timeline of a video that the request gives none: the same for the same content."""
    return f"video-{hashlib.sha256(source_identity.encode()).hexdigest()[:24]}"


class FrameKeeper:
    """Takes every decoded frame to the frame cache; a cache that cannot be written never stops the flows."""

    def __init__(self, writer: FrameCacheWriter | None) -> None:
        self._writer = writer
        self._problem: str | None = None

    @classmethod
    @contextmanager
    def open(cls, storage: Storage, timeline_id: str, source_identity: str) -> Iterator[FrameKeeper]:
        """Give a keeper for a timeline; one that keeps nothing where the very same frames are there already."""
        cache = FrameCache(storage)
        if cache.cache_exists(timeline_id, source_identity=source_identity):
            yield cls(None)
            return
        with cache.writer(timeline_id, source_identity=source_identity) as writer:
            yield cls(writer)

    def add(self, frame: DecodedFrame) -> None:
        """Hand a frame over; it is encoded and stored in the background."""
        if self._writer is None:
            return
        try:
            self._writer.add(frame.index, frame.image, timestamp=frame.timestamp_s, chunk_id=_SOURCE_CHUNK)
        except (StorageError, FrameCacheError) as error:
            self._problem = f"frames cannot be kept: {error}"
            self._writer = None

    def commit(self) -> str | None:
        """Write the manifest; return what went wrong, if anything did."""
        if self._writer is not None:
            try:
                self._writer.commit()
            except (StorageError, FrameCacheError) as error:
                self._problem = f"frames cannot be kept: {error}"
        return self._problem

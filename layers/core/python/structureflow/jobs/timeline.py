"""A job's timeline: its default id, and the frames that the extraction pass leaves in the frame cache."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from structureflow.errors import FrameCacheError, StorageError, StructureFlowError, TimelineNotFoundError
from structureflow.frames.cache import FrameCache, FrameCacheWriter
from structureflow.frames.manifest import ChunkEntry, FrameManifest, FrameRecord
from structureflow.jobs.estimate import extraction_mb
from structureflow.jobs.inputs import Source
from structureflow.jobs.services import Services
from structureflow.media.decode import DecodedFrame, DecodeLimits, VideoReader
from structureflow.models.results import Model
from structureflow.storage.base import Storage

_SOURCE_CHUNK = "source"

_log = logging.getLogger(__name__)


def default_timeline_id(source_identity: str) -> str:
    """Return the timeline of a video that the request gives none: the same for the same content."""
    return f"video-{hashlib.sha256(source_identity.encode()).hexdigest()[:24]}"


@dataclass(frozen=True, slots=True)
class FrameStock:
    """The frames of a video as they were counted.

    Attributes:
        total: how many there are.
        height, width: of each, in pixels.
        problem: why they are not in the frame cache; None where they are.
    """

    total: int
    height: int
    width: int
    problem: str | None = None


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
        if _filled(cache, timeline_id, source_identity) is not None:
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

    def hand_over(self) -> KeptFrames:
        """Wait for all frames, and leave the manifest to whoever has those of all parts."""
        records: list[FrameRecord] = []
        chunks: list[ChunkEntry] = []
        if self._writer is not None:
            try:
                records, chunks = self._writer.hand_over()
            except (StorageError, FrameCacheError) as error:
                self._problem = f"frames cannot be kept: {error}"
        return KeptFrames(records=tuple(records), chunks=tuple(chunks), problem=self._problem)


class KeptFrames(Model):
    """Frames of a part of a video, in the frame cache but not committed.

    Attributes:
        records: of the frames; empty where they were committed before, or could not be kept.
        chunks: of what they are.
        problem: why they could not be kept.
    """

    records: tuple[FrameRecord, ...] = ()
    chunks: tuple[ChunkEntry, ...] = ()
    problem: str | None = None


def commit_frames(storage: Storage, timeline_id: str, source_identity: str, kept: Sequence[KeptFrames]) -> str | None:
    """Commit the frames of all parts of a video; return what went wrong, if anything did."""
    cache = FrameCache(storage)
    if _filled(cache, timeline_id, source_identity) is not None:
        return None
    problem = next((part.problem for part in kept if part.problem is not None), None)
    try:
        with cache.writer(timeline_id, source_identity=source_identity) as writer:
            for part in kept:
                writer.take(part.records, part.chunks)
            if problem is None and all(part.records for part in kept):
                writer.commit()
            # else what is not whole is removed
    except (StorageError, FrameCacheError) as error:
        return f"frames cannot be kept: {error}"
    return problem or (None if all(part.records for part in kept) else "frames cannot be kept: some were not written")


def discard_frames(storage: Storage, timeline_id: str, kept: Sequence[KeptFrames]) -> None:
    """Remove frames of parts that nobody will commit, unless another writer has committed them meanwhile."""
    try:
        with FrameCache(storage).writer(timeline_id) as writer:
            for part in kept:
                writer.take(part.records, part.chunks)
    except (StorageError, FrameCacheError) as error:
        _log.warning("timeline %s: uncommitted frames remain: %s", timeline_id, error)


def keep_frames(timeline_id: str, source: Source, services: Services) -> None:
    """Fill a timeline's frame cache from its video, where the flows were found but the frames are not there.

    The job is under way by then and does not need the frames; what goes wrong is logged and counted.
    """
    cache = FrameCache(services.storage)
    try:
        if _filled(cache, timeline_id, source.identity) is None:
            _cache_video(cache, timeline_id, source, services)
    except StructureFlowError as error:
        _log.warning("timeline %s: frames cannot be kept: %s: %s", timeline_id, error.code, error.message)
        services.count("Fallbacks", 1)


def see_frames(timeline_id: str, source: Source, services: Services) -> FrameStock:
    """Count the frames of a video, and keep them in its timeline, where they may be already.

    Raises:
        MediaError, InputNotFoundError, InputChangedError: it cannot be decoded to its end, or is gone.
        MemoryLimitError, DeadlineError: there is too much of it.
    """
    manifest = _filled(FrameCache(services.storage), timeline_id, source.identity)
    if manifest is not None:
        size = manifest.chunks[0]
        return FrameStock(manifest.total, size.height_px, size.width_px)
    with services.scratch() as folder:
        video = folder / "structure_video"
        source.fetch(video)
        limits = DecodeLimits(max_frames=services.max_video_frames)
        with (
            VideoReader(video, limits) as reader,
            FrameKeeper.open(services.storage, timeline_id, source.identity) as keeper,
        ):
            info = reader.info
            services.check_memory(extraction_mb(info), f"decoding {info.width_px}x{info.height_px} pixels")
            count = 0
            for frame in services.deadline.each(iter(reader), "decoding"):
                keeper.add(frame)
                count += 1
            return FrameStock(count, info.height_px, info.width_px, keeper.commit())


def _filled(cache: FrameCache, timeline_id: str, source_identity: str) -> FrameManifest | None:
    """Return the manifest of the frames of this very source; say so where the timeline holds those of another."""
    try:
        manifest = cache.manifest(timeline_id)
    except TimelineNotFoundError:
        return None
    except FrameCacheError as error:
        _log.warning("%s: its frames are written anew", error)
        return None
    if manifest.source_identity == source_identity:
        return manifest
    _log.warning(
        "timeline %s: its %d frames of %s are replaced by those of %s",
        timeline_id,
        manifest.total,
        manifest.source_identity or "an unknown source",
        source_identity,
    )
    return None


def _cache_video(cache: FrameCache, timeline_id: str, source: Source, services: Services) -> None:
    with services.scratch() as folder:
        video = folder / "structure_video"
        source.fetch(video)
        limits = DecodeLimits(max_frames=services.max_video_frames)
        with (
            VideoReader(video, limits) as reader,
            cache.writer(timeline_id, source_identity=source.identity) as writer,
        ):
            for frame in services.deadline.each(iter(reader), "keeping frames"):
                writer.add(frame.index, frame.image, timestamp=frame.timestamp_s, chunk_id=_SOURCE_CHUNK)
            writer.commit()

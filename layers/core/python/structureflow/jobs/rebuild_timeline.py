"""Write a timeline's cached frames anew from its source chunks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from structureflow.errors import StructureFlowError
from structureflow.frames.cache import FrameCache
from structureflow.frames.writer import DEFAULT_QUALITY
from structureflow.jobs import live_keys
from structureflow.jobs.documents import describe_error, put_document
from structureflow.jobs.estimate import extraction_mb
from structureflow.jobs.services import Services
from structureflow.media.decode import DecodedFrame, DecodeLimits, VideoReader
from structureflow.models.results import RebuildState

__all__ = ["RebuildTimelineInput", "rebuild_timeline"]


class RebuildTimelineInput(BaseModel):
    """Which timeline; `quality` of the JPEGs is 1 to 100."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeline_id: str
    quality: int = DEFAULT_QUALITY


class RebuiltTimeline(BaseModel):
    """What the cache holds now."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeline_id: str
    frames: int
    chunks: tuple[str, ...]
    source_identity: str


def rebuild_timeline(event: RebuildTimelineInput, services: Services) -> RebuiltTimeline:
    """Decode a timeline's chunks and cache their frames, and leave word beside them of how that goes; see `_rebuild`.

    Raises:
        StructureFlowError: as `_rebuild`; the word says so too.
    """
    _say(event, services, RebuildState(state="running", updated_at=services.clock()))
    try:
        rebuilt = _rebuild(event, services)
    except StructureFlowError as error:
        failed = describe_error(error, "rebuild")
        _say(event, services, RebuildState(state="failed", updated_at=services.clock(), error=failed))
        raise
    _say(event, services, RebuildState(state="done", updated_at=services.clock()))
    return rebuilt


def _say(event: RebuildTimelineInput, services: Services, state: RebuildState) -> None:
    put_document(services.storage, live_keys.timeline_rebuild(event.timeline_id), state)


def _rebuild(event: RebuildTimelineInput, services: Services) -> RebuiltTimeline:
    """Decode the chunks below ``timelines/{timeline_id}/chunks/`` in order, and cache their frames.

    Raises:
        TimelineNotFoundError: the timeline has no chunks; the cache stays as it was.
        MediaError: a chunk cannot be decoded, or exceeds the limits of the settings.
        StorageError: a chunk is larger than allowed, or the store fails; there is no manifest then.
        MemoryLimitError: a chunk's pictures take more than the function has to spare.
        DeadlineError: the function's time is nearly over; there is no manifest then.
    """
    limits = DecodeLimits(min_frames=1, max_frames=services.max_video_frames)

    @contextmanager
    def open_chunk(path: Path) -> Iterator[Iterator[DecodedFrame]]:
        with VideoReader(path, limits) as reader:
            info = reader.info
            services.check_memory(extraction_mb(info), f"caching {info.width_px}x{info.height_px} pixels")
            yield services.deadline.each(iter(reader), "rebuilding the timeline")

    manifest = FrameCache(services.storage).rebuild(
        event.timeline_id, quality=event.quality, max_chunk_bytes=services.max_input_bytes, opener=open_chunk
    )
    services.count("TimelinesRebuilt", 1)
    return RebuiltTimeline(
        timeline_id=event.timeline_id,
        frames=manifest.total,
        chunks=tuple(chunk.chunk_id for chunk in manifest.chunks),
        source_identity=manifest.source_identity,
    )

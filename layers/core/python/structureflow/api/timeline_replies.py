"""What the routes of timelines answer with; pages of frames are `structureflow.frames.pages`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from structureflow.api.replies import Refusal
from structureflow.models.results import Model, RebuildState


class TimelineRow(Model):
    """A timeline in the list; `error` says why its frames are not to be had."""

    timeline_id: str
    frames: int | None = None
    width_px: int | None = None
    height_px: int | None = None
    duration_s: float | None = None
    created_at: datetime | None = None
    error: Refusal | None = None


class TimelinePage(Model):
    """A page of timelines, in the order of their ids; `next_page` is None on the last one."""

    timelines: tuple[TimelineRow, ...]
    next_page: str | None


class ChunkView(Model):
    """A source chunk: the size of its frames, which is its first one, and how many there are."""

    chunk_id: str
    width_px: int
    height_px: int
    first_sequence: int
    frames: int


class TimelineView(Model):
    """A timeline's frame cache. `etag` changes when it is written anew; `contiguous`: no number is left out."""

    timeline_id: str
    frames: int
    first_sequence: int
    last_sequence: int
    contiguous: bool
    duration_s: float
    quality: int
    created_at: datetime
    etag: str
    chunks: tuple[ChunkView, ...]
    can_rebuild: bool
    rebuild: RebuildState | None


class DamagedFrames(Model):
    """Frames whose objects are gone or are not those of the manifest, by listing; lists have a bound, counts none."""

    timeline_id: str
    whole: bool
    total: int
    missing: tuple[int, ...]
    missing_count: int
    changed: tuple[int, ...]
    changed_count: int
    extra: int


class StartedRebuild(Model):
    """A timeline whose frames are being written anew."""

    timeline_id: str
    state: Literal["running"]


class OverlayJob(Model):
    """A job that left overlays, and of which stages."""

    job_id: str
    stages: tuple[str, ...]


class OverlayJobs(Model):
    """The jobs that left overlays on a timeline; `next_page` is None on the last page."""

    timeline_id: str
    jobs: tuple[OverlayJob, ...]
    next_page: str | None


class OverlayUrl(Model):
    """An overlay for screens."""

    job_id: str
    stage: str
    sequence: int
    name: str
    size_bytes: int
    url: str


class OverlayPage(Model):
    """A page of overlays; `next_page` is None on the last one."""

    timeline_id: str
    overlays: tuple[OverlayUrl, ...]
    next_page: str | None


class ClearedTimeline(Model):
    """How many objects were removed."""

    timeline_id: str
    removed: int

"""Timelines for screens: which there are, their frames and overlays in pages, what of them is damaged."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final

from structureflow import keys
from structureflow.api.queries import (
    ClearQuery,
    FrameQuery,
    NamesQuery,
    OverlaysQuery,
    RebuildWish,
    ThumbnailsQuery,
    TimelinesQuery,
    UrlsQuery,
    parse_sequences,
)
from structureflow.api.replies import Refusal
from structureflow.api.timeline_replies import (
    ChunkView,
    ClearedTimeline,
    DamagedFrames,
    OverlayJob,
    OverlayJobs,
    OverlayPage,
    OverlayUrl,
    StartedRebuild,
    TimelinePage,
    TimelineRow,
    TimelineView,
)
from structureflow.errors import (
    DeadlineError,
    JobStateError,
    NothingRunsError,
    StructureFlowError,
    TimelineNotFoundError,
    TransientError,
)
from structureflow.frames.known import KnownManifests
from structureflow.frames.manifest import FrameManifest, compare_listing
from structureflow.frames.overlays import list_overlay_frames
from structureflow.frames.pages import FramePage, FrameUrlPage
from structureflow.frames.screens import frame_jpeg, frame_page, frame_url_page
from structureflow.frames.slot import clear_timeline as remove_timeline
from structureflow.jobs import live_keys
from structureflow.jobs.documents import describe_error, get_document, put_document
from structureflow.jobs.services import Services
from structureflow.limits import MAX_FUNCTION_S
from structureflow.models.results import RebuildState
from structureflow.storage.base import Storage

#: Numbers of damaged frames that a reply lists; the counts are whole.
_LISTED: Final = 1000
#: Of a page of jobs that left overlays: a request for each.
_OVERLAY_JOBS: Final = 50
#: Manifests that the list reads at the same time; one may take 100 MB.
_MANIFESTS_AT_ONCE: Final = 4
#: Of a process: what it has read of timelines is read once.
_known: Final = KnownManifests()


def timeline_page(query: TimelinesQuery, services: Services) -> TimelinePage:
    """Return a page of timelines, in the order of their ids."""
    folders = services.storage.folders(keys.TIMELINES_PREFIX, start_after=query.page)
    found = list(islice(folders, query.limit + 1))
    shown = found[: query.limit]
    with ThreadPoolExecutor(_MANIFESTS_AT_ONCE, thread_name_prefix="timelines") as pool:
        rows = tuple(pool.map(lambda timeline_id: _row(timeline_id, services.storage), shown))
    return TimelinePage(timelines=rows, next_page=shown[-1] if len(found) > query.limit else None)


def _row(timeline_id: str, storage: Storage) -> TimelineRow:
    try:
        manifest, _ = _known.read(storage, timeline_id)
    except TransientError:
        raise
    except StructureFlowError as error:
        # one that cannot be read must not hide the others
        return TimelineRow(timeline_id=timeline_id, error=Refusal(**error.as_dict()))
    return TimelineRow(
        timeline_id=timeline_id,
        frames=manifest.total,
        width_px=manifest.chunks[0].width_px if manifest.chunks else None,
        height_px=manifest.chunks[0].height_px if manifest.chunks else None,
        duration_s=_duration_s(manifest),
        created_at=manifest.created_at,
    )


def _duration_s(manifest: FrameManifest) -> float:
    """Return the time from the first frame to the end of the last, which lasts as long as the mean."""
    times_s = manifest.frames.timestamp_s
    if len(times_s) < 2:
        return 0.0
    span_s = times_s[-1] - times_s[0]
    return round(span_s * len(times_s) / (len(times_s) - 1), 3)


def timeline(timeline_id: str, services: Services) -> TimelineView:
    """Return what a timeline's frame cache holds.

    Raises:
        TimelineNotFoundError: no cached frames; where a rebuilding took them and failed, with what it says (`rebuild`).
        FrameCacheError: the manifest cannot be used.
    """
    try:
        manifest, etag = _known.read(services.storage, timeline_id)
    except TimelineNotFoundError as error:
        lost = _rebuild_state(timeline_id, services)
        if lost is None or lost.error is None:
            raise
        message = f"{error.message}; they were to be rebuilt: {lost.error.code}: {lost.error.message}"
        raise TimelineNotFoundError(message, **error.detail, rebuild=lost.model_dump(mode="json")) from error
    sequences = manifest.frames.sequence
    first, last = (sequences[0], sequences[-1]) if sequences else (0, -1)
    sources = services.storage.list(keys.timeline_chunks_prefix(timeline_id))
    return TimelineView(
        timeline_id=timeline_id,
        frames=manifest.total,
        first_sequence=first,
        last_sequence=last,
        contiguous=last - first + 1 == manifest.total,
        duration_s=_duration_s(manifest),
        quality=manifest.quality,
        created_at=manifest.created_at,
        etag=etag,
        chunks=_chunks(manifest),
        can_rebuild=next(iter(sources), None) is not None,
        rebuild=_rebuild_state(timeline_id, services),
    )


def _rebuild_state(timeline_id: str, services: Services) -> RebuildState | None:
    """Return where the last rebuilding is; one whose function must have ended without a word has failed."""
    key = live_keys.timeline_rebuild(timeline_id)
    if not services.storage.exists(key):
        return None
    try:
        state = get_document(services.storage, key, RebuildState, made_by="RebuildTimeline")
    except JobStateError as error:
        return RebuildState(state="failed", updated_at=services.clock(), error=describe_error(error, "rebuild"))
    silent_s = (services.clock() - state.updated_at).total_seconds()
    if state.state == "running" and silent_s > MAX_FUNCTION_S:
        lost = DeadlineError(f"the rebuilding was not heard of for {silent_s:.0f} s; start it again")
        return state.model_copy(update={"state": "failed", "error": describe_error(lost, "rebuild")})
    return state


def start_rebuild(timeline_id: str, wish: RebuildWish, services: Services) -> StartedRebuild:
    """Have a timeline's frames written anew from its chunks.

    Raises:
        NothingRunsError: nothing here does that.
        TimelineNotFoundError: the timeline has no chunks.
    """
    if services.rebuild is None:
        raise NothingRunsError("this store is only shown: nothing here rebuilds timelines")
    sources = services.storage.list(keys.timeline_chunks_prefix(timeline_id))
    if next(iter(sources), None) is None:
        raise TimelineNotFoundError(f"timeline {timeline_id} has no chunks to be rebuilt from", timeline_id=timeline_id)
    # before it begins, so that nobody who polls takes the end of an earlier one for the end of this
    begun = RebuildState(state="running", updated_at=services.clock())
    put_document(services.storage, live_keys.timeline_rebuild(timeline_id), begun)
    services.rebuild(timeline_id, wish.quality)
    return StartedRebuild(timeline_id=timeline_id, state="running")


def _chunks(manifest: FrameManifest) -> tuple[ChunkView, ...]:
    counts = [0] * len(manifest.chunks)
    firsts = [-1] * len(manifest.chunks)
    for sequence, chunk in zip(manifest.frames.sequence, manifest.frames.chunk, strict=True):
        counts[chunk] += 1
        if firsts[chunk] < 0:
            firsts[chunk] = sequence
    return tuple(
        ChunkView(
            chunk_id=entry.chunk_id,
            width_px=entry.width_px,
            height_px=entry.height_px,
            first_sequence=first,
            frames=count,
        )
        for entry, first, count in zip(manifest.chunks, firsts, counts, strict=True)
        if count
    )


def timeline_frames(timeline_id: str, query: ThumbnailsQuery, services: Services) -> FramePage:
    """Return a page of frames as base64 JPEGs, small enough for one reply.

    Raises:
        FrameCacheError: no such timeline or frame, a bad page, a corrupt frame.
    """
    return frame_page(
        services.storage,
        timeline_id,
        query.numbers,
        page=query.page,
        limit=query.limit,
        width_px=query.width_px,
        quality=query.quality,
        workers=services.workers,
        manifest=_known.read(services.storage, timeline_id)[0],
        leave_out_damaged=query.damaged == "list",
    )


def timeline_frame(timeline_id: str, sequence: int, query: FrameQuery, services: Services) -> tuple[bytes, str]:
    """Return one frame as a JPEG, and the ETag of the timeline; errors as `timeline_frames`."""
    manifest, etag = _known.read(services.storage, timeline_id)
    record = manifest.record(manifest.position(sequence))
    return frame_jpeg(services.storage, record, width_px=query.width_px, quality=query.quality), etag


def timeline_frame_urls(timeline_id: str, query: UrlsQuery, services: Services) -> FrameUrlPage:
    """Return a page of URLs that read frames without credentials; errors as `timeline_frames`."""
    return frame_url_page(
        services.storage,
        timeline_id,
        query.numbers,
        page=query.page,
        limit=query.limit,
        expires_s=query.expires_s,
        manifest=_known.read(services.storage, timeline_id)[0],
    )


def timeline_damage(timeline_id: str, services: Services) -> DamagedFrames:
    """Compare a timeline's objects with its manifest, by listing; errors as `timeline`."""
    manifest, _ = _known.read(services.storage, timeline_id)
    check = compare_listing(services.storage, manifest)
    return DamagedFrames(
        timeline_id=timeline_id,
        whole=check.whole,
        total=check.total,
        missing=check.missing[:_LISTED],
        missing_count=len(check.missing),
        changed=check.changed[:_LISTED],
        changed_count=len(check.changed),
        extra=check.extra,
    )


def overlay_jobs(timeline_id: str, query: NamesQuery, services: Services) -> OverlayJobs:
    """Return the jobs that left overlays on a timeline, and of which stages; none gives an empty list."""
    prefix = keys.timeline_overlays_prefix(timeline_id)
    found = list(islice(services.storage.folders(prefix, start_after=query.page), _OVERLAY_JOBS + 1))
    shown = found[:_OVERLAY_JOBS]
    return OverlayJobs(
        timeline_id=timeline_id,
        jobs=tuple(
            OverlayJob(job_id=job_id, stages=tuple(services.storage.folders(f"{prefix}{job_id}/"))) for job_id in shown
        ),
        next_page=shown[-1] if len(found) > _OVERLAY_JOBS else None,
    )


def timeline_overlays(timeline_id: str, query: OverlaysQuery, services: Services) -> OverlayPage:
    """Return a page of a timeline's overlays with URLs; a timeline without any gives an empty page."""
    entries = list_overlay_frames(services.storage, timeline_id, query.job_id, query.stage)
    if query.sequences is not None:
        asked = frozenset(parse_sequences(query.sequences))
        entries = (entry for entry in entries if entry.sequence in asked)
    stop = query.page + query.limit
    wanted = list(islice(entries, query.page, stop + 1))
    return OverlayPage(
        timeline_id=timeline_id,
        overlays=tuple(
            OverlayUrl(
                job_id=entry.job_id,
                stage=entry.stage,
                sequence=entry.sequence,
                name=entry.name,
                size_bytes=entry.size_bytes,
                url=services.storage.presigned_url(entry.key, expires_s=query.expires_s),
            )
            for entry in wanted[: query.limit]
        ),
        next_page=str(stop) if len(wanted) > query.limit else None,
    )


def clear_timeline(timeline_id: str, query: ClearQuery, services: Services) -> ClearedTimeline:
    """Remove a timeline's cached frames, and its overlays if asked."""
    removed = remove_timeline(services.storage, timeline_id, overlays=query.overlays)
    return ClearedTimeline(timeline_id=timeline_id, removed=removed)

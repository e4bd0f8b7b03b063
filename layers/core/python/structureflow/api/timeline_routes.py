"""Routes of timelines."""

from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Path, Query

from structureflow.api import timelines
from structureflow.api.queries import (
    ClearQuery,
    FrameQuery,
    NamesQuery,
    Nothing,
    OverlaysQuery,
    RebuildWish,
    ThumbnailsQuery,
    TimelinesQuery,
    UrlsQuery,
)
from structureflow.api.serving import Reply, answers, body_as, bytes_answers, known, later, new_router
from structureflow.api.timeline_replies import (
    ClearedTimeline,
    DamagedFrames,
    OverlayJobs,
    OverlayPage,
    StartedRebuild,
    TimelinePage,
    TimelineView,
)
from structureflow.frames.pages import FramePage, FrameUrlPage
from structureflow.jobs.services import Services

router = new_router()
Sequence = Annotated[int, Path(ge=0, le=999_999_999)]


@router.get("/timelines", responses=answers(TimelinePage))
def list_timelines(query: Annotated[TimelinesQuery, Query()]) -> Response[Any]:
    """A page of timelines that have frames or overlays."""
    known(router, query)
    return later(lambda services: timelines.timeline_page(query, services))


@router.get("/timelines/<timeline_id>", responses=answers(TimelineView))
def timeline(timeline_id: str) -> Response[Any]:
    """What a timeline's frame cache holds."""
    known(router, Nothing())
    return later(lambda services: timelines.timeline(timeline_id, services))


@router.get("/timelines/<timeline_id>/frames", responses=answers(FramePage))
def timeline_frames(timeline_id: str, query: Annotated[ThumbnailsQuery, Query()]) -> Response[Any]:
    """A page of frames as base64 JPEGs."""
    known(router, query)
    return later(lambda services: timelines.timeline_frames(timeline_id, query, services))


@router.get("/timelines/<timeline_id>/frames/urls", responses=answers(FrameUrlPage))
def timeline_frame_urls(timeline_id: str, query: Annotated[UrlsQuery, Query()]) -> Response[Any]:
    """A page of frames as URLs."""
    known(router, query)
    return later(lambda services: timelines.timeline_frame_urls(timeline_id, query, services))


@router.get("/timelines/<timeline_id>/frames/<sequence>", responses=bytes_answers("image/jpeg"))
def timeline_frame(timeline_id: str, sequence: Sequence, query: Annotated[FrameQuery, Query()]) -> Response[Any]:
    """One frame as a JPEG; of the ETag that the timeline has, it may be kept for an hour."""
    known(router, query)

    def work(services: Services) -> Reply:
        data, etag = timelines.timeline_frame(timeline_id, sequence, query, services)
        kept = {"Cache-Control": "private, max-age=3600, immutable"} if query.etag == etag else {}
        return Reply(data, "image/jpeg", headers=kept)

    return later(work)


@router.get("/timelines/<timeline_id>/damaged", responses=answers(DamagedFrames))
def timeline_damage(timeline_id: str) -> Response[Any]:
    """Frames that are gone, or are not those that were cached."""
    known(router, Nothing())
    return later(lambda services: timelines.timeline_damage(timeline_id, services))


@router.get("/timelines/<timeline_id>/overlays", responses=answers(OverlayPage))
def timeline_overlays(timeline_id: str, query: Annotated[OverlaysQuery, Query()]) -> Response[Any]:
    """A page of overlays as URLs."""
    known(router, query)
    return later(lambda services: timelines.timeline_overlays(timeline_id, query, services))


@router.get("/timelines/<timeline_id>/overlays/jobs", responses=answers(OverlayJobs))
def overlay_jobs(timeline_id: str, query: Annotated[NamesQuery, Query()]) -> Response[Any]:
    """A page of the jobs that left overlays, and of which stages."""
    known(router, query)
    return later(lambda services: timelines.overlay_jobs(timeline_id, query, services))


@router.post("/timelines/<timeline_id>/rebuild", responses=answers(StartedRebuild, 202))
def rebuild_timeline(timeline_id: str) -> Response[Any]:
    """Have the frames written anew from the timeline's chunks; what `GET` of the timeline says as `rebuild` goes on."""
    known(router, Nothing())
    wish = body_as(router, RebuildWish)
    return later(lambda services: timelines.start_rebuild(timeline_id, wish, services), status=202)


@router.delete("/timelines/<timeline_id>", responses=answers(ClearedTimeline))
def clear_timeline(timeline_id: str, query: Annotated[ClearQuery, Query()]) -> Response[Any]:
    """Remove cached frames, and overlays with ``?overlays=true``."""
    known(router, query)
    return later(lambda services: timelines.clear_timeline(timeline_id, query, services))

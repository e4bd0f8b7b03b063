"""What a job will take on AWS, for screens, before it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structureflow.api.media_replies import ForecastReply
from structureflow.api.queries import ForecastWish
from structureflow.errors import InvalidRequestError, VideoPartsError
from structureflow.jobs.services import Services
from structureflow.limits import MAX_PREVIEW_BYTES, NEW_ACCOUNT_MEMORY_MB, PART_FRAMES
from structureflow.models.cost import estimate_cost, transitions_of
from structureflow.models.job import JobRequest

if TYPE_CHECKING:
    from structureflow.jobs.inputs import Source
    from structureflow.media.probe import VideoInfo


def forecast_job(wish: ForecastWish, services: Services) -> ForecastReply:
    """Return what a job will take, on functions with the memory of this one; its videos' indexes alone are read.

    Raises:
        InvalidRequestError: the request is wrong, or names a video that would have to be fetched and is too large.
        InputNotFoundError, MediaError: a structure video cannot be had, or is none.
    """
    from structureflow.jobs.forecast import Plan, forecast
    from structureflow.jobs.shared_flows import shared_flow_keys

    request = JobRequest.parse(wish.request)
    references = dict.fromkeys(one.path for one in request.structure_videos)
    if request.structure_video is not None:
        references[request.structure_video] = None
    sources = [services.inputs.find(reference) for reference in references]
    videos = [_look_into(source, services) for source in sources]
    cached = request.structure_video is None and not sources
    if request.structure_video is not None and request.flow_cache is None:
        cached = any(services.storage.exists(key) for key in shared_flow_keys(request, sources[0], services))
    memory_mb = services.memory_mb or NEW_ACCOUNT_MEMORY_MB
    plan = Plan(
        orchestrator_mb=memory_mb, segment_mb=memory_mb, concurrency=services.max_concurrent_segments, cached=cached
    )
    found = forecast(request, videos, plan)
    items = estimate_cost(
        found.usage, transitions=transitions_of(len(request.segments)), stored_bytes=found.stored_bytes
    )
    return ForecastReply(
        seconds=round(found.wall_s, 1),
        cost_usd=round(sum(items.values()), 8),
        items_usd=items,
        frames=sum(info.frames for info in videos),
        flows_found=cached,
    )


def _look_into(source: Source, services: Services) -> VideoInfo:
    from structureflow.media.decode import DecodeLimits, VideoReader
    from structureflow.media.part_plan import plan_parts

    limits = DecodeLimits(max_frames=services.max_video_frames)
    if source.is_ranged:
        try:
            with source.opened() as file:
                return plan_parts(file, limits, PART_FRAMES).info
        except VideoPartsError:
            # its container does not tell; the whole file does
            pass
    if source.size_bytes > MAX_PREVIEW_BYTES:
        raise InvalidRequestError(
            f"{source.name}: expected at most {MAX_PREVIEW_BYTES} bytes of a video whose index does not say how long "
            f"it is, got {source.size_bytes}; a job takes more"
        )
    with services.scratch() as folder:
        path = folder / "video"
        source.fetch(path)
        with VideoReader(path, limits) as reader:
            return reader.info

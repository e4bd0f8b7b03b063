"""What a job will take before it runs: calls, requests, bytes and seconds, from its request and its videos alone.

Numbers of requests were counted on 2026-11-26 on the local cloud; `tests/e2e/test_cost_forecast.py` compares them
with a run. Seconds are those of `structureflow.jobs.estimate`, on the safe side; bytes stored are rough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from structureflow.jobs.estimate import extraction_mb, extraction_s, segment_s
from structureflow.jobs.progress import EVERY_S
from structureflow.limits import MAX_FUNCTION_S, MB_PER_VCPU, MEMORY_SHARE, STOP_BEFORE_END_S
from structureflow.media.probe import VideoInfo
from structureflow.models.cost import Architecture, StepUsage, fargate_usd
from structureflow.models.job import JobRequest, Segment
from structureflow.models.targets import output_size

__all__ = ["Plan", "batch_forecast", "forecast"]

#: Beside the work itself: a cold start, the first requests.
START_S: Final = 1.5
#: Of a Batch job: until Fargate has found a place and pulled the image.
BATCH_START_S: Final = 90.0
#: Of the functions without pixels: to claim and list; to check, copy and report, for each segment.
PLAN_S: Final = 0.5
ASSEMBLE_S: Final = 1.0
ASSEMBLE_SEGMENT_S: Final = 0.15
PLAN_MB: Final = 512
ASSEMBLE_MB: Final = 1024
#: Bytes of what stays: flows of a pair, both directions; JPEG and H.264 for each pixel of a frame.
FLOW_BYTES: Final = 120_000
JPEG_BYTES_PER_PIXEL: Final = 0.16
VIDEO_BYTES_PER_PIXEL: Final = 0.03


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a job will run.

    Attributes:
        orchestrator_mb, segment_mb: memory of the functions.
        concurrency: segments at the same time.
        architecture: of all functions.
        cached: whether the flows and the frames of the video are there already.
    """

    orchestrator_mb: int
    segment_mb: int
    concurrency: int
    architecture: Architecture = "x86_64"
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a job will take.

    Attributes:
        usage: of every call of a function.
        stored_bytes: that stay in the bucket.
        wall_s: from the request to the manifest, with nobody else waiting.
    """

    usage: tuple[StepUsage, ...]
    stored_bytes: int
    wall_s: float


def forecast(request: JobRequest, videos: Sequence[VideoInfo], plan: Plan) -> Forecast:
    """Estimate what a job takes.

    Args:
        request: of the job.
        videos: its structure videos, in order; none where its flows are given.
        plan: where it runs.
    """
    engine = _engine(request)
    processors = plan.orchestrator_mb / MB_PER_VCPU
    frames = sum(info.frames for info in videos)
    extract_s = 0.0
    if not plan.cached:
        extract_s = sum(extraction_s(info, engine, request.quality, processors=processors) for info in videos)
    width, height = _size(request, videos)
    segments_s = [
        START_S + segment_s(request, one, width, height, processors=plan.segment_mb / MB_PER_VCPU)
        for one in request.segments
    ]
    count, extra = len(request.segments), len(request.outputs)
    assemble_s = ASSEMBLE_S + ASSEMBLE_SEGMENT_S * count

    def step(name: str, duration_s: float, memory_mb: int, writes: int, reads: int, events: int) -> StepUsage:
        return StepUsage(
            step=name,
            duration_s=duration_s,
            memory_mb=memory_mb,
            architecture=plan.architecture,
            s3_writes=writes,
            s3_reads=reads,
            s3_events=events,
        )

    cached_frames = 0 if plan.cached else frames
    usage = (
        # frames, their manifest, archives, records, status; one listing
        step(
            "Orchestrator",
            START_S + extract_s,
            plan.orchestrator_mb,
            cached_frames + 7 + _said(extract_s),
            17,
            cached_frames + 6 + _said(extract_s),
        ),
        step("PlanSegments", PLAN_S, PLAN_MB, 3, 4, 2),
        *(
            step("RenderSegment", seconds, plan.segment_mb, *_segment_requests(request, segment, frames, seconds))
            for seconds, segment in zip(segments_s, request.segments, strict=True)
        ),
        # copies of what is published, and what they replace; two listings
        step(
            "AssembleJob",
            assemble_s,
            ASSEMBLE_MB,
            10 + (2 + extra) * count,
            19 + (12 + 5 * extra) * count,
            12 + (7 + 2 * extra) * count,
        ),
    )
    waves_s = sum(sorted(segments_s, reverse=True)[:: plan.concurrency])
    pixels = width * height * sum(segment.frames for segment in request.segments)
    stored = pixels * VIDEO_BYTES_PER_PIXEL * (1 + extra)
    if not plan.cached:
        stored += FLOW_BYTES * max(0, frames - 1) + sum(
            info.frames * info.width_px * info.height_px * JPEG_BYTES_PER_PIXEL for info in videos
        )
    # every job has a copy of the flows of its own
    stored += FLOW_BYTES * max(0, frames - 1)
    return Forecast(usage, int(stored), START_S + extract_s + PLAN_S + waves_s + assemble_s)


@dataclass(frozen=True, slots=True)
class BatchForecast:
    """What a Batch job will take: seconds from its submission on, and US dollars."""

    seconds: float
    usd: float


def batch_forecast(
    request: JobRequest, videos: Sequence[VideoInfo], plan: Plan, *, vcpus: int = 4
) -> BatchForecast | None:
    """Estimate the Batch job of a video that one function cannot extract; None where it can.

    Whether it comes to that is known by the video's key frames alone: one that is cut into parts is extracted by
    functions, unless they have not the memory.

    Args:
        request: of the job.
        videos: its structure videos; several are extracted by functions only.
        plan: where functions run.
        vcpus: of the Batch job.
    """
    if len(videos) != 1 or request.structure_videos or request.flow_cache is not None or plan.cached:
        return None
    (info,) = videos
    engine = _engine(request)
    in_function_s = extraction_s(info, engine, request.quality, processors=plan.orchestrator_mb / MB_PER_VCPU)
    has_time = in_function_s <= MAX_FUNCTION_S - STOP_BEFORE_END_S
    if has_time and extraction_mb(info) <= MEMORY_SHARE * plan.orchestrator_mb:
        return None
    works_s = extraction_s(info, engine, request.quality, processors=vcpus)
    usd = fargate_usd(works_s, vcpus=vcpus, architecture=plan.architecture)
    return BatchForecast(BATCH_START_S + works_s, usd)


def _engine(request: JobRequest) -> str:
    return "dis" if request.engine in ("auto", "raft") else request.engine


def _said(seconds: float) -> int:
    """Return how often a part says how far it is."""
    return int(seconds / EVERY_S)


def _segment_requests(request: JobRequest, segment: Segment, video_frames: int, seconds: float) -> tuple[int, int, int]:
    """Return writes, reads and events of rendering one segment."""
    # the last one says that it is whole
    writes = 5 + len(request.outputs) + len(request.overlays) * segment.frames + _said(seconds)
    looked_at = 0
    if request.tracking == "anchored" and segment.unguided:
        share = 1 if request.flow_span == "per_segment" else len(request.segments)
        # the frames between and beside its flows, and where a step beyond them may be looked at, that one's
        beyond = 0 if request.treatment == "retime" else 1
        looked_at = min(-(-max(0, video_frames - 1) // share) + 1 + beyond, segment.frames + 2)
    return writes, 18 + looked_at, writes


def _size(request: JobRequest, videos: Sequence[VideoInfo]) -> tuple[int, int]:
    if request.resolution is not None:
        return request.resolution
    if not videos:
        return output_size(request.target, 1280, 720)
    return output_size(request.target, videos[0].width_px, videos[0].height_px)

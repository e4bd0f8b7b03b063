"""Several structure videos of one job: which part of each is played, and what of it stands in the job's record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from structureflow import keys
from structureflow.errors import InvalidRequestError
from structureflow.flow.address import flow_address, joined_identity
from structureflow.flow.fields import FlowMeta
from structureflow.flow.joined import origins
from structureflow.flow.times import ON_NODE, uneven_times
from structureflow.guide.timeline import Stretch, TimelinePlan, part_times
from structureflow.jobs.timeline import default_timeline_id
from structureflow.models.job import JobRequest, Segment
from structureflow.models.results import InputPin, JobRecord, JoinedSource
from structureflow.models.sources import StructureVideo


def joined_pin(request: JobRequest, pins: Sequence[InputPin]) -> InputPin:
    """Return the pin of the video that the parts of all sources make; its identity tells what is in its flows.

    Args:
        request: of the job.
        pins: of its `structure_videos`, in that order.
    """
    parts = [
        {
            "source": pin.identity,
            "frames": [video.source_start_frame, video.source_end_frame],
            # what plays at its own speed is used as far as it is needed
            "clip": [driven_frames(video), request.fps] if treatment_of(request, video) == "clip" else None,
        }
        for video, pin in zip(request.structure_videos, pins, strict=True)
    ]
    size = list(request.resolution) if request.resolution else request.target
    return InputPin(
        reference=", ".join(dict.fromkeys(pin.reference for pin in pins))[:2000],
        identity=joined_identity({"parts": parts, "size": size}),
        size_bytes=sum({pin.identity: pin.size_bytes for pin in pins}.values()),
    )


def treatment_of(request: JobRequest, video: StructureVideo) -> str:
    """Return how a source is laid over its frames: as it says, else as the job does."""
    return video.treatment or request.treatment


def driven_frames(video: StructureVideo) -> int:
    """Return how many frames of the timeline a source drives."""
    if video.end_frame is None:
        raise InvalidRequestError("structure_videos: expected an end_frame")
    return video.end_frame - video.start_frame


def part_of(request: JobRequest, number: int, meta: FlowMeta) -> tuple[int, int]:
    """Return which part of source `number` is played: its first frame, and how many.

    An end behind that of the video is the video's.

    Raises:
        InvalidRequestError: the part begins behind the last frame but one, so there is no motion in it.
    """
    video = request.structure_videos[number]
    total = meta.total_flows + 1
    start, stop = video.source_start_frame, min(video.source_end_frame or total, total)
    problems = [str(problem.below("structure_videos", number)) for problem in video.outside(total)]
    if problems:
        raise InvalidRequestError("; ".join(problems), problems=problems)
    if treatment_of(request, video) == "clip":
        longest_s = (driven_frames(video) - 1) / request.fps
        times_s = uneven_times(meta.timestamps_s[start:stop], stop - start - 1)
        if times_s is None:
            needed = math.floor(longest_s * meta.original_fps + ON_NODE) + 2
        else:
            needed = int(times_s.searchsorted(longest_s, side="right")) + 1
        stop = min(stop, start + max(2, needed))
    return start, stop - start


def origin_of(pin: InputPin, meta: FlowMeta, start: int, frames: int) -> dict[str, Any]:
    """Return what a joined archive says of where one of its parts came from."""
    return {
        "source_video": pin.reference[:300],
        "source_identity": pin.identity,
        "size_bytes": pin.size_bytes,
        "engine": meta.engine,
        "engine_params": dict(meta.engine_params),
        "frames": meta.total_flows + 1,
        "fps": meta.original_fps,
        "width_px": meta.original_width,
        "height_px": meta.original_height,
        "source_start_frame": start,
        "part_frames": frames,
    }


def recorded_sources(request: JobRequest, pins: Sequence[InputPin], meta: FlowMeta) -> tuple[JoinedSource, ...]:
    """Return what a job's record keeps of its sources, from what the joined archive says of them."""
    found = []
    first = 0
    for pin, origin in zip(pins, origins(meta), strict=True):
        times_s = part_times(meta.timestamps_s, first, origin["part_frames"])
        address = flow_address(pin.identity, str(origin["engine"]), request.quality)
        found.append(
            JoinedSource(
                **pin.model_dump(),
                frames=origin["frames"],
                fps=origin["fps"],
                width_px=origin["width_px"],
                height_px=origin["height_px"],
                timeline_id=default_timeline_id(pin.identity),
                flow_cache_key=keys.flow_cache(address),
                engine=origin["engine"],
                engine_params=origin["engine_params"],
                source_start_frame=origin["source_start_frame"],
                first_frame=first,
                part_frames=origin["part_frames"],
                part_times_s=() if times_s is None else tuple(times_s.tolist()),
            )
        )
        first += int(origin["part_frames"])
    return tuple(found)


def source_notices(request: JobRequest, sources: Sequence[JoinedSource]) -> tuple[str, ...]:
    """Say which sources end before the request says they do."""
    return tuple(
        str(problem.below("structure_videos", number))
        for number, (video, source) in enumerate(zip(request.structure_videos, sources, strict=True))
        for problem in video.cut_short(source.frames)
    )


def timeline_plan(record: JobRecord, index: int, meta: FlowMeta) -> TimelinePlan:
    """Return what segment `index` of a job of several sources plays.

    Args:
        record: of the job.
        index: of the segment.
        meta: of the joined flows.
    """
    request = record.request
    segment: Segment = request.segments[index]
    return TimelinePlan(
        stretches(record),
        start=request.segment_starts[index],
        count=segment.frames,
        total_flows=meta.total_flows,
        scene_cuts=meta.scene_cuts,
    )


def stretches(record: JobRecord) -> list[Stretch]:
    """Return where the sources of a job lie on its timeline, and their parts in the joined video."""
    request = record.request
    found = []
    for video, source in zip(request.structure_videos, record.sources, strict=True):
        found.append(
            Stretch(
                first=video.start_frame,
                stop=video.start_frame + driven_frames(video),
                base=source.first_frame,
                frames=source.part_frames,
                treatment=video.treatment or request.treatment,
                rate_fps=source.fps,
                step_s=1 / request.fps,
                times_s=np.array(source.part_times_s) if source.part_times_s else None,
                strength=video.motion_strength,
            )
        )
    return found

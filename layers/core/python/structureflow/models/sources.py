"""Several structure videos on the stitched timeline of a job, and where its segments lie there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from structureflow.limits import MAX_MOTION_STRENGTH, MAX_SEGMENT_FRAMES, MAX_SEGMENTS, MAX_VIDEO_FRAMES
from structureflow.models.fields import RequestModel
from structureflow.references import Reference

SourceTreatment = Literal["adjust", "clip", "retime"]

_LONGEST: Final = MAX_SEGMENTS * MAX_SEGMENT_FRAMES


class StructureVideo(RequestModel):
    """One source of motion, and the frames that it drives.

    Attributes:
        path: the video.
        start_frame, end_frame: of the stitched timeline, start inclusive, end exclusive; without an end, to the end
            of the timeline.
        source_start_frame, source_end_frame: of the video, start inclusive, end exclusive; without an end, all.
        treatment: how the part of the video is laid over these frames: stretched over them by frame number
            (`adjust`) or by time (`retime`), or at its own speed until it ends (`clip`); None: the job's.
        motion_strength: in place of the job's.
    """

    path: Reference
    start_frame: Annotated[int, Field(ge=0, lt=_LONGEST)] = 0
    end_frame: Annotated[int, Field(gt=0, le=_LONGEST)] | None = None
    source_start_frame: Annotated[int, Field(ge=0, lt=MAX_VIDEO_FRAMES)] = 0
    source_end_frame: Annotated[int, Field(gt=0)] | None = None
    treatment: SourceTreatment | None = None
    motion_strength: Annotated[float, Field(ge=0, le=MAX_MOTION_STRENGTH, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _check(self) -> StructureVideo:
        if self.end_frame is not None and self.end_frame <= self.start_frame:
            raise ValueError(f"end_frame: expected more than start_frame {self.start_frame}, got {self.end_frame}")
        if self.source_end_frame is not None and self.source_end_frame < self.source_start_frame + 2:
            raise ValueError(
                f"source_end_frame: expected at least two frames from source_start_frame {self.source_start_frame} "
                f"on, to have motion; got {self.source_end_frame}"
            )
        return self


def in_order(videos: Sequence[StructureVideo]) -> tuple[StructureVideo, ...]:
    """Return the sources in the order of the frames that they drive.

    Raises:
        ValueError: two of them drive the same frame, or one without an end is not the last.
    """
    ordered = tuple(sorted(videos, key=lambda video: video.start_frame))
    for before, after in itertools.pairwise(ordered):
        if before.end_frame is None or before.end_frame > after.start_frame:
            end = "the end of the timeline" if before.end_frame is None else before.end_frame
            raise ValueError(
                f"structure_videos: {before.path} drives frames {before.start_frame} up to {end} and {after.path} "
                f"those from {after.start_frame} on; expected no overlap"
            )
    return ordered


def _overlaps(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


SegmentOverlap = Annotated[
    Annotated[int, Field(ge=0, lt=MAX_SEGMENT_FRAMES)] | tuple[Annotated[int, Field(ge=0, lt=MAX_SEGMENT_FRAMES)], ...],
    BeforeValidator(_overlaps),
]
"""How many frames each segment but the first has in common with the one before; one number, or one for each border."""


def segment_starts(frames: Sequence[int], overlap: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return where segments of so many `frames` begin on the stitched timeline, and last where it ends.

    Raises:
        ValueError: another number of overlaps than of borders between segments, or one as long as a segment beside.
    """
    borders = len(frames) - 1
    overlaps = (overlap,) * borders if isinstance(overlap, int) else overlap[:borders]
    if len(overlaps) != borders or (isinstance(overlap, tuple) and len(overlap) > len(frames)):
        raise ValueError(
            f"segment_overlap: expected one number, or one for each of {borders} borders of segments, "
            f"got {overlap if isinstance(overlap, int) else len(overlap)}"
        )
    starts = [0]
    for number, shared in enumerate(overlaps):
        if shared >= min(frames[number], frames[number + 1]):
            raise ValueError(
                f"segment_overlap: expected less than the frames of segments {number} and {number + 1}, got {shared}"
            )
        starts.append(starts[-1] + frames[number] - shared)
    return (*starts, starts[-1] + frames[-1])

"""Several structure videos on the stitched timeline of a job, and where its segments lie there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from structureflow.limits import MAX_MOTION_STRENGTH, MAX_SEGMENT_FRAMES, MAX_SEGMENTS, MAX_VIDEO_FRAMES
from structureflow.models.checked import RequestModel
from structureflow.models.fields import whole_number
from structureflow.models.problems import Problem, counted, shown
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

    @classmethod
    def rules(cls, good: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[Problem]:  # noqa: ARG003
        """See `RequestModel.rules`."""
        first, end = good.get("start_frame"), good.get("end_frame")
        if first is not None and end is not None and end <= first:
            yield Problem(("end_frame",), f"expected more than start_frame {first}, got {end}")
        first, end = good.get("source_start_frame"), good.get("source_end_frame")
        if first is not None and end is not None and end < first + 2:
            said_so = f"expected at least two frames from source_start_frame {first} on, to have motion, got {end}"
            yield Problem(("source_end_frame",), said_so)

    def outside(self, total: int) -> Iterator[Problem]:
        """Iterate over what is wrong where the video has `total` frames: its part begins where no motion is left."""
        start = self.source_start_frame
        if total < start + 2:
            said = f"expected at most {total - 2}, for {self.path} has {counted(total, 'frame')}, got {start}"
            yield Problem(("source_start_frame",), said)

    def cut_short(self, total: int) -> Iterator[Problem]:
        """Iterate over what is in vain where the video has `total` frames: its part ends behind it."""
        end = self.source_end_frame
        if end is not None and end > total:
            said = f"{self.path} has {counted(total, 'frame')}, fewer than {end}; it is played to its end"
            yield Problem(("source_end_frame",), said)


def in_order(videos: Sequence[StructureVideo]) -> tuple[StructureVideo, ...]:
    """Return the sources in the order of the frames that they drive."""
    return tuple(sorted(videos, key=lambda video: video.start_frame))


def conflicts(videos: Sequence[StructureVideo | None]) -> Iterator[Problem]:
    """Iterate over the sources that drive frames of others; None stands for one of which nothing is known."""
    there = [(video.start_frame, index, video) for index, video in enumerate(videos) if video is not None]
    before: tuple[int, StructureVideo] | None = None
    for start, index, video in sorted(there, key=lambda one: one[:2]):
        if before is not None and (before[1].end_frame is None or before[1].end_frame > start):
            end = "the end of the timeline" if before[1].end_frame is None else before[1].end_frame
            yield Problem(
                (index, "start_frame"),
                f"expected no overlap, got {start}; structure_videos[{before[0]}] drives frames "
                f"{before[1].start_frame} up to {end}",
            )
        before = index, video


def _overlaps(value: Any) -> Any:
    several = isinstance(value, list | tuple)
    numbers = [whole_number(one) for one in (value if several else [value])]
    if any(number is None or not 0 <= number < MAX_SEGMENT_FRAMES for number in numbers):
        raise ValueError(
            f"expected a whole number from 0 to {MAX_SEGMENT_FRAMES - 1}, or a list of such numbers, got {shown(value)}"
        )
    return tuple(numbers) if several else numbers[0]


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
            f"expected one number, or one for each of {borders} borders of segments, "
            f"got {overlap if isinstance(overlap, int) else len(overlap)}"
        )
    starts = [0]
    for number, shared in enumerate(overlaps):
        if shared >= min(frames[number], frames[number + 1]):
            raise ValueError(f"expected less than the frames of segments {number} and {number + 1}, got {shared}")
        starts.append(starts[-1] + frames[number] - shared)
    return (*starts, starts[-1] + frames[-1])

"""What a user should know of a result that is no error and no fallback, in words."""

from __future__ import annotations

from collections.abc import Sequence

from structureflow.models.job import JobRequest, Segment
from structureflow.models.results import JobRecord, SegmentResult
from structureflow.models.targets import TARGETS, advice_on, advice_without_target
from structureflow.models.wishes import idle_wishes


def segment_notices(record: JobRecord, segment: Segment, kept: float) -> tuple[str, ...]:
    """Return what is to be known of one segment.

    Args:
        record: of the job.
        segment: as requested.
        kept: share of its pixels that the mask keeps.
    """
    request = record.request
    notices = [*_mask_notice(kept, segment.unguided)]
    if request.target is None:
        return (*notices, advice_without_target(record.resolution, request.fps, (segment.frames,)))
    guided = tuple(_joined([(guide.first, guide.last) for guide in segment.guides]))
    return (*notices, *advice_on(TARGETS[request.target], record.resolution, segment.frames, guided))


def job_notices(record: JobRecord, results: Sequence[SegmentResult]) -> tuple[str, ...]:
    """Return what is to be known of a whole job."""
    request = record.request
    notices = [*record.notices, *map(str, idle_wishes(request))]
    kept = [result.kept for result in results]
    if all(share == 1 for share in kept):
        notices.append(f"the masks of all segments are black: they ask the generator for nothing{_why_black(request)}")
    elif all(share == 0 for share in kept):
        notices.append("the masks of all segments are white: nothing of the guides is kept, all of it is a hint")
    if request.target is None:
        frames = tuple(segment.frames for segment in request.segments)
        notices.append(advice_without_target(record.resolution, request.fps, frames))
    return tuple(notices)


def _mask_notice(kept: float, unguided: int) -> list[str]:
    if kept == 1:
        why = "; no frame is unguided" if not unguided else ""
        return [f"the mask is black throughout: it asks the generator for nothing{why}"]
    if kept == 0:
        return ["the mask is white throughout: nothing of the guide is kept, all of it is a hint"]
    return []


def _why_black(request: JobRequest) -> str:
    return ' (that is what "mask": "filled" means)' if request.mask == "filled" else ""


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges that follow each other."""
    joined: list[tuple[int, int]] = []
    for first, last in ranges:
        if joined and joined[-1][1] + 1 == first:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined

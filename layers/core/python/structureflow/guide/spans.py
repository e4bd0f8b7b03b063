"""What a segment plays: which of its frames need motion, and which flows of the video are theirs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import GuidanceError
from structureflow.flow.fields import Treatment
from structureflow.flow.times import ON_NODE, node_at_time, uneven_times
from structureflow.guide.tracker import GuidanceTracker
from structureflow.models.job import FlowSpan, Segment


def flow_window(
    segments: Sequence[Segment],
    index: int,
    span: FlowSpan,
    total_flows: int,
    treatment: Treatment = "adjust",
    timestamps_s: NDArray[np.float64] | None = None,
) -> tuple[int, int]:
    """Return the flows that a segment plays, start inclusive, stop exclusive.

    Under ``per_segment`` each plays all. Under ``timeline`` the segments play consecutive parts, in proportion to
    their steps (`led_frames`): every step of the timeline then covers the same stretch of the video, and the last
    segment ends where the video ends. ``retime`` measures these stretches in time, ``adjust`` in flows. ``clip``
    plays one flow per step instead, each segment going on where the one before stopped, while there are any.

    Args:
        segments: all segments of the job.
        index: of the segment asked for, from 0.
        span: see above.
        total_flows: of the structure video.
        treatment: see above.
        timestamps_s: of the video's frames, as in `FlowMeta`; None or of no use (`times.uneven_times`): by index.

    Raises:
        GuidanceError: no such segment, or a negative count.
    """
    if not 0 <= index < len(segments):
        raise GuidanceError(f"segment: expected 0 to {len(segments) - 1}, got {index}")
    if total_flows < 0:
        raise GuidanceError(f"total_flows: expected 0 or more, got {total_flows}")
    if span == "per_segment":
        return 0, total_flows
    counts = [_steps(segment, treatment) for segment in segments]
    before, own, total = sum(counts[:index]), counts[index], sum(counts)
    if not own or not total_flows:
        start = min(total_flows, before if treatment == "clip" else before * total_flows // max(total, 1))
        return start, start
    if treatment == "clip":
        return min(before, total_flows), min(before + own, total_flows)
    times_s = uneven_times(timestamps_s, total_flows) if timestamps_s is not None and treatment == "retime" else None
    if times_s is None:
        first, final = before * total_flows // total, (before + own) * total_flows // total
    else:
        first, final = (
            int(node_at_time(times_s, count / total * times_s[-1]) + ON_NODE) for count in (before, before + own)
        )
    start = min(first, total_flows - 1)
    return start, max(final, start + 1)


def unguided_ranges(segment: Segment) -> list[tuple[int, int]]:
    """Return the longest runs of frames that no guide covers as (first, last), both inclusive, in order."""
    planned = GuidanceTracker(segment.frames)
    for guide in segment.guides:
        planned.mark_guided(guide.first, guide.last)
    return planned.get_unguidanced_ranges()


def led_frames(segment: Segment, treatment: Treatment) -> tuple[int, ...]:
    """Return the frames of a segment that a step of the video leads to, rising.

    These are the unguided ones; and under ``retime``, whose steps lie in time, the first guided one behind each gap
    too, for it stands one step behind the last unguided one. In all others the video stands still. Under ``retime``
    frame 0 stands where the segment's part of the video begins: if it is unguided, the step that leads to it is of
    no length.
    """
    gaps = unguided_ranges(segment)
    if treatment != "retime":
        return tuple(frame for first, last in gaps for frame in range(first, last + 1))
    return tuple(frame for first, last in gaps for frame in range(first, min(last + 2, segment.frames)))


def _steps(segment: Segment, treatment: Treatment) -> int:
    """Return how many steps of a length lead through a segment."""
    led = led_frames(segment, treatment)
    return len(led) - (treatment == "retime" and led[:1] == (0,))


def without(ranges: Sequence[tuple[int, int]], holes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return what is in `ranges` but not in `holes`; inclusive, sorted, each hole inside of a range."""
    kept = []
    for first, last in ranges:
        for hole_first, hole_last in holes:
            if first <= hole_first <= last:
                if hole_first > first:
                    kept.append((first, hole_first - 1))
                first = hole_last + 1
        if first <= last:
            kept.append((first, last))
    return tuple(kept)

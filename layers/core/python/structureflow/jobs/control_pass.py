"""Give the structure video's own frames to the outputs that show them, before a segment is rendered."""

from __future__ import annotations

from collections.abc import Sequence

from structureflow.guide.plan import Plan
from structureflow.guide.spans import unguided_ranges
from structureflow.jobs.joined_frames import JoinedFrames
from structureflow.jobs.structure_frames import SegmentFrames
from structureflow.models.job import Segment
from structureflow.targets.control import ControlVideo


def frames_shown(segment: Segment, plan: Plan) -> list[int | None]:
    """Return for each frame of a segment the frame of the structure video that stands there.

    Args:
        segment: its guides.
        plan: what its unguided frames play.

    Returns:
        Frame numbers, rising; None for guided frames, and past the end of the flows.
    """
    shown: list[int | None] = [None] * segment.frames
    for first, last in unguided_ranges(segment):
        for index in range(first, last + 1):
            shown[index] = plan.frame_shown(plan.consumed(index) + 1)
    return shown


def control_pass(
    controls: Sequence[ControlVideo],
    shown: Sequence[int | None],
    structure: SegmentFrames | JoinedFrames,
    *,
    keep_grays: bool,
) -> None:
    """Show every frame of a segment to `controls`, in order.

    Args:
        controls: none: nothing is read.
        shown: from `frames_shown`.
        structure: where frames come from.
        keep_grays: whether paths will be looked at in them.

    Raises:
        StructureFramesError: the frames cannot be had.
    """
    if not controls:
        return
    wanted = sorted({number for number in shown if number is not None})
    pictures = structure.pictures(wanted, keep_grays=keep_grays)
    number, picture = next(pictures, (None, None))
    for wants in shown:
        while wants is not None and number != wants:
            number, picture = next(pictures)
        for control in controls:
            control.show(None if wants is None else picture)
    # what is kept for later lies behind the last one
    for _ in pictures:
        pass

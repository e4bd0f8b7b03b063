"""How a segment is rendered, and what became of its frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Final, get_args

from structureflow.arguments import index_of
from structureflow.errors import GuidanceError
from structureflow.flow.fields import Treatment
from structureflow.guide.gap import FrameEvidence
from structureflow.guide.masks import FILLED, Masking
from structureflow.guide.pictures import RGB, PictureFormat
from structureflow.guide.refine import Matching
from structureflow.guide.timeline import TimelinePlan
from structureflow.limits import MAX_MOTION_STRENGTH
from structureflow.models.job import Anchors, MotionPart, Seams, Tracking

#: Flows are scaled by one number, or by key frames: frame number of the segment to number, linear between.
MotionStrength = float | Mapping[int, float]

CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "treatment": get_args(Treatment),
    "anchors": get_args(Anchors),
    "motion": get_args(MotionPart),
    "seams": get_args(Seams),
}


def check_strength(strength: Any) -> None:
    """Check a motion strength.

    Raises:
        GuidanceError: it is no number from 0 on, nor frame numbers and such numbers, or is too large.
    """
    key_frames = isinstance(strength, Mapping)
    values = tuple(strength.values()) if isinstance(strength, Mapping) else (strength,)
    numbers = all(isinstance(value, Real) and not isinstance(value, bool) for value in values)
    if not values or not numbers or (key_frames and not all(index_of(at) is not None for at in strength)):
        raise GuidanceError(f"motion_strength: expected a number, or frame numbers to numbers, got {strength!r:.60}")
    if not all(0 <= value <= MAX_MOTION_STRENGTH for value in values):
        raise GuidanceError(f"motion_strength: expected 0 to {MAX_MOTION_STRENGTH:g}, got {strength!r:.60}")


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """How a segment is rendered.

    Attributes:
        height, width: of the output, in pixels.
        treatment: how the flows of the window become steps from frame to frame, see `spans.led_frames`.
        anchors: `start`, or `both` to carry the next guided frame back as well.
        motion_strength: every step of the path is this many times as long, 0 (anchors stand still) to 10; key frames
            give each step the strength of the frame that it leads to.
        flow_start, flow_stop: the window of flows to play, start inclusive, stop exclusive (`spans.flow_window`).
        timeline: what plays when, where there are several sources; treatment and window then count for nothing.
        workers: threads, 1 or more; the result does not depend on it.
        form: in which pictures of guides come and frames go; planes need even sides.
        matching: how paths are refined against structure frames; None: they are composed of flows alone.
        motion: which part of it is applied: all of it, the camera's, or that of what moves by itself.
        masking: what of motion-filled frames is left to the generator.
        seams: where two anchors, or the two images of a cross-fade, show different things: `choose` one of them per
            pixel, or `average` them.
        match_color: in a gap between two anchors, lead the colours of one over into those of the other.
    """

    height: int
    width: int
    treatment: Treatment
    anchors: Anchors
    motion_strength: MotionStrength
    flow_start: int
    flow_stop: int
    workers: int = 2
    form: PictureFormat = RGB
    matching: Matching | None = None
    motion: MotionPart = "all"
    masking: Masking = FILLED
    seams: Seams = "average"
    match_color: bool = False
    timeline: TimelinePlan | None = None

    def __post_init__(self) -> None:
        """Refuse what no request can ask for.

        Raises:
            GuidanceError: a value is out of its range.
        """
        if self.height < 1 or self.width < 1:
            raise GuidanceError(f"resolution: expected positive sides, got {self.width}x{self.height}")
        if self.form is not RGB and (self.height % 2 or self.width % 2):
            raise GuidanceError(f"resolution: expected even sides, got {self.width}x{self.height}")
        check_strength(self.motion_strength)
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise GuidanceError(f"{name}: expected {', '.join(known)}, got {getattr(self, name)!r:.40}")
        if self.workers < 1:
            raise GuidanceError(f"workers: expected 1 or more, got {self.workers}")

    @property
    def strengths(self) -> tuple[float, ...]:
        """All numbers of the motion strength."""
        given = self.motion_strength
        return tuple(given.values()) if isinstance(given, Mapping) else (given,)


@dataclass(frozen=True, slots=True)
class RenderOutcome:
    """What became of the frames; ranges are inclusive pairs of frame numbers.

    Attributes:
        unguided: ranges that no guide covers.
        filled: the part of them that show something which motion carried there; what of it is kept, the mask says.
        left_unguided: the rest (mask 255, mid-grey all over).
        kept: share of all pixels of the segment that the mask tells the generator to keep, 0 to 1.
        flows_used: how many flows of the window the segment's steps are made of.
        tracking: `anchored` if paths were refined against structure frames, else `composed`.
        frames_problem: why structure frames were missing though they were wanted; empty if none was.
        evidence: how well each filled frame is known, by its number; empty where paths are composed.
        timings_s: seconds in `flows` (reading and joining), `wait` (for warps), `sink` (writing), `total`.
    """

    unguided: tuple[tuple[int, int], ...]
    filled: tuple[tuple[int, int], ...]
    left_unguided: tuple[tuple[int, int], ...]
    kept: float
    flows_used: int
    timings_s: dict[str, float]
    tracking: Tracking = "composed"
    frames_problem: str = ""
    evidence: dict[int, FrameEvidence] = field(default_factory=dict)

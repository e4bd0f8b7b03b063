"""The motion of a whole segment, frame by frame and back to its first frame, for outputs that are no pictures.

Guides play no part in it but for when the structure video goes on, and when it stands still (`plan.Plan.led`). So a
point that is followed through a segment is a point of the structure video.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import Field32, invert_flow, pull
from structureflow.guide.camera import PartLegs
from structureflow.guide.feed import FrameFeed
from structureflow.guide.gap import GapFrame, GapMotion
from structureflow.guide.lookahead import run_ahead
from structureflow.guide.path import Trace
from structureflow.guide.plan import Plan
from structureflow.guide.planned import PlannedFlows
from structureflow.guide.ports import Gray, SegmentSink
from structureflow.guide.refine import Matching

#: Moves that are made before they are asked for; at 512x288 each takes 2.4 MB.
_AHEAD: Final = 4
#: A longer way between flow and anchored path is another surface, not drift (as in `guide.anchored`).
_LARGEST_DRIFT_PX: Final = np.float32(3.0)


@dataclass(frozen=True, slots=True)
class Pictures:
    """Structure frames in which the motion may be looked at, ``(h, w)`` uint8 of the flow grid, not to be changed.

    Attributes:
        first: at the segment's first frame.
        now: next to the frame that a move leads to.
        early: by what share of the move `now` lies behind that frame; negative: before it.
    """

    first: Gray
    now: Gray
    early: float = 0.0


@dataclass(frozen=True, slots=True)
class Move:
    """The motion that leads to one frame, on the flow grid ``(h, w)``; fresh memory, not to be changed.

    Attributes:
        step: ``(h, w, 2)`` float32, where the pixels of the frame before are in this one; None where nothing leads
            here: across a scene cut, past the last flow.
        steady: the same with the drift of single flows taken out where paths are anchored; else `step` itself.
        way: ``(h, w, 2)`` float32 from this frame back to the segment's first one; None if not asked for, and where
            a cut or the end of the flows lies between.
        seen: ``(h', w')`` uint8 over the same area, 255 where the first frame shows the pixel; with `way`.
        cut: whether a scene cut lies between the frame before and this one.
        pictures: with `way`, where paths are anchored and the motion is that of the structure video as it is.
    """

    step: Field32 | None
    steady: Field32 | None
    way: Field32 | None = None
    seen: NDArray[np.uint8] | None = None
    cut: bool = False
    pictures: Pictures | None = None


@runtime_checkable
class TravelSink(SegmentSink, Protocol):
    """A sink that may want the motion itself; `move` is then called for every frame, before its `write`."""

    @property
    def wants_steps(self) -> bool:
        """Whether `move` is to be called."""
        ...

    @property
    def wants_ways(self) -> bool:
        """Whether `Move.way` is wanted, which takes another anchored path."""
        ...

    def move(self, index: int, move: Move | None) -> None:
        """Take the motion that leads to frame `index`; None where the video stands still, or there are no flows."""
        ...


def segment_moves(
    flows: PlannedFlows,
    plan: Plan,
    pool: Executor,
    *,
    ways: bool,
    feed: FrameFeed | None,
    matching: Matching | None,
) -> Generator[Move, None, None]:
    """Yield the move to each of the segment's frames that a step leads to, in order, made ahead on `pool`.

    Args:
        flows, plan: what is played.
        ways: whether `Move.way` is wanted.
        feed, matching: the structure frames to look at, and how; None: ways are composed.
    """
    gap = GapMotion(
        flows,
        plan,
        0,
        len(plan.led),
        from_start=ways,
        from_end=False,
        wants_visibility=ways,
        feed=feed if ways else None,
        matching=matching,
    )
    as_it_is = flows.part == "all" and flows.strength.constant == 1
    return run_ahead(_moves(flows, plan, gap, feed if ways and as_it_is else None), pool, _AHEAD)


def _moves(flows: PlannedFlows, plan: Plan, gap: GapMotion, feed: FrameFeed | None) -> Iterator[Move]:
    legs = _forward_legs(flows, plan)
    before: Field32 | None = np.zeros((*flows.shape, 2), np.float32)
    shown: _Shown | None = None
    with closing(gap.frames()) as frames:
        for position, frame in zip(range(len(plan.led)), frames, strict=True):
            step: Field32 | None = None
            cut = position < plan.steps and plan.crosses_cut(position)
            if legs is not None and position < plan.steps and not cut:
                trace = Trace(legs, plan.node_at(position), flows.shape, stride=1)
                step = trace.to(plan.node_at(position + 1)).copy()
            steady, way = step, _way(frame)
            if step is not None and before is not None and way is not None and frame and frame.evidence is not None:
                steady = without_drift(step, before, way)
            pictures = None
            if feed is not None and step is not None and way is not None:
                shown = shown or _Shown(feed, plan)
                pictures = shown.to(position + 1)
            yield Move(step, steady, way, frame.visibility if frame else None, cut, pictures)
            before = way


class _Shown:
    """Structure frames for the moves of a segment; none where its first frame lies between two of the video."""

    def __init__(self, feed: FrameFeed, plan: Plan) -> None:
        self._feed = feed
        self._plan = plan
        start = plan.node_at(0)
        self._first = feed(plan.frame_at(int(start))) if start == int(start) else None

    def to(self, position: int) -> Pictures | None:
        """Return those for the move that leads to a position."""
        if self._first is None:
            return None
        before, node = self._plan.node_at(position - 1), self._plan.node_at(position)
        nearest = math.floor(node + 0.5)
        now = self._feed(self._plan.frame_at(nearest))
        if now is None:
            return None
        return Pictures(self._first, now, (nearest - node) / (node - before) if node > before else 0.0)


def _forward_legs(flows: PlannedFlows, plan: Plan) -> Callable[[int], Field32] | None:
    if not plan.steps:
        return None
    span = plan.legs_between(0, plan.steps)
    if flows.part == "all":
        return flows.legs("forward", span)
    stored = flows.legs("backward", span, as_stored=True)
    part = PartLegs(stored, plan.node_at(0), flows.part, flows.strength)
    return lambda number: invert_flow(part(number))


def _way(frame: GapFrame | None) -> Field32 | None:
    return None if frame is None or frame.start is None else frame.start.copy()


def without_drift(step: Field32, before: Field32, way: Field32) -> Field32:
    """Return a step that leads to where two ways to one anchor say that each pixel is.

    Args:
        step: ``(h, w, 2)`` float32 from one frame to the next.
        before: ``(h, w, 2)`` float32 from the first of the two to the anchor.
        way: ``(h, w, 2)`` float32 from the second of them to the anchor.
    """
    steady = step.copy()
    for _ in range(3):
        # both ways end at the same place of the anchor: before(x) = steady(x) + way(x + steady(x))
        miss = before - steady - pull(way, steady)
        small = np.abs(miss).max(axis=-1, keepdims=True) < _LARGEST_DRIFT_PX
        steady += miss * small
        np.clip(steady, step - _LARGEST_DRIFT_PX, step + _LARGEST_DRIFT_PX, out=steady)
    return steady

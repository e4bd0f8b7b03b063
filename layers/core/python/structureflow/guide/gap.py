"""The motion of one gap: which anchors reach which frame, along which displacement, and how they share it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import Direction, Field32, FlowSource, visible_where
from structureflow.guide.path import Carry, LegReader, PathPlan, Trace

#: What an anchor that does not show a pixel still weighs, so that a pixel which none shows is shared by time.
_LEAST_VISIBLE: Final = 0.02
_OCCLUSION_MARGIN_PX: Final = 3
_FEATHER_PX: Final = 7


@dataclass(frozen=True, slots=True)
class GapFrame:
    """The motion of one filled frame, on the flow grid ``(h, w)``; at least one of `start` and `end` is there.

    Attributes:
        start: ``(h, w, 2)`` float32 pulling from the anchor before the gap; None if it does not reach here.
        end: the same from the anchor behind the gap.
        end_weight: ``(h, w)`` uint8, the share of the end anchor (255 = all), where both reach.
        visibility: ``(h, w)`` uint8, 255 where an anchor shows the pixel; None unless asked for.
        step: ``(h, w, 2)`` float32 pulling from the frame before; None unless asked for.

    All are valid until the next frame is asked for.
    """

    start: Field32 | None
    end: Field32 | None
    end_weight: NDArray[np.uint8] | None = None
    visibility: NDArray[np.uint8] | None = None
    step: Field32 | None = None


class GapMotion:
    """Reads and joins the flows of one gap of `count` frames, whose steps start at `consumed`."""

    def __init__(
        self,
        flows: FlowSource,
        plan: PathPlan,
        consumed: int,
        count: int,
        *,
        from_start: bool,
        from_end: bool,
        wants_visibility: bool = False,
        wants_flow: bool = False,
    ) -> None:
        """Plan the gap; `from_start` and `from_end` say whether there is an anchor on that side."""
        self._flows = flows
        self._plan = plan
        self._shape = (flows.meta.height, flows.meta.width)
        self._consumed = consumed
        self._count = count
        self._wants_visibility = wants_visibility
        self._wants_flow = wants_flow
        self._end_position = min(consumed + count + 1, plan.last_position)
        self.start_reach = self._reach_of_start() if from_start else 0
        self.end_reach = self._reach_of_end() if from_end else 0

    def _reach_of_start(self) -> int:
        """How many frames from the first on the anchor before the gap reaches."""
        reached = 0
        for step in range(self._consumed, min(self._consumed + self._count, self._plan.steps)):
            if self._plan.crosses_cut(step):
                break
            reached += 1
        return reached

    def _reach_of_end(self) -> int:
        """How many frames from the last on backwards the anchor behind the gap reaches."""
        if self._consumed + self._count > self._plan.steps:
            return 0
        reached = 0
        for step in range(self._consumed + self._count, self._consumed, -1):
            if step < self._end_position and self._plan.crosses_cut(step):
                break
            reached += 1
        return reached

    def frames(self) -> Iterator[GapFrame | None]:
        """Yield the motion of each frame of the gap in order; None where no anchor reaches."""
        starts = self._starts()
        ends = self._ends()
        steps = self._steps()
        for offset in range(self._count):
            start = next(starts) if offset < self.start_reach else None
            end = next(ends) if offset >= self._count - self.end_reach else None
            if start is None and end is None:
                yield None
                continue
            weight = visibility = None
            if start is not None and end is not None:
                time_share = (offset + 1) / (self._count + 1)
                weight = end_share(time_share, start.visibility, end.visibility)
            if self._wants_visibility:
                seen = [way.visibility for way in (start, end) if way is not None and way.visibility is not None]
                visibility = seen[0] if len(seen) == 1 else np.maximum(seen[0], seen[1])
            yield GapFrame(
                start=start.displacement if start else None,
                end=end.displacement if end else None,
                end_weight=weight,
                visibility=visibility,
                step=next(steps) if self._wants_flow else None,
            )

    @property
    def _shares(self) -> bool:
        return self.start_reach + self.end_reach > self._count

    def _starts(self) -> Iterator[_Way]:
        positions = range(self._consumed + 1, self._consumed + self.start_reach + 1)
        if not positions:
            return
        legs = self._plan.legs_between(self._consumed, positions[-1])
        anchor = self._plan.node_at(self._consumed)
        carry = Carry(LegReader(self._flows, "backward", self._plan, legs), anchor, self._shape)
        trace = None
        if self._shares or self._wants_visibility:
            trace = Trace(LegReader(self._flows, "forward", self._plan, legs), anchor, self._shape)
        first_shared = 0 if self._wants_visibility else self._count - self.end_reach
        for offset, position in enumerate(positions):
            node = self._plan.node_at(position)
            displacement = carry.to(node)
            visibility = None
            if trace is not None:
                way = trace.to(node)
                if offset >= first_shared:
                    visibility = soft_visibility(visible_where(displacement, way))
            yield _Way(displacement, visibility)

    def _ends(self) -> Iterator[_Way]:
        first = self._consumed + self._count + 1 - self.end_reach
        positions = range(self._consumed + self._count, first - 1, -1)
        if not positions:
            return
        legs = self._plan.legs_between(positions[-1], self._end_position)
        anchor = self._plan.node_at(self._end_position)
        # time runs backwards here: node m is counted as top - m, and its leg is the other side's
        top = math.ceil(anchor)
        ahead = self._mirrored("forward", legs, top)
        carry = Carry(ahead, top - anchor, self._shape)
        trace = None
        if self._shares or self._wants_visibility:
            trace = Trace(self._mirrored("backward", legs, top), top - anchor, self._shape)
        ways: list[_Way] = []
        for position in positions:
            node = top - self._plan.node_at(position)
            displacement = carry.to(node).copy()
            visibility = None
            if trace is not None:
                visibility = soft_visibility(visible_where(displacement, trace.to(node)))
            ways.append(_Way(displacement, visibility))
        while ways:
            yield ways.pop()

    def _mirrored(self, direction: Direction, legs: tuple[int, int], top: int) -> _Mirrored:
        return _Mirrored(LegReader(self._flows, direction, self._plan, legs, descending=True), top)

    def _steps(self) -> Iterator[Field32 | None]:
        if not self._wants_flow:
            return
        last = min(self._consumed + self._count, self._plan.steps)
        reader = LegReader(self._flows, "backward", self._plan, self._plan.legs_between(self._consumed, last))
        for offset in range(self._count):
            if offset >= self.start_reach and offset < self._count - self.end_reach:
                continue
            position = self._consumed + offset
            if self._plan.crosses_cut(position):
                yield None
            else:
                step = Carry(reader, self._plan.node_at(position), self._shape)
                yield step.to(self._plan.node_at(position + 1))


@dataclass(frozen=True, slots=True)
class _Way:
    displacement: Field32
    visibility: NDArray[np.uint8] | None


class _Mirrored:
    def __init__(self, reader: LegReader, top: int) -> None:
        self._reader = reader
        self._top = top

    def __call__(self, number: int) -> Field32:
        return self._reader(self._top - 1 - number)


def soft_visibility(visible: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Widen what is hidden by a small margin and feather its edge: ``(h, w)`` uint8, 255 = visible."""
    mask = visible.astype(np.uint8) * np.uint8(255)
    kept = cv2.erode(mask, np.ones((_OCCLUSION_MARGIN_PX, _OCCLUSION_MARGIN_PX), np.uint8))
    return np.asarray(cv2.blur(kept, (_FEATHER_PX, _FEATHER_PX), borderType=cv2.BORDER_REPLICATE), np.uint8)


def end_share(time_share: float, start: NDArray[np.uint8] | None, end: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Return how much of each pixel the end anchor gives: in proportion to nearness in time and visibility.

    Args:
        time_share: 0 at the start anchor, 1 at the end anchor.
        start, end: ``(h, w)`` uint8 visibility of the two, 255 = visible.

    Returns:
        ``(h, w)`` uint8, 255 = all; by time alone where both or none is visible.
    """
    if start is None or end is None:
        raise ValueError("end_share: expected both visibilities")
    least = np.float32(255 * _LEAST_VISIBLE)
    of_end = np.float32(time_share) * (end.astype(np.float32) + least)
    of_start = np.float32(1 - time_share) * (start.astype(np.float32) + least)
    return np.asarray(np.rint(255 * of_end / (of_end + of_start)), np.uint8)

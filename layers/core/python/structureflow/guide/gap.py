"""The motion of one gap: which anchors reach which frame, along which displacement, and how they share it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.errors import GuidanceError
from structureflow.flow.fields import Direction, Field32, FlowSource
from structureflow.guide.path import CHUNK_BYTES, Carry, FlowChunks, LegReader, Trace
from structureflow.guide.plan import PathPlan

#: What an anchor that does not show a pixel still weighs, so that a pixel which none shows is shared by time.
_LEAST_VISIBLE: Final = 0.3
_OCCLUSION_MARGIN_PX: Final = 3
_FEATHER_PX: Final = 5

#: Bytes of displacements of the end anchor that are kept at once; longer gaps are done in blocks.
BLOCK_BYTES: Final = 128 * 2**20


@dataclass(frozen=True, slots=True)
class GapFrame:
    """The motion of one filled frame, on the flow grid ``(h, w)``; at least one of `start` and `end` is there.

    Attributes:
        start: ``(h, w, 2)`` float32 pulling from the anchor before the gap; None if it does not reach here.
        end: the same from the anchor behind the gap.
        end_weight: ``(h', w')`` uint8 over the same area, the share of the end anchor (255 = all), where both reach.
        visibility: ``(h', w')`` uint8, 255 where an anchor shows the pixel; None unless asked for.
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
        flows: PlannedFlows,
        plan: PathPlan,
        consumed: int,
        count: int,
        *,
        from_start: bool,
        from_end: bool,
        wants_visibility: bool = False,
        wants_flow: bool = False,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        """Plan the gap; `from_start` and `from_end` say whether there is an anchor on that side."""
        self._flows = flows
        self._plan = plan
        self._shape = flows.shape
        self._block_bytes = block_bytes
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
        # the end anchor's ways are all joined before the first frame; what reads more comes first
        ends = self._ends()
        starts = self._starts()
        steps = self._steps()
        for offset in range(self._count):
            end = next(ends) if offset >= self._count - self.end_reach else None
            start = next(starts) if offset < self.start_reach else None
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
        legs = self._legs_ahead
        anchor = self._plan.node_at(self._consumed)
        carry = Carry(self._flows.legs("backward", legs), anchor, self._shape)
        trace = Trace(self._flows.legs("forward", legs), anchor, self._shape) if self._needs_visibility else None
        first_seen = 0 if self._wants_visibility else self._count - self.end_reach
        for offset, position in enumerate(positions):
            yield self._way(carry, trace, self._plan.node_at(position), offset >= first_seen)

    def _way(self, carry: Carry, trace: Trace | None, node: float, judged: bool = True) -> _Way:
        displacement = carry.to(node)
        if trace is None:
            return _Way(displacement, None)
        way = trace.to(node)
        return _Way(displacement, soft_visibility(trace.sees(displacement, way)) if judged else None)

    def _ends(self) -> Iterator[_Way]:
        first = self._consumed + self._count + 1 - self.end_reach
        positions = range(self._consumed + self._count, first - 1, -1)
        if not positions:
            return
        legs = self._legs_ahead
        anchor = self._plan.node_at(self._end_position)
        # time runs backwards here: node m is counted as top - m, and its leg is the other side's
        top = math.ceil(anchor)
        carry = Carry(_Mirrored(self._flows.legs("forward", legs, descending=True), top), top - anchor, self._shape)
        trace: Trace | None = None
        if self._needs_visibility:
            mirrored = _Mirrored(self._flows.legs("backward", legs, descending=True), top)
            trace = Trace(mirrored, top - anchor, self._shape)
        nodes = [top - self._plan.node_at(position) for position in positions]
        yield from self._in_reverse(carry, trace, nodes)

    def _in_reverse(self, carry: Carry, trace: Trace | None, nodes: list[float]) -> Iterator[_Way]:
        """Yield the ways to all nodes, last first, keeping one block of them and where the others begin."""
        size = max(self._block_bytes // (self._shape[0] * self._shape[1] * 8), math.isqrt(len(nodes)), 1)
        blocks = [nodes[start : start + size] for start in range(0, len(nodes), size)]
        begins: list[tuple[Carry, Trace | None]] = []
        for block in blocks[:-1]:
            begins.append((carry.copy(), trace.copy() if trace else None))
            carry.to(block[-1])
            if trace:
                trace.to(block[-1])
        begins.append((carry, trace))
        while blocks:
            carry, trace = begins.pop()
            ways: list[_Way] = []
            for node in blocks.pop():
                way = self._way(carry, trace, node)
                ways.append(_Way(way.displacement.copy(), way.visibility))
            while ways:
                yield ways.pop()

    @property
    def _legs_ahead(self) -> tuple[int, int]:
        """The legs that may be read with one another: all that this gap and those behind it need."""
        last = self._plan.last_position if self.end_reach else self._plan.steps
        return self._plan.legs_between(self._consumed, last)

    @property
    def _needs_visibility(self) -> bool:
        return self._wants_visibility or self.start_reach + self.end_reach > self._count

    def _steps(self) -> Iterator[Field32 | None]:
        if not self._wants_flow:
            return
        legs = self._flows.legs("backward", self._legs_ahead)
        for offset in range(self._count):
            if self.start_reach <= offset < self._count - self.end_reach:
                continue
            position = self._consumed + offset
            if self._plan.crosses_cut(position):
                yield None
            else:
                step = Carry(legs, self._plan.node_at(position), self._shape)
                yield step.to(self._plan.node_at(position + 1))


class PlannedFlows:
    """The flows of one segment's plan in both directions, each read from the source at most a chunk at a time."""

    def __init__(
        self,
        source: FlowSource,
        plan: PathPlan,
        io: Executor,
        *,
        strength: float = 1.0,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        """Read from `source` what `plan` plays, every leg `strength` times as long; `io` reads ahead."""
        self._strength = strength
        self._chunk_bytes = chunk_bytes
        self.shape = (source.meta.height, source.meta.width)
        self._plan = plan
        self._source = source
        self._io = io
        self._chunks: dict[Direction, FlowChunks] = {}

    def legs(self, direction: Direction, legs: tuple[int, int], *, descending: bool = False) -> LegReader:
        """Return a reader of legs ``legs[0]`` (inclusive) to ``legs[1]`` (exclusive); its first chunk is on its way."""
        inverts = direction == "backward" and not self._source.meta.has_backward
        stored: Direction = "forward" if inverts else direction
        if stored not in self._chunks:
            self._chunks[stored] = FlowChunks(self._source, stored, self._io, chunk_bytes=self._chunk_bytes)
        reader = LegReader(
            self._chunks[stored], self._plan, legs, strength=self._strength, inverts=inverts, descending=descending
        )
        reader.begin()
        return reader


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

    Raises:
        GuidanceError: a visibility is missing.
    """
    if start is None or end is None:
        raise GuidanceError("end_share: expected the visibilities of both anchors")
    least = np.float32(255 * _LEAST_VISIBLE)
    of_end = np.float32(time_share) * (end.astype(np.float32) + least)
    of_start = np.float32(1 - time_share) * (start.astype(np.float32) + least)
    return np.asarray(np.rint(255 * of_end / (of_end + of_start)), np.uint8)

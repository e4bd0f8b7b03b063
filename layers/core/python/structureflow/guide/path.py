"""The way of the pixels: which flows a segment plays when, read in chunks, joined into displacements.

Time along the structure video's motion is counted in *nodes*: node m lies between the *legs* m - 1 and m, and
leg m is the motion from node m to m + 1. Under ``retime`` the legs are the flows of the video themselves and
the frames of the segment stand between nodes; under ``adjust`` and ``clip`` each frame is one leg on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import FlowError, GuidanceError
from structureflow.flow.fields import (
    MAX_DISPLACEMENT_PX,
    Direction,
    Field32,
    FlowSource,
    Treatment,
    adjusted_position,
    invert_flow,
    partial_flow,
    pull,
)

#: Bytes of stored flow that are read at a time; 36 flows of 640x360.
CHUNK_BYTES: Final = 32 * 2**20

#: Positions closer to a node than this are on it: they come from rounding.
_ON_NODE: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Leg:
    """The motion between two nodes: flow `index`, mixed with flow `index + 1` by `weight` (0 to below 1)."""

    index: int
    weight: float = 0.0


class PathPlan:
    """Which source flows the unguided frames of one segment play, and which of the steps cross a scene cut.

    Step k (from 0) leads from position k to position k + 1. `steps` steps are there for the unguided frames;
    one more may be looked at, where the video goes on, for the way into the last end anchor.
    """

    def __init__(
        self,
        *,
        start: int,
        stop: int,
        total_flows: int,
        target_count: int,
        treatment: Treatment,
        scene_cuts: tuple[int, ...] = (),
    ) -> None:
        """Plan `target_count` steps over flows `start` (inclusive) to `stop` (exclusive) of `total_flows`.

        Raises:
            GuidanceError: the window is not inside of the video, or the count is negative.
        """
        if not 0 <= start <= stop <= total_flows:
            raise GuidanceError(
                f"flow window: expected 0 <= start <= stop <= {total_flows}, got start {start}, stop {stop}"
            )
        if target_count < 0:
            raise GuidanceError(f"target_count: expected 0 or more, got {target_count}")
        self._start = start
        self._count = stop - start
        self._target = target_count
        self._treatment = treatment
        self._more = stop < total_flows
        self._cuts = frozenset(cut - start for cut in scene_cuts if start <= cut <= stop)
        self.steps = min(target_count, self._count) if treatment == "clip" else target_count if self._count else 0
        if treatment == "clip":
            self._more = start + self.steps < total_flows

    @property
    def flows_used(self) -> int:
        """How many different flows of the video move pixels in the `steps` steps."""
        if self._treatment != "adjust":
            return self._count if self._treatment == "retime" and self.steps else self.steps
        used = set()
        for step in range(self.steps):
            leg = self.leg(step)
            used.add(leg.index)
            if leg.weight:
                used.add(leg.index + 1)
        return len(used)

    @property
    def last_position(self) -> int:
        """The last position that a path may go to: `steps`, or one more where the video goes on."""
        return self.steps + 1 if self.steps and self._more else self.steps

    def node_at(self, position: int) -> float:
        """Return the node (with fraction) of a position, 0 to `last_position`."""
        if not 0 <= position <= self.last_position:
            raise GuidanceError(f"position: expected 0 to {self.last_position}, got {position}")
        if self._treatment != "retime":
            return float(position)
        if position > self.steps:
            # beyond the window the video goes on at the pace of one flow per frame, or slower if it was retimed so
            return self._count + min(1.0, self._count / self._target)
        node = position * self._count / self._target
        nearest = round(node)
        if abs(node - nearest) < _ON_NODE:
            return float(nearest)
        index = int(node)
        if index in self._cuts:
            # between the last frame before a cut and the first one after it there is nothing: take the nearer
            return float(index) if node - index < 0.5 else float(index + 1)
        return node

    def leg(self, number: int) -> Leg:
        """Return what leg `number` is made of; indices count from the start of the video."""
        if self._treatment != "adjust" or number >= self.steps:
            # past the end of an adjusted window: its last position is its last flow, so the next one follows
            past = number - self.steps + self._count if self._treatment == "adjust" else number
            return Leg(self._start + past)
        position = adjusted_position(number, self._count, self._target)
        index = min(int(position + _ON_NODE), self._count - 1)
        weight = position - index
        if weight < _ON_NODE:
            return Leg(self._start + index)
        if index in self._cuts:
            return Leg(self._start + index + 1)
        if index + 1 in self._cuts:
            return Leg(self._start + index)
        return Leg(self._start + index, weight)

    def crosses_cut(self, step: int) -> bool:
        """Say whether the way from position `step` to `step + 1` leads across a scene cut."""
        if not self._cuts:
            return False
        if self._treatment == "adjust" and step < self.steps:
            position = adjusted_position(step, self._count, self._target)
            before = adjusted_position(step - 1, self._count, self._target) if step else -math.inf
            return any(before + _ON_NODE < cut <= position + _ON_NODE for cut in self._cuts)
        if self._treatment == "adjust":
            return self._count + step - self.steps in self._cuts
        start, stop = self.node_at(step), self.node_at(step + 1)
        return any(start < cut + 1 and stop > cut for cut in self._cuts)

    def legs_between(self, first_position: int, last_position: int) -> tuple[int, int]:
        """Return the legs that lie between two positions, start inclusive, stop exclusive."""
        start, stop = self.node_at(first_position), self.node_at(last_position)
        return int(start), max(math.ceil(stop), int(start))


class LegReader:
    """Reads the legs of a plan in one direction, chunk by chunk, as float32.

    Chunks never reach beyond the legs that were asked for at the start, so a segment reads its part of the
    video and no more, and holds no more of it than `chunk_bytes` at a time.
    """

    def __init__(
        self,
        source: FlowSource,
        direction: Direction,
        plan: PathPlan,
        legs: tuple[int, int],
        *,
        descending: bool = False,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        """Read legs ``legs[0]`` (inclusive) to ``legs[1]`` (exclusive), mostly in one order."""
        self._source = source
        self._plan = plan
        self._inverts = direction == "backward" and not source.meta.has_backward
        self._direction: Direction = "forward" if self._inverts else direction
        self._legs = legs
        self._descending = descending
        meta = source.meta
        self._shape = (meta.height, meta.width, 2)
        self._chunk_flows = max(2, chunk_bytes // (meta.height * meta.width * 4))
        self._chunk: NDArray[Any] = np.empty((0, *self._shape), np.float16)
        self._chunk_start = 0
        self._slots = [np.empty(self._shape, np.float32) for _ in range(2)]
        self._slot_legs: list[int | None] = [None, None]
        self._other = np.empty(self._shape, np.float32)
        self._limit = float(min(MAX_DISPLACEMENT_PX, 4 * max(meta.height, meta.width)))

    def __call__(self, number: int) -> Field32:
        """Return leg `number`: ``(h, w, 2)`` float32 in grid pixels, intact until the second call after it."""
        if number in self._slot_legs:
            return self._slots[self._slot_legs.index(number)]
        leg = self._plan.leg(number)
        slot = number % 2
        self._slot_legs[slot] = None
        out = self._slots[slot]
        self._load(leg, number)
        np.copyto(out, self._chunk[leg.index - self._chunk_start])
        if leg.weight:
            np.copyto(self._other, self._chunk[leg.index + 1 - self._chunk_start])
            out *= np.float32(1 - leg.weight)
            self._other *= np.float32(leg.weight)
            out += self._other
        if self._inverts:
            out[...] = invert_flow(out)
        self._slot_legs[slot] = number
        return out

    def _load(self, leg: Leg, number: int) -> None:
        need = (leg.index, leg.index + (2 if leg.weight else 1))
        if self._chunk_start <= need[0] and need[1] <= self._chunk_start + len(self._chunk):
            return
        start, stop = self._extend(need, number)
        chunk = self._source.read(self._direction, start, stop)
        if chunk.shape != (stop - start, *self._shape):
            raise FlowError(
                f"flows {start} to {stop}: expected shape {(stop - start, *self._shape)}, got {chunk.shape}"
            )
        self._chunk = bounded_chunk(chunk, self._limit, start)
        self._chunk_start = start

    def _extend(self, need: tuple[int, int], number: int) -> tuple[int, int]:
        """Take in the following legs while they lie close together and fit into a chunk."""
        start, stop = need
        following = range(number - 1, self._legs[0] - 1, -1) if self._descending else range(number + 1, self._legs[1])
        for other in following:
            leg = self._plan.leg(other)
            first, last = min(start, leg.index), max(stop, leg.index + (2 if leg.weight else 1))
            # a gap of a few flows costs less to read over than another request
            if last - first > self._chunk_flows or leg.index - stop > 4 or start - leg.index > 5:
                break
            start, stop = first, last
        return start, stop


def bounded_chunk(chunk: NDArray[np.float16], limit_px: float, first: int) -> NDArray[np.float16]:
    """Return float16 flows with no vector longer than `limit_px` per axis; a copy only if one is.

    Raises:
        FlowError: a vector is not finite; the message names the flow, `chunk[0]` being number `first`.
    """
    if chunk.dtype != np.float16:
        raise FlowError(f"flows: expected float16, got {chunk.dtype}")
    # float16 without its sign bit sorts as an integer, infinity and NaN last: one cheap pass
    magnitude = np.bitwise_and(chunk.view(np.uint16), np.uint16(0x7FFF))
    largest = magnitude.max(initial=0)
    if largest >= 0x7C00:
        bad = first + int(np.argmax(magnitude.reshape(len(chunk), -1).max(axis=1) >= 0x7C00))
        raise FlowError(f"flow {bad}: expected finite vectors, got NaN or infinity")
    if float(np.uint16(largest).view(np.float16)) <= limit_px:
        return chunk
    return np.asarray(chunk.clip(np.float16(-limit_px), np.float16(limit_px)), np.float16)


class Carry:
    """Joins legs into the displacement that pulls an anchor's pixels to later positions, node by node.

    The anchor stands at node `start`. Time may run backwards for the caller: it then numbers nodes and legs
    the other way round and hands in the legs of the other direction.
    """

    def __init__(self, leg: Callable[[int], Field32], start: float, shape: tuple[int, int]) -> None:
        """Carry from node `start`; ``leg(m)`` pulls from node m + 1 to node m, ``(*shape, 2)`` float32."""
        self._leg = leg
        self._start = start
        self._node = math.floor(start)
        self._joined = np.zeros((*shape, 2), np.float32)
        self._next = np.empty_like(self._joined)
        self._still = True

    def to(self, position: float) -> Field32:
        """Return the displacement from node `position` (not before the last one asked for) to the anchor.

        Returns:
            ``(h, w, 2)`` float32: pixel x at `position` shows what the anchor has at ``x + displacement(x)``,
            within `MAX_DISPLACEMENT_PX` per axis. Valid until the next call; not to be changed.
        """
        if position < max(self._start, self._node):
            raise GuidanceError(f"carry: expected a position from {max(self._start, self._node)} on, got {position}")
        while self._node < math.floor(position):
            leg = self._leg(self._node)
            if self._still:
                np.multiply(leg, np.float32(self._node + 1 - self._start), out=self._joined)
            else:
                pull(self._joined, leg, self._next)
                self._next += leg
                self._joined, self._next = self._next, self._joined
                _bound(self._joined)
            self._still = False
            self._node += 1
        fraction = position - self._node
        if self._still:
            if position == self._start:
                return self._joined
            return partial_flow(self._leg(self._node), lag=1 - fraction, span=position - self._start)
        if fraction == 0:
            return self._joined
        piece = partial_flow(self._leg(self._node), lag=1 - fraction, span=fraction)
        pull(self._joined, piece, self._next)
        self._next += piece
        return _bound(self._next)


class Trace:
    """Follows an anchor's pixels to later positions: where `Carry` pulls, this one says where they went.

    Nodes as for `Carry`; the legs are those of the opposite direction.
    """

    def __init__(self, leg: Callable[[int], Field32], start: float, shape: tuple[int, int]) -> None:
        """Follow from node `start`; ``leg(m)`` leads from node m to node m + 1, ``(*shape, 2)`` float32."""
        self._leg = leg
        self._start = start
        self._node = math.floor(start)
        self._way = np.zeros((*shape, 2), np.float32)
        self._next = np.empty_like(self._way)
        self._still = True

    def to(self, position: float) -> Field32:
        """Return the displacement from the anchor to node `position` (not before the last one asked for).

        Returns:
            ``(h, w, 2)`` float32 on the anchor's grid. Valid until the next call; not to be changed.
        """
        if position < max(self._start, self._node):
            raise GuidanceError(f"trace: expected a position from {max(self._start, self._node)} on, got {position}")
        while self._node < math.floor(position):
            self._way = self._ahead(1.0)
            self._still = False
            self._node += 1
        if position == self._node or position == self._start:
            return self._way
        way = self._ahead(position - self._node)
        # what was asked for between two nodes is not what the next node goes on from
        self._way, self._next = self._next, self._way
        return way

    def _ahead(self, fraction: float) -> Field32:
        leg = self._leg(self._node)
        if self._still:
            begin = self._start - self._node
            np.copyto(self._next, partial_flow(leg, lag=begin, span=fraction - begin))
        else:
            pull(leg, self._way, self._next)
            if fraction != 1:
                self._next *= np.float32(fraction)
            self._next += self._way
            _bound(self._next)
        self._way, self._next = self._next, self._way
        return self._way


def _bound(field: Field32) -> Field32:
    # joined paths may grow without end where they leave the frame
    return np.clip(field, -MAX_DISPLACEMENT_PX, MAX_DISPLACEMENT_PX, out=field)

"""The way of the pixels: the flows that a plan plays, read in chunks, joined into displacements."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Final

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import FlowError, GuidanceError
from structureflow.flow.fields import (
    MAX_DISPLACEMENT_PX,
    Direction,
    Field32,
    FlowSource,
    compose_flows,
    invert_flow,
    partial_flow,
    sample,
)
from structureflow.flow.visibility import agree, inside
from structureflow.guide.plan import Leg, Plan
from structureflow.guide.strength import ONCE, Strength

#: Bytes of flow that are read at a time: 74 flows of 448x252, so that most segments read once.
CHUNK_BYTES: Final = 64 * 2**20


class FlowChunks:
    """One direction of a flow source, read in chunks; several readers of one segment share what it holds.

    It holds at most two chunks, and reads in a thread of its own where it was told ahead.
    """

    def __init__(
        self, source: FlowSource, direction: Direction, io: Executor, *, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        """Read from `source`; chunks told ahead are read on `io`."""
        self._source = source
        self._direction = direction
        self._io = io
        meta = source.meta
        self.shape = (meta.height, meta.width, 2)
        self.chunk_flows = max(2, chunk_bytes // (meta.height * meta.width * 8))
        self._limit = float(min(MAX_DISPLACEMENT_PX, 4 * max(meta.height, meta.width)))
        #: Readers in several threads take turns.
        self.lock = threading.Lock()
        self._held: list[tuple[int, Field32]] = []
        self._ahead: tuple[int, int, Future[Field32]] | None = None

    def find(self, start: int, stop: int) -> Field32 | None:
        """Return flows `start` (inclusive) to `stop` (exclusive) if one held chunk has them all."""
        for place, (first, chunk) in enumerate(self._held):
            if first <= start and stop <= first + len(chunk):
                if place:
                    self._held.reverse()
                return chunk[start - first : stop - first]
        return None

    def load(self, start: int, stop: int) -> None:
        """Hold flows `start` (inclusive) to `stop` (exclusive), in place of the chunk used longest ago.

        Raises:
            FlowError, FlowCacheError: as the source raises; a vector is not finite.
        """
        if self._ahead is not None and self._ahead[0] <= start and stop <= self._ahead[1]:
            start, _, coming = self._ahead
            self._ahead = None
            chunk = coming.result()
        else:
            chunk = self._read(start, stop)
        self._held = [(start, chunk), *self._held[:1]]

    def tell_ahead(self, start: int, stop: int) -> None:
        """Begin to read flows that will be asked for next."""
        if self._ahead is None and self.find(start, stop) is None:
            self._ahead = (start, stop, self._io.submit(self._read, start, stop))

    def _read(self, start: int, stop: int) -> Field32:
        chunk = self._source.read(self._direction, start, stop)
        if chunk.shape != (stop - start, *self.shape):
            raise FlowError(f"flows {start} to {stop}: expected shape {(stop - start, *self.shape)}, got {chunk.shape}")
        return bounded_chunk(chunk, self._limit, start)


class LegReader:
    """Gives the legs of a plan in one direction as float32, each as many times as long as `strength` says.

    Chunks never reach beyond the legs named at the start, so a segment reads its part of the video and no more.
    """

    def __init__(
        self,
        chunks: FlowChunks,
        plan: Plan,
        legs: tuple[int, int],
        *,
        strength: Strength = ONCE,
        inverts: bool = False,
        descending: bool = False,
    ) -> None:
        """Give legs ``legs[0]`` (inclusive) to ``legs[1]`` (exclusive), mostly in one order.

        `inverts` turns each leg around, for a source that lacks the direction asked for. Where the strength is 0
        nothing is read.
        """
        self._strength = strength
        self._chunks = chunks
        self._plan = plan
        self._legs = legs
        self._inverts = inverts
        self._descending = descending
        self._slots = [np.empty(chunks.shape, np.float32) for _ in range(2)]
        self._slot_legs: list[int | None] = [None, None]
        self._other = np.empty(0, np.float32)

    def __call__(self, number: int) -> Field32:
        """Return leg `number`: ``(h, w, 2)`` float32 in grid pixels, intact until the second call after it."""
        if number in self._slot_legs:
            return self._slots[self._slot_legs.index(number)]
        slot = number % 2
        out = self._slots[slot]
        self._slot_legs[slot] = None
        strength = self._strength(number)
        if strength == 0:
            out.fill(0)
        else:
            self._fill(number, strength, out)
        self._slot_legs[slot] = number
        return out

    def _fill(self, number: int, strength: float, out: Field32) -> None:
        leg = self._plan.leg(number)
        flows = self._flows_of(leg, number)
        np.copyto(out, flows[0])
        if leg.weight:
            if not self._other.size:
                self._other = np.empty_like(out)
            np.copyto(self._other, flows[1])
            out *= np.float32(1 - leg.weight)
            self._other *= np.float32(leg.weight)
            out += self._other
        if self._inverts:
            out[...] = invert_flow(out)
        if strength != 1:
            out *= np.float32(strength)

    def begin(self) -> None:
        """Have the first chunk read in the background."""
        if self._legs[0] < self._legs[1] and self._strength.constant != 0:
            first = self._legs[1] - 1 if self._descending else self._legs[0]
            with self._chunks.lock:
                self._chunks.tell_ahead(*self._extend(first))

    def _flows_of(self, leg: Leg, number: int) -> Field32:
        start, stop = _flows_in(leg)
        with self._chunks.lock:
            flows = self._chunks.find(start, stop)
            if flows is None:
                self._chunks.load(*self._extend(number))
                flows = self._chunks.find(start, stop)
        if flows is None:
            raise FlowError(f"flows {start} to {stop}: expected them in what was read")
        return flows

    def _extend(self, number: int) -> tuple[int, int]:
        """Return the flows of leg `number` and of all legs around that lie close together and fit into a chunk."""
        after, before = range(number + 1, self._legs[1]), range(number - 1, self._legs[0] - 1, -1)
        start, stop = _flows_in(self._plan.leg(number))
        for others in (before, after) if self._descending else (after, before):
            for other in others:
                first, last = _flows_in(self._plan.leg(other))
                # a gap of a few flows costs less to read over than another request
                if (
                    max(stop, last) - min(start, first) > self._chunks.chunk_flows
                    or first - stop > 4
                    or start - last > 4
                ):
                    break
                start, stop = min(start, first), max(stop, last)
        return start, stop


def _flows_in(leg: Leg) -> tuple[int, int]:
    return leg.index, leg.index + (2 if leg.weight else 1)


def bounded_chunk(chunk: Field32, limit_px: float, first: int) -> Field32:
    """Return float32 flows with no vector longer than `limit_px` per axis; a copy only if one is.

    Raises:
        FlowError: a vector is not finite; the message names the flow, `chunk[0]` being number `first`.
    """
    if chunk.dtype != np.float32:
        raise FlowError(f"flows: expected float32, got {chunk.dtype}")
    longest = 0.0
    for index, flow in enumerate(chunk):
        # min and max carry NaN through, and need no array of their own
        low, high = float(flow.min(initial=0)), float(flow.max(initial=0))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise FlowError(f"flow {first + index}: expected finite vectors, got NaN or infinity")
        longest = max(longest, -low, high)
    return chunk if longest <= limit_px else chunk.clip(-limit_px, limit_px)


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

    def copy(self) -> Carry:
        """Return one that goes on from here on its own; it shares the legs."""
        twin = Carry(self._leg, self._start, self._joined.shape[:2])
        twin._node, twin._joined, twin._still = self._node, self._joined.copy(), self._still
        return twin

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
                self._join(leg)
                self._joined, self._next = self._next, self._joined
            self._still = False
            self._node += 1
        fraction = position - self._node
        if self._still:
            if position == self._start:
                return self._joined
            return partial_flow(self._leg(self._node), lag=1 - fraction, span=position - self._start)
        if fraction == 0:
            return self._joined
        return self._join(partial_flow(self._leg(self._node), lag=1 - fraction, span=fraction))

    def _join(self, piece: Field32) -> Field32:
        # joined paths may grow without end where they leave the frame
        return bounded(compose_flows(piece, self._joined, self._next))


class Trace:
    """Follows an anchor's pixels to later positions: where `Carry` pulls, this one says where they went.

    Nodes as for `Carry`; the legs are those of the opposite direction. Only every `stride`-th pixel of each
    row and column is followed: enough to tell what is hidden, at a fraction of the cost.
    """

    def __init__(self, leg: Callable[[int], Field32], start: float, shape: tuple[int, int], *, stride: int = 2) -> None:
        """Follow from node `start`; ``leg(m)`` leads from node m to node m + 1, ``(*shape, 2)`` float32."""
        self._leg = leg
        self._start = start
        self._node = math.floor(start)
        self._shape = shape
        self._stride = stride
        self._places = _places(shape, stride)
        self._way = np.zeros_like(self._places)
        self._still = True

    def copy(self) -> Trace:
        """Return one that goes on from here on its own; it shares the legs."""
        twin = Trace(self._leg, self._start, self._shape, stride=self._stride)
        twin._node, twin._way, twin._still = self._node, self._way, self._still
        return twin

    def to(self, position: float) -> Field32:
        """Return the displacement from the anchor to node `position` (not before the last one asked for).

        Returns:
            ``(ceil(h / stride), ceil(w / stride), 2)`` float32 in pixels of the full grid, for the pixels
            ``[::stride, ::stride]`` of the anchor; not to be changed.
        """
        if position < max(self._start, self._node):
            raise GuidanceError(f"trace: expected a position from {max(self._start, self._node)} on, got {position}")
        while self._node < math.floor(position):
            self._way = self._ahead(1.0)
            self._still = False
            self._node += 1
        if position in (self._node, self._start):
            return self._way
        return self._ahead(position - self._node)

    def _ahead(self, fraction: float) -> Field32:
        leg = self._leg(self._node)
        if self._still:
            begin = self._start - self._node
            step = partial_flow(leg, lag=begin, span=fraction - begin)
            return np.ascontiguousarray(step[:: self._stride, :: self._stride])
        step = sample(leg, self._places + self._way)
        if fraction != 1:
            step *= np.float32(fraction)
        step += self._way
        return bounded(step)

    def sees(self, displacement: Field32, way: Field32) -> NDArray[np.bool_]:
        """Say which pixels of a later frame the anchor shows, by the rule of `fields.visible_where`.

        Args:
            displacement: ``(h, w, 2)`` float32 from `Carry.to` of the same anchor and position.
            way: from `to` of that position.

        Returns:
            ``(ceil(h / stride), ceil(w / stride))`` bool for the pixels ``[::stride, ::stride]``.
        """
        there = np.ascontiguousarray(displacement[:: self._stride, :: self._stride])
        landing = self._places + there
        back = sample(way, landing * np.float32(1 / self._stride))
        return agree(there, back) & inside(landing, self._shape)


def _places(shape: tuple[int, int], stride: int) -> Field32:
    """Return the (x, y) of the pixels ``[::stride, ::stride]``."""
    rows, columns = np.mgrid[0 : shape[0] : stride, 0 : shape[1] : stride]
    return np.ascontiguousarray(np.stack([columns, rows], axis=-1), dtype=np.float32)


def bounded(field: Field32) -> Field32:
    """Cut a path's vectors at `MAX_DISPLACEMENT_PX` per axis, in place: they grow where they leave the frame."""
    return np.clip(field, -MAX_DISPLACEMENT_PX, MAX_DISPLACEMENT_PX, out=field)

"""The motion of one gap: which anchors reach which frame, along which displacement, and how they share it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import Direction, Field32
from structureflow.flow.times import ON_NODE
from structureflow.guide.anchored import AnchoredPath, RefinedLegs
from structureflow.guide.camera import PartLegs
from structureflow.guide.drift import Drift, Tables
from structureflow.guide.feed import FrameFeed
from structureflow.guide.lookahead import run_ahead
from structureflow.guide.masks import unseen
from structureflow.guide.path import Carry, Trace
from structureflow.guide.plan import Plan
from structureflow.guide.planned import Mirrored, PlannedFlows
from structureflow.guide.ports import Gray
from structureflow.guide.refine import Matching
from structureflow.guide.seams import LOOKED_ALIKE, Comparison, choose, differing_structure, disagreement
from structureflow.guide.strength import ONCE
from structureflow.guide.ways import (
    AnchoredWays,
    ComposedWays,
    Moment,
    Shown,
    Way,
    Ways,
    end_share,
    known,
    scaled_ways,
    ways_of_part,
)
from structureflow.models.job import Seams

#: Bytes of displacements of the end anchor that are kept at once; longer gaps are done in blocks.
BLOCK_BYTES: Final = 128 * 2**20


@dataclass(frozen=True, slots=True)
class FrameEvidence:
    """How well a filled frame is known, in two numbers.

    Attributes:
        kept: share of its pixels that an anchor shows, 0 to 1.
        unlike: mean difference of these between structure frame and anchor along the path, in levels of contrast.
    """

    kept: float
    unlike: float


@dataclass(frozen=True, slots=True)
class _Shared:
    """How two anchors share a frame, where both reach it."""

    weight: NDArray[np.uint8] | None = None
    undecided: NDArray[np.bool_] | None = None
    tables: tuple[Tables, Tables] | None = None


@dataclass(frozen=True, slots=True)
class GapFrame:
    """The motion of one filled frame, on the flow grid ``(h, w)``; at least one of `start` and `end` is there.

    Attributes:
        start: ``(h, w, 2)`` float32 pulling from the anchor before the gap; None if it does not reach here.
        end: the same from the anchor behind the gap.
        end_weight: ``(h', w')`` uint8 over the same area, the share of the end anchor (255 = all), where both reach.
        visibility: ``(h', w')`` uint8, 255 where an anchor shows the pixel; None unless asked for.
        unseen: ``(h', w')`` uint8, 255 where no anchor that gives the pixel shows it, else 0; None unless asked for.
        tables: the colours of the start anchor's pixels and of the end anchor's (`drift.Tables`); None: as they are.
        step: ``(h, w, 2)`` float32 pulling from the frame before; None unless asked for.
        evidence: how well the anchors show the frame; None where paths are composed.

    All are valid until the next frame is asked for.
    """

    start: Field32 | None
    end: Field32 | None
    end_weight: NDArray[np.uint8] | None = None
    visibility: NDArray[np.uint8] | None = None
    unseen: NDArray[np.uint8] | None = None
    tables: tuple[Tables, Tables] | None = None
    step: Field32 | None = None
    evidence: FrameEvidence | None = None


class GapMotion:
    """Reads and joins the flows of one gap of `count` frames, whose steps start at `consumed`."""

    def __init__(
        self,
        flows: PlannedFlows,
        plan: Plan,
        consumed: int,
        count: int,
        *,
        from_start: bool,
        from_end: bool,
        wants_visibility: bool = False,
        wants_flow: bool = False,
        wants_unseen: bool = False,
        shown: Shown | None = None,
        comparison: Comparison | None = None,
        seams: Seams = "average",
        match_color: bool = False,
        feed: FrameFeed | None = None,
        matching: Matching | None = None,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        """Plan the gap.

        Args:
            flows, plan: what is played.
            consumed, count: where the gap's steps begin, and how many frames it has.
            from_start, from_end: whether there is an anchor on that side.
            wants_visibility, wants_flow, wants_unseen: what is asked for besides displacements.
            shown: what of the grid the anchors are pictures of; None: all of it, and beyond.
            comparison: of the anchors; needed for the two that follow.
            seams: what is done where two anchors disagree.
            match_color: whether the start anchor's colours are led over into those of the end anchor.
            feed: the structure frames to look at; None: paths are composed alone.
            matching: how to look.
            block_bytes: of displacements of the end anchor that are kept at once.
        """
        self._feed = feed
        self._matching = matching or Matching()
        self._flows = flows
        self._plan = plan
        self._shape = flows.shape
        self._block_bytes = block_bytes
        self._consumed = consumed
        self._count = count
        self._wants_visibility = wants_visibility
        self._wants_flow = wants_flow
        self._wants_unseen = wants_unseen
        self._shown = shown
        self._comparison = comparison
        self._chooses = seams == "choose"
        self._matches_color = match_color
        self._drift: Drift | None = None
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

    def frames(self) -> Generator[GapFrame | None, None, None]:
        """Yield the motion of each frame of the gap in order; None where no anchor reaches."""
        if self._feed is None:
            # the end anchor's ways are all joined before the first frame; what reads more comes first
            yield from self._frames(self._starts(), self._ends())
            return
        # looking takes its time, and the two anchors need nothing of each other
        most = max(1, self._block_bytes // (self._shape[0] * self._shape[1] * 8))
        with ThreadPoolExecutor(2, thread_name_prefix="path") as pool:
            ends = run_ahead(self._ends(), pool, most)
            starts = run_ahead(self._starts(), pool, most)
            try:
                yield from self._frames(starts, ends)
            finally:
                starts.close()
                ends.close()

    def _frames(self, starts: Iterator[Way], ends: Iterator[Way]) -> Iterator[GapFrame | None]:
        steps = self._steps()
        for offset in range(self._count):
            end = next(ends) if offset >= self._count - self.end_reach else None
            start = next(starts) if offset < self.start_reach else None
            if start is None and end is None:
                yield None
                continue
            moment = Moment(offset + 1, self._count - offset)
            shared = _Shared() if start is None or end is None else self._join(moment, start, end)
            ways = [way for way in (start, end) if way is not None]
            anchored = all(way.unlike is not None for way in ways)
            visibility = unseen_there = None
            if self._wants_visibility or anchored:
                seen = [way.visibility for way in ways if way.visibility is not None]
                visibility = seen[0] if len(seen) == 1 else np.maximum(seen[0], seen[1])
            if self._wants_unseen:
                unseen_there = unseen(known(start, end, shared.weight), shared.undecided)
            yield GapFrame(
                start=start.displacement if start else None,
                end=end.displacement if end else None,
                end_weight=shared.weight,
                visibility=visibility if self._wants_visibility else None,
                unseen=unseen_there,
                tables=shared.tables,
                step=next(steps) if self._wants_flow else None,
                evidence=_summary(ways, visibility) if anchored and visibility is not None else None,
            )

    def _join(self, moment: Moment, start: Way, end: Way) -> _Shared:
        """Decide how two anchors share a frame."""
        if self._comparison is None:
            return _Shared(end_share(moment, start, end))
        first, second = self._comparison.samples(start.displacement, end.displacement)
        tables = None
        if self._matches_color:
            if self._drift is None and start.visibility is not None and end.visibility is not None:
                self._drift = Drift.between(first, second, np.minimum(start.visibility, end.visibility) > 127)
            if self._drift is not None:
                first, second = self._drift.led_over(first, second, moment.share)
                tables = self._drift.tables(moment.share)
        if not self._chooses:
            return _Shared(end_share(moment, start, end), None, tables)
        if start.held is None or end.held is None:
            apart = disagreement(first, second)
        else:
            apart = np.maximum(disagreement(first, second, LOOKED_ALIKE), differing_structure(first, second))
        return _Shared(*choose(moment, start, end, apart), tables)

    @property
    def _shares(self) -> bool:
        return self.start_reach + self.end_reach > self._count

    def _starts(self) -> Iterator[Way]:
        positions = range(self._consumed + 1, self._consumed + self.start_reach + 1)
        if not positions:
            return
        ways = self._ways("backward", self._consumed, positions)
        first_seen = 0 if self._wants_visibility or self._wants_unseen else self._count - self.end_reach
        for offset, position in enumerate(positions):
            yield ways.to(self._plan.node_at(position), judged=offset >= first_seen)

    def _ends(self) -> Iterator[Way]:
        first = self._consumed + self._count + 1 - self.end_reach
        positions = range(self._consumed + self._count, first - 1, -1)
        if not positions:
            return
        ways = self._ways("forward", self._end_position, positions)
        top = self._top
        yield from self._in_reverse(ways, [top - self._plan.node_at(position) for position in positions])

    @property
    def _top(self) -> int:
        """For the end anchor time runs backwards: node m is counted as top - m, and its leg is the other side's."""
        return math.ceil(self._plan.node_at(self._end_position))

    def _ways(self, direction: Direction, anchor: int, positions: range) -> Ways:
        """Return the ways to the anchor at position `anchor`; `direction` is that of the flows that pull from it."""
        mirrored = direction == "forward"
        legs, top = self._legs_ahead, self._top
        start = self._plan.node_at(anchor)

        def reader(which: Direction, *, as_stored: bool = False) -> Callable[[int], Field32]:
            read = self._flows.legs(which, legs, descending=mirrored, as_stored=as_stored)
            return Mirrored(read, top) if mirrored else read

        if mirrored:
            start = top - start
        feed = self._feed
        base = math.ceil(start - ON_NODE)

        def frame(node: int) -> Gray | None:
            return feed(self._plan.frame_at(top - node if mirrored else node), descending=mirrored) if feed else None

        part, strength = self._flows.part, self._flows.strength
        of_leg = (lambda number: strength(top - 1 - number)) if mirrored else strength
        if frame(base) is None:
            if part != "all":
                stored = reader(direction, as_stored=True)
                return ways_of_part(stored, start, self._shape, part, of_leg, self._shown)
            carry = Carry(reader(direction), start, self._shape)
            other: Direction = "backward" if mirrored else "forward"
            trace = Trace(reader(other), start, self._shape) if self._needs_visibility else None
            return ComposedWays(carry, trace, self._shown)

        nodes = [self._plan.node_at(position) for position in positions]
        refined = refined_nodes([top - node for node in nodes] if mirrored else nodes, start, self._matching.every)
        path = AnchoredPath(reader(direction, as_stored=True), start, self._shape, frame, refined, self._matching)
        if part != "all":
            return ways_of_part(RefinedLegs(path, ONCE), start, self._shape, part, of_leg, self._shown)
        if strength.constant == 1:
            return AnchoredWays(path, self._shown)
        return scaled_ways(path, start, of_leg, self._shape, self._shown)

    def _in_reverse(self, ways: Ways, nodes: list[float]) -> Iterator[Way]:
        """Yield the ways to all nodes, last first, keeping one block of them and where the others begin."""
        size = max(self._block_bytes // (self._shape[0] * self._shape[1] * 8), math.isqrt(len(nodes)), 1)
        blocks = [nodes[start : start + size] for start in range(0, len(nodes), size)]
        begins: list[Ways] = []
        for block in blocks[:-1]:
            begins.append(ways.copy())
            ways.to(block[-1], judged=False)
        begins.append(ways)
        while blocks:
            ways = begins.pop()
            kept = [ways.to(node) for node in blocks.pop()]
            while kept:
                yield kept.pop()

    @property
    def _legs_ahead(self) -> tuple[int, int]:
        """The legs that may be read with one another: all that this gap and those behind it need."""
        last = self._plan.last_position if self.end_reach else self._plan.steps
        return self._plan.legs_between(self._consumed, last)

    @property
    def _needs_visibility(self) -> bool:
        return self._wants_visibility or self._wants_unseen or self._shares

    def _steps(self) -> Iterator[Field32 | None]:
        if not self._wants_flow:
            return
        legs: Callable[[int], Field32] = self._flows.legs("backward", self._legs_ahead)
        if self._flows.part != "all":
            stored = self._flows.legs("backward", self._legs_ahead, as_stored=True)
            begin = self._plan.node_at(self._consumed)
            legs = PartLegs(stored, begin, self._flows.part, self._flows.strength)
        for offset in range(self._count):
            if self.start_reach <= offset < self._count - self.end_reach:
                continue
            position = self._consumed + offset
            if self._plan.crosses_cut(position):
                yield None
            else:
                step = Carry(legs, self._plan.node_at(position), self._shape)
                yield step.to(self._plan.node_at(position + 1))


def refined_nodes(nodes: Sequence[float], start: float, every: int) -> frozenset[int]:
    """Return the whole nodes at which a path is refined, every `every`-th of those that it passes by.

    A position that is no frame of the video takes its path from the frame before; and from the one behind too where
    positions lie less than a frame apart, so that the path does not jump there.

    Args:
        nodes: of the positions that the path is asked for, rising, from the anchor at `start` on.
        start: of the anchor.
        every: 1 or more.
    """
    first = math.ceil(start - ON_NODE)
    slow = len(nodes) > 1 and (nodes[-1] - nodes[0]) / (len(nodes) - 1) < 1 - ON_NODE
    passed = {math.floor(node) for node in nodes}
    if slow:
        passed |= {math.ceil(node) for node in nodes}
    return frozenset(sorted(node for node in passed if node > first)[every - 1 :: every])


def _summary(ways: Sequence[Way], visibility: NDArray[np.uint8]) -> FrameEvidence:
    kept = visibility > 127
    share = float(kept.mean())
    unlike = [way.unlike for way in ways if way.unlike is not None]
    least = unlike[0] if len(unlike) == 1 else np.minimum(unlike[0], unlike[1])
    return FrameEvidence(share, float(least[kept].mean()) if share else 0.0)

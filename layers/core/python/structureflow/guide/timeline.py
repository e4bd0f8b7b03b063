"""Several structure videos on one timeline: which frame of which video stands at which frame of a segment.

The parts of the videos that are used lie end to end as one *joined video*, in the order in which they are played, and
its flows as the flows of that video; between two parts there is a scene cut. Every frame of the timeline that a source
drives stands at a node of the joined video, whether a guide covers it or not: guided frames take their time, too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import GuidanceError
from structureflow.flow.times import ON_NODE, node_at_time, uneven_times
from structureflow.guide.plan import Leg
from structureflow.guide.strength import Strength


@dataclass(frozen=True, slots=True)
class Stretch:
    """One source on the timeline.

    Attributes:
        first, stop: the frames of the timeline that it drives, first inclusive, stop exclusive.
        base: where its part begins in the joined video, as a frame number.
        frames: of its part, 2 or more.
        treatment: `adjust` and `retime` stretch the part over the driven frames, by frame number and by time; under
            `clip` it plays at its own speed, until it ends.
        rate_fps: frames of the source to a second, under `clip`.
        step_s: seconds to a frame of the timeline, under `clip`.
        times_s: ``(frames,)`` when each frame of the part is shown, rising, from 0 on; None where that is even.
        strength: of its motion; None: as the segment's.
    """

    first: int
    stop: int
    base: int
    frames: int
    treatment: Literal["adjust", "clip", "retime"]
    rate_fps: float = 1.0
    step_s: float = 1.0
    times_s: NDArray[np.float64] | None = None
    strength: float | None = None

    def source_node(self, frame: int) -> float | None:
        """Return the frame number within the part, with fraction, that stands at a frame of the timeline.

        None where the source drives nothing: outside of its frames, and past the end of a part that is not stretched.
        """
        if not self.first <= frame < self.stop:
            return None
        step, last = frame - self.first, self.frames - 1
        if self.treatment == "clip":
            time_s = step * self.step_s
            if self.times_s is None:
                node = time_s * self.rate_fps
                ended = node > last + ON_NODE
            else:
                node = node_at_time(self.times_s, time_s)
                ended = time_s > float(self.times_s[-1]) + ON_NODE
            if ended:
                return None
        else:
            share = step / (self.stop - self.first - 1) if self.stop - self.first > 1 else 0.0
            node = share * last
            if self.treatment == "retime" and self.times_s is not None:
                node = node_at_time(self.times_s, share * float(self.times_s[-1]))
        node = min(node, float(last))
        return float(round(node)) if abs(node - round(node)) < ON_NODE else node


def part_times(timestamps_s: NDArray[np.float64], base: int, frames: int) -> NDArray[np.float64] | None:
    """Return the times of a part of the joined video, for `Stretch.times_s`.

    Args:
        timestamps_s: of the frames of the joined video.
        base, frames: the part.
    """
    return uneven_times(timestamps_s[base : base + frames], frames - 1)


class TimelinePlan:
    """What the frames of one segment play of several sources; see `plan.Plan`.

    Position k + 1 is frame k of the segment; position 0 stands where frame 0 does.
    """

    anchorable = True

    def __init__(
        self, stretches: Sequence[Stretch], *, start: int, count: int, total_flows: int, scene_cuts: Sequence[int] = ()
    ) -> None:
        """Plan `count` frames of the timeline from `start` on.

        Args:
            stretches: all sources, in order.
            start, count: of the segment.
            total_flows: of the joined video.
            scene_cuts: its flows that lead across a cut; borders between sources count as cuts anyway.

        Raises:
            GuidanceError: a part lies outside of the joined video, or there is no frame.
        """
        if count < 1 or start < 0:
            raise GuidanceError(f"timeline: expected frames, got {count} from {start} on")
        for stretch in stretches:
            if not 0 <= stretch.base <= stretch.base + stretch.frames - 1 <= total_flows:
                raise GuidanceError(
                    f"timeline: expected frames up to {total_flows}, got {stretch.frames} from {stretch.base} on"
                )
        self._count = count
        self._cuts = frozenset(scene_cuts)
        self._stretches: list[Stretch | None] = []
        self._nodes: list[float | None] = []
        for frame in range(start, start + count):
            found = next((stretch for stretch in stretches if stretch.first <= frame < stretch.stop), None)
            node = None if found is None else found.source_node(frame)
            self._stretches.append(None if node is None else found)
            self._nodes.append(None if node is None or found is None else self._beside_cuts(found.base + node))
        self._held = _held(self._nodes)
        self.steps = 0 if all(node is None for node in self._nodes) else count
        self.last_position = self.steps
        self.led = range(self.steps)

    def _beside_cuts(self, node: float) -> float:
        """Between the last frame before a cut and the first one after it there is nothing: take the nearer."""
        index = int(node)
        if node == index or index not in self._cuts:
            return node
        return float(index) if node - index < 0.5 else float(index + 1)

    @property
    def flows_read(self) -> tuple[int, int]:
        """See `Plan.flows_read`."""
        return self.legs_between(0, self.steps)

    def consumed(self, frame: int) -> int:
        """See `Plan.consumed`."""
        return frame

    def frame_at(self, node: int) -> int:
        """See `Plan.frame_at`."""
        return node

    def frames_looked_at(self) -> list[int]:
        """See `Plan.frames_looked_at`."""
        known = [node for node in self._nodes if node is not None]
        return sorted({whole for node in known for whole in (math.floor(node), math.ceil(node))})

    def frame_shown(self, position: int) -> int | None:
        """See `Plan.frame_shown`."""
        if not 0 <= position <= self._count:
            return None
        node = self._nodes[max(position - 1, 0)]
        return None if node is None else math.floor(node + 0.5)

    @cached_property
    def _legs_used(self) -> frozenset[int]:
        used: set[int] = set()
        for step in range(1, self.steps):
            if not self.crosses_cut(step):
                used.update(range(*self.legs_between(step, step + 1)))
        return frozenset(used)

    @property
    def flows_used(self) -> int:
        """See `Plan.flows_used`."""
        return len(self._legs_used)

    def flow_into(self, frame: int) -> int | None:
        """See `Plan.flow_into`; none leads to the segment's first frame."""
        if frame < 1 or not self.steps or self.crosses_cut(frame):
            return None
        return min(int((self._held[frame - 1] + self._held[frame]) / 2), max(self._legs_used, default=0))

    def node_at(self, position: int) -> float:
        """See `Plan.node_at`."""
        if not 0 <= position <= self.last_position:
            raise GuidanceError(f"position: expected 0 to {self.last_position}, got {position}")
        return self._held[max(position - 1, 0)]

    def leg(self, number: int) -> Leg:
        """See `Plan.leg`."""
        return Leg(number)

    def crosses_cut(self, step: int) -> bool:
        """See `Plan.crosses_cut`; nothing leads to a frame without a source, or from one source to another."""
        before, after = max(step - 1, 0), step
        one, other = self._nodes[before], self._nodes[after]
        if one is None or other is None or self._stretches[before] is not self._stretches[after]:
            return True
        return any(one < cut + 1 and other > cut for cut in self._cuts)

    def legs_between(self, first_position: int, last_position: int) -> tuple[int, int]:
        """See `Plan.legs_between`."""
        start, stop = self.node_at(first_position), self.node_at(last_position)
        return int(start), max(math.ceil(stop), int(start))

    def strength(self, given: float | Mapping[int, float]) -> Strength:
        """See `Plan.strength`; the strength of a source goes before."""
        marks = sorted(given) if isinstance(given, Mapping) else []
        nodes: list[float] = []
        values: list[float] = []
        for stretch, run in itertools.groupby(range(self._count), key=lambda frame: self._stretches[frame]):
            if stretch is None:
                continue
            driven = list(run)
            begins, ends = self._held[driven[0]], self._held[driven[-1]]
            for leg in range(int(begins), max(math.ceil(ends), int(begins))):
                nodes.append(leg + 0.5)
                if stretch.strength is not None:
                    values.append(stretch.strength)
                elif isinstance(given, Mapping):
                    frame = float(np.interp(leg + 0.5, [self._held[one] for one in driven], driven))
                    values.append(float(np.interp(frame, marks, [given[mark] for mark in marks])))
                else:
                    values.append(given)
        if not nodes:
            return Strength.always(given[marks[0]] if isinstance(given, Mapping) else given)
        return Strength(np.array(nodes), np.array(values))


def _held(nodes: Sequence[float | None]) -> list[float]:
    """Return nodes that never go back: where there is none, that of the frame before, at the beginning the first."""
    held: list[float] = []
    last = next((node for node in nodes if node is not None), 0.0)
    for node in nodes:
        last = last if node is None else node
        held.append(last)
    return held

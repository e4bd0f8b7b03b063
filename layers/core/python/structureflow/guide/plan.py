"""Which flows a segment plays when.

Time along the structure video's motion is counted in *nodes*: node m lies between the *legs* m - 1 and m, and
leg m is the motion from node m to m + 1. Under ``retime`` the legs are the flows of the video themselves and
the frames of the segment stand between nodes, where the video is at their time; under ``adjust`` and ``clip``
each frame is one leg on. Where each step leads to, `spans.led_frames` says.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import GuidanceError
from structureflow.flow.fields import Treatment, adjusted_position
from structureflow.flow.times import ON_NODE, retimed_nodes, uneven_times
from structureflow.guide.strength import Strength


@dataclass(frozen=True, slots=True)
class Leg:
    """The motion between two nodes: flow `index`, mixed with flow `index + 1` by `weight` (0 to below 1)."""

    index: int
    weight: float = 0.0


class Plan(Protocol):
    """What the frames of one segment play: positions along it, and the nodes that they stand at."""

    @property
    def steps(self) -> int:
        """How many steps there are for the segment's frames; step k leads from position k to position k + 1."""
        ...

    @property
    def last_position(self) -> int:
        """The last position that a path may go to."""
        ...

    @property
    def anchorable(self) -> bool:
        """Whether whole nodes are frames of the video, so that paths can be looked at there."""
        ...

    @property
    def led(self) -> Sequence[int]:
        """The frames of the segment that a step leads to, rising: step k leads to frame ``led[k]``.

        Steps beyond `steps` move nothing. In all other frames the video stands still.
        """
        ...

    @property
    def flows_read(self) -> tuple[int, int]:
        """The flows that may be read, start inclusive, stop exclusive, from the start of the video."""
        ...

    @property
    def flows_used(self) -> int:
        """How many different flows move pixels in the `steps` steps."""
        ...

    def consumed(self, frame: int) -> int:
        """Return the position from which the step to an unguided frame of the segment leads."""
        ...

    def flow_into(self, frame: int) -> int | None:
        """Return the flow of the video that mostly leads to an unguided frame; None where none does."""
        ...

    def strength(self, given: float | Mapping[int, float]) -> Strength:
        """Place a motion strength on the legs.

        Args:
            given: a number, or frame numbers of the segment with their numbers, linear between, constant outside.
        """
        ...

    def frame_at(self, node: int) -> int:
        """Return the number of the video's frame that stands at a whole node, from the start of the video."""
        ...

    def frames_looked_at(self) -> list[int]:
        """Return the frames of the video that stand at a position or next to one, rising."""
        ...

    def frame_shown(self, position: int) -> int | None:
        """Return the number of the video's frame that a position shows best; None where it shows none."""
        ...

    def node_at(self, position: int) -> float:
        """Return the node (with fraction) of a position, 0 to `last_position`."""
        ...

    def leg(self, number: int) -> Leg:
        """Return what leg `number` is made of; indices count from the start of the video."""
        ...

    def crosses_cut(self, step: int) -> bool:
        """Say whether the way from position `step` to `step + 1` leads across a scene cut."""
        ...

    def legs_between(self, first_position: int, last_position: int) -> tuple[int, int]:
        """Return the legs that lie between two positions, start inclusive, stop exclusive."""
        ...


class PathPlan:
    """Which source flows the frames of one segment play, and which of the steps cross a scene cut.

    Step k (from 0) leads from position k to position k + 1. Under ``adjust`` and ``clip`` one more than the `steps`
    may be looked at, where the video goes on, for the way into the last end anchor; under ``retime`` it is one of them.
    """

    def __init__(
        self,
        *,
        start: int,
        stop: int,
        total_flows: int,
        led: Sequence[int],
        treatment: Treatment,
        scene_cuts: tuple[int, ...] = (),
        timestamps_s: NDArray[np.float64] | None = None,
    ) -> None:
        """Plan the steps to frames `led` over flows `start` (inclusive) to `stop` (exclusive) of `total_flows`.

        Args:
            start, stop, total_flows: the window of the video.
            led: from `spans.led_frames`.
            treatment: how the flows become steps.
            scene_cuts: flows that lead across one, from the start of the video.
            timestamps_s: the time of every frame of the video places the steps of ``retime`` where its rate varies;
                see `times.uneven_times`.

        Raises:
            GuidanceError: the window is not inside of the video, or the frames are not rising from 0 on.
        """
        if not 0 <= start <= stop <= total_flows:
            raise GuidanceError(
                f"flow window: expected 0 <= start <= stop <= {total_flows}, got start {start}, stop {stop}"
            )
        if any(after <= before for before, after in itertools.pairwise((-1, *led))):
            raise GuidanceError(f"led: expected frames that rise from 0 on, got {list(led)!r:.60}")
        self.led = tuple(led)
        self._start = start
        self._count = stop - start
        self._target = len(self.led)
        self._treatment = treatment
        self._cuts = frozenset(cut - start for cut in scene_cuts if start <= cut <= stop)
        self.steps = min(self._target, self._count) if treatment == "clip" else self._target if self._count else 0
        played = self.steps if treatment == "clip" or not self.steps else self._count
        self._more = treatment != "retime" and start + played < total_flows and self.steps > 0
        self.flows_read = start, start + played + self._more
        self._nodes: list[float] = []
        if treatment == "retime" and self.steps:
            self._nodes = self._retimed(None if timestamps_s is None else uneven_times(timestamps_s, total_flows))

    @property
    def anchorable(self) -> bool:
        """See `Plan.anchorable`; not so for ``adjust``."""
        return self._treatment != "adjust"

    def consumed(self, frame: int) -> int:
        """See `Plan.consumed`."""
        return bisect_left(self.led, frame)

    def flow_into(self, frame: int) -> int | None:
        """See `Plan.flow_into`."""
        step = self.consumed(frame)
        if step >= self.steps or self.led[step] != frame:
            return None
        if self._treatment == "retime":
            before, after = self.node_at(step), self.node_at(step + 1)
            return None if after == before else self._start + min(int((before + after) / 2), self._count - 1)
        leg = self.leg(step)
        return leg.index + (leg.weight > 0.5)

    def strength(self, given: float | Mapping[int, float]) -> Strength:
        """See `Plan.strength`."""
        if not isinstance(given, Mapping):
            return Strength.always(given)
        marks = sorted(given)
        values = np.interp(self.led[: self.steps], marks, [given[mark] for mark in marks])
        if not len(values):
            return Strength.always(given[marks[0]])
        nodes = np.array([self.node_at(position) for position in range(self.steps + 1)])
        return Strength((nodes[:-1] + nodes[1:]) / 2, values)

    def frame_at(self, node: int) -> int:
        """Return the number of the video's frame that stands at a whole node, from the start of the video."""
        return self._start + node

    def frames_looked_at(self) -> list[int]:
        """Return the frames of the video that stand at a position or next to one, rising."""
        nodes = [self.node_at(position) for position in range(self.last_position + 1)]
        return sorted({self.frame_at(whole) for node in nodes for whole in (math.floor(node), math.ceil(node))})

    def frame_shown(self, position: int) -> int | None:
        """Return the number of the video's frame that a position shows best; None past the last step.

        Args:
            position: 0 or more; 0 is the frame that the first step begins at.
        """
        if position > self.steps or not self._count:
            return None
        if self._treatment == "adjust":
            # a step looks at the flow around a position, and leads to the frame behind it
            step = adjusted_position(position - 1, self._count, self._target) + 1 if position else 0.0
            return self._start + math.floor(step + 0.5)
        return self.frame_at(math.floor(self.node_at(position) + 0.5))

    @property
    def flows_used(self) -> int:
        """How many different flows of the video move pixels in the `steps` steps."""
        if self._treatment == "retime":
            return self._count if self._nodes and self._nodes[-1] else 0
        if self._treatment == "clip":
            return self.steps
        used = set()
        for step in range(self.steps):
            leg = self.leg(step)
            used.add(leg.index)
            if leg.weight:
                used.add(leg.index + 1)
        return len(used)

    @property
    def last_position(self) -> int:
        """The last position that a path may go to: `steps`, or one more where the video goes on behind them."""
        return self.steps + self._more

    def node_at(self, position: int) -> float:
        """Return the node (with fraction) of a position, 0 to `last_position`."""
        if not 0 <= position <= self.last_position:
            raise GuidanceError(f"position: expected 0 to {self.last_position}, got {position}")
        if self._treatment != "retime":
            return float(position)
        node = self._nodes[position]
        index = int(node)
        if node == index:
            return node
        if index in self._cuts:
            # between the last frame before a cut and the first one after it there is nothing: take the nearer
            return float(index) if node - index < 0.5 else float(index + 1)
        return node

    def _retimed(self, times_s: NDArray[np.float64] | None) -> list[float]:
        """Return the nodes of all positions; nothing leads to frame 0, which the video begins at."""
        start, count = self._start, self._count
        window = None if times_s is None else times_s[start : start + count + 1] - times_s[start]
        standing = [0.0] if self.led[0] == 0 else []
        steps = self.steps - len(standing)
        return standing + (retimed_nodes(count, steps, window) if steps else [0.0])

    def leg(self, number: int) -> Leg:
        """Return what leg `number` is made of; indices count from the start of the video."""
        if self._treatment != "adjust" or number >= self.steps:
            # past the end of an adjusted window: its last position is its last flow, so the next one follows
            past = number - self.steps + self._count if self._treatment == "adjust" else number
            return Leg(self._start + past)
        position = adjusted_position(number, self._count, self._target)
        index = min(int(position + ON_NODE), self._count - 1)
        weight = position - index
        if weight < ON_NODE:
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
            if any(before + ON_NODE < cut <= position + ON_NODE for cut in self._cuts):
                return True
            # between two cuts on end there is a single frame, and no motion to take
            index = int(position + ON_NODE)
            return position - index > ON_NODE and {index, index + 1} <= self._cuts
        if self._treatment == "adjust":
            return self._count + step - self.steps in self._cuts
        start, stop = self.node_at(step), self.node_at(step + 1)
        return any(start < cut + 1 and stop > cut for cut in self._cuts)

    def legs_between(self, first_position: int, last_position: int) -> tuple[int, int]:
        """Return the legs that lie between two positions, start inclusive, stop exclusive."""
        start, stop = self.node_at(first_position), self.node_at(last_position)
        return int(start), max(math.ceil(stop), int(start))

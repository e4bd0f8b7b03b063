"""How strong motion is along a plan: one number, or key frames over the segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from structureflow.guide.plan import PathPlan


@dataclass(frozen=True, eq=False)
class Strength:
    """How many times as long each leg of a plan is made.

    Attributes:
        nodes: rising, where on the plan's nodes the strength is known.
        values: it, there.
    """

    nodes: NDArray[np.float64]
    values: NDArray[np.float64]

    @classmethod
    def always(cls, strength: float) -> Strength:
        """Return the same strength for every leg."""
        return cls(np.zeros(1), np.array([strength], np.float64))

    @classmethod
    def of(cls, strength: float | Mapping[int, float], plan: PathPlan, frames: Sequence[int]) -> Strength:
        """Place a strength on the legs of a plan.

        Args:
            strength: a number, or frame numbers of the segment with their numbers, linear between, constant outside.
            plan: its step k leads to unguided frame k.
            frames: the numbers of the unguided frames, rising.
        """
        if not isinstance(strength, Mapping):
            return cls.always(strength)
        marks = sorted(strength)
        values = np.interp(frames[: plan.steps], marks, [strength[mark] for mark in marks])
        if not len(values):
            return cls.always(strength[marks[0]])
        nodes = np.array([plan.node_at(position) for position in range(plan.steps + 1)])
        return cls((nodes[:-1] + nodes[1:]) / 2, values)

    @property
    def constant(self) -> float | None:
        """The strength of every leg, where it is the same."""
        first = float(self.values[0])
        return first if bool((self.values == first).all()) else None

    def __call__(self, leg: int) -> float:
        """Return the strength of leg number `leg`."""
        return float(np.interp(leg + 0.5, self.nodes, self.values))


#: Motion as it is.
ONCE: Final = Strength.always(1.0)

"""How strong motion is along a plan: one number, or key frames over the segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray


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

"""What the motion of a segment needs from outside besides flows: the structure video's own frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]


class StructureFrames(Protocol):
    """The frames of the structure video at the size of the flow grid, as often as they are asked for."""

    def gray(self, indices: Sequence[int]) -> list[Gray]:
        """Return the frames of these numbers, in the order asked for.

        Args:
            indices: frame numbers from the start of the video; a few dozen at a time.

        Returns:
            One ``(h, w)`` uint8 each, BT.601 luma, on the flow grid's area; not to be changed.

        Raises:
            StructureFramesError: they cannot be had any more.
        """
        ...

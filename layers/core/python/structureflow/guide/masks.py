"""The values of mask and guide frames that every part agrees on."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

MaskValue = Literal[0, 255]

#: Mask value of frames that the generator keeps: guided, or filled by motion.
KEEP: Final = 0
#: Mask value of frames that the generator makes.
GENERATE: Final = 255
#: Every channel of the pixels of a frame that nothing is known of.
MID_GREY: Final = 128


def grey_frame(height: int, width: int) -> NDArray[np.uint8]:
    """Return a frame that says nothing: ``(height, width, 3)`` uint8 RGB, all 128."""
    return np.full((height, width, 3), MID_GREY, np.uint8)


def mask_frame(height: int, width: int, value: MaskValue, out: NDArray[Any] | None = None) -> NDArray[np.uint8]:
    """Return a mask frame of one value: ``(height, width, 3)`` uint8, white (255) = generate, black (0) = keep.

    Args:
        height, width: in pixels.
        value: 0 or 255.
        out: ``(height, width, 3)`` uint8 to write to and return.
    """
    if out is None:
        return np.full((height, width, 3), value, np.uint8)
    out[...] = value
    return out

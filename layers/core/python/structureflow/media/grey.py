"""What stands where a picture says nothing: mid-grey, as in every guide."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

MID_GREY: Final = 128


def on_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay ``(H, W, 4) uint8 RGBA``, straight alpha, on mid-grey (128): ``(H, W, 3) uint8 RGB``, fresh memory."""
    alpha = image[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(image[..., :3])
    share = alpha.astype(np.uint16)
    blended = image[..., :3] * share + MID_GREY * (255 - share) + 127
    return (blended // 255).astype(np.uint8)

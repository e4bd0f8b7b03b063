"""Where flows of both directions agree, and where they lead out of the picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import Field32, pull


def visible_where(there: Field32, back: Field32) -> NDArray[np.bool_]:
    """Say which pixels are also seen at the other end of a motion: forward-backward consistency.

    A pixel is visible where it lands inside of the frame and coming back ends near its start:
    ``|there(x) + back(x + there(x))|^2 < 0.01 (|there|^2 + |back|^2) + 0.5`` (Sundaram, Brox and Keutzer,
    "Dense point trajectories by GPU-accelerated large displacement optical flow", ECCV 2010).

    Args:
        there: ``(H, W, 2)`` float32, finite, from the pixels in question to the other frame.
        back: ``(H, W, 2)`` float32, finite, from the other frame to this one.

    Returns:
        ``(H, W)`` bool.
    """
    height, width = there.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width]
    landing = there + np.stack([columns, rows], axis=-1).astype(np.float32)
    return agree(there, pull(back, there)) & inside(landing, (height, width))


def agree(there: Field32, back: Field32) -> NDArray[np.bool_]:
    """Say where a way there and the way back from where it ends cancel, by the rule of `visible_where`.

    Args:
        there, back: ``(H, W, 2)`` float32; `back` is already sampled where `there` leads to.

    Returns:
        ``(H, W)`` bool.
    """
    # with s = there + back and d = there - back, |there|^2 + |back|^2 = (|s|^2 + |d|^2) / 2
    miss = there + back
    miss *= miss
    length = there - back
    length *= length
    miss *= np.float32(0.995)
    length *= np.float32(0.005)
    miss -= length
    consistent: NDArray[np.bool_] = miss[..., 0] + miss[..., 1] < np.float32(0.5)
    return consistent


def inside(places: Field32, shape: tuple[int, int], beyond_px: float = 0.0) -> NDArray[np.bool_]:
    """Say which places, ``(h, w, 2)`` float32 (x, y), lie on a pixel of a frame of `shape` (height, width).

    `beyond_px` is how far outside of it still counts.
    """
    edge = 0.5 + beyond_px
    mask = cv2.inRange(places, (-edge, -edge, 0, 0), (shape[1] - 1 + edge, shape[0] - 1 + edge, 0, 0))
    within: NDArray[np.bool_] = mask > 0
    return within

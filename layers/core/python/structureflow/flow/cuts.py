"""Scene cuts: between which frames most of the picture has no counterpart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.flow.engines import Flow

#: Above this, most of the picture has no counterpart in the next frame (`discontinuity`).
CUT_THRESHOLD: Final = 0.25


def discontinuity(first: NDArray[np.uint8], second: NDArray[np.uint8], forward: Flow, backward: Flow) -> float:
    """Measure how little of the second frame the flow explains by the first: 0 (all) to 1 (nothing).

    The product of two shares: of local contrast that does not correlate after motion compensation (the best
    of: pulled backward, pulled forward, not moved), and of pixels at which the two directions contradict each
    other. A pan correlates and agrees, a flash correlates, noise agrees; two scenes do neither.

    Args:
        first, second: ``(h, w) uint8`` gray or ``(h, w, 3) uint8 RGB``.
        forward, backward: their flows, ``(h, w, 2) float32``.
    """
    if first.ndim == 3:
        first, second = (
            cast("NDArray[np.uint8]", cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) for image in (first, second)
        )
    height, width = first.shape
    window = max(5, width // 12 | 1)
    one, two = _local_contrast(first, window), _local_contrast(second, window)
    likeness = _correlation(one, two)
    if likeness > 1 - CUT_THRESHOLD:
        return 0.0
    grid = np.dstack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)))
    pulled_back, pulled_forward = _bounded(backward), _bounded(forward)
    likeness = max(
        likeness,
        _correlation(_local_contrast(_pull(first, grid + pulled_back), window), two),
        _correlation(_local_contrast(_pull(second, grid + pulled_forward), window), one),
        0.0,
    )
    # The occlusion rule of Sundaram, Brox and Keutzer, "Dense Point Trajectories", ECCV 2010.
    there = _pull(pulled_forward, grid + pulled_back)
    error = ((pulled_back + there) ** 2).sum(-1)
    length = (pulled_back**2).sum(-1) + (there**2).sum(-1)
    return (1 - likeness) * float((error > 0.01 * length + 0.5).mean())


def find_cuts(seams: Iterable[float]) -> tuple[int, ...]:
    """Return the flow numbers at which `discontinuity` exceeds `CUT_THRESHOLD`."""
    return tuple(index for index, seam in enumerate(seams) if seam > CUT_THRESHOLD)


def _bounded(flow: Flow) -> Flow:
    height, width = flow.shape[:2]
    limit = np.float32(4 * max(height, width))
    return np.clip(flow, -limit, limit)


def _pull(image: NDArray[Any], position: NDArray[np.float32]) -> NDArray[Any]:
    return cast(
        "NDArray[Any]",
        cv2.remap(image, position, cast("Any", None), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
    )


def _local_contrast(image: NDArray[np.uint8], window: int) -> NDArray[np.float32]:
    plain = image.astype(np.float32)
    return plain - cast("NDArray[np.float32]", cv2.blur(plain, (window, window)))


def _correlation(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    """Return the correlation of two contrasts; 0 where a picture has less than a grey level of it."""
    energy = float(cv2.norm(one)) * float(cv2.norm(two))
    return float(np.vdot(one, two)) / energy if energy > one.size else 0.0

"""What the first frame shows around points, compared with what a later one shows around where they may be."""

from __future__ import annotations

from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.guide.ports import Gray

Matrices = NDArray[np.float64]
"""``(K, 2, 3)``: each brings places of the first frame to places of a later one."""

#: Half the side of a patch that tells one layer from another: as little as reaches across an outline.
_NEAR_PX: Final = 1
#: The same of a patch that is looked for, of which every second pixel counts.
_WIDE_PX: Final = 8
_WIDE_STEP: Final = 2
#: So many samples are taken at once.
_SAMPLES: Final = 2**16
#: Levels that a place must look better for each pixel that it is farther away.
_FAR_COSTS: Final = 0.1
#: Steps of a search, in pixels: from coarse to fine, each around the best of the one before.
_STEPS_PX: Final = (2.0, 1.0, 0.25)
_FINE_STEPS: Final = 2


class Patches:
    """Patches of the first frame around points; differences of light do not count."""

    def __init__(self, first: Gray, begin: NDArray[np.float64]) -> None:
        """Keep what `first`, ``(h, w)`` uint8, shows around the places `begin`, ``(N, 2)``."""
        self._begin = begin
        self._near = _Window(first, begin, _NEAR_PX, 1)
        self._wide = _Window(first, begin, _WIDE_PX, _WIDE_STEP)

    def unlike(self, now: Gray, points: NDArray[np.intp], matrices: Matrices) -> NDArray[np.float64]:
        """Return how unlike the frame `now` is where `matrices` lead to: ``(K,)`` levels, for the points ``(K,)``."""
        return self._near.unlike(now, points, matrices, np.zeros((1, 2)))[:, 0]

    def found(self, now: Gray, points: NDArray[np.intp], matrices: Matrices, reach_px: float) -> Matrices:
        """Look for points around where `matrices` lead to.

        Args:
            now: the frame.
            points: ``(K,)``.
            matrices: where to begin.
            reach_px: how far to look, in either direction.

        Returns:
            The matrices, each moved by what makes the frame look most like the first one.
        """
        moved = matrices.copy()
        rows = np.arange(len(points))
        for number, step in enumerate(_STEPS_PX):
            count = max(1, round(reach_px / step)) if not number else _FINE_STEPS
            along = np.arange(-count, count + 1) * step
            shifts = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)
            unlike = self._wide.unlike(now, points, moved, shifts) + _FAR_COSTS * np.hypot(*shifts.T)
            moved[rows, :, 2] += shifts[unlike.argmin(axis=1)]
        return moved


class _Window:
    """Patches of one size, weighted towards their middle."""

    def __init__(self, first: Gray, begin: NDArray[np.float64], radius: int, step: int) -> None:
        across = np.arange(-radius, radius + 1, step, dtype=np.float64)
        self._offsets = np.stack(np.meshgrid(across, across), axis=-1).reshape(-1, 2)
        weights = np.exp(-(self._offsets**2).sum(axis=1) / (2 * (radius / 1.5) ** 2))
        self._weights = (weights / weights.sum()).astype(np.float32)
        self._places = begin[:, None] + self._offsets
        self._shown = self._of(_sampled(first.astype(np.float32), self._places))

    def _of(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        plain: NDArray[np.float32] = samples - (samples @ self._weights)[..., None]
        return plain

    def unlike(
        self, now: Gray, points: NDArray[np.intp], matrices: Matrices, shifts: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the differences ``(K, S)`` at places moved by `shifts`, ``(S, 2)``."""
        found = np.empty((len(points), len(shifts)))
        plain = now.astype(np.float32)
        batch = max(1, _SAMPLES // (len(shifts) * len(self._offsets)))
        for first in range(0, len(points), batch):
            some = slice(first, first + batch)
            places = np.einsum("kij,koj->koi", matrices[some, :, :2], self._places[points[some]])
            places += matrices[some, None, :, 2]
            samples = self._of(_sampled(plain, places[:, None] + shifts[:, None]))
            found[some] = np.abs(samples - self._shown[points[some], None]) @ self._weights
        return found


def _sampled(picture: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """Sample a picture at places ``(..., 2)`` (x, y), bilinearly; past the edge, the edge."""
    flat = np.clip(places.reshape(-1, 2), -(2.0**14), 2.0**14).astype(np.float32)
    # one row of any length: OpenCV keeps places in 16 bits, so the list of places is folded into rows
    rows = -(-len(flat) // 1024)
    folded = np.zeros((rows * 1024, 2), np.float32)
    folded[: len(flat)] = flat
    samples = cv2.remap(
        picture,
        folded.reshape(rows, 1024, 2),
        cast("Any", None),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(samples, np.float32).reshape(-1)[: len(flat)].reshape(places.shape[:-1])

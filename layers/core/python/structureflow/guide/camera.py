"""Split motion into that of the camera and that of what moves by itself.

The camera's motion from one frame to the next is the homography that most of the picture agrees on, found by RANSAC
(Fischler and Bolles, 1981; OpenCV's ``findHomography``) on a thinned flow; where four points are no fit, an affine map
or a shift. It is exact for a turning or zooming camera and for flat scenes; what stands nearer than most when the
camera travels (parallax) counts as moving by itself, and so does a background behind a subject that fills most of the
frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import Field32, sample
from structureflow.models.job import MotionPart

Homography = NDArray[np.float64]
"""3x3, from (x, y, 1) to places times w; pixels of the flow grid."""
Leg = Callable[[int], Field32]

#: About so many vectors are looked at.
_SAMPLED: Final = 3000
#: A vector agrees within so many pixels of the grid: flows are within half a pixel where they are right.
_AGREES_PX: Final = 0.75
#: A map that fewer vectors agree on is no camera's.
_LEAST_SHARE: Final = 0.2
#: What is left of the motion counts as the subject's from this length on, and fully from that: flows are not exact.
_STILL_PX: Final = 0.2
_MOVES_PX: Final = 0.5


def global_motion(flow: Field32) -> Homography:
    """Return the motion that most of a flow agrees on.

    Args:
        flow: ``(h, w, 2)`` float32, finite, in pixels.

    Returns:
        3x3 float64 that brings (x, y) to ``(x, y) + flow`` for most pixels; it keeps the frame's corners in order.
    """
    height, width = flow.shape[:2]
    stride = max(1, round(math.sqrt(height * width / _SAMPLED)))
    rows, columns = np.mgrid[stride // 2 : height : stride, stride // 2 : width : stride]
    here = np.stack([columns, rows], axis=-1).reshape(-1, 2).astype(np.float64)
    there = here + flow[stride // 2 :: stride, stride // 2 :: stride].reshape(-1, 2)
    for fit in (_homography, _affine):
        found = fit(here, there)
        if found is not None and _is_a_view(found, height, width):
            return found
    shift = np.eye(3)
    shift[:2, 2] = np.median(there - here, axis=0)
    return shift


def _homography(here: NDArray[np.float64], there: NDArray[np.float64]) -> Homography | None:
    if len(here) < 8:
        return None
    found, agrees = cv2.findHomography(here, there, cv2.RANSAC, _AGREES_PX, maxIters=500, confidence=0.999)
    return _if_shared(found, agrees)


def _affine(here: NDArray[np.float64], there: NDArray[np.float64]) -> Homography | None:
    if len(here) < 6:
        return None
    found, agrees = cv2.estimateAffine2D(here, there, method=cv2.RANSAC, ransacReprojThreshold=_AGREES_PX)
    # it returns None where it finds nothing, whatever its annotations say
    whole: Any = found
    return _if_shared(None if whole is None else np.vstack([whole, [0, 0, 1]]), agrees)


def _if_shared(found: Any, agrees: Any) -> Homography | None:
    """Return what OpenCV found, None where that is nothing, or what too few vectors agree on."""
    if found is None or agrees is None or not np.isfinite(found).all() or agrees.mean() < _LEAST_SHARE:
        return None
    return np.asarray(found, np.float64)


def _is_a_view(found: Homography, height: int, width: int) -> bool:
    """Tell whether a map shows the frame from somewhere else: neither folded, nor blown up beyond reason."""
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], np.float64) @ found.T
    if (corners[:, 2] <= 0.1).any():
        return False
    places = corners[:, :2] / corners[:, 2:]
    area = 0.5 * sum(
        float(places[i - 1, 0] * places[i, 1] - places[i, 0] * places[i - 1, 1]) for i in range(len(places))
    )
    return 0.25 < area / (height * width) < 4


class PartLegs:
    """The legs of one part of the motion, seen from an anchor, leg m ``strength(m)`` times as long.

    The camera's part is the global motion of each leg. The subject's is what a camera that stands still would see of
    the rest: it is shown where the subject is in the *anchor's* view, so an object that the camera follows moves
    across the picture. Where that view sees what the frame does not, nothing moves.
    """

    def __init__(self, leg: Leg, start: float, part: MotionPart, strength: Callable[[int], float]) -> None:
        """Split `leg`.

        Args:
            leg: ``leg(m)`` pulls from node m + 1 to node m, ``(h, w, 2)`` float32; asked for in any order.
            start: node of the anchor; no leg before it is asked for.
            part: ``camera`` or ``subject``.
            strength: of a leg, 0 or more.
        """
        self._leg = leg
        self._start = start
        self._first = math.floor(start)
        self._part = part
        self._strength = strength
        self._motions: dict[int, Homography] = {}
        #: From the view of a node to that of the anchor.
        self._views: dict[int, Homography] = {}
        self._kept: dict[int, Field32] = {}

    def __call__(self, number: int) -> Field32:
        """Return leg `number`, ``(h, w, 2)`` float32, intact until the second call after it; not to be changed."""
        if number not in self._kept:
            leg = self._leg(number)
            made = self._camera(number, leg) if self._part == "camera" else self._subject(number, leg)
            strength = self._strength(number)
            if strength != 1:
                made *= np.float32(strength)
            self._kept = {**dict(list(self._kept.items())[-1:]), number: made}
        return self._kept[number]

    def _camera(self, number: int, leg: Field32) -> Field32:
        places = _grid(*leg.shape[:2])
        return (_moved(self._motion(number, leg), places) - places).astype(np.float32)

    def _subject(self, number: int, leg: Field32) -> Field32:
        height, width = leg.shape[:2]
        places = _grid(height, width)
        # after _view of the node behind, which may read other legs
        after, before = self._view(number + 1), self._view(number)
        leg = self._leg(number)
        seen_at = _moved(np.linalg.inv(after), places).astype(np.float32)
        inside = (seen_at[..., 0] >= 0) & (seen_at[..., 0] <= width - 1)
        inside &= (seen_at[..., 1] >= 0) & (seen_at[..., 1] <= height - 1)
        limit = np.float32(4 * max(height, width))
        np.clip(seen_at, -limit, limit, out=seen_at)
        came_from = seen_at + sample(leg, seen_at)
        rest = (_moved(before, came_from.astype(np.float64)) - places).astype(np.float32)
        length = cv2.blur(cv2.magnitude(rest[..., 0], rest[..., 1]), (5, 5))
        share = np.clip((length - _STILL_PX) / (_MOVES_PX - _STILL_PX), 0, 1)
        rest *= (share * inside)[..., None].astype(np.float32)
        return np.ascontiguousarray(rest)

    def _motion(self, number: int, leg: Field32 | None = None) -> Homography:
        if number not in self._motions:
            self._motions[number] = global_motion(self._leg(number) if leg is None else leg)
        return self._motions[number]

    def _view(self, node: int) -> Homography:
        """Return what brings places of a node's frame to the anchor's."""
        if not self._views:
            share = self._start - self._first
            begin = np.eye(3)
            if share:
                leg = self._leg(self._first)
                begin = np.linalg.inv(_partial(self._motion(self._first, leg), share, *leg.shape[:2]))
            self._views[self._first] = begin
        known = node
        while known not in self._views:
            known -= 1
        for number in range(known, node):
            view = self._views[number] @ self._motion(number)
            self._views[number + 1] = view / view[2, 2]
        return self._views[node]


def _partial(motion: Homography, share: float, height: int, width: int) -> Homography:
    """Return a share of a motion: that which moves the frame's corners by it."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    moved = corners + share * (_moved(motion, corners) - corners)
    return np.asarray(cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32)), np.float64)


def _moved(motion: Homography, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move (x, y), ``(..., 2)``; what would lie behind the camera stays at a great distance."""
    x, y = places[..., 0], places[..., 1]
    scale = motion[2, 0] * x + motion[2, 1] * y + motion[2, 2]
    scale = np.maximum(scale, 1e-3)
    return np.stack(
        [
            (motion[0, 0] * x + motion[0, 1] * y + motion[0, 2]) / scale,
            (motion[1, 0] * x + motion[1, 1] * y + motion[1, 2]) / scale,
        ],
        axis=-1,
    )


def _grid(height: int, width: int) -> NDArray[np.float64]:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns, rows], axis=-1).astype(np.float64)

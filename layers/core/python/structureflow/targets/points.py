"""Follow points of a segment's first frame through it, along the motion that the guide is made of."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import Field32, sample
from structureflow.guide.travel import Move

Points = NDArray[np.float64]
"""(x, y) of N points, ``(N, 2)``."""

#: A place is a point's if the way from there ends so near to where it began, in pixels of the grid.
_MEETS_PX: Final = 0.75
_FIXED_POINT_STEPS: Final = 6
#: From this visibility on (of 255) the first frame shows a pixel; soft edges lie outside of what it shows.
_SEEN: Final = 64
#: A lost point goes with those that stood nearest to it, of as many as these.
_NEAREST: Final = 24
#: Companions went at the point's own pace when it was known last: within so many pixels, and a share of their distance
#: at the beginning, since things turn and grow.
_SAME_PACE_PX: Final = 0.5
_SAME_PACE_SHARE: Final = 0.04
#: A lost point is believed to be where the flow leads, and seen, while its companions say so too: so near (and a share
#: of the step), and so long.
_AGREES_PX: Final = 0.75
_AGREES_SHARE: Final = 0.15
_BELIEVED_FRAMES: Final = 8


class PointTracker:
    """Where points of the first frame are now, and whether they are seen.

    A point is where a pixel is whose way back ends at the point's beginning, if the evidence says that the first frame
    shows that pixel. One that is lost follows the flow as long as its companions (near points that went at its pace)
    agree; after that it goes with them, hidden, until it is found again where they have brought it.

    Attributes:
        places: ``(N, 2)`` float64, where the points are, in pixels of the flow grid; finite.
        visible: ``(N,)`` bool.
    """

    def __init__(self, points: Points, shape: tuple[int, int]) -> None:
        """Begin with `points` of a grid of `shape` (height, width)."""
        self._begin = np.asarray(points, np.float64)
        self._shape = shape
        self._own = _inside(self._begin, shape)
        self.places = self._begin.copy()
        self.visible = self._own.copy()
        self._known = self._own.copy()
        self._pace = np.zeros_like(self._begin)
        self._lost_for = np.zeros(len(self._begin), np.intp)
        self._companions: dict[int, NDArray[np.intp]] = {}

    def move(self, move: Move) -> None:
        """Go on to the next frame."""
        if move.step is None or move.way is None or move.seen is None:
            # across a cut, or past the last flow, nothing is known
            self.visible = np.zeros_like(self.visible)
            return
        step = move.step if move.steady is None else move.steady
        expected = self.places + _at(step, self.places)
        seen = cv2.resize(move.seen, self._shape[::-1], interpolation=cv2.INTER_LINEAR) >= _SEEN
        places, found = self._solved(move.way, seen, expected)
        self._settle(places, found & self._own, expected)

    def _solved(self, way: Field32, seen: NDArray[np.bool_], starts: Points) -> tuple[Points, NDArray[np.bool_]]:
        """Find by fixed point, from `starts`, the places whose way leads to where the points began."""
        begin, places = self._begin, starts.copy()
        for _ in range(_FIXED_POINT_STEPS):
            places = begin - _at(way, places)
        miss = np.abs(places + _at(way, places) - begin).max(axis=1, initial=0)
        found = (miss < _MEETS_PX) & _inside(places, self._shape)
        cells = self._cells(places)
        return places, found & seen[cells[:, 1], cells[:, 0]]

    def _settle(self, places: Points, found: NDArray[np.bool_], expected: Points) -> None:
        """Take the places that were found; the others follow the flow, or those around them."""
        before = self.places
        now = np.where(found[:, None], places, expected)
        visible = found.copy()
        self._lost_for = np.where(found, 0, self._lost_for + 1)
        for point in np.flatnonzero(~found & self._own).tolist():
            if self._lost_for[point] == 1:
                self._companions[point] = self._at_its_pace(point)
            companions = self._companions[point]
            guess = self._with_companions(point, companions[found[companions]], before, now)
            if guess is None:
                continue
            most = _AGREES_PX + _AGREES_SHARE * np.hypot(*(guess - before[point]))
            agrees = bool(np.hypot(*(expected[point] - guess)) < most)
            if not agrees:
                now[point] = guess
            visible[point] = agrees and self.visible[point] and self._lost_for[point] <= _BELIEVED_FRAMES
        limit = 4.0 * max(self._shape)
        now = np.clip(now, -limit, limit)
        self._pace = now - before
        self.places = now
        self.visible = visible & _inside(now, self._shape)
        self._known = found

    def _at_its_pace(self, point: int) -> NDArray[np.intp]:
        """Return the points near this one at the beginning that went as it did when it was known last."""
        others = np.flatnonzero(self._known)
        others = others[others != point]
        far = np.hypot(*(self._begin[others] - self._begin[point]).T)
        order = np.argsort(far, kind="stable")[:_NEAREST]
        others, far = others[order], far[order]
        apart = np.hypot(*(self._pace[others] - self._pace[point]).T)
        return np.asarray(others[apart < _SAME_PACE_PX + _SAME_PACE_SHARE * far], np.intp)

    def _with_companions(
        self, point: int, companions: NDArray[np.intp], before: Points, now: Points
    ) -> NDArray[np.float64] | None:
        """Return where a point is if it goes on with its companions; None without any."""
        if not companions.size:
            return None
        if companions.size >= 3:
            # None where it finds nothing, whatever its annotations say
            moved: Any = cv2.estimateAffinePartial2D(
                before[companions], now[companions], method=cv2.RANSAC, ransacReprojThreshold=1.0
            )[0]
            if moved is not None and np.isfinite(moved).all():
                return np.asarray(moved[:, :2] @ before[point] + moved[:, 2], np.float64)
        return np.asarray(before[point] + np.median(now[companions] - before[companions], axis=0), np.float64)

    def _cells(self, places: Points) -> NDArray[np.intp]:
        most = np.array([self._shape[1] - 1, self._shape[0] - 1])
        return np.clip(np.rint(places), 0, most).astype(np.intp)


def _at(field: Field32, places: Points) -> Points:
    """Sample a field at `places`; past the edge, the edge."""
    if not len(places):
        return np.zeros((0, 2))
    # OpenCV keeps places in 16 bits
    column = np.clip(places, -(2.0**14), 2.0**14).astype(np.float32)[:, None]
    return np.asarray(sample(field, column)[:, 0], np.float64)


def _inside(places: Points, shape: tuple[int, int]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (
        (places[:, 0] >= -0.5)
        & (places[:, 0] <= shape[1] - 0.5)
        & (places[:, 1] >= -0.5)
        & (places[:, 1] <= shape[0] - 0.5)
    )
    return inside

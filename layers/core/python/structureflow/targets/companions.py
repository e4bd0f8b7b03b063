"""Which points go with one another: groups that one similarity brings from the first frame to a later one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""(x, y) of N points, ``(N, 2)``."""

#: A point's companions are among those that stood nearest to it, of as many as these.
_NEAREST: Final = 32
#: Things that points may lie on, in the neighbourhood of one.
_MOST_GROUPS: Final = 3
#: Points of a group lie so near to where its similarity brings them, in pixels of the grid.
_WITHIN_PX: Final = 1.5
FEWEST: Final = 3
#: No thing grows or shrinks by more.
_LEAST_SCALE: Final = 0.4
_MOST_SCALE: Final = 2.5
#: A similarity that brings a point farther than so much (and twice its step) from where it was is of something else.
_LEAP_PX: Final = 6.0
#: A member that is farther from where the similarity brings it lies on something else.
_ASTRAY_PX: Final = 6.0
#: Of what a layer looked like, the share of frames in which it must have looked so good: it may be hidden in others.
_GOOD_FRAMES: Final = 0.2


@dataclass
class Layer:
    """One thing that a point may lie on.

    Attributes:
        members: the points that lie on it, by number.
        matrix: ``(2, 3)``, from the first frame to the frame of the moment.
        trust: its differences count so many times.
        unlike: how unlike the first frame the point's place looked, in levels, frame by frame.
    """

    members: NDArray[np.intp]
    matrix: NDArray[np.float64]
    trust: float = 1.0
    unlike: list[float] = field(default_factory=list)

    def place(self, begin: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where a place of the first frame is, if it lies on this."""
        return np.asarray(self.matrix[:, :2] @ begin + self.matrix[:, 2], np.float64)

    def brought(self, begin: Points) -> Points:
        """Return where places ``(M, 2)`` of the first frame are, if they lie on this."""
        return np.asarray(begin @ self.matrix[:, :2].T + self.matrix[:, 2], np.float64)

    def _moved(self, by: NDArray[np.float64]) -> NDArray[np.float64]:
        matrix = self.matrix.copy()
        matrix[:, 2] += by
        return matrix

    @property
    def score(self) -> float:
        """How unlike, in all: the less, the likelier."""
        return self.trust * float(np.quantile(self.unlike, _GOOD_FRAMES)) if self.unlike else self.trust

    def go_on(
        self, begin: Points, now: Points, found: NDArray[np.bool_], own: NDArray[np.float64], step: NDArray[np.float64]
    ) -> bool:
        """Go to the next frame with the members that were found there; say whether there were enough of them.

        Args:
            begin, now: ``(N, 2)``, all points in the first frame and in the next one.
            found: which of them were found.
            own: where the point in question was in the first frame.
            step: of the flow where it was.
        """
        members = self.members[found[self.members]]
        before = self.place(own)
        fitted = similarity(begin[members], now[members])
        ways = [] if fitted is None else [fitted[0]]
        brought = self.brought(begin[members])
        if members.size:
            ways.append(self._moved(np.median(now[members] - brought, axis=0)))
        most = _LEAP_PX + 2 * np.hypot(*step)
        ways = [way for way in ways if np.hypot(*(way[:, :2] @ own + way[:, 2] - before - step)) <= most]
        if not ways:
            self.matrix = self._moved(step)
            return False
        self.matrix = ways[0]
        astray = members[np.hypot(*(now[members] - self.brought(begin[members])).T) > _ASTRAY_PX]
        self.members = np.setdiff1d(self.members, astray)
        members = np.setdiff1d(members, astray)
        return len(members) >= FEWEST


def similarity(
    begin: Points, now: Points, within_px: float = _WITHIN_PX
) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """Return the similarity ``(2, 3)`` that brings most points from `begin` to `now`, and which; None without any."""
    if len(begin) < FEWEST:
        return None
    # None where it finds nothing, whatever its annotations say
    matrix: Any
    matrix, inliers = cv2.estimateAffinePartial2D(begin, now, method=cv2.RANSAC, ransacReprojThreshold=within_px)
    if matrix is None or not np.isfinite(matrix).all():
        return None
    which = inliers.ravel().astype(np.bool_)
    if not _LEAST_SCALE < np.hypot(matrix[0, 0], matrix[1, 0]) < _MOST_SCALE or which.sum() < FEWEST:
        return None
    return np.asarray(matrix, np.float64), which


def groups_around(point: int, among: NDArray[np.intp], begin: Points, now: Points) -> list[Layer]:
    """Return the things that points near to one lie on, those with most points first.

    Args:
        point: the one.
        among: numbers of points whose places are known.
        begin, now: places ``(N, 2)`` of all points in the first frame and in the one of the moment.
    """
    far = np.hypot(*(begin[among] - begin[point]).T)
    rest = among[np.argsort(far, kind="stable")[:_NEAREST]]
    found = []
    for _ in range(_MOST_GROUPS):
        fitted = similarity(begin[rest], now[rest])
        if fitted is None:
            break
        matrix, which = fitted
        found.append(Layer(rest[which], matrix))
        rest = rest[~which]
    return found

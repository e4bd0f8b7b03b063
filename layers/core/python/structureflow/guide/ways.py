"""The ways from later frames back to one anchor: composed alone, or anchored in the structure video's frames."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.errors import GuidanceError
from structureflow.flow.fields import Field32, invert_flow
from structureflow.guide.anchored import AnchoredPath, RefinedLegs
from structureflow.guide.camera import PartLegs
from structureflow.guide.evidence import BEYOND_PX, DOUBT_FLOOR, STRIDE, landing
from structureflow.guide.path import Carry, Trace
from structureflow.guide.refine import Plane
from structureflow.models.job import MotionPart

#: What an anchor that does not show a pixel still weighs, so that a pixel which none shows is shared by time.
_LEAST_VISIBLE: Final = 0.3
#: The same for anchored ways, whose difference from the frame says more.
_LEAST_SEEN: Final = 0.6
#: A way weighs as much as this power of its difference is small.
_DOUBT_POWER: Final = np.float32(3.5)
#: A pixel is not to be kept whose difference is so many times that of most pixels, and more than 8 levels.
_FAR: Final = 3.5
_ALIKE: Final = 8.0
#: What a way shows says more than how near its anchor is: nearness counts by this power, but fully so few frames from
#: an anchor, that the frame next to it looks like it.
_NEARNESS_POWER: Final = 0.25
_NEAR_FRAMES: Final = 3
#: Surer than this (a logarithm of odds) nothing has to be.
_SURE: Final = 30.0
_OCCLUSION_MARGIN_PX: Final = 3
_FEATHER_PX: Final = 5


#: What of the grid pictures show: from and to, downwards and across, in pixels of the grid.
Shown = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Way:
    """How one anchor reaches one frame.

    Attributes:
        displacement: ``(h, w, 2)`` float32 pulling from the anchor.
        visibility: ``(h', w')`` uint8, 255 where the anchor shows the pixel, soft at the edges; None where nobody asks.
        seen: the same, 255 or 0, to the pixel, without those that look least like the frame: what is worth keeping.
        unlike: ``(h', w')`` float32, how unlike frame and anchor look along the way, in levels; None if unknown.
        held: the same without what flickers, which shares are decided by; there if `unlike` is.
    """

    displacement: Field32
    visibility: NDArray[np.uint8] | None = None
    seen: NDArray[np.uint8] | None = None
    unlike: Plane | None = None
    held: Plane | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a frame stands between two anchors.

    Attributes:
        since: frames from the start anchor to it; 0: it is the anchor.
        until: frames from it to the end anchor.
    """

    since: int
    until: int

    @property
    def share(self) -> float:
        """0 at the start anchor, 1 at the end anchor."""
        return self.since / (self.since + self.until)

    def leaning(self, power: float = 1, near_frames: int = 0) -> float:
        """Return the logarithm of the end anchor's odds by time alone.

        Args:
            power: of the times that are compared.
            near_frames: so near to one anchor the other loses with the square of the distance.
        """
        if not self.since or not self.until:
            return _SURE if self.since else -_SURE
        near = max(1, near_frames)
        kept = min(1.0, self.since / near) / min(1.0, self.until / near)
        return power * math.log(self.since / self.until) + 2 * math.log(kept)


class Ways(Protocol):
    """Ways to one anchor, node by node away from it."""

    def to(self, node: float, *, judged: bool = True) -> Way:
        """Return the way from `node` (not before the last one asked for); its visibility only if `judged`.

        What is returned stays intact.
        """
        ...

    def copy(self) -> Ways:
        """Return one that goes on from here on its own."""
        ...


class ComposedWays:
    """Flows joined end to end; what is hidden is told by the way back."""

    def __init__(self, carry: Carry, trace: Trace | None, shown: Shown | None = None) -> None:
        """Take `carry` for displacements and `trace`, if given, for visibility; anchors are pictures of `shown`."""
        self._carry = carry
        self._trace = trace
        self._shown = shown

    def to(self, node: float, *, judged: bool = True) -> Way:
        """See `Ways.to`."""
        displacement = self._carry.to(node).copy()
        if self._trace is None:
            return Way(displacement)
        way = self._trace.to(node)
        if not judged:
            return Way(displacement)
        visible = self._trace.sees(displacement, way) & _in_picture(displacement, self._shown)
        return Way(displacement, soft_visibility(visible), _levels(visible))

    def copy(self) -> ComposedWays:
        """See `Ways.copy`."""
        return ComposedWays(self._carry.copy(), self._trace.copy() if self._trace else None, self._shown)


class AnchoredWays:
    """Paths that were refined against the structure video's frames, with all of their evidence."""

    def __init__(self, path: AnchoredPath, shown: Shown | None = None) -> None:
        """Take the ways of `path`; the anchor is a picture of `shown`."""
        self._path = path
        self._shown = shown

    def to(self, node: float, *, judged: bool = True) -> Way:
        """See `Ways.to`; the evidence is there anyway, and what it says of keeping only if `judged`."""
        found = self._path.to(node)
        visible = (found.seen > 0.5) & _in_picture(found.displacement, self._shown)
        seen = _levels(_believed(visible, found.unlike)) if judged else None
        return Way(found.displacement, soft_visibility(visible), seen, found.unlike, found.held)

    def copy(self) -> AnchoredWays:
        """See `Ways.copy`."""
        return AnchoredWays(self._path.copy(), self._shown)


def scaled_ways(
    path: AnchoredPath,
    start: float,
    strength: Callable[[int], float],
    shape: tuple[int, int],
    shown: Shown | None = None,
) -> ComposedWays:
    """Return the ways along the refined motion of `path`, leg m ``strength(m)`` times as long.

    Args:
        path: stands at its anchor, at node `start`.
        start: of the anchor.
        strength: of a leg, 0 or more.
        shape: (height, width) of the grid.
        shown: what of it the anchor is a picture of.
    """
    return _along(RefinedLegs(path, strength), start, shape, shown)


def _in_picture(displacement: Field32, shown: Shown | None) -> NDArray[np.bool_]:
    """Say which pixels come from within the anchor's picture, on the evidence's grid."""
    if shown is None:
        return np.ones([-(-side // STRIDE) for side in displacement.shape[:2]], np.bool_)
    (top, bottom), (left, right) = shown
    least, most = (left - BEYOND_PX, top - BEYOND_PX, 0, 0), (right + BEYOND_PX, bottom + BEYOND_PX, 0, 0)
    within: NDArray[np.bool_] = cv2.inRange(landing(displacement), least, most) > 0
    return within


def ways_of_part(
    leg: Callable[[int], Field32],
    start: float,
    shape: tuple[int, int],
    part: MotionPart,
    strength: Callable[[int], float],
    shown: Shown | None = None,
) -> ComposedWays:
    """Return the ways along the camera's or the subject's part of the motion of `leg`; see `camera.PartLegs`."""
    return _along(PartLegs(leg, start, part, strength), start, shape, shown)


def _along(legs: Callable[[int], Field32], start: float, shape: tuple[int, int], shown: Shown | None) -> ComposedWays:
    """Return the ways along legs that were made for one direction: the way back is theirs, inverted."""
    return ComposedWays(Carry(legs, start, shape), Trace(lambda number: invert_flow(legs(number)), start, shape), shown)


def soft_visibility(visible: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Widen what is hidden by a small margin and feather its edge: ``(h, w)`` uint8, 255 = visible."""
    kept = cv2.erode(_levels(visible), np.ones((_OCCLUSION_MARGIN_PX, _OCCLUSION_MARGIN_PX), np.uint8))
    return np.asarray(cv2.blur(kept, (_FEATHER_PX, _FEATHER_PX), borderType=cv2.BORDER_REPLICATE), np.uint8)


def _believed(visible: NDArray[np.bool_], unlike: Plane) -> NDArray[np.bool_]:
    """Return what is visible without what looks far less like the frame than most of it does."""
    typical = float(np.median(unlike[visible])) if visible.any() else 0.0
    return visible & (unlike <= max(_FAR * typical, _ALIKE))


def _levels(visible: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return visible.astype(np.uint8) * np.uint8(255)


def end_share(moment: Moment, start: Way, end: Way) -> NDArray[np.uint8]:
    """Return how much of each pixel the end anchor gives: by nearness in time, visibility and likeness.

    Args:
        moment: of the frame.
        start, end: the two ways; both with their difference, or both without.

    Returns:
        ``(h', w')`` uint8, 255 = all; by time alone where nothing else tells them apart.

    Raises:
        GuidanceError: a visibility is missing.
    """
    return np.asarray(np.rint(255 * odds_share(leaning(moment, start, end))), np.uint8)


def odds_share(leant: Plane) -> Plane:
    """Return the share that belongs to a logarithm of odds, ``(h', w')`` float32 from 0 to 1."""
    return np.asarray(1 / (1 + np.exp(-leant)), np.float32)


def leaning(moment: Moment, start: Way, end: Way) -> Plane:
    """Return how much more the end anchor's pixels weigh than the start anchor's, as a logarithm.

    Returns:
        ``(h', w')`` float32, -30 to 30, 0 where they weigh the same; arguments and errors as `end_share`.
    """
    if start.visibility is None or end.visibility is None:
        raise GuidanceError("leaning: expected the visibilities of both anchors")
    looked = start.held is not None and end.held is not None
    least = 255 * (_LEAST_SEEN if looked else _LEAST_VISIBLE)
    leant = _log(end.visibility, least)
    leant -= _log(start.visibility, least)
    if start.held is not None and end.held is not None:
        leant += (_log(start.held, DOUBT_FLOOR) - _log(end.held, DOUBT_FLOOR)) * _DOUBT_POWER
    leant += np.float32(moment.leaning(_NEARNESS_POWER, _NEAR_FRAMES) if looked else moment.leaning())
    if not moment.since or not moment.until:
        leant.fill(moment.leaning())
    return np.clip(leant, -_SURE, _SURE, out=leant)


def _log(plane: NDArray[Any], floor: float) -> Plane:
    return np.asarray(np.log(plane.astype(np.float32) + np.float32(floor)), np.float32)


def known(start: Way | None, end: Way | None, share: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Return how much of each pixel comes from anchors that show it: ``(h, w)`` uint8, 255 = all.

    Args:
        start, end: the ways that reach the frame, at least one, judged.
        share: of the end anchor, ``(h, w)`` uint8, where both do.

    Raises:
        GuidanceError: a way was not judged.
    """
    seen = [way.seen for way in (start, end) if way is not None and way.seen is not None]
    if len(seen) != sum(way is not None for way in (start, end)):
        raise GuidanceError("known: expected ways that were judged")
    if len(seen) == 1 or share is None:
        return seen[0]
    from_start = cv2.multiply(seen[0], cv2.bitwise_not(share), scale=1 / 255)
    return np.asarray(cv2.add(from_start, cv2.multiply(seen[1], share, scale=1 / 255)), np.uint8)

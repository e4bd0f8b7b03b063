"""The ways from later frames back to one anchor: composed alone, or anchored in the structure video's frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.errors import GuidanceError
from structureflow.flow.fields import Field32, invert_flow
from structureflow.guide.anchored import AnchoredPath, RefinedLegs
from structureflow.guide.camera import PartLegs
from structureflow.guide.path import Carry, Trace
from structureflow.guide.refine import Plane
from structureflow.models.job import MotionPart

#: What an anchor that does not show a pixel still weighs, so that a pixel which none shows is shared by time.
_LEAST_VISIBLE: Final = 0.3
#: The same for anchored ways, whose difference from the frame says more.
_LEAST_SEEN: Final = np.float32(0.3)
#: A way weighs as much as this power of its difference is small.
_DOUBT_POWER: Final = 4
#: What a way shows says more than how near its anchor is: nearness counts by this power.
_NEARNESS_POWER: Final = 0.4
_OCCLUSION_MARGIN_PX: Final = 3
_FEATHER_PX: Final = 5


@dataclass(frozen=True, slots=True)
class Way:
    """How one anchor reaches one frame.

    Attributes:
        displacement: ``(h, w, 2)`` float32 pulling from the anchor.
        visibility: ``(h', w')`` uint8, 255 where the anchor shows the pixel; None where nobody asks.
        unlike: ``(h', w')`` float32, how unlike frame and anchor look along the way, in levels; None if unknown.
    """

    displacement: Field32
    visibility: NDArray[np.uint8] | None = None
    unlike: Plane | None = None


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

    def __init__(self, carry: Carry, trace: Trace | None) -> None:
        """Take `carry` for displacements and `trace`, if given, for visibility."""
        self._carry = carry
        self._trace = trace

    def to(self, node: float, *, judged: bool = True) -> Way:
        """See `Ways.to`."""
        displacement = self._carry.to(node).copy()
        if self._trace is None:
            return Way(displacement)
        way = self._trace.to(node)
        return Way(displacement, soft_visibility(self._trace.sees(displacement, way)) if judged else None)

    def copy(self) -> ComposedWays:
        """See `Ways.copy`."""
        return ComposedWays(self._carry.copy(), self._trace.copy() if self._trace else None)


class AnchoredWays:
    """Paths that were refined against the structure video's frames, with all of their evidence."""

    def __init__(self, path: AnchoredPath) -> None:
        """Take the ways of `path`."""
        self._path = path

    def to(self, node: float, *, judged: bool = True) -> Way:  # noqa: ARG002 - the evidence is there anyway
        """See `Ways.to`."""
        found = self._path.to(node)
        return Way(found.displacement, soft_visibility(found.seen > 0.5), found.unlike)

    def copy(self) -> AnchoredWays:
        """See `Ways.copy`."""
        return AnchoredWays(self._path.copy())


def scaled_ways(path: AnchoredPath, start: float, strength: float, shape: tuple[int, int]) -> ComposedWays:
    """Return the ways along the refined motion of `path`, each step `strength` times as long.

    Args:
        path: stands at its anchor, at node `start`.
        start: of the anchor.
        strength: 0 or more.
        shape: (height, width) of the grid.
    """
    legs = RefinedLegs(path, strength)
    return ComposedWays(Carry(legs, start, shape), Trace(lambda number: invert_flow(legs(number)), start, shape))


def ways_of_part(
    leg: Callable[[int], Field32],
    start: float,
    shape: tuple[int, int],
    part: MotionPart,
    strength: Callable[[int], float],
) -> ComposedWays:
    """Return the ways along the camera's or the subject's part of the motion of `leg`; see `camera.PartLegs`."""
    legs = PartLegs(leg, start, part, strength)
    return ComposedWays(Carry(legs, start, shape), Trace(lambda number: invert_flow(legs(number)), start, shape))


def soft_visibility(visible: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Widen what is hidden by a small margin and feather its edge: ``(h, w)`` uint8, 255 = visible."""
    mask = visible.astype(np.uint8) * np.uint8(255)
    kept = cv2.erode(mask, np.ones((_OCCLUSION_MARGIN_PX, _OCCLUSION_MARGIN_PX), np.uint8))
    return np.asarray(cv2.blur(kept, (_FEATHER_PX, _FEATHER_PX), borderType=cv2.BORDER_REPLICATE), np.uint8)


def end_share(time_share: float, start: Way, end: Way) -> NDArray[np.uint8]:
    """Return how much of each pixel the end anchor gives: by nearness in time, visibility and likeness.

    Args:
        time_share: 0 at the start anchor, 1 at the end anchor.
        start, end: the two ways; both with their difference, or both without.

    Returns:
        ``(h', w')`` uint8, 255 = all; by time alone where nothing else tells them apart.

    Raises:
        GuidanceError: a visibility is missing.
    """
    if start.visibility is None or end.visibility is None:
        raise GuidanceError("end_share: expected the visibilities of both anchors")
    if start.unlike is None or end.unlike is None:
        least = np.float32(255 * _LEAST_VISIBLE)
        of_start, of_end = start.visibility.astype(np.float32) + least, end.visibility.astype(np.float32) + least
    else:
        least = np.float32(255) * _LEAST_SEEN
        of_start = (start.visibility.astype(np.float32) + least) / (start.unlike + 1) ** _DOUBT_POWER
        of_end = (end.visibility.astype(np.float32) + least) / (end.unlike + 1) ** _DOUBT_POWER
        nearness = time_share**_NEARNESS_POWER, (1 - time_share) ** _NEARNESS_POWER
        time_share = nearness[0] / sum(nearness)
    of_end *= np.float32(time_share)
    of_start *= np.float32(1 - time_share)
    return np.asarray(np.rint(255 * of_end / (of_end + of_start)), np.uint8)

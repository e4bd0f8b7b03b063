"""One of two pictures per pixel where they show different things: a choice of least error, blended over a narrow band.

Where two pictures agree, a weighted mean is right: light may drift from one to the other. Where they disagree, a mean
shows both at once, which no generator can make sense of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import Field32, sample
from structureflow.guide.evidence import STRIDE, landing
from structureflow.guide.pictures import PictureFormat
from structureflow.guide.ports import Picture
from structureflow.guide.refine import Plane
from structureflow.guide.warp import Geometry, mix
from structureflow.guide.ways import Moment, Way, leaning, odds_share

#: Pictures agree below the first difference, in levels, and disagree above the second.
ALIKE: Final = (8.0, 24.0)
#: The same for anchors whose ways were looked at: their weights are nearly a choice already, and a mean of what still
#: differs by less is nearer to the truth than either, unless contours and texture differ.
LOOKED_ALIKE: Final = (40.0, 64.0)
#: Of one structure is what differs by less than the first share of its contrast, of two what differs by the second.
_SAME_STRUCTURE: Final = (0.3, 0.6)
#: Nobody sees a structure twice that is fainter than the first, in levels; and what noise adds, in levels squared.
_FAINT: Final = (6.0, 12.0)
_FAINT_CONTRAST: Final = 8.0
_GATHER_PX: Final = 9
#: The choice is that of a neighbourhood, and its edge is blended over so many pixels of the evidence's grid.
_NEIGHBOURS_PX: Final = 3
_BLEND_PX: Final = 3
#: Of two anchors that cannot be mixed the nearer one is taken by this power more than in a mean.
_NEARER_POWER: Final = 0.3
#: Nearer than this the two weights (their logarithms) leave it open which one is right.
_OPEN: Final = np.float32(0.5)
#: How much more likely an anchor that shows the pixel is than one that does not.
_SEES: Final = np.float32(4)
#: Where the order of a cross-fade is worked out.
_FADE_WIDTH_PX: Final = 160


class Comparison:
    """The two anchors of a gap, small, so that it can be seen along two ways where they disagree."""

    def __init__(self, form: PictureFormat, geometry: Geometry) -> None:
        """Compare pictures of `form` that lie on the flow grid as `geometry` says."""
        self._form = form
        self._geometry = geometry
        self._anchors: list[Field32] = []

    def hold(self, start: Picture, end: Picture) -> None:
        """Take the anchors of the next gap."""
        self._anchors = [self._small(picture) for picture in (start, end)]

    def samples(self, start: Field32, end: Field32) -> tuple[Field32, Field32]:
        """Return what the two anchors show along two ways.

        Args:
            start, end: ``(h, w, 2)`` float32 displacements on the flow grid.

        Returns:
            Twice ``(ceil(h / STRIDE), ceil(w / STRIDE), 3)`` float32, the three channels of the format in levels.
        """
        scale = np.float32(1 / STRIDE)
        first, second = (
            sample(anchor, landing(way) * scale) for anchor, way in zip(self._anchors, (start, end), strict=True)
        )
        return first, second

    def _small(self, picture: Picture) -> Field32:
        """Bring a picture to the evidence's grid, past its edge the edge."""
        y, x = self._geometry.y, self._geometry.x
        width = max(2, round(x.output / (STRIDE * x.scale)))
        height = max(2, round(y.output / (STRIDE * y.scale)))
        small = small_channels(self._form, picture, height, width)
        # where each pixel of the evidence's grid is in the small picture: even steps
        across, from_x = _line(x.places(), x.first, width / x.output)
        down, from_y = _line(y.places(), y.first, height / y.output)
        size = (-(-x.grid // STRIDE), -(-y.grid // STRIDE))
        matrix = np.array([[across, 0, from_x], [0, down, from_y]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(small, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _line(places: NDArray[np.float32], first: int, shrink: float) -> tuple[float, float]:
    """Return step and start of the evidence's pixels in a picture that is `shrink` times the output."""
    step = float(places[-1] - places[0]) / (len(places) - 1)
    origin = float(places[0]) - first * step
    return STRIDE * step * shrink, (origin + 0.5) * shrink - 0.5


def small_channels(form: PictureFormat, picture: Picture, height: int, width: int) -> Field32:
    """Return a picture's three channels at another, smaller size: ``(height, width, 3)`` float32 levels."""
    parts = [cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA) for part in form.parts(picture)]
    whole = parts[0] if len(parts) == 1 else cv2.merge(parts)
    return np.asarray(whole, np.float32)


def disagreement(first: Field32, second: Field32, levels: tuple[float, float] = ALIKE) -> Plane:
    """Say where two small pictures show different things.

    Args:
        first, second: ``(h, w, 3)`` float32 levels.
        levels: they are alike below the first difference of a channel (root mean square of a neighbourhood), and not
            above the second.

    Returns:
        ``(h, w)`` float32, 0 (alike) to 1.
    """
    return _ramp(np.sqrt(_gathered(cv2.subtract(first, second))), levels)


def differing_structure(first: Field32, second: Field32) -> Plane:
    """Say where contours and texture of two small pictures are in different places, faint ones too; light is none.

    Their difference without its broad part is compared with the contrast of both: of one structure it is a small part,
    of two that have nothing in common all of it. Arguments and result as `disagreement`.
    """
    one, other = (cv2.subtract(picture, _blurred(picture)) for picture in (first, second))
    apart = _gathered(cv2.subtract(one, other))
    of_contrast = apart / (_gathered(one) + _gathered(other) + _FAINT_CONTRAST)
    share = _ramp(of_contrast, _SAME_STRUCTURE) * _ramp(np.sqrt(apart), _FAINT)
    return np.asarray(share, np.float32)


def _blurred(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.blur(picture, (_GATHER_PX, _GATHER_PX), borderType=cv2.BORDER_REPLICATE), np.float32)


def _gathered(channels: Any) -> Plane:
    """Average the squares of the channel that has the largest, around each pixel."""
    red, green, blue = cv2.split(cv2.multiply(channels, channels))
    # The running sums of a float32 mean can end a hair below zero, where squares are small beside large ones.
    return np.maximum(_blurred(np.asarray(cv2.max(cv2.max(red, green), blue), np.float32)), 0)


def _ramp(values: NDArray[np.float32], ends: tuple[float, float]) -> Plane:
    return np.asarray(np.clip((values - ends[0]) * np.float32(1 / (ends[1] - ends[0])), 0, 1), np.float32)


def choose(moment: Moment, start: Way, end: Way, apart: Plane) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a mean where the anchors agree, and a choice where they do not.

    Args:
        moment: of the frame.
        start, end: the two ways.
        apart: ``(h, w)`` float32, where they disagree, 0 to 1.

    Returns:
        ``(h, w)`` uint8, how much the end anchor gives; and ``(h, w)`` bool, where they disagree and nothing tells
        which one is right.
    """
    leant = leaning(moment, start, end)
    mean = odds_share(leant)
    if start.held is not None:
        leant += np.float32(moment.leaning(_NEARER_POWER))
    elif start.visibility is not None and end.visibility is not None:
        # nothing else is known of them
        leant += (end.visibility.astype(np.float32) - start.visibility) * (_SEES / 255)
    around = cv2.blur(leant, (_NEIGHBOURS_PX, _NEIGHBOURS_PX), borderType=cv2.BORDER_REPLICATE)
    chosen = cv2.blur((around > 0).astype(np.float32), (_BLEND_PX, _BLEND_PX), borderType=cv2.BORDER_REPLICATE)
    mixed = mean + (chosen - mean) * apart
    return np.asarray(np.rint(mixed * 255), np.uint8), (apart > 0.5) & (np.abs(around) < _OPEN)


class Fade:
    """A cross-fade that shows both pictures at once only where they agree: a cut of least error passes over the frame.

    The cut is that of image quilting (Efros and Freeman, SIGGRAPH 2001): the path from top to bottom along which the
    two pictures differ least, in a band that moves from left to right.
    """

    def __init__(self, form: PictureFormat, before: Picture, after: Picture, shares: Sequence[float]) -> None:
        """Prepare to fade from `before` to `after`, over the rising `shares` of `after`."""
        self._form = form
        self._before, self._after = before, after
        height, width = form.parts(before)[0].shape[:2]
        small_width = min(_FADE_WIDTH_PX, width)
        size = (max(2, round(height * small_width / width)), small_width)
        first, second = (small_channels(form, picture, *size) for picture in (before, after))
        self._apart = disagreement(first, second)
        self._seams = _cuts(np.asarray(cv2.absdiff(first, second).sum(axis=-1), np.float32), shares)

    def frame(self, number: int, share: float, out: Picture) -> Picture:
        """Draw frame `number` of the fade, `share` of it the second picture, to `out`."""
        columns = np.arange(self._apart.shape[1])
        chosen = (columns[None] < self._seams[number][:, None]).astype(np.float32)
        narrow = np.asarray(cv2.blur(chosen, (_BLEND_PX, _BLEND_PX), borderType=cv2.BORDER_REPLICATE), np.float32)
        weight = np.float32(share) + (narrow - np.float32(share)) * self._apart
        whole = np.asarray(np.rint(weight * 255), np.uint8)
        for before, after, target in zip(
            *(self._form.parts(picture) for picture in (self._before, self._after, out)), strict=True
        ):
            height, width = target.shape[:2]
            part = np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
            mix(before, after, part, target)
        return out


def _cuts(error: Plane, shares: Sequence[float]) -> list[NDArray[np.intp]]:
    """Return for each share the column where the cut passes each row, never left of the one before."""
    height, width = error.shape
    band = max(2, round(width / max(1, len(shares))))
    found: list[NDArray[np.intp]] = []
    least = np.zeros(height, np.intp)
    for share in shares:
        if share >= 1:
            found.append(np.full(height, width, np.intp))
            continue
        middle = round(share * width)
        first, stop = max(0, middle - band), min(width, middle + band + 1)
        least = np.maximum(least, _path(error[:, first:stop]) + first)
        found.append(least)
    return found


def _path(error: Plane) -> NDArray[np.intp]:
    """Return the column of each row along the path from top to bottom whose summed error is least."""
    height = len(error)
    total = error.copy()
    for row in range(1, height):
        wide = np.pad(total[row - 1], 1, constant_values=np.inf)
        total[row] += np.minimum(np.minimum(wide[:-2], wide[1:-1]), wide[2:])
    path = np.empty(height, np.intp)
    path[-1] = int(total[-1].argmin())
    for row in range(height - 2, -1, -1):
        first = max(0, int(path[row + 1]) - 1)
        path[row] = first + int(total[row, first : path[row + 1] + 2].argmin())
    return path

"""How far a path is to be believed, pixel by pixel: what the anchor shows, and what it cannot show.

Four kinds of evidence, on every `STRIDE`-th pixel of each row and column:

* agreement: the anchor looks, along the path, as the frame does; in terms of the frame's own contrast, so that
  neither light nor weak texture counts as an error. It flickers with noise, so it is damped along the path;
* in frame: the path ends inside of the anchor;
* shape: the path neither stretches nor folds there. A strip of pixels drawn out over a gap is a smear;
* return: the anchor's pixel, followed forward, comes back to this one. A part of the frame that the anchor does
  not show has to take its pixels from somewhere, and they have their own place already.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import Field32, sample
from structureflow.flow.visibility import inside
from structureflow.guide.refine import Plane

STRIDE: Final = 2

#: Agreement falls from 1 to 0 while the difference goes from and to these shares of the contrast.
_ALIKE: Final = np.float32(0.45)
_UNLIKE: Final = np.float32(0.75)
#: Levels of contrast that noise makes where there is no texture.
_NOISE_FLOOR: Final = np.float32(2.0)
#: How much of the agreement of a frame is that of the frame before.
_DAMPING: Final = np.float32(0.5)
#: A difference that changes by less than this factor is still what it was: texture and noise change it that much.
_HELD: Final = np.float32(1.18)
#: Levels that are added to a difference before differences are compared by their ratio.
DOUBT_FLOOR: Final = 1.0
#: How much of the anchor's area a pixel may show; beyond, the path stretches or folds.
_LEAST_AREA: Final = 0.2
_MOST_AREA: Final = 5.0
#: How far from itself a pixel may come back, in pixels of the grid.
_RETURN_PX: Final = 3.0
_RETURN_STEPS: Final = 3
#: How far beyond the anchor's edge a path may end: repeated edges of so many pixels of the grid look like more of it.
BEYOND_PX: Final = 1.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """A path at one position, and how far it is to be believed.

    Attributes:
        displacement: ``(h, w, 2)`` float32 to the anchor.
        seen: ``(ceil(h / STRIDE), ceil(w / STRIDE))`` float32: 1 where the anchor shows the pixel, else 0.
        unlike: the same shape, float32: the difference of what it shows, in levels.
        held: the same, without what flickers from frame to frame.
    """

    displacement: Field32
    seen: Plane
    unlike: Plane
    held: Plane

    def pulled(self, step: Field32, displacement: Field32) -> Judgement:
        """Return the judgement of a position one `step` further on, where the path is `displacement`."""
        return self._at(displacement, self._along(step))

    def between(self, step: Field32, after: Judgement, rest: Field32, share: float, displacement: Field32) -> Judgement:
        """Return the judgement of a position between two: what is said on both sides comes in evenly.

        Args:
            step: ``(h, w, 2)`` float32 pulling from this position.
            after: the judgement of the position behind.
            rest: pulling from that one.
            share: of the way from here to there, 0 to 1.
            displacement: the path.
        """
        evidence = self._along(step)
        evidence += (after._along(rest) - evidence) * np.float32(share)
        return self._at(displacement, evidence)

    def _along(self, step: Field32) -> Field32:
        evidence = cast("Field32", cv2.merge([self.seen, self.unlike, self.held]))
        return sample(evidence, landing(step) * np.float32(1 / STRIDE))

    @staticmethod
    def _at(displacement: Field32, evidence: Field32) -> Judgement:
        seen, unlike, held = cv2.split(evidence)
        shown = (seen > 0.5) & inside(landing(displacement), displacement.shape[:2], BEYOND_PX)
        return Judgement(displacement, shown.astype(np.float32), cast("Plane", unlike), cast("Plane", held))


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of one path at one frame, on the thinned grid ``(h', w')``.

    Attributes:
        way: ``(h', w', 2)`` float32, where the anchor's pixels are in the frame, as displacements.
        look: ``(h', w', 3)`` float32, of the frame's pixels agreement (0 to 1), difference (levels), and the difference
            as it is held along the path.
    """

    way: Field32
    look: Field32

    @classmethod
    def at_anchor(cls, shape: tuple[int, int]) -> Evidence:
        """Begin at the anchor of a grid of `shape` (height, width): all is seen."""
        still = np.zeros_like(_places(shape))
        look = np.zeros((*still.shape[:2], 3), np.float32)
        look[..., 0] = 1
        return cls(still, look)

    def followed(self, step: Field32) -> Evidence:
        """Return the evidence one step of the path further on: what held where each pixel comes from holds here.

        Args:
            step: ``(h, w, 2)`` float32 pulling from there.
        """
        come_from = landing(step) * np.float32(1 / STRIDE)
        return Evidence(self.way, sample(self.look, come_from))

    def judged(self, unlike: Plane, contrast: Plane) -> Evidence:
        """Return the evidence with what a look told: agreement is damped by that of the frames before.

        The held difference has a backlash: it follows only what changes by more than `_HELD`, and that at once. So it
        does not flicker with texture and noise, and what goes wrong is known without delay.

        Args:
            unlike: ``(h, w)`` float32, the difference of what the path shows.
            contrast: ``(h, w)`` float32, the frame's own activity.
        """
        missed = _thin(unlike)
        ratio = missed / (_thin(contrast) + _NOISE_FLOOR)
        agreed = np.clip((_UNLIKE - ratio) * (1 / (_UNLIKE - _ALIKE)), 0, 1)
        agreed += _DAMPING * (self.look[..., 0] - agreed)
        doubt = missed + DOUBT_FLOOR
        held = np.clip(self.look[..., 2] + DOUBT_FLOOR, doubt / _HELD, doubt * _HELD) - DOUBT_FLOOR
        return Evidence(self.way, cast("Field32", cv2.merge([agreed, missed, held])))

    def returning(self, path: Field32) -> Evidence:
        """Return the evidence with the anchor's pixels followed to this frame, by fixed point from where they were.

        Args:
            path: ``(h, w, 2)`` float32 to the anchor.
        """
        places, way = _places(path.shape[:2]), self.way
        for _ in range(_RETURN_STEPS):
            way = -sample(path, places + way)
        return Evidence(way, self.look)

    def judgement(self, path: Field32) -> Judgement:
        """Weigh all of the evidence for a `path`, ``(h, w, 2)`` float32, at the frame that it was gathered at."""
        there, lands = _thin(path), landing(path)
        back = sample(self.way, lands * np.float32(1 / STRIDE))
        back += there
        returns = cv2.magnitude(back[..., 0], back[..., 1]) < _RETURN_PX
        seen = (self.look[..., 0] > 0.5) & returns & inside(lands, path.shape[:2], BEYOND_PX) & in_shape(there)
        _, unlike, held = cv2.split(self.look)
        return Judgement(path, seen.astype(np.float32), cast("Plane", unlike), cast("Plane", held))


def unjudged(path: Field32) -> Judgement:
    """Return the judgement of a `path` that nothing is known of: seen where it ends in the frame."""
    seen = inside(landing(path), path.shape[:2], BEYOND_PX).astype(np.float32)
    return Judgement(path, seen, np.zeros_like(seen), np.zeros_like(seen))


def in_shape(thinned: Field32) -> NDArray[np.bool_]:
    """Say where a path neither stretches nor folds.

    Args:
        thinned: ``(h', w', 2)`` float32, a displacement on every `STRIDE`-th pixel, in pixels.

    Returns:
        ``(h', w')`` bool: the area that a pixel takes from the anchor is between a fifth and five times its own.
    """
    # the derivative over two cells of the thinned grid, smoothed across
    across = cv2.Sobel(thinned, cv2.CV_32F, 1, 0, scale=1 / (8 * STRIDE), borderType=cv2.BORDER_REPLICATE)
    down = cv2.Sobel(thinned, cv2.CV_32F, 0, 1, scale=1 / (8 * STRIDE), borderType=cv2.BORDER_REPLICATE)
    area = (1 + across[..., 0]) * (1 + down[..., 1]) - across[..., 1] * down[..., 0]
    shaped: NDArray[np.bool_] = (area > _LEAST_AREA) & (area < _MOST_AREA)
    return shaped


@functools.lru_cache(maxsize=4)
def _places(shape: tuple[int, ...]) -> Field32:
    """Return the (x, y) of every `STRIDE`-th pixel of a grid; shared, not to be changed."""
    rows, columns = np.mgrid[0 : shape[0] : STRIDE, 0 : shape[1] : STRIDE]
    return np.ascontiguousarray(np.stack([columns, rows], axis=-1), dtype=np.float32)


def landing(path: Field32) -> Field32:
    """Return where every `STRIDE`-th pixel comes to lie along a path, ``(h', w', 2)`` float32 in pixels of the grid."""
    places: Field32 = _places(path.shape[:2]) + _thin(path)
    return places


def _thin(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values[::STRIDE, ::STRIDE])

"""One look at a path: matched directly against the anchor's structure frame, and per pixel the better is kept.

The composed path is close, but drifts. Three offers are compared with it pixel by pixel: what a matcher (DIS)
finds that starts from it; the same after one least-squares step at full size (Lucas and Kanade, "An iterative
image registration technique", IJCAI 1981), which the matcher's coarser grid cannot do; and what neighbours have
("PatchMatch", Barnes et al., SIGGRAPH 2009), which mends the edges of things. The offer whose look is more like
the frame's is kept. Likeness is measured in local contrast, so that changes of light are no error, and with a
smaller weight in broad contrast, so that a dark thing is not taken for a bright one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.flow.engines import MIN_SIDE_PX
from structureflow.flow.fields import Field32
from structureflow.guide.ports import Gray

Plane = NDArray[np.float32]

#: Local contrast is a picture minus its mean over this window.
CONTRAST_WINDOW_PX: Final = 15
#: Broad contrast is a picture minus its mean over this share of its longer side, and counts this much.
BROAD_WINDOW: Final = 0.45
BROAD_WEIGHT: Final = np.float32(0.3)
#: Differences and gradients are gathered over a pyramid of this width.
GATHER: Final = np.array([1, 2, 3, 4, 3, 2, 1], np.float32) / 16
#: Keeps the least-squares step still where there is no texture: squared levels per pixel.
_STIFFNESS: Final = np.float32(20)
_LONGEST_STEP_PX: Final = np.float32(1.5)
#: How far out of the frame the matcher may begin to look.
_OUTSIDE_PX: Final = 8


@dataclass(frozen=True, slots=True)
class Matching:
    """How paths are refined.

    Attributes:
        finest_scale: of the matcher: it works on a grid that is ``2**finest_scale`` coarser.
        smoothings: of the matcher's result, by variational refinement.
        every: every how many frames of the path; those between go on from the last one.
        spread_px: how far away neighbours' motion is tried at most; 0: not at all.
    """

    finest_scale: int = 2
    smoothings: int = 1
    every: int = 1
    spread_px: int = 6


#: By the end result, see `docs/decisions.md`.
MATCHING: Final = {
    "fast": Matching(every=2, spread_px=0),
    "balanced": Matching(),
    "best": Matching(finest_scale=0),
}


class Look:
    """A structure frame as it is compared: local and broad contrast, ``(h, w)`` float32 each."""

    def __init__(self, gray: Gray) -> None:
        """Look at a frame ``(h, w)`` uint8."""
        plain = gray.astype(np.float32)
        broad = max(3, round(BROAD_WINDOW * max(gray.shape)) | 1)
        self.local: Plane = plain - cv2.blur(plain, (CONTRAST_WINDOW_PX, CONTRAST_WINDOW_PX))
        self.broad: Plane = (plain - cv2.blur(plain, (broad, broad))) * BROAD_WEIGHT
        self.gray = gray

    def activity(self) -> Plane:
        """Return how much contrast there is around each pixel, ``(h, w)`` float32, on the scale of a difference."""
        strong = np.abs(self.local)
        strong += np.abs(self.broad)
        return _gather(strong, strong)


def fits_matcher(shape: tuple[int, int]) -> bool:
    """Say whether a grid of (height, width) is large enough to be matched."""
    return min(shape) >= MIN_SIDE_PX


class Matcher:
    """DIS that starts from a path; one thread at a time."""

    def __init__(self, shape: tuple[int, int], matching: Matching) -> None:
        """Match frames of `shape` (height, width)."""
        finest = matching.finest_scale
        while finest and min(shape) >> finest < 2 * MIN_SIDE_PX:
            finest -= 1
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._dis.setFinestScale(finest)
        self._dis.setPatchSize(8)
        self._dis.setPatchStride(4)
        self._dis.setVariationalRefinementIterations(matching.smoothings)
        self._dis.setUseMeanNormalization(True)
        self._dis.setUseSpatialPropagation(True)
        height, width = shape
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        self._least = np.stack([-_OUTSIDE_PX - x, -_OUTSIDE_PX - y], axis=-1)
        self._most = np.stack([width - 1 + _OUTSIDE_PX - x, height - 1 + _OUTSIDE_PX - y], axis=-1)

    def __call__(self, now: Gray, anchor: Gray, path: Field32) -> Field32:
        """Return where the pixels of `now` are in `anchor`, looked for around `path`; fresh memory, finite."""
        # DIS reads and overwrites what it is given, and does not survive NaN or places far outside
        begin = np.minimum(path, self._most)
        np.maximum(begin, self._least, out=begin)
        found = cast("Field32", self._dis.calc(now, anchor, begin))
        if not np.isfinite(found).all():
            np.nan_to_num(found, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return found


class Refiner:
    """Refines paths to one anchor; keeps buffers, so one thread at a time."""

    def __init__(self, anchor: Gray, matching: Matching) -> None:
        """Refine paths to the structure frame `anchor`, ``(h, w)`` uint8."""
        self._anchor = anchor
        self._spread = matching.spread_px
        self._matcher = Matcher(anchor.shape, matching)
        look = Look(anchor)
        across = cv2.Scharr(look.local, cv2.CV_32F, 1, 0, scale=1 / 32, borderType=cv2.BORDER_REPLICATE)
        down = cv2.Scharr(look.local, cv2.CV_32F, 0, 1, scale=1 / 32, borderType=cv2.BORDER_REPLICATE)
        # four channels are sampled as fast as one
        self._packed = cv2.merge([look.local, look.broad, across, down])
        # the first touch of fresh memory costs more than most of what is done to it
        self._seen = np.empty_like(self._packed)
        self._offered = [np.empty_like(look.local) for _ in range(4)]
        self._chosen = [np.empty_like(look.local) for _ in range(4)]
        self._offer_unlike, self._unlike, self._spare, self._product = (np.empty_like(look.local) for _ in range(4))

    def refine(self, now: Look, path: Field32, turn: int = 0) -> tuple[Field32, Plane]:
        """Return the better path and its difference.

        Args:
            now: the frame that the path comes from.
            path: ``(h, w, 2)`` float32, the composed path to the anchor; not changed.
            turn: neighbours left and right are asked at even ones, those above and below at odd ones: what is good
                spreads over the frames of a path, at half the price.

        Returns:
            ``(h, w, 2)`` float32, fresh memory; and ``(h, w)`` float32, how unlike the frame what it shows is around
            each pixel, in levels (0 = alike), valid until the next call.
        """
        best = path.copy()
        self._look_along(now, path, self._chosen, self._unlike)
        self._offer(now, best, self._matcher(now.gray, self._anchor, path), steps_follow=True)
        step = self._step(now)
        step += best
        self._offer(now, best, step)
        if self._spread:
            for neighbours in _shifted(best, reach(self._spread, turn), turn % 2):
                self._offer(now, best, neighbours)
        return best, self._unlike

    def _offer(self, now: Look, best: Field32, path: Field32, *, steps_follow: bool = False) -> None:
        """Take `path` into `best` where it shows what is more like the frame; for `_step`, what it shows too."""
        self._look_along(now, path, self._offered, self._offer_unlike)
        better = cv2.compare(self._offer_unlike, self._unlike, cv2.CMP_LT)
        # a mask of both numbers of each vector is copied along faster than one of vectors
        height, width = better.shape
        flat = (height, 2 * width)
        cv2.copyTo(path.reshape(flat), cv2.merge([better, better]).reshape(flat), best.reshape(flat))
        if steps_follow:
            for source, target in zip(self._offered, self._chosen, strict=True):
                cv2.copyTo(source, better, target)
        cv2.copyTo(self._offer_unlike, better, self._unlike)

    def _look_along(self, now: Look, path: Field32, seen: list[Plane], unlike: Plane) -> None:
        """Sample the anchor along a path, and compare it with the frame.

        Args:
            now, path: the frame, and the way to the anchor.
            seen: for the anchor's local and broad contrast and gradients across and down.
            unlike: for the difference.
        """
        cv2.remap(
            self._packed,
            path,
            cast("Any", None),
            cv2.INTER_LINEAR | cv2.WARP_RELATIVE_MAP,
            dst=self._seen,
            borderMode=cv2.BORDER_REPLICATE,
        )
        cv2.split(self._seen, seen)
        cv2.absdiff(now.local, seen[0], dst=unlike)
        cv2.absdiff(now.broad, seen[1], dst=self._spare)
        np.add(unlike, self._spare, out=self._spare)
        _gather(self._spare, unlike)

    def _step(self, now: Look) -> Field32:
        """Return the least-squares step from the best path to where the anchor looks as the frame does."""
        local, _, across, down = self._chosen
        miss, squares = self._offered[0], self._offered[1:]
        np.subtract(now.local, local, out=miss)
        xx, yy, xy = squares
        for product, one, other in ((xx, across, across), (yy, down, down), (xy, across, down)):
            np.multiply(one, other, out=self._spare)
            _gather(self._spare, product)
        x = _gather(np.multiply(across, miss, out=self._spare), self._offer_unlike)
        y = _gather(np.multiply(down, miss, out=self._spare), miss)
        xx += _STIFFNESS
        yy += _STIFFNESS
        scale = np.multiply(xx, yy, out=self._spare)
        scale -= np.multiply(xy, xy, out=self._product)
        np.divide(np.float32(1), scale, out=scale)
        # (yy x - xy y) scale and (xx y - xy x) scale, in place
        yy *= x
        yy -= np.multiply(xy, y, out=self._product)
        xx *= y
        xx -= np.multiply(xy, x, out=self._product)
        yy *= scale
        xx *= scale
        step = cv2.merge([yy, xx])
        return cast("Field32", np.clip(step, -_LONGEST_STEP_PX, _LONGEST_STEP_PX, out=step))


def _gather(plane: Plane, out: Plane) -> Plane:
    """Average a plane around each pixel, to `out`."""
    return cast("Plane", cv2.sepFilter2D(plane, -1, GATHER, GATHER, dst=out, borderType=cv2.BORDER_REPLICATE))


def reach(spread_px: int, turn: int) -> int:
    """Return how far away neighbours are asked at `turn`: as far as that, and half as far, for two turns each."""
    return spread_px if turn // 2 % 2 else -(-spread_px // 2)


def _shifted(path: Field32, by: int, axis: int) -> list[Field32]:
    """Return the path of the pixels `by` to the left and right (axis 0), or above and below (1)."""
    height, width = path.shape[:2]
    wide = cv2.copyMakeBorder(path, by, by, by, by, cv2.BORDER_REPLICATE)
    corners = ((by, 0), (by, 2 * by)) if axis == 0 else ((0, by), (2 * by, by))
    return [np.ascontiguousarray(wide[y : y + height, x : x + width]) for y, x in corners]

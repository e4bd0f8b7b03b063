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
        spread_px: how far away neighbours' motion is tried; 0: not at all.
    """

    finest_scale: int = 1
    smoothings: int = 1
    every: int = 1
    spread_px: int = 6


#: By the end result, see `docs/decisions.md`.
MATCHING: Final = {
    "fast": Matching(finest_scale=2, smoothings=5, every=2, spread_px=0),
    "balanced": Matching(finest_scale=2, smoothings=5),
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


def difference(one_local: Plane, one_broad: Plane, local: Plane, broad: Plane) -> Plane:
    """Return how unlike two looks are around each pixel, in levels: ``(h, w)`` float32, 0 = alike."""
    unlike = cast("Plane", cv2.absdiff(one_local, local))
    unlike += cv2.absdiff(one_broad, broad)
    return cast("Plane", cv2.sepFilter2D(unlike, -1, GATHER, GATHER, borderType=cv2.BORDER_REPLICATE))


def activity(look: Look) -> Plane:
    """Return how much contrast a look has around each pixel, on the scale of `difference`."""
    strong = np.abs(look.local)
    strong += np.abs(look.broad)
    return cast("Plane", cv2.sepFilter2D(strong, -1, GATHER, GATHER, borderType=cv2.BORDER_REPLICATE))


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
        return np.nan_to_num(found, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


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
        #: local, broad, and the local contrast's gradient, packed: four channels are sampled as fast as one
        self._packed = cv2.merge([look.local, look.broad, across, down])

    def refine(self, now: Look, path: Field32) -> tuple[Field32, Plane]:
        """Return the better path and its difference.

        Args:
            now: the frame that the path comes from.
            path: ``(h, w, 2)`` float32, the composed path to the anchor; not changed.

        Returns:
            ``(h, w, 2)`` float32, fresh memory; and ``(h, w)`` float32, `difference` of what it shows.
        """
        choice = _Choice(self, now, path)
        choice.offer(self._matcher(now.gray, self._anchor, path))
        choice.offer(choice.path + choice.step())
        if self._spread:
            for neighbours in _shifted(choice.path, self._spread):
                choice.offer(neighbours)
        return choice.path, choice.unlike

    def judge(self, now: Look, path: Field32) -> Plane:
        """Return the `difference` of what a path shows, without refining it."""
        return _Choice(self, now, path).unlike

    def look_along(self, path: Field32) -> list[Plane]:
        """Sample the anchor along a path: local, broad, gradient across, gradient down; ``(h, w)`` float32 each."""
        seen = cv2.remap(
            self._packed,
            path,
            cast("Any", None),
            cv2.INTER_LINEAR | cv2.WARP_RELATIVE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return cast("list[Plane]", list(cv2.split(seen)))


class _Choice:
    """The best path so far, and what the anchor shows along it."""

    def __init__(self, refiner: Refiner, now: Look, path: Field32) -> None:
        self._refiner = refiner
        self._now = now
        self.path = path.copy()
        self._seen = refiner.look_along(path)
        self.unlike = difference(now.local, now.broad, self._seen[0], self._seen[1])

    def offer(self, path: Field32) -> None:
        seen = self._refiner.look_along(path)
        unlike = difference(self._now.local, self._now.broad, seen[0], seen[1])
        better = cv2.compare(unlike, self.unlike, cv2.CMP_LT)
        cv2.copyTo(_vectors(path), better, _vectors(self.path))
        for source, target in zip((*seen, unlike), (*self._seen, self.unlike), strict=True):
            cv2.copyTo(source, better, target)

    def step(self) -> Field32:
        """Return the least-squares step from the path to where the anchor looks as the frame does."""
        local, _, across, down = self._seen
        miss = self._now.local - local
        xx, yy, xy = _gather(across * across), _gather(down * down), _gather(across * down)
        x, y = _gather(across * miss), _gather(down * miss)
        xx += _STIFFNESS
        yy += _STIFFNESS
        scale = 1 / (xx * yy - xy * xy)
        step = cv2.merge([(yy * x - xy * y) * scale, (xx * y - xy * x) * scale])
        return cast("Field32", np.clip(step, -_LONGEST_STEP_PX, _LONGEST_STEP_PX, out=step))


def _gather(plane: Plane) -> Plane:
    return cast("Plane", cv2.sepFilter2D(plane, -1, GATHER, GATHER, borderType=cv2.BORDER_REPLICATE))


def _vectors(field: Field32) -> NDArray[np.float64]:
    """See each vector as one number of eight bytes: OpenCV copies those several times faster."""
    whole = np.ascontiguousarray(field) if not field.flags.c_contiguous else field
    return whole.view(np.float64)[..., 0]


def _shifted(path: Field32, by: int) -> list[Field32]:
    """Return the path of the pixels `by` to the left, right, above and below."""
    height, width = path.shape[:2]
    wide = cv2.copyMakeBorder(path, by, by, by, by, cv2.BORDER_REPLICATE)
    corners = ((by, 0), (by, 2 * by), (0, by), (2 * by, by))
    return [np.ascontiguousarray(wide[y : y + height, x : x + width]) for y, x in corners]

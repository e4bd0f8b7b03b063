"""From displacements of the flow grid to pixels of the output: scaled, resized, and sampled once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import MAX_DISPLACEMENT_PX, Field32, FlowMeta, partial_flow
from structureflow.guide.images import cover_box

# OpenCV takes None for the second map; its type hints don't know
_NO_SECOND_MAP = cast("NDArray[np.float32]", None)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the output lies on the flow grid: it shows the structure video covered and centre-cropped.

    The part `rows`, `columns` of the grid, resized to `full` (height, width) output pixels, holds the output at
    `offset` (top, left). `scale` is output pixels per grid pixel, (x, y): vectors are multiplied by it.
    """

    rows: slice
    columns: slice
    full: tuple[int, int]
    offset: tuple[int, int]
    scale: tuple[float, float]
    height: int
    width: int

    @classmethod
    def of(cls, meta: FlowMeta, height: int, width: int) -> Geometry:
        """Place an output of `height` x `width` pixels on the grid of `meta`, as `fit` places video frames."""
        top, left, box_height, box_width = cover_box(meta.original_height, meta.original_width, height, width)
        rows, full_height, offset_y, scale_y = _axis(top, box_height, meta.original_height, meta.height, height)
        columns, full_width, offset_x, scale_x = _axis(left, box_width, meta.original_width, meta.width, width)
        return cls(rows, columns, (full_height, full_width), (offset_y, offset_x), (scale_x, scale_y), height, width)


def _axis(start: int, length: int, original: int, grid: int, output: int) -> tuple[slice, int, int, float]:
    """Place one axis; whole grid cells around the box, so that a plain resize and a cut suffice."""
    first = start * grid // original
    last = min(grid, -(-(start + length) * grid // original))
    scale = output / length * original / grid
    offset = round((start * grid / original - first) * scale)
    full = max(round((last - first) * scale), offset + output)
    return slice(first, last), full, offset, scale


class Warper:
    """Samples anchors along displacements; keeps its buffers, so one per thread."""

    def __init__(self, geometry: Geometry) -> None:
        """Allocate the buffers for one output size."""
        self._geometry = geometry
        self._full = np.empty((*geometry.full, 2), np.float32)

    def expand(self, displacement: Field32) -> Field32:
        """Bring a displacement from `scaled` to the output's grid.

        Returns:
            ``(height, width, 2)`` float32 in output pixels; a view that the next call overwrites.
        """
        geometry = self._geometry
        rows, columns = geometry.full
        if displacement.shape[:2] == geometry.full:
            full = displacement
        else:
            cv2.resize(displacement, (columns, rows), dst=self._full, interpolation=cv2.INTER_LINEAR)
            full = self._full
        top, left = geometry.offset
        return full[top : top + geometry.height, left : left + geometry.width]

    def warp(self, anchor: NDArray[np.uint8], displacement: Field32, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Sample the anchor once, at ``x + displacement(x)``; past its edge, its edge.

        Args:
            anchor: ``(height, width, 3)`` uint8 RGB.
            displacement: from `scaled`.
            out: ``(height, width, 3)`` uint8 to write to.

        Returns:
            `out`.
        """
        cv2.remap(
            anchor,
            self.expand(displacement),
            _NO_SECOND_MAP,
            cv2.INTER_LINEAR | cv2.WARP_RELATIVE_MAP,
            dst=out,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return out


def scaled(displacement: Field32, geometry: Geometry, strength: float, out: Field32 | None = None) -> Field32:
    """Cut a grid displacement to the part that is shown, go `strength` of its way, and measure in output pixels.

    Each pixel of the anchor goes `strength` times its own way, straight: what arrives at x after the whole way
    is at ``x + (1 - strength) displacement(x)`` after that part of it.

    Args:
        displacement: ``(h, w, 2)`` float32 in grid pixels, pulling from the anchor.
        geometry: the part shown and the size of a grid pixel.
        strength: 0 (stay) and up; 1 as in the structure video.
        out: ``(rows, columns, 2)`` float32 of the part to write to.

    Returns:
        ``(rows, columns, 2)`` float32, bounded for OpenCV.
    """
    if strength == 1:
        moved = displacement
    elif strength == 0:
        moved = np.zeros_like(displacement)
    else:
        moved = partial_flow(displacement, lag=1 - strength, span=strength)
    part = moved[geometry.rows, geometry.columns]
    result: Any = np.empty(part.shape, np.float32) if out is None else out
    # one axis at a time: numpy is several times slower when it broadcasts over the last axis of two
    for axis in (0, 1):
        np.multiply(part[..., axis], np.float32(geometry.scale[axis]), out=result[..., axis])
    np.clip(result, -MAX_DISPLACEMENT_PX, MAX_DISPLACEMENT_PX, out=result)
    field: Field32 = result
    return field


def expand_mask(mask: NDArray[np.uint8], geometry: Geometry, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Bring a soft mask from the flow grid to the output's.

    Args:
        mask: ``(h, w)`` uint8 on the whole grid.
        geometry: the part shown.
        out: ``geometry.full`` uint8 to write to.

    Returns:
        ``(height, width)`` uint8, a view of `out` if that was given.
    """
    full = np.empty(geometry.full, np.uint8) if out is None else out
    part = np.ascontiguousarray(mask[geometry.rows, geometry.columns])
    cv2.resize(part, (geometry.full[1], geometry.full[0]), dst=full, interpolation=cv2.INTER_LINEAR)
    top, left = geometry.offset
    return full[top : top + geometry.height, left : left + geometry.width]


def mix(
    before: NDArray[np.uint8], after: NDArray[np.uint8], share: NDArray[np.uint8], out: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Mix two frames pixel by pixel, in whole levels: within 1 of the exact value.

    Args:
        before, after: ``(H, W, 3)`` uint8 RGB.
        share: ``(H, W)`` uint8, how much of `after`: 255 is all.
        out: ``(H, W, 3)`` uint8 to write to; may be `before`.

    Returns:
        `out`.
    """
    weight = cv2.cvtColor(share, cv2.COLOR_GRAY2RGB)
    shown = cv2.multiply(after, weight, scale=1 / 255)
    cv2.bitwise_not(weight, dst=weight)
    cv2.multiply(before, weight, dst=out, scale=1 / 255)
    cv2.add(out, shown, dst=out)
    return out

"""From displacements of the flow grid to pixels of the output: scaled, resized, and sampled once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import Field32, FlowMeta
from structureflow.guide.images import cover_box

_SUPERSAMPLED_PX: Final = 4 * 2**20
# remap keeps coordinates in 16 bits, and there are up to two samples per pixel
_MAX_OUTPUT_PX: Final = 8_192.0
_BAND_ROWS: Final = 90
_HALF_PIXEL: Final = np.array([[1, -5, 20, 20, -5, 1]], np.float32) / 32
# OpenCV takes None for the second map; its type hints don't know
_NO_SECOND_MAP = cast("NDArray[np.float32]", None)


@dataclass(frozen=True, slots=True)
class Axis:
    """Where the output lies on one axis of the flow grid.

    Cells `first` (inclusive) to `last` (exclusive), resized to `full` output pixels, hold the `output` pixels
    from `offset` on. There is a cell more than needed on each side, so that no output pixel is interpolated
    past the last cell; it may lie outside of the grid of `grid` cells. `scale` is output pixels per cell.
    """

    grid: int
    first: int
    last: int
    full: int
    offset: int
    output: int
    scale: float

    @classmethod
    def of(cls, grid: int, original: int, start: int, length: int, output: int) -> Axis:
        """Place `output` pixels that show `length` of the `original` pixels of the video from `start` on."""
        first = start * grid // original - 1
        last = -(-(start + length) * grid // original) + 1
        scale = output / length * original / grid
        offset = round((start * grid / original - first) * scale)
        return cls(grid, first, last, max(round((last - first) * scale), offset + output), offset, output, scale)

    @property
    def cells(self) -> slice:
        """The cells that are there."""
        return slice(max(self.first, 0), min(self.last, self.grid))

    @property
    def missing(self) -> tuple[int, int]:
        """How many cells are not there: before the grid, and behind it."""
        return max(-self.first, 0), max(self.last - self.grid, 0)

    @property
    def shown(self) -> slice:
        """The output among the `full` pixels."""
        return slice(self.offset, self.offset + self.output)

    def places(self) -> Field32:
        """Return the output pixel that each cell's centre is at, ``(last - first,)`` float32."""
        cells = self.last - self.first
        return np.asarray((np.arange(cells) + 0.5) * self.full / cells - 0.5 - self.offset, np.float32)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the output lies on the flow grid: it shows the structure video covered and centre-cropped."""

    y: Axis
    x: Axis

    @classmethod
    def of(cls, meta: FlowMeta, height: int, width: int) -> Geometry:
        """Place an output of `height` x `width` pixels on the grid of `meta`, as `fit` places video frames."""
        top, left, box_height, box_width = cover_box(meta.original_height, meta.original_width, height, width)
        return cls(
            Axis.of(meta.height, meta.original_height, top, box_height, height),
            Axis.of(meta.width, meta.original_width, left, box_width, width),
        )

    @property
    def part_shape(self) -> tuple[int, int]:
        """(rows, columns) of the cells that the output needs."""
        return self.y.last - self.y.first, self.x.last - self.x.first

    @property
    def full_shape(self) -> tuple[int, int]:
        """(height, width) of these cells in output pixels."""
        return self.y.full, self.x.full

    def part(self, field: NDArray[Any], out: NDArray[Any]) -> None:
        """Copy the cells that the output needs; past the grid, its edge. ``(h, w, ...)`` to ``(*part_shape, ...)``."""
        (above, below), (left, right) = self.y.missing, self.x.missing
        cells = field[self.y.cells, self.x.cells]
        cv2.copyMakeBorder(cells, above, below, left, right, cv2.BORDER_REPLICATE, dst=out)

    def enlarge(self, part: NDArray[Any], out: NDArray[Any]) -> None:
        """Resize ``(*part_shape, ...)`` to ``(*full_shape, ...)``, bilinearly."""
        cv2.resize(part, (self.x.full, self.y.full), dst=out, interpolation=cv2.INTER_LINEAR)

    def shown(self, full: NDArray[Any]) -> NDArray[Any]:
        """Return the output's view of ``(*full_shape, ...)``."""
        return full[self.y.shown, self.x.shown]


class Anchor:
    """A guided frame made ready to be sampled between its pixels: sharper than bilinear, at its price.

    The frame is interpolated once to twice its size; sampling that bilinearly keeps most of the detail that
    bilinear sampling of the frame itself loses. Frames above 4 megapixels are sampled as they are.
    """

    def __init__(self, height: int, width: int) -> None:
        """Allocate the buffers for frames of one size."""
        self.factor = 2 if height * width <= _SUPERSAMPLED_PX else 1
        self.frame: NDArray[np.uint8] = np.empty((height, width, 3), np.uint8)
        self._rows = np.empty((height, 2, 2 * width, 3), np.uint8) if self.factor == 2 else None

    def hold(self, frame: NDArray[np.uint8]) -> None:
        """Copy a frame, ``(height, width, 3)`` uint8 RGB, and interpolate it."""
        np.copyto(self.frame, frame)
        if self._rows is not None:
            supersample(self.frame, self._rows)

    @property
    def samples(self) -> NDArray[np.uint8]:
        """``(factor height, factor width, 3)`` uint8 RGB; pixel (x, y) of the frame is at ``factor (x, y)``."""
        if self._rows is None:
            return self.frame
        height, _, columns, _ = self._rows.shape
        return self._rows.reshape(2 * height, columns, 3)


def supersample(frame: NDArray[np.uint8], rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Interpolate a frame at half pixels, with the six-tap filter of H.264 (ITU-T H.264, 8.4.2.2.1).

    Args:
        frame: ``(H, W, 3)`` uint8 RGB, contiguous.
        rows: ``(H, 2, 2 W, 3)`` uint8 to write to, contiguous: each row of the frame, and the one below it.

    Returns:
        `rows`; as ``(2 H, 2 W, 3)``, the frame's own pixels are at even places, unchanged.
    """
    height, width = frame.shape[:2]
    between = cv2.filter2D(frame, -1, _HALF_PIXEL, anchor=(2, 0), borderType=cv2.BORDER_REPLICATE)
    # six channels, pixel by pixel, are two pixels of three
    wide = cv2.merge([frame, between]).reshape(height, 2 * width, 3)
    rows[:, 0] = wide
    rows[:, 1] = cv2.filter2D(
        wide, -1, np.ascontiguousarray(_HALF_PIXEL.T), anchor=(0, 2), borderType=cv2.BORDER_REPLICATE
    )
    return rows


class Warper:
    """Samples anchors along displacements; keeps its buffers, so one per thread."""

    def __init__(self, geometry: Geometry) -> None:
        """Allocate the buffers for one output size."""
        self._geometry = geometry
        self._part = np.empty((*geometry.part_shape, 2), np.float32)
        self._full = np.empty((*geometry.full_shape, 2), np.float32)
        self._whole = np.empty((_BAND_ROWS, geometry.x.output, 2), np.int16)
        self._fraction = np.empty((_BAND_ROWS, geometry.x.output), np.uint16)

    def expand(self, displacement: Field32) -> Field32:
        """Bring a displacement from the flow grid to the output.

        Args:
            displacement: ``(h, w, 2)`` float32 in grid pixels.

        Returns:
            ``(height, width, 2)`` float32 in output pixels, bounded; a view that the next call overwrites.
        """
        self._scale(displacement, 1)
        self._geometry.enlarge(self._part, self._full)
        return self._geometry.shown(self._full)

    def warp(self, anchor: Anchor, displacement: Field32, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Sample the anchor once, at ``x + displacement(x)``; past its edge, its edge; bit by bit where that is 0.

        Args:
            anchor: of the output's size.
            displacement: ``(h, w, 2)`` float32 in grid pixels, pulling from the anchor.
            out: ``(height, width, 3)`` uint8 to write to.

        Returns:
            `out`.
        """
        factor = anchor.factor
        self._scale(displacement, factor)
        # where a pixel is grows evenly, so adding it on the small grid comes to the same, and costs less
        self._part[..., 0] += self._geometry.x.places() * factor
        self._part[..., 1] += self._geometry.y.places()[:, None] * factor
        self._geometry.enlarge(self._part, self._full)
        places = self._geometry.shown(self._full)
        samples = anchor.samples
        # bands that fit into the processor's cache, and fixed-point maps: faster together by a quarter
        for first in range(0, len(out), _BAND_ROWS):
            band = slice(first, min(first + _BAND_ROWS, len(out)))
            rows = slice(0, band.stop - first)
            whole, fraction = self._whole[rows], self._fraction[rows]
            cv2.convertMaps(places[band], _NO_SECOND_MAP, cv2.CV_16SC2, dstmap1=whole, dstmap2=fraction)
            cv2.remap(samples, whole, fraction, cv2.INTER_LINEAR, dst=out[band], borderMode=cv2.BORDER_REPLICATE)
        return out

    def _scale(self, displacement: Field32, factor: int) -> None:
        geometry, part = self._geometry, self._part
        geometry.part(displacement, part)
        # one axis at a time: numpy is several times slower when it broadcasts over the last axis of two
        part[..., 0] *= np.float32(factor * geometry.x.scale)
        part[..., 1] *= np.float32(factor * geometry.y.scale)
        limit = np.float32(factor * _MAX_OUTPUT_PX)
        np.clip(part, -limit, limit, out=part)


def expand_mask(mask: NDArray[np.uint8], geometry: Geometry, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Bring a soft mask from the flow grid to the output's.

    Args:
        mask: ``(h, w)`` uint8 over the whole grid, at its size or smaller.
        geometry: the part shown.
        out: ``geometry.full_shape`` uint8 to write to.

    Returns:
        ``(height, width)`` uint8, a view of `out` if that was given.
    """
    full = np.empty(geometry.full_shape, np.uint8) if out is None else out
    grid = cv2.resize(mask, (geometry.x.grid, geometry.y.grid), interpolation=cv2.INTER_LINEAR)
    part = np.empty(geometry.part_shape, np.uint8)
    geometry.part(grid, part)
    geometry.enlarge(part, full)
    return geometry.shown(full)


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

"""From displacements of the flow grid to pixels of the output: scaled, resized, and sampled once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

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

    @property
    def bounds(self) -> tuple[float, float]:
        """Where on the grid the output's first and last pixel begin and end."""
        places = self.places()
        step = float(places[-1] - places[0]) / (len(places) - 1)
        begin = self.first - (float(places[0]) + 0.5) / step
        return begin, begin + self.output / step

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
    """A part of a guided picture made ready to be sampled between its pixels: sharper than bilinear, at its price.

    The part is interpolated once to twice its size; sampling that bilinearly keeps most of the detail that
    bilinear sampling of the part itself loses. Parts above 4 megapixels are sampled as they are.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Allocate the buffers for parts of one shape, ``(height, width)`` or ``(height, width, channels)``."""
        height, width, *channels = shape
        self.factor = 2 if height * width <= _SUPERSAMPLED_PX else 1
        self._frame: NDArray[np.uint8] = np.empty(shape, np.uint8)
        self._rows = np.empty((height, 2, 2 * width, *channels), np.uint8) if self.factor == 2 else None

    def hold(self, frame: NDArray[np.uint8]) -> None:
        """Copy a part, uint8 of the shape given, and interpolate it."""
        if self._rows is None:
            np.copyto(self._frame, frame)
        else:
            supersample(frame, self._rows)

    @property
    def samples(self) -> NDArray[np.uint8]:
        """``(factor height, factor width, ...)`` uint8; pixel (x, y) of the part is at ``factor (x, y)``."""
        if self._rows is None:
            return self._frame
        height, _, columns, *channels = self._rows.shape
        return self._rows.reshape(2 * height, columns, *channels)


def supersample(frame: NDArray[np.uint8], rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Interpolate a picture at half pixels, with the six-tap filter of H.264 (ITU-T H.264, 8.4.2.2.1).

    Args:
        frame: ``(H, W)`` or ``(H, W, C)`` uint8, contiguous.
        rows: ``(H, 2, 2 W)`` or ``(H, 2, 2 W, C)`` uint8 to write to, contiguous: each row of the picture, and the
            one below it.

    Returns:
        `rows`; as ``(2 H, 2 W, C)``, the picture's own pixels are at even places, unchanged.
    """
    height, width, *channels = frame.shape
    between = cv2.filter2D(frame, -1, _HALF_PIXEL, anchor=(2, 0), borderType=cv2.BORDER_REPLICATE)
    # twice as many channels, pixel by pixel, are two pixels
    wide = cv2.merge([frame, between]).reshape(height, 2 * width, *channels)
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
        # x and y apart: OpenCV samples one channel along two maps twice as fast as along one map of both
        self._parts = [np.empty(geometry.part_shape, np.float32) for _ in range(2)]
        self._fulls = [np.empty(geometry.full_shape, np.float32) for _ in range(2)]

    def expand(self, displacement: Field32) -> Field32:
        """Bring a displacement from the flow grid to the output.

        Args:
            displacement: ``(h, w, 2)`` float32 in grid pixels.

        Returns:
            ``(height, width, 2)`` float32 in output pixels, bounded; fresh memory.
        """
        return np.stack(self._enlarged(displacement, 1, (0, 0)), axis=-1)

    def warp(self, anchors: Sequence[Anchor], displacement: Field32, outs: Sequence[NDArray[np.uint8]]) -> None:
        """Sample anchors once, at ``x + displacement(x)``; past the edge, the edge; bit by bit where that is 0.

        Args:
            anchors: of the output's size and all of one factor.
            displacement: ``(h, w, 2)`` float32 in grid pixels, pulling from the anchors.
            outs: for each anchor ``(height, width)`` or ``(height, width, channels)`` uint8 to write to.
        """
        factor = anchors[0].factor
        # where a pixel is grows evenly, so adding it on the small grid comes to the same, and costs less
        origins = self._geometry.x.places() * factor, self._geometry.y.places()[:, None] * factor
        x, y = self._enlarged(displacement, factor, origins)
        for anchor, out in zip(anchors, outs, strict=True):
            # bands that fit into the processor's cache
            for first in range(0, len(out), _BAND_ROWS):
                band = slice(first, first + _BAND_ROWS)
                cv2.remap(
                    anchor.samples, x[band], y[band], cv2.INTER_LINEAR, dst=out[band], borderMode=cv2.BORDER_REPLICATE
                )

    def _enlarged(self, displacement: Field32, factor: int, origins: tuple[Any, Any]) -> list[Field32]:
        """Scale a displacement, add where it starts, and bring it to the output: x and y."""
        geometry = self._geometry
        limit = np.float32(factor * _MAX_OUTPUT_PX)
        shown = []
        for number, (part, full) in enumerate(zip(self._parts, self._fulls, strict=True)):
            geometry.part(displacement[..., number], part)
            part *= np.float32(factor * (geometry.x, geometry.y)[number].scale)
            np.clip(part, -limit, limit, out=part)
            part += origins[number]
            geometry.enlarge(part, full)
            shown.append(geometry.shown(full))
        return shown


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
    """Mix two pictures pixel by pixel, in whole levels: within 1 of the exact value.

    Args:
        before, after: ``(H, W)`` or ``(H, W, C)`` uint8.
        share: ``(H, W)`` uint8, how much of `after`: 255 is all.
        out: uint8 of that shape to write to; may be `before`.

    Returns:
        `out`.
    """
    weight = share if before.ndim == 2 else cv2.merge([share] * before.shape[2])
    shown = cv2.multiply(after, weight, scale=1 / 255)
    weight = cv2.bitwise_not(weight)
    cv2.multiply(before, weight, dst=out, scale=1 / 255)
    cv2.add(out, shown, dst=out)
    return out

"""The same motion in plain numpy, slowly and all at once: what the fast paths of `guide` must equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from structureflow.guide.images import cover_box

Real = NDArray[np.float64]

_ITERATIONS: Final = 6


def sample_at(values: NDArray[Any], x: Real, y: Real) -> Real:
    """Sample ``(H, W, C)`` at real (x, y), bilinearly; past the edge, the edge. Returns ``(*x.shape, C)``."""
    height, width = values.shape[:2]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    share_x, share_y = (x - left)[..., None], (y - top)[..., None]
    real = values.astype(np.float64)
    upper = real[top, left] * (1 - share_x) + real[top, right] * share_x
    lower = real[bottom, left] * (1 - share_x) + real[bottom, right] * share_x
    sampled: Real = upper * (1 - share_y) + lower * share_y
    return sampled


def pull_plainly(values: NDArray[Any], displacement: NDArray[Any]) -> Real:
    """Sample ``(H, W, C)`` at ``x + displacement(x)``."""
    y, x = np.mgrid[0 : displacement.shape[0], 0 : displacement.shape[1]].astype(np.float64)
    return sample_at(values, x + displacement[..., 0], y + displacement[..., 1])


def part_of(flow: NDArray[Any], begin: float, end: float) -> Real:
    """The part of a pulling flow from share `end` of its time back to share `begin`, seen at `end`."""
    moved: Real = flow.astype(np.float64)
    for _ in range(_ITERATIONS):
        moved = pull_plainly(flow, -(1 - end) * moved)
    return moved * (end - begin)


def carry_plainly(legs: Sequence[NDArray[Any]], start: float, position: float) -> Real:
    """The displacement from node `position` back to node `start` along pulling `legs` (m + 1 to m)."""
    joined = np.zeros(legs[0].shape, np.float64)
    for number, leg in enumerate(legs):
        begin, end = max(start - number, 0.0), min(position - number, 1.0)
        if begin < end:
            piece = leg.astype(np.float64) * (end - begin) if end == 1 else part_of(leg, begin, end)
            joined = piece + pull_plainly(joined, piece)
    return joined


def trace_plainly(legs: Sequence[NDArray[Any]], start: int, position: int) -> Real:
    """Where the pixels of node `start` are at node `position`, along `legs` (m to m + 1)."""
    way = np.zeros(legs[0].shape, np.float64)
    for leg in legs[start:position]:
        way = way + pull_plainly(leg, way)
    return way


def visible_plainly(there: NDArray[Any], back: NDArray[Any]) -> NDArray[np.bool_]:
    """Forward-backward consistency, written as the formula stands."""
    height, width = there.shape[:2]
    returned = pull_plainly(back, there)
    wide = there.astype(np.float64)
    miss = ((wide + returned) ** 2).sum(axis=-1)
    length = (wide**2).sum(axis=-1) + (returned**2).sum(axis=-1)
    y, x = np.mgrid[0:height, 0:width]
    to_x, to_y = x + there[..., 0], y + there[..., 1]
    inside = (to_x >= -0.5) & (to_x <= width - 0.5) & (to_y >= -0.5) & (to_y <= height - 0.5)
    visible: NDArray[np.bool_] = (miss < 0.01 * length + 0.5) & inside
    return visible


def warp_plainly(frame: NDArray[np.uint8], displacement: NDArray[Any], original: tuple[int, int]) -> Real:
    """Sample an anchor ``(H, W, 3)`` once along a displacement of the flow grid of an `original` (height, width)."""
    height, width = frame.shape[:2]
    top, left, box_height, box_width = cover_box(*original, height, width)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    grid_height, grid_width = displacement.shape[:2]
    cell_x = (left + (x + 0.5) * box_width / width) * grid_width / original[1] - 0.5
    cell_y = (top + (y + 0.5) * box_height / height) * grid_height / original[0] - 0.5
    vectors = sample_at(displacement, cell_x, cell_y)
    to_x = x + vectors[..., 0] * width / box_width * original[1] / grid_width
    to_y = y + vectors[..., 1] * height / box_height * original[0] / grid_height
    return sample_at(half_pixels(frame), 2 * to_x, 2 * to_y)


def half_pixels(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Interpolate ``(H, W, 3)`` uint8 at half pixels with the six-tap filter, rows after columns."""
    wide = np.repeat(frame, 2, axis=1)
    wide[:, 1::2] = _between(frame)
    tall = np.repeat(wide, 2, axis=0)
    tall[1::2] = np.swapaxes(_between(np.swapaxes(wide, 0, 1)), 0, 1)
    return tall


def _between(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    width = frame.shape[1]
    padded = np.pad(frame.astype(np.float64), ((0, 0), (2, 3), (0, 0)), mode="edge")
    taps = (1, -5, 20, 20, -5, 1)
    total = sum(tap / 32 * padded[:, place : place + width] for place, tap in enumerate(taps))
    return np.asarray(np.clip(np.rint(total), 0, 255), np.uint8)

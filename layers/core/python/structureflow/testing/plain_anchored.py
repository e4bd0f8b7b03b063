"""The refinement of a path in plain numpy, slowly: what `guide.refine` must equal. The matcher's offer is handed in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from structureflow.testing.plain_motion import Real, pull_plainly

_TAPS = np.array([1, 2, 3, 4, 3, 2, 1]) / 16


def looks_plainly(gray: NDArray[np.uint8]) -> tuple[Real, Real]:
    """Return local contrast (over 15 pixels) and broad contrast (over 0.45 of the longer side), weighted 0.3."""
    plain = gray.astype(np.float64)
    broad = max(3, round(0.45 * max(gray.shape)) | 1)
    return plain - _box(plain, 15), 0.3 * (plain - _box(plain, broad))


def unlike_plainly(now: tuple[Real, Real], anchor: tuple[Real, Real], path: NDArray[Any]) -> Real:
    """Return the mean difference of two looks around each pixel, along `path`, ``(h, w)`` levels."""
    seen = pull_plainly(np.stack(anchor, axis=-1), path)
    return _gather(np.abs(now[0] - seen[..., 0]) + np.abs(now[1] - seen[..., 1]))


def refine_plainly(
    now: NDArray[np.uint8],
    anchor: NDArray[np.uint8],
    path: NDArray[Any],
    matched: NDArray[Any],
    spread_px: int,
    turn: int,
) -> tuple[Real, Real]:
    """Return the better path, pixel by pixel, and how unlike what it shows is; see `guide.refine.Refiner.refine`."""
    look, other = looks_plainly(now), looks_plainly(anchor)
    best = path.astype(np.float64)
    least = unlike_plainly(look, other, best)

    def offer(candidate: NDArray[Any]) -> None:
        nonlocal best, least
        unlike = unlike_plainly(look, other, candidate)
        better = unlike < least
        best = np.where(better[..., None], candidate, best)
        least = np.where(better, unlike, least)

    offer(matched)
    offer(best + step_plainly(look[0], other[0], best))
    if spread_px:
        spread_px = spread_px if turn % 4 > 1 else (spread_px + 1) // 2
        wide = np.pad(best, ((spread_px, spread_px), (spread_px, spread_px), (0, 0)), mode="edge")
        height, width = best.shape[:2]
        for dx, dy in ((-1, 0), (1, 0)) if turn % 2 == 0 else ((0, -1), (0, 1)):
            y, x = spread_px * (1 + dy), spread_px * (1 + dx)
            offer(wide[y : y + height, x : x + width])
    return best, least


def held_plainly(before: Real, unlike: NDArray[Any]) -> Real:
    """Return the difference that is held along a path, ``(h, w)`` levels; see `guide.evidence.Evidence.judged`.

    Args:
        before: what was held of each pixel one frame nearer to the anchor.
        unlike: the difference now.
    """
    held = before.astype(np.float64)
    for place, now in np.ndenumerate(unlike.astype(np.float64)):
        most, least = float((now + 1) * 1.18 - 1), float((now + 1) / 1.18 - 1)
        held[place] = min(max(float(held[place]), least), most)
    return held


def step_plainly(now: Real, anchor: Real, path: Real) -> Real:
    """Return the least-squares step (Lucas and Kanade) from `path`, at most 1.5 pixels per axis."""
    wide = np.pad(anchor, 1, mode="edge")
    smooth_down = 3 * wide[:-2] + 10 * wide[1:-1] + 3 * wide[2:]
    smooth_across = 3 * wide[:, :-2] + 10 * wide[:, 1:-1] + 3 * wide[:, 2:]
    across = (smooth_down[:, 2:] - smooth_down[:, :-2]) / 32
    down = (smooth_across[2:] - smooth_across[:-2]) / 32
    seen = pull_plainly(np.stack([anchor, across, down], axis=-1), path)
    miss, gx, gy = now - seen[..., 0], seen[..., 1], seen[..., 2]
    xx, yy, xy = _gather(gx * gx) + 20, _gather(gy * gy) + 20, _gather(gx * gy)
    bx, by = _gather(gx * miss), _gather(gy * miss)
    scale = 1 / (xx * yy - xy * xy)
    step = np.stack([(yy * bx - xy * by) * scale, (xx * by - xy * bx) * scale], axis=-1)
    return np.clip(step, -1.5, 1.5)


def _gather(plane: Real) -> Real:
    wide = np.pad(plane, 3, mode="edge")
    rows: Real = sum(tap * wide[place : place + plane.shape[0]] for place, tap in enumerate(_TAPS))
    whole: Real = sum(tap * rows[:, place : place + plane.shape[1]] for place, tap in enumerate(_TAPS))
    return whole


def _box(plane: Real, window: int) -> Real:
    """Average over a window, mirrored at the edges without doubling them."""
    half = window // 2
    rows, columns = (_mirrored(size, half) for size in plane.shape)
    wide = plane[np.ix_(rows, columns)]
    for axis in (0, 1):
        summed = np.cumsum(np.insert(wide, 0, 0, axis=axis), axis=axis)
        count = wide.shape[axis] - window + 1
        wide = (
            np.take(summed, np.arange(window, window + count), axis) - np.take(summed, np.arange(count), axis)
        ) / window
    return wide


def _mirrored(size: int, margin: int) -> NDArray[np.intp]:
    period = 2 * (size - 1)
    places = np.mod(np.arange(-margin, size + margin), period)
    return np.asarray(np.where(places < size, places, period - places), np.intp)

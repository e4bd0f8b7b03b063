"""White noise that moves with a video: what Go-with-the-Flow starts its generation from.

Burgert et al., "Go-with-the-Flow: Motion-Controllable Video Diffusion Models Using Real-Time Warped Noise" (CVPR 2025),
section 3 and algorithm 1; written from the paper. Each frame of noise is a set of particles, one for each pixel of a
fine grid, that carry their noise and the area it is the noise of:

* Contraction: particles that land on one pixel are added, areas too. The sum of Gaussians of variance a and b is one
  of variance a + b, so the noise of a pixel is brought to unit variance by the root of its area.
* Expansion: a pixel on which nothing lands, and which does come from somewhere, takes a share of the particle there.
  The shares of a particle sum up to it and are independent of each other: fresh noise is added that sums up to nothing.
* What comes from nowhere (uncovered, or from outside of the frame) is fresh noise.

As no noise is counted twice, pixels stay independent and of unit variance, whatever the motion. Here particles also
keep the part of their way that whole pixels leave over, so that slow motion is not lost.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import Field32, invert_flow, pull

#: Pixels of the fine grid per latent sample and axis.
FINENESS: Final = 4
#: Areas are kept within this factor of the first frame's: beyond, a zoom has replaced all there was.
_AREA_RANGE: Final = 64.0
#: A pixel comes from where the flow leads to it, if it does so within as many pixels of the fine grid.
_RETURNS_PX: Final = 1.0

Noise = NDArray[np.float32]


class NoiseWarper:
    """Noise of one frame after the other, ``(height, width, channels)`` float32 of unit normal samples."""

    def __init__(self, height: int, width: int, channels: int, random: np.random.Generator) -> None:
        """Draw the first frame of `height` x `width` latent samples."""
        self._shape = height * FINENESS, width * FINENESS
        self._latents = height, width
        self._random = random
        count = self._shape[0] * self._shape[1]
        rows, columns = np.mgrid[0 : self._shape[0], 0 : self._shape[1]]
        self._grid = np.stack([columns, rows], axis=-1).astype(np.float32)
        self._noise = np.empty((channels, count), np.float32)
        self._area = np.empty(count, np.float64)
        self._rest = np.empty((count, 2), np.float32)
        self.renew()

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the fine grid, on which flows are given."""
        return self._shape

    def renew(self) -> None:
        """Begin anew: noise that has nothing to do with what was."""
        self._random.standard_normal(dtype=np.float32, out=self._noise)
        self._area.fill(1)
        self._rest.fill(0)

    def move(self, flow: Field32) -> None:
        """Go on to the next frame.

        Args:
            flow: ``(*shape, 2)`` float32, finite: where each pixel of the fine grid goes, in its pixels.
        """
        height, width = self._shape
        count = height * width
        rest = self._rest.reshape(height, width, 2)
        landing = self._grid + flow + rest
        target = np.rint(landing)
        inside = (target >= 0).all(axis=-1) & (target[..., 0] < width) & (target[..., 1] < height)
        source = np.flatnonzero(inside)
        aim = target.reshape(-1, 2)[source].astype(np.intp)
        goal = aim[:, 1] * width + aim[:, 0]

        empty = np.ones(count, np.bool_)
        empty[goal] = False
        more_source, more_goal = self._stretched(flow + rest, empty)
        source, goal = np.concatenate([source, more_source]), np.concatenate([goal, more_goal])

        shares = np.bincount(source, minlength=count)
        area = self._area[source] / shares[source]
        reached = np.bincount(goal, minlength=count) > 0
        total = np.bincount(goal, weights=area, minlength=count)
        kept = np.where(reached, np.clip(total, 1 / _AREA_RANGE, _AREA_RANGE), 1)
        scale = np.sqrt(kept / np.where(reached, total, 1))

        self._rest = self._remainders(landing.reshape(-1, 2), source, goal, area, total)
        self._carry(source, goal, shares, area, reached, scale)
        self._area = kept

    def _stretched(self, moved: Field32, empty: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return for empty pixels inside of what stretches the pixels that they come from, and the empty ones."""
        height, width = self._shape
        back = invert_flow(moved)
        returned = pull(moved, back)
        returned += back
        comes_from = np.rint(self._grid + back)
        good = (np.abs(returned).max(axis=-1) < _RETURNS_PX) & empty.reshape(height, width)
        good &= (comes_from >= 0).all(axis=-1) & (comes_from[..., 0] < width) & (comes_from[..., 1] < height)
        goal = np.flatnonzero(good)
        places = comes_from.reshape(-1, 2)[goal].astype(np.intp)
        return places[:, 1] * width + places[:, 0], goal

    def _remainders(
        self,
        landing: NDArray[np.float32],
        source: NDArray[np.intp],
        goal: NDArray[np.intp],
        area: NDArray[np.float64],
        total: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """Return how far the content of each pixel stands beside it, by the mean of what it is made of."""
        places = self._grid.reshape(-1, 2)
        left = np.clip(landing[source] - places[goal], -0.5, 0.5)
        whole = np.maximum(total, np.finfo(np.float64).tiny)
        return np.stack(
            [np.bincount(goal, weights=area * left[:, axis], minlength=len(total)) / whole for axis in range(2)],
            axis=-1,
        ).astype(np.float32)

    def _carry(
        self,
        source: NDArray[np.intp],
        goal: NDArray[np.intp],
        shares: NDArray[np.intp],
        area: NDArray[np.float64],
        reached: NDArray[np.bool_],
        scale: NDArray[np.float64],
    ) -> None:
        """Bring the noise of each channel to where it goes."""
        count = len(reached)
        split = np.flatnonzero(shares[source] > 1)
        owner = source[split]
        spread = np.sqrt(area[split])
        fresh = np.flatnonzero(~reached)
        for noise in self._noise:
            parts = noise[source] / shares[source]
            drawn = self._random.standard_normal(len(split))
            mean = np.bincount(owner, weights=drawn, minlength=count)[owner] / shares[owner]
            parts[split] += spread * (drawn - mean)
            noise[:] = np.bincount(goal, weights=parts, minlength=count) * scale
            noise[fresh] = self._random.standard_normal(len(fresh), dtype=np.float32)

    def latents(self) -> Noise:
        """Return the frame as latent samples, ``(height, width, channels)`` float32, mean 0 and variance 1 exactly."""
        height, width = self._latents
        area = self._area.reshape(height, FINENESS, width, FINENESS).sum(axis=(1, 3))
        cells = self._noise.reshape(-1, height, FINENESS, width, FINENESS).sum(axis=(2, 4), dtype=np.float64)
        samples = cells / np.sqrt(area)
        # by chance mean and deviation of a few thousand samples are some per cent off
        samples -= samples.mean()
        samples /= samples.std()
        return np.ascontiguousarray(samples.transpose(1, 2, 0), np.float32)

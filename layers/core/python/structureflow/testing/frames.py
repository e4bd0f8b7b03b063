"""Frames of a timeline with known truth, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from structureflow.frames.cache import Frame
from structureflow.testing.videos import pan_frames


def make_frames(
    count: int,
    *,
    height: int = 48,
    width: int = 64,
    seed: int = 0,
    start: int = 0,
    per_chunk: int = 1000,
    step_s: float = 0.04,
) -> list[Frame]:
    """Return `count` frames of a pan, numbered from `start`, in chunks of `per_chunk`, with uneven timestamps.

    Every picture is another one, and another `seed` gives quite other pictures.
    """
    uneven = np.random.default_rng(seed).uniform(0.5, 1.5, count) * step_s
    times = np.concatenate([[0.0], np.cumsum(uneven)[:-1]])
    return [
        Frame(start + number, f"chunk-{number // per_chunk}", round(float(time), 6), np.ascontiguousarray(image))
        for number, (time, image) in enumerate(
            zip(times, pan_frames(count, height, width, dx=3, dy=1, seed=seed), strict=True)
        )
    ]


def lengthened(manifest: dict[str, Any], count: int, *, fps: float = 25) -> dict[str, Any]:
    """Return the manifest of a timeline of `count` frames, whose files are copies of those that `manifest` has."""
    columns = manifest["frames"]
    here = len(columns["sequence"])
    return manifest | {
        "frames": {name: [values[number % here] for number in range(count)] for name, values in columns.items()}
        | {
            "sequence": list(range(count)),
            "key": [f"frames/{number:06d}.jpg" for number in range(count)],
            "timestamp_s": [number / fps for number in range(count)],
        }
    }


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB of two uint8 arrays of one shape; infinite if equal."""
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))

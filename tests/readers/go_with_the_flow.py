"""Go-with-the-Flow: the folder that ``cut_and_drag_inference.py`` takes as its sample.

Rules: noises.npy is loaded by numpy as frames, height, width, channels; of 49 frames 13 are taken for the latents of
CogVideoX, which want 16 channels of 60x90; input.mp4 gives the first picture.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.readers.videos import Video, read_video


def read_sample(folder: Path) -> tuple[NDArray[np.float32], Video]:
    """Return ``(F, C, H, W)`` noise, and the video."""
    noise = np.load(folder / "noises.npy", allow_pickle=False)
    assert noise.dtype.kind == "f"
    assert noise.ndim == 4
    assert np.isfinite(noise).all()
    video, _ = read_video(folder / "input.mp4")
    assert len(video) == len(noise)
    return noise.transpose(0, 3, 1, 2), video


def cogvideox_latents(noise: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the start of generation: 13 of 49 frames by nearest samples, ``(1, 13, 16, 60, 90)``."""
    assert len(noise) == 49
    taken = noise[[round(index * 48 / 12) for index in range(13)]][None]
    assert taken.shape == (1, 13, 16, 60, 90)
    return taken

"""VACE: ``src_video`` and ``src_mask`` as its Wan pipeline takes them, and its own flow pictures.

Rules: vace/models/wan/wan_vace.py (mask binarised at one half, white is generated), vace/annotators/flow.py (N pictures
for N frames, the first doubled) and RAFT's core/utils/flow_viz.py (Baker et al., normalised by the longest vector).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tests.readers.videos import Video, read_video

#: Steps of hue from red to yellow, green, cyan, blue, magenta and red again.
_STEPS: Final = (15, 6, 4, 11, 13, 6)


def read_control(video: Path, mask: Path) -> tuple[Video, NDArray[np.bool_]]:
    """Return the control video, and where the generator is to paint: ``(frames, height, width)``."""
    pictures, rate = read_video(video)
    masks, mask_rate = read_video(mask)
    assert pictures.shape == masks.shape
    assert rate == mask_rate
    return pictures, masks.mean(axis=-1) / 255 > 0.5


def flow_pictures(flows: NDArray[np.float64]) -> Video:
    """Paint N - 1 flows, ``(N - 1, H, W, 2)``, as the annotator does: N pictures."""
    painted = [_flow_picture(flow) for flow in flows]
    return np.stack(painted[:1] + painted)


def _flow_picture(flow: NDArray[np.float64]) -> NDArray[np.uint8]:
    u, v = flow[..., 0], flow[..., 1]
    longest = np.sqrt(u**2 + v**2).max() + 1e-5
    u, v = u / longest, v / longest
    wheel = _wheel()
    radius = np.sqrt(u**2 + v**2)
    hue = (np.arctan2(-v, -u) / np.pi + 1) / 2 * (len(wheel) - 1)
    low = np.floor(hue).astype(int)
    high = (low + 1) % len(wheel)
    part = (hue - low)[..., None]
    colour = ((1 - part) * wheel[low] + part * wheel[high]) / 255
    colour = np.where((radius <= 1)[..., None], 1 - radius[..., None] * (1 - colour), colour * 0.75)
    return np.asarray(np.floor(255 * colour), np.uint8)


def _wheel() -> NDArray[np.float64]:
    corners = np.array([[255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 255, 255], [0, 0, 255], [255, 0, 255]], float)
    colours = []
    for number, count in enumerate(_STEPS):
        begin, end = corners[number], corners[(number + 1) % 6]
        ramp = np.floor(255 * np.arange(count) / count)[:, None] / 255
        colours.append(begin + (end - begin) * ramp)
    return np.concatenate(colours)

"""Time-to-Move: the folder that ``run_wan.py`` and ``run_cog.py`` take as ``--input-path``.

Rules: run_cog.py (names of the files, the prompt stripped), pipelines/*.py: both videos must have as many frames as are
generated; the mask is white, above one half in any channel, where the signal is followed, is brought to the latents'
size by nearest samples and read at frames 0, 1, 5, 9 and so on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.readers.videos import Video, read_video


@dataclass(frozen=True)
class Sample:
    """What the script hands to its pipeline; `followed` is ``(latent frames, height / 8, width / 8)``."""

    image: NDArray[np.uint8]
    signal: Video
    mask: Video
    followed: NDArray[np.bool_]
    prompt: str


def read_folder(folder: Path, num_frames: int) -> Sample:
    """Read the folder for a video of `num_frames`.

    Raises:
        ValueError: there are fewer frames of the signal or of the mask.
    """
    with Image.open(folder / "first_frame.png") as opened:
        assert opened.format == "PNG"
        image = np.asarray(opened.convert("RGB"))
    signal, _ = read_video(folder / "motion_signal.mp4")
    mask, _ = read_video(folder / "mask.mp4")
    for name, video in (("motion signal", signal), ("mask", mask)):
        if len(video) < num_frames:
            raise ValueError(f"{name}: {len(video)} frames, fewer than {num_frames}")
    followed = (mask[:num_frames] / 255 > 0.5).any(axis=-1)
    times = [0, *range(1, num_frames, 4)]
    return Sample(
        image,
        signal[:num_frames],
        mask[:num_frames],
        followed[times][:, ::8, ::8],
        (folder / "prompt.txt").read_text(encoding="utf-8").strip(),
    )

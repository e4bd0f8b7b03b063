"""The files that examples of the library name: a clip, its first and last frame, and its flows."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import structureflow
from structureflow.testing.videos import pan_frames, write_clip


def make_media(folder: Path) -> None:
    """Make ``clip.mp4`` of 12 frames, ``a.png``, ``b.png`` and ``flows.npz``."""
    frames = list(pan_frames(12, 96, 160, dx=2, dy=0))
    write_clip(folder / "clip.mp4", frames, fps=25)
    Image.fromarray(frames[0]).save(folder / "a.png")
    Image.fromarray(frames[-1]).save(folder / "b.png")
    structureflow.extract_flows(folder / "clip.mp4", folder / "flows.npz")

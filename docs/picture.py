"""Draw the README's moving picture from the sample clip: ``python docs/picture.py``.

Left the structure video; in the middle the guide, in which two painted stills take its motion; right the mask.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import structureflow as sf
from structureflow.media.decode import VideoReader
from structureflow.testing.videos import write_clip
from structureflow_local.sample import make_sample

TARGET = Path(__file__).with_name("picture.webp")
SIZE = (640, 352)
SHOWN = (320, 176)
#: Of the clip; the guide has as many.
FRAMES = 33
FPS = 12
CAPTION_PX = 26
NAMES = ("structure video", "guide: two of your pictures, moved", "mask: white is for the generator")

Picture = NDArray[np.uint8]


def main() -> None:
    """Make the clip, its flows and the guide, and write the picture."""
    with TemporaryDirectory() as scratch:
        clip = Path(scratch) / "sample.mp4"
        make_sample(Path(scratch) / "whole.mp4")
        with VideoReader(Path(scratch) / "whole.mp4") as reader:
            frames = np.stack([frame.image for frame in islice(reader, FRAMES)])
        write_clip(clip, frames, 25)
        flows = sf.extract_flows(clip, Path(scratch) / "flows.npz")
        stills: dict[int | tuple[int, int], str | os.PathLike[str] | Picture] = {
            0: painted(frames[0]),
            FRAMES - 1: painted(frames[-1]),
        }
        guide = sf.render_guide(flows, stills, FRAMES, structure=clip, size=SIZE)
    shown = []
    for at in range(FRAMES):
        mask = np.repeat(guide.masks[at][..., None], 3, axis=2)
        shown.append(Image.fromarray(beside(frames[at], guide.frames[at], mask)))
    shown[0].save(TARGET, save_all=True, append_images=shown[1:], duration=1000 // FPS, loop=0, quality=72, method=6)
    print(f"{TARGET}: {TARGET.stat().st_size / 1e3:.0f} kB")


def painted(image: Picture) -> Picture:
    """Return a still as somebody might have painted it: at night, in flat colours."""
    flat = cv2.pyrMeanShiftFiltering(image, 7, 22).astype(np.float32) / 255
    light = flat.mean(axis=2, keepdims=True)
    night = 0.35 * flat + 0.65 * light
    graded = night**1.25 * np.array([0.55, 0.85, 1.25], np.float32) + np.array([0.02, 0.05, 0.16], np.float32)
    return np.asarray(np.clip(255 * graded, 0, 255), np.uint8)


def beside(*pictures: Picture) -> Picture:
    """Lay pictures side by side, each above its name."""
    tiles = []
    for picture, name in zip(pictures, NAMES, strict=True):
        small = cv2.resize(picture, SHOWN, interpolation=cv2.INTER_AREA)
        band = np.full((CAPTION_PX, SHOWN[0], 3), 255, np.uint8)
        cv2.putText(band, name, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.46, (40, 40, 40), 1, cv2.LINE_AA)
        tile = np.vstack([small, band])
        tiles.append(cv2.copyMakeBorder(tile, 0, 0, 0, 6, cv2.BORDER_CONSTANT, value=(255, 255, 255)))
    return np.asarray(np.hstack(tiles), np.uint8)


if __name__ == "__main__":
    main()

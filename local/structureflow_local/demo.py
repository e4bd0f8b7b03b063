"""The job that the demo runs when none is given: three segments between four frames of the video, for VACE."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from structureflow import DecodeLimits, VideoReader

SEGMENTS = 3


def write_demo_job(video: Path, folder: Path) -> Path:
    """Write ``demo.json`` and its four images, frames of `video` evenly spread, into `folder`.

    Raises:
        MediaError, InputNotFoundError: the video can't be used.
    """
    images = _spread_frames(video, folder)
    job: dict[str, Any] = {
        "task_id": "demo",
        "structure_video": str(video.resolve()),
        "target": "vace",
        "images": images,
    }
    path = folder / "demo.json"
    path.write_text(json.dumps(job, indent=2))
    return path


def _spread_frames(video: Path, folder: Path) -> list[str]:
    """Save frames spread evenly from the first to the last one that decodes; the same one twice if they are few."""
    with VideoReader(video, DecodeLimits()) as reader:
        total = reader.skip(DecodeLimits().max_frames)
    wanted = [round(i * (total - 1) / SEGMENTS) for i in range(SEGMENTS + 1)]
    names: dict[int, str] = {}
    with VideoReader(video, DecodeLimits()) as reader:
        for frame in reader:
            if frame.index in wanted:
                names[frame.index] = _save(folder, frame.index, frame.image)
    return [names[index] for index in wanted]


def _save(folder: Path, index: int, image: Any) -> str:
    name = f"image_{index:06d}.png"
    Image.fromarray(image).save(folder / name)
    return name

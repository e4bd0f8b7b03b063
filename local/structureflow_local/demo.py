"""The job that the demo runs when none is given: three segments whose images are frames of the video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from structureflow.media.decode import DecodeLimits, VideoReader

SEGMENTS = 3
FRAMES, OVERLAP, FADE, FPS = 73, 20, 10, 16


def write_demo_job(video: Path, folder: Path) -> Path:
    """Write ``demo.json`` and its four images, frames of `video` evenly spread, into `folder`.

    Raises:
        MediaError, InputNotFoundError: the video can't be used.
    """
    images = _spread_frames(video, folder)
    job: dict[str, Any] = {
        "task_id": "demo",
        "structure_video": str(video.resolve()),
        "treatment": "retime",
        "flow_span": "timeline",
        "anchors": "both",
        "fps": FPS,
        "images": images,
        "frames": FRAMES,
        "overlap": OVERLAP,
        "fade": FADE,
    }
    path = folder / "demo.json"
    path.write_text(json.dumps(job, indent=2))
    return path


def _spread_frames(video: Path, folder: Path) -> list[str]:
    with VideoReader(video, DecodeLimits()) as reader:
        wanted = {round(i * (max(reader.info.frames, 2) - 1) / SEGMENTS) for i in range(SEGMENTS + 1)}
        names: list[str] = []
        last = None
        for frame in reader:
            last = frame
            if frame.index in wanted:
                names.append(_save(folder, frame.index, frame.image))
        if last is not None and len(names) <= SEGMENTS:
            names.extend(_save(folder, last.index, last.image) for _ in range(SEGMENTS + 1 - len(names)))
    return names


def _save(folder: Path, index: int, image: Any) -> str:
    name = f"image_{index:06d}.png"
    Image.fromarray(image).save(folder / name)
    return name

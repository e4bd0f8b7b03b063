"""The job that the demo runs when none is given: three segments between four frames of the video."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from PIL import Image

from structureflow.media.decode import DecodeLimits, VideoReader

SEGMENTS = 3
FRAMES, START_HELD, END_HELD, FPS = 73, 20, 10, 16


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
        "segments": [_segment(start, end) for start, end in itertools.pairwise(images)],
    }
    path = folder / "demo.json"
    path.write_text(json.dumps(job, indent=2))
    return path


def _segment(start: str, end: str) -> dict[str, Any]:
    """Hold one image, leave 43 frames unguided, hold the next: the motion has to lead from one to the other."""
    guides = [
        {"at": [0, START_HELD - 1], "image": start},
        {"at": [FRAMES - END_HELD, FRAMES - 1], "image": end},
    ]
    return {"frames": FRAMES, "guides": guides}


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

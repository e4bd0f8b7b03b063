"""A small job with further outputs, run once, and its published files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structureflow import keys
from structureflow.models.results import Manifest, OutputObject
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.videos import pan_frames, texture

HEIGHT, WIDTH = 96, 160
VIDEO = "videos/pan.mp4"
FRAMES, GUIDED = 13, 3
#: Nine frames of 2 px, in ten steps.
STEP_PX = 1.6
OUTPUTS = ["vace_flow", "canny", "raw", "tracks", "warped_noise", "ttm"]


@dataclass(frozen=True)
class Published:
    """A segment's folder as a user fetches it, and what the manifest says of it."""

    folder: Path
    outputs: dict[str, OutputObject]


@cache
def _clip() -> bytes:
    """The structure video of all runs: x264 may write other bytes of the same frames, now and then."""
    with TemporaryDirectory() as folder:
        storage = MemoryStorage()
        put_pan_clip(storage, VIDEO, Path(folder), height=HEIGHT, width=WIDTH)
        return storage.get(VIDEO).data


def job_runner(folder: Path) -> JobRunner:
    storage = MemoryStorage()
    storage.put(VIDEO, _clip())
    for name, seed in (("a", 1), ("b", 2)):
        storage.put(f"images/{name}.png", png(texture(HEIGHT, WIDTH, seed=seed)))
    return JobRunner(storage, folder)


def run(runner: JobRunner, folder: Path, **fields: Any) -> Published:
    document = {
        "task_id": "t1",
        "structure_video": VIDEO,
        "treatment": "retime",
        "segments": [{"frames": FRAMES, "guides": [{"at": [0, GUIDED - 1], "image": "images/a.png"}]}],
        **fields,
    }
    status = runner.run("t1", document)
    assert status.state == "done", status.error
    manifest = Manifest.model_validate_json(runner.storage.get(keys.job_manifest("t1")).data)
    outputs = manifest.segments[0].outputs
    for output in outputs.values():
        path = folder / output.key.removeprefix("jobs/t1/segments/000/")
        path.parent.mkdir(parents=True, exist_ok=True)
        runner.storage.get_to_file(output.key, path)
    return Published(folder, outputs)


def distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def structure_frames() -> list[NDArray[np.uint8]]:
    return list(pan_frames(9, HEIGHT, WIDTH, dx=2, dy=0))


def shown_at(index: int) -> int:
    """The frame of the structure video that stands at a frame of the segment: 0.8 of them a step."""
    return int(np.floor(0.8 * (index - GUIDED + 1) + 0.5))

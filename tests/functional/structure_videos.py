"""A job of two structure videos, and what its tests ask of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structureflow import keys
from structureflow.jobs.documents import load_record
from structureflow.models.results import JobRecord, SegmentResult
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.videos import decode_rgb, texture

HEIGHT, WIDTH = 96, 160
#: Nine frames each; A moves 2 px a frame to the right, B 3 px to the left.
A, B = "videos/a.mp4", "videos/b.mp4"


def runner_with_two_clips(tmp_path: Path) -> JobRunner:
    """Return a runner over a store with clips A and B, and an image."""
    storage = MemoryStorage()
    put_pan_clip(storage, A, tmp_path, height=HEIGHT, width=WIDTH, dx=2)
    put_pan_clip(storage, B, tmp_path, height=HEIGHT, width=WIDTH, dx=-3)
    storage.put("images/a.png", png(texture(HEIGHT, WIDTH, seed=1)))
    return JobRunner(storage, tmp_path)


def request(**fields: Any) -> dict[str, Any]:
    """Two segments of 12 frames: A drives 0 to 8, nothing 9 to 13, B 14 to 22, and nothing the last one."""
    return {
        "task_id": "t1",
        "structure_videos": [
            {"path": A, "start_frame": 0, "end_frame": 9},
            {"path": B, "start_frame": 14, "end_frame": 23},
        ],
        "mask": "filled",
        "segments": [
            {"frames": 12, "guides": [{"at": 0, "image": "images/a.png"}]},
            {"frames": 12, "guides": [{"at": 2, "image": "images/a.png"}]},
        ],
        **fields,
    }


def video(runner: JobRunner, folder: Path, index: int = 0, name: str = "guide.mp4") -> list[NDArray[np.float64]]:
    path = folder / name
    runner.storage.get_to_file(keys.segment_file("t1", index, name), path)
    return [frame.astype(float) for frame in decode_rgb(path)]


def moved_px(first: NDArray[np.float64], later: NDArray[np.float64]) -> int:
    """By how many pixels a picture went to the right, as it looks; only what was in sight is compared."""

    def unlike(by: int) -> float:
        columns = slice(max(by, 0) + 8, WIDTH + min(by, 0) - 8)
        return float(np.abs(later[16:-16, columns] - np.roll(first, by, axis=1)[16:-16, columns]).mean())

    return min(range(-40, 41), key=unlike)


def result_of(runner: JobRunner, index: int = 0) -> SegmentResult:
    return SegmentResult.model_validate_json(runner.storage.get(keys.segment_file("t1", index, "result.json")).data)


def record_of(runner: JobRunner) -> JobRecord:
    return load_record(runner.storage, "t1")


def done(runner: JobRunner, document: dict[str, Any]) -> None:
    status = runner.run("t1", document)
    assert status.state == "done", status.error

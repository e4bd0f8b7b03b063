"""A whole job in one process, over the in-memory store."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.videos import texture
from tests.functional.batch_orders import RecordingBatch

HEIGHT, WIDTH = 96, 160


@pytest.fixture
def runner(tmp_path: Path) -> JobRunner:
    """An empty store with a nine-frame pan at ``videos/pan.mp4`` and two images."""
    storage = MemoryStorage()
    put_pan_clip(storage, "videos/pan.mp4", tmp_path, height=HEIGHT, width=WIDTH)
    for name, seed in (("a", 1), ("b", 2)):
        storage.put(f"images/{name}.png", png(texture(HEIGHT, WIDTH, seed=seed)))
    return JobRunner(storage, tmp_path)


@pytest.fixture
def batch(runner: JobRunner) -> RecordingBatch:
    """A Batch part that takes every order; the runner's services have it."""
    found = RecordingBatch()
    runner.services = dataclasses.replace(runner.services, batch=found)
    return found


@pytest.fixture
def request_document() -> dict[str, Any]:
    """Two short segments, made of three images, with the plainest of every setting."""
    return {
        "treatment": "adjust",
        "flow_span": "per_segment",
        "anchors": "start",
        "mask": "filled",
        "seams": "average",
        "task_id": "t1",
        "structure_video": "videos/pan.mp4",
        "images": ["images/a.png", "images/b.png", "images/a.png"],
        "frames": 12,
        "overlap": 3,
        "fade": 2,
        "fps": 16,
    }

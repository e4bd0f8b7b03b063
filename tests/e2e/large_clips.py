"""Small clips that are too large for the functions of a stack with a small limit, and jobs on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from structureflow import keys
from structureflow.models.results import JobStatus
from structureflow.testing.jobs import png
from structureflow.testing.videos import texture, write_clip
from structureflow_local.client import JobClient, prepare_job
from structureflow_local.cloud import LocalCloud
from structureflow_local.run import bucket_of

#: Functions take a megabyte, which the clips have more of.
SMALL = {"MaxVideoMegabytes": "1", "BatchMaxVideoMegabytes": "100"}


def write_inputs(folder: Path) -> Path:
    """Write two clips of noise, which no encoder makes small, one that is none, and an image."""
    rng = np.random.default_rng(7)
    frames = [rng.integers(0, 256, (160, 256, 3), dtype=np.uint8) for _ in range(24)]
    write_clip(folder / "noise.mp4", frames, crf=1)
    data = (folder / "noise.mp4").read_bytes()
    assert len(data) > 1_000_000
    (folder / "other.mp4").write_bytes(write_clip(folder / "o.mp4", frames[::-1], crf=1).read_bytes())
    (folder / "bad.mp4").write_bytes(b"no video" * 200_000)
    (folder / "a.png").write_bytes(png(texture(160, 256, seed=1)))
    return folder


def document(task_id: str, **changes: Any) -> str:
    segments = [{"frames": 5, "guides": [{"at": [0, 1], "image": "a.png"}]}]
    base = {
        "task_id": task_id,
        "structure_video": "noise.mp4",
        "timeline_id": "reel",
        "quality": "fast",
        "resolution": [160, 96],
        "segments": segments,
    }
    return json.dumps(base | changes)


def submit(cloud: LocalCloud, folder: Path, task_id: str, **changes: Any) -> JobClient:
    client = JobClient(bucket_of(cloud))
    client.submit(prepare_job(document(task_id, **changes), name=task_id, folder=folder))
    return client


def run(cloud: LocalCloud, folder: Path, task_id: str, **changes: Any) -> JobStatus:
    status = submit(cloud, folder, task_id, **changes).wait(task_id, timeout_s=120)
    cloud.wait_idle(60)
    assert list(bucket_of(cloud).list(keys.GPU_ORDERS_PREFIX)) == []
    return status

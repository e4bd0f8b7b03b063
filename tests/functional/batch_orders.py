"""What tests of Batch orders share: a Batch part that writes down what it was asked for, and ways to be beyond."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from structureflow import keys
from structureflow.jobs.deadline import Deadline
from structureflow.jobs.inputs import Inputs
from structureflow.jobs.services import Services
from structureflow.jobs.settle_gpu import SettledOrder, SettleGpuInput, settle_gpu
from structureflow.limits import STOP_BEFORE_END_S
from structureflow.models.results import JobStatus
from structureflow.runtime.events import parse_ended_batch_job
from structureflow.testing.jobs import BUCKET, JobRunner, png

REPO = Path(__file__).resolve().parents[2]
VIDEO = "videos/pan.mp4"


class RecordingBatch:
    """Runs nothing, but writes down what it was asked for; `error` makes it raise."""

    timeout_s = 3600.0

    def __init__(self, *, max_video_bytes: int = 10**9) -> None:
        self.max_video_bytes = max_video_bytes
        self.error: Exception | None = None
        self.started: list[tuple[str, str]] = []
        self.stopped: list[str] = []

    def start(self, order_key: str, run_id: str) -> str:
        if self.error is not None:
            raise self.error
        self.started.append((order_key, run_id))
        return f"id-of-{run_id}"

    def stop(self, run_id: str, reason: str) -> None:
        assert reason
        self.stopped.append(run_id)


def without_time(runner: JobRunner) -> None:
    """Leave so little time that no extraction fits."""
    runner.services = dataclasses.replace(runner.services, deadline=Deadline(lambda: STOP_BEFORE_END_S + 0.1))


def without_memory(runner: JobRunner) -> None:
    runner.services = dataclasses.replace(runner.services, memory_mb=256)


def without_room(runner: JobRunner) -> None:
    """Let no function download the video."""
    most = runner.storage.head(VIDEO).size_bytes - 1
    runner.services = dataclasses.replace(
        runner.services, max_input_bytes=most, inputs=Inputs(runner.storage, BUCKET, max_bytes=most)
    )
    for name in ("a", "b"):
        # images have room
        runner.storage.put(f"images/{name}.png", png(np.full((96, 160, 3), ord(name), np.uint8)))
        assert runner.storage.head(f"images/{name}.png").size_bytes <= most


BEYOND = {"time": without_time, "memory": without_memory, "room": without_room}
CODES = {"time": "DeadlineError", "memory": "MemoryLimitError", "room": "MediaLimitError"}


def on_batch(runner: JobRunner) -> Services:
    """What the Batch job works with: no deadline, and room for the video."""
    return dataclasses.replace(
        runner.services,
        deadline=Deadline(),
        memory_mb=None,
        max_input_bytes=10**9,
        inputs=Inputs(runner.storage, BUCKET, max_bytes=10**9),
        batch=None,
    )


def with_time_again(runner: JobRunner) -> None:
    runner.services = dataclasses.replace(runner.services, deadline=Deadline(), memory_mb=None)


def ended(runner: JobRunner, run_id: str, status: str = "FAILED") -> tuple[SettledOrder, ...]:
    """Settle by the event as EventBridge delivers it."""
    event = json.loads((REPO / "events" / "settle_gpu" / "batch_job_failed.json").read_text())
    found = parse_ended_batch_job(event | {"detail": event["detail"] | {"jobName": run_id, "status": status}})
    return settle_gpu(SettleGpuInput(run_id=found.run_id, reason=found.reason), runner.services).settled


def orders(runner: JobRunner) -> list[str]:
    return runner.keys(keys.GPU_ORDERS_PREFIX)


def failed(runner: JobRunner, task_id: str = "t1") -> JobStatus:
    status = runner.status(task_id)
    assert status.state == "failed"
    assert status.error is not None
    return status

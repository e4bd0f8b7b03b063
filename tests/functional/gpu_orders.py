"""What tests of GPU orders share: a GPU part that writes down what it was asked for, and the steps of an order."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from structureflow import keys
from structureflow.errors import GpuUnavailableError
from structureflow.jobs.documents import load_record, put_document
from structureflow.jobs.extract_job import extract_and_commit
from structureflow.jobs.extraction_order import load_order, order_source
from structureflow.jobs.orchestrate import OrchestrateResult
from structureflow.jobs.settle_gpu import SettledOrder, SettleGpuInput, settle_gpu
from structureflow.models.results import JobRecord, now
from structureflow.testing.gpu import PanEngine
from structureflow.testing.jobs import JobRunner

KILLED = "the GPU task stopped: Essential container in task exited; exit code 137"
#: Pixels times frames of the clip.
CLIP = 160 * 96 * 9


class RecordingGpu:
    """Starts nothing, but writes down what it was asked for; `refusal` makes it refuse."""

    def __init__(self, *, timeout_s: float = 600.0, auto_pixel_frames: int = CLIP + 1) -> None:
        self.timeout_s = timeout_s
        self.auto_pixel_frames = auto_pixel_frames
        self.refusal: str | None = None
        self.started: list[tuple[str, str]] = []
        self.stopped: list[str] = []

    def start(self, order_key: str, run_id: str) -> str:
        if self.refusal is not None:
            raise GpuUnavailableError(self.refusal)
        self.started.append((order_key, run_id))
        return f"arn:aws:ecs:::task/{run_id}"

    def stop(self, run_id: str, reason: str) -> None:
        assert reason
        self.stopped.append(run_id)


def start(runner: JobRunner, document: dict[str, Any]) -> OrchestrateResult:
    runner.put_request(document["task_id"], document)
    return runner.orchestrate(document["task_id"])


def run_task(runner: JobRunner, order_key: str) -> JobRecord:
    """Do what the container does."""
    order = load_order(runner.storage, order_key)
    return extract_and_commit(order, order_source(order, runner.services), runner.services, engine=PanEngine())


def stopped(runner: JobRunner, run_id: str, reason: str = KILLED) -> tuple[SettledOrder, ...]:
    return settle_gpu(SettleGpuInput(run_id=run_id, reason=reason), runner.services).settled


def look(runner: JobRunner) -> tuple[SettledOrder, ...]:
    return settle_gpu(SettleGpuInput(), runner.services).settled


def record_of(runner: JobRunner, task_id: str = "t1") -> JobRecord:
    return load_record(runner.storage, task_id)


def age_order(runner: JobRunner, run_id: str, seconds: float) -> None:
    """Move the deadline of an order to so many seconds ago."""
    key = keys.gpu_order(run_id)
    order = load_order(runner.storage, key)
    put_document(runner.storage, key, order.model_copy(update={"deadline": now() - timedelta(seconds=seconds)}))

"""The way to the GPU and back: every branch, with a launcher that does what it is told."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.errors import GpuUnavailableError, TransientStorageError
from structureflow.flow.engines import DisEngine
from structureflow.jobs.documents import load_record
from structureflow.jobs.extract_job import extract_and_commit
from structureflow.jobs.extraction_order import ExtractionOrder, load_order, order_source
from structureflow.jobs.settle_gpu import SettleGpuInput, settle_gpu
from structureflow.models.results import JobRecord, Manifest, now
from structureflow.runtime.events import parse_stopped_task
from structureflow.testing.jobs import JobRunner
from structureflow.testing.storage import Fault, FaultStorage

REPO = Path(__file__).resolve().parents[2]


class Launcher:
    """Remembers what was started and stopped; refuses when told to."""

    timeout_s = 600.0
    auto_pixel_frames = 10**12

    def __init__(self, refusal: str | None = None) -> None:
        self.refusal = refusal
        self.started: list[tuple[str, str]] = []
        self.stopped: list[str] = []

    def start(self, order_key: str, run_id: str) -> str:
        if self.refusal is not None:
            raise GpuUnavailableError(self.refusal)
        self.started.append((order_key, run_id))
        return f"arn:task/{run_id}"

    def stop(self, run_id: str, reason: str) -> None:
        assert reason
        self.stopped.append(run_id)


class RaftStandIn(DisEngine):
    """Flows of DIS under the name of RAFT: what matters here is who computed them."""

    @property
    def name(self) -> Any:  # type: ignore[override]
        return "raft"


@pytest.fixture
def launcher(runner: JobRunner) -> Launcher:
    launcher = Launcher()
    runner.services = dataclasses.replace(runner.services, gpu=launcher)
    return launcher


@pytest.fixture
def raft_request(request_document: dict[str, Any]) -> dict[str, Any]:
    return {**request_document, "engine": "raft"}


def record(runner: JobRunner, task_id: str = "t1") -> JobRecord:
    return load_record(runner.storage, task_id)


def run_task(runner: JobRunner, launcher: Launcher) -> JobRecord:
    """Do what the container does with the last order."""
    order = load_order(runner.storage, launcher.started[-1][0])
    return extract_and_commit(order, order_source(order, runner.services), runner.services, engine=RaftStandIn())


def orders(runner: JobRunner) -> list[str]:
    return runner.keys(keys.GPU_ORDERS_PREFIX)


def test_a_raft_job_leaves_an_order_and_starts_one_task(
    runner: JobRunner, launcher: Launcher, raft_request: dict[str, Any]
) -> None:
    runner.put_request("t1", raft_request)
    result = runner.orchestrate("t1")
    assert (result.state, result.engine, result.flows_key) == ("running", "raft", None)
    ((key, run_id),) = launcher.started
    assert (key, run_id) == (keys.gpu_order(result.run_id), result.run_id)
    order = load_order(runner.storage, key)
    assert order.request.engine == "raft"
    assert order.deadline is not None
    assert order.deadline > now() + timedelta(seconds=590)
    assert runner.status("t1").stage == "gpu"
    assert not runner.storage.exists(keys.job_flows("t1"))


def test_the_task_writes_what_the_orchestrator_would_have(
    runner: JobRunner, launcher: Launcher, raft_request: dict[str, Any]
) -> None:
    runner.put_request("t1", raft_request)
    runner.orchestrate("t1")
    run_task(runner, launcher)
    settled = settle_gpu(SettleGpuInput(run_id=launcher.started[0][1], reason="it ended"), runner.services)
    assert [order.engine for order in settled.settled] == ["raft"]
    assert orders(runner) == []
    assert runner.segments("t1").state == "done"
    manifest = Manifest.model_validate_json(runner.storage.get("jobs/t1/manifest.json").data)
    assert (manifest.engine_requested, manifest.engine, manifest.fallbacks) == ("raft", "raft", ())
    assert [segment.flow_source for segment in manifest.segments] == ["cache", "cache"]


def test_a_second_raft_job_on_the_same_video_starts_no_task(
    runner: JobRunner, launcher: Launcher, raft_request: dict[str, Any]
) -> None:
    runner.put_request("t1", raft_request)
    runner.orchestrate("t1")
    run_task(runner, launcher)
    runner.put_request("t2", {**raft_request, "task_id": "t2"})
    result = runner.orchestrate("t2")
    assert (result.engine, result.flow_cache_hit) == ("raft", True)
    assert len(launcher.started) == 1


@pytest.mark.parametrize("refusal", ["RESOURCE:GPU", "AccessDeniedException"])
def test_a_refusal_falls_back_to_dis_at_once(
    runner: JobRunner, launcher: Launcher, raft_request: dict[str, Any], refusal: str
) -> None:
    launcher.refusal = refusal
    assert runner.run("t1", raft_request).state == "done"
    (fallback,) = record(runner).fallbacks
    assert (fallback.wanted, fallback.used) == ("raft", "dis")
    assert refusal in fallback.reason
    assert record(runner).engine == "dis"
    assert orders(runner) == []


def test_without_the_gpu_part_raft_falls_back_to_dis(runner: JobRunner, raft_request: dict[str, Any]) -> None:
    assert runner.run("t1", raft_request).state == "done"
    (fallback,) = record(runner).fallbacks
    assert (fallback.wanted, fallback.used) == ("raft", "dis")
    assert "not deployed" in fallback.reason


def test_a_task_that_stops_without_flows_falls_back_to_dis(
    runner: JobRunner, launcher: Launcher, raft_request: dict[str, Any]
) -> None:
    runner.put_request("t1", raft_request)
    runner.orchestrate("t1")
    run_id = launcher.started[0][1]
    event = json.loads((REPO / "events/settle_gpu/task_stopped.json").read_text())
    stopped = parse_stopped_task(event | {"detail": event["detail"] | {"startedBy": run_id}})

    settled = settle_gpu(SettleGpuInput(run_id=stopped.run_id, reason=stopped.reason), runner.services)

    assert [(order.run_id, order.engine) for order in settled.settled] == [(run_id, "dis")]
    assert runner.segments("t1").state == "done"
    (fallback,) = record(runner).fallbacks
    assert (fallback.wanted, fallback.used) == ("raft", "dis")
    assert "exit code 137" in fallback.reason
    assert "OutOfMemoryError" in fallback.reason
    manifest = Manifest.model_validate_json(runner.storage.get("jobs/t1/manifest.json").data)
    assert (manifest.engine_requested, manifest.engine) == ("raft", "dis")
    assert manifest.fallbacks == (fallback,)


def test_the_end_of_a_task_delivered_twice_settles_once(
    runner: JobRunner, launcher: Launcher, raft_request: dict[str, Any]
) -> None:
    runner.put_request("t1", raft_request)
    runner.orchestrate("t1")
    event = SettleGpuInput(run_id=launcher.started[0][1], reason="gone")
    assert len(settle_gpu(event, runner.services).settled) == 1
    assert settle_gpu(event, runner.services).settled == ()


def test_somebody_elses_task_is_left_alone(runner: JobRunner, launcher: Launcher) -> None:
    assert settle_gpu(SettleGpuInput(run_id="ecs-svc", reason="gone"), runner.services).settled == ()


def overdue(runner: JobRunner, key: str) -> None:
    order = load_order(runner.storage, key)
    late = order.model_copy(update={"deadline": now() - timedelta(seconds=1)})
    runner.storage.put(key, late.to_json())


def test_an_overdue_task_is_stopped_and_falls_back_to_dis(
    runner: JobRunner, launcher: Launcher, raft_request: dict[str, Any]
) -> None:
    runner.put_request("t1", raft_request)
    runner.orchestrate("t1")
    key, run_id = launcher.started[0]
    assert settle_gpu(SettleGpuInput(), runner.services).settled == (), "it still has time"
    overdue(runner, key)
    settled = settle_gpu(SettleGpuInput(), runner.services)
    assert [order.engine for order in settled.settled] == ["dis"]
    assert launcher.stopped == [run_id]
    assert "not done by" in record(runner).fallbacks[0].reason
    assert orders(runner) == []


def test_a_task_that_ends_after_all_changes_nothing_of_the_job(
    runner: JobRunner, launcher: Launcher, raft_request: dict[str, Any]
) -> None:
    runner.put_request("t1", raft_request)
    runner.orchestrate("t1")
    order = load_order(runner.storage, launcher.started[0][0])
    overdue(runner, launcher.started[0][0])
    settle_gpu(SettleGpuInput(), runner.services)
    before = runner.storage.get(keys.job_flows("t1")).data
    late = extract_and_commit(order, order_source(order, runner.services), runner.services, engine=RaftStandIn())
    assert late.engine == "dis"
    assert runner.storage.get(keys.job_flows("t1")).data == before
    assert runner.storage.exists(order.shared_key), "the next raft job finds the flows"


def test_what_dis_cannot_do_either_fails_the_job(
    runner: JobRunner, launcher: Launcher, raft_request: dict[str, Any]
) -> None:
    runner.put_request("t1", raft_request)
    runner.orchestrate("t1")
    runner.storage.delete(["videos/pan.mp4"])
    settled = settle_gpu(SettleGpuInput(run_id=launcher.started[0][1], reason="gone"), runner.services)
    assert settled.settled[0].engine is None
    status = runner.status("t1")
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "InputNotFoundError"
    assert orders(runner) == []


def test_a_store_that_breaks_off_leaves_the_order_for_the_next_try(
    runner: JobRunner, launcher: Launcher, raft_request: dict[str, Any]
) -> None:
    runner.put_request("t1", raft_request)
    runner.orchestrate("t1")
    fault = Fault("get_to_file", error=TransientStorageError("no answer"))
    broken = FaultStorage(runner.storage, fault)
    from structureflow.jobs.inputs import Inputs

    services = dataclasses.replace(runner.services, storage=broken, inputs=Inputs(broken, "data", max_bytes=50_000_000))
    with pytest.raises(TransientStorageError):
        settle_gpu(SettleGpuInput(run_id=launcher.started[0][1], reason="gone"), services)
    assert len(orders(runner)) == 1


@pytest.mark.parametrize(("auto_pixel_frames", "engine"), [(160 * 96 * 9, "raft"), (160 * 96 * 9 + 1, "dis")])
def test_auto_takes_the_gpu_for_heavy_videos(
    runner: JobRunner, launcher: Launcher, request_document: dict[str, Any], auto_pixel_frames: int, engine: str
) -> None:
    launcher.auto_pixel_frames = auto_pixel_frames
    runner.put_request("t1", request_document)
    assert runner.orchestrate("t1").engine == engine
    assert len(launcher.started) == (engine == "raft")


def test_auto_takes_flows_that_are_there(
    runner: JobRunner, launcher: Launcher, request_document: dict[str, Any]
) -> None:
    runner.put_request("t1", request_document)
    assert runner.orchestrate("t1").flow_cache_hit is False
    launcher.auto_pixel_frames = 1
    runner.put_request("t2", {**request_document, "task_id": "t2"})
    result = runner.orchestrate("t2")
    assert (result.engine, result.flow_cache_hit) == ("dis", True)
    assert launcher.started == []


def test_the_order_carries_no_list_that_grows_with_the_video(
    runner: JobRunner, launcher: Launcher, raft_request: dict[str, Any]
) -> None:
    runner.put_request("t1", raft_request)
    runner.orchestrate("t1")
    assert set(ExtractionOrder.model_fields) == {
        "bucket",
        "task_id",
        "run_id",
        "request",
        "source",
        "guides",
        "flow_cache",
        "sources",
        "timeline_id",
        "engine",
        "created_at",
        "fallbacks",
        "notices",
        "timings_s",
        "usage",
        "route",
        "deadline",
        "weights",
        "failure",
    }

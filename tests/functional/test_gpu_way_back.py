"""The way back from the GPU, where it gets crowded: late, double and lost events, jobs started again, bad orders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.errors import GpuUnavailableError, ModelWeightsError, SupersededRunError, TransientStorageError
from structureflow.flow.archive import open_flow_archive
from structureflow.jobs.extract_job import extract_and_commit
from structureflow.jobs.extraction_order import load_order, note_failure, order_source
from structureflow.jobs.inputs import Inputs
from structureflow.jobs.settle_gpu import SettledOrder
from structureflow.testing.gpu import PanEngine
from structureflow.testing.jobs import JobRunner, put_pan_clip
from structureflow.testing.storage import CountingStorage, Fault, FaultStorage
from tests.functional.gpu_orders import (
    KILLED,
    RecordingGpu,
    age_order,
    look,
    record_of,
    run_task,
    start,
    stopped,
)


@pytest.fixture
def gpu(runner: JobRunner) -> RecordingGpu:
    """A GPU part that takes every order; the runner's services have it."""
    found = RecordingGpu()
    runner.services = replace(runner.services, gpu=found)
    return found


@pytest.fixture
def raft(request_document: dict[str, Any]) -> dict[str, Any]:
    """The request, for RAFT."""
    return {**request_document, "engine": "raft"}


# --- there, and done ----------------------------------------------------------------------------------


def test_flows_in_the_cache_start_no_task(runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any]) -> None:
    start(runner, raft)
    run_task(runner, gpu.started[0][0])
    counting = CountingStorage(runner.storage)
    runner.services = replace(runner.services, storage=counting)
    result = start(runner, {**raft, "task_id": "t2"})
    assert (result.flow_cache_hit, result.engine) == (True, "raft")
    assert len(gpu.started) == 1
    assert not [key for _, key in counting.keys if key == raft["structure_video"]]


@pytest.mark.parametrize("engine", ["dis", "farneback"])
def test_engines_of_lambda_never_take_the_gpu(
    runner: JobRunner, gpu: RecordingGpu, request_document: dict[str, Any], engine: str
) -> None:
    gpu.auto_pixel_frames = 1
    assert start(runner, {**request_document, "engine": engine}).engine == engine
    assert gpu.started == []


@pytest.mark.parametrize("first", ["raft", "dis"])
def test_auto_takes_whatever_flows_are_cached(
    runner: JobRunner, gpu: RecordingGpu, request_document: dict[str, Any], first: str
) -> None:
    start(runner, {**request_document, "engine": first})
    if first == "raft":
        run_task(runner, gpu.started[0][0])
    gpu.started.clear()
    gpu.auto_pixel_frames = 1
    result = start(runner, {**request_document, "task_id": "t2"})
    assert (result.flow_cache_hit, result.engine, gpu.started) == (True, first, [])


# --- no task ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["not deployed", "refused", "killed"])
def test_falling_back_finds_cached_flows(
    runner: JobRunner, request_document: dict[str, Any], raft: dict[str, Any], way: str
) -> None:
    start(runner, {**request_document, "task_id": "t0", "engine": "dis"})
    counting = CountingStorage(runner.storage)
    gpu = RecordingGpu()
    gpu.refusal = "no" if way == "refused" else None
    runner.services = replace(runner.services, storage=counting, gpu=None if way == "not deployed" else gpu)
    result = start(runner, raft)
    if way == "killed":
        stopped(runner, result.run_id)
    record = record_of(runner)
    assert (record.engine, record.flow_cache_hit) == ("dis", True)
    assert [(step.wanted, step.used) for step in record.fallbacks] == [("raft", "dis")]
    assert not [key for operation, key in counting.keys if operation == "put_file"]


# --- a task that leaves nothing -----------------------------------------------------------------------


def test_an_overdue_order_whose_flows_came_is_only_tidied_up(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any]
) -> None:
    result = start(runner, raft)
    run_task(runner, gpu.started[0][0])
    age_order(runner, result.run_id, 1)
    assert look(runner) == (SettledOrder(run_id=result.run_id, engine="raft"),)
    assert runner.counts["Fallbacks"] == 0


# --- at least once, in any order ----------------------------------------------------------------------


def test_flows_that_come_after_the_fallback_change_nothing_of_the_job(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any]
) -> None:
    """A task that was given up finishes all the same: other jobs may have its flows."""
    start(runner, raft)
    order = load_order(runner.storage, gpu.started[0][0])
    stopped(runner, order.run_id)
    job = {key: runner.storage.get(key).data for key in runner.keys("jobs/t1/") if not key.endswith("status.json")}
    record = extract_and_commit(order, order_source(order, runner.services), runner.services, engine=PanEngine())
    assert record.engine == "dis"
    assert {key: runner.storage.get(key).data for key in job} == job
    assert open_flow_archive(runner.storage, order.shared_key).meta.engine == "raft"


def test_a_request_that_is_told_twice_is_ordered_once(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any]
) -> None:
    """The launcher gets the same token, by which ECS knows the task that it has."""
    first, second = start(runner, raft), runner.orchestrate("t1")
    assert first.run_id == second.run_id
    assert len(set(gpu.started)) == 1
    assert len(runner.keys(keys.GPU_ORDERS_PREFIX)) == 1


@pytest.mark.parametrize("way", ["raft", "killed", "refused"])
def test_a_late_second_delivery_does_not_reopen_a_finished_job(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any], way: str
) -> None:
    gpu.refusal = "no capacity" if way == "refused" else None
    result = start(runner, raft)
    if way == "raft":
        run_task(runner, gpu.started[0][0])
    if way != "refused":
        stopped(runner, result.run_id)
    runner.segments("t1")
    before, orders = runner.status("t1"), len(gpu.started)
    assert before.state == "done"
    runner.orchestrate("t1")
    assert runner.status("t1") == before
    assert len(gpu.started) == orders
    assert runner.keys(keys.GPU_ORDERS_PREFIX) == []


# --- a request put again ------------------------------------------------------------------------------


@pytest.mark.parametrize("late", ["stopped", "overdue", "given up", "flows"])
def test_an_order_of_an_older_run_never_touches_the_newer_one(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any], late: str
) -> None:
    old = start(runner, raft)
    order = load_order(runner.storage, keys.gpu_order(old.run_id))
    new = start(runner, {**raft, "engine": "dis"})
    assert new.run_id != old.run_id
    job = {key: runner.storage.get(key).data for key in runner.keys("jobs/t1/")}
    if late == "stopped":
        stopped(runner, old.run_id)
    elif late in ("overdue", "given up"):
        age_order(runner, old.run_id, 1 if late == "overdue" else 3601)
        look(runner)
        assert gpu.stopped == [old.run_id]
    else:
        with pytest.raises(SupersededRunError, match=f"started again as run {new.run_id}"):
            extract_and_commit(order, order_source(order, runner.services), runner.services, engine=PanEngine())
    assert {key: runner.storage.get(key).data for key in job} == job
    if late != "flows":
        assert runner.keys(keys.GPU_ORDERS_PREFIX) == []


# --- what cannot be done at all -----------------------------------------------------------------------


def test_an_order_that_nobody_could_settle_for_long_fails_its_job(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any]
) -> None:
    """SettleGpu that dies each time (memory, timeout) must not try for ever while the user waits."""
    result = start(runner, raft)
    age_order(runner, result.run_id, 3601)
    assert look(runner) == (SettledOrder(run_id=result.run_id, engine=None),)
    status = runner.status("t1")
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "EngineUnavailableError"
    assert runner.keys("work/") == []


def test_one_bad_order_does_not_keep_the_others_waiting(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any], tmp_path: Path
) -> None:
    runner.storage.put(keys.gpu_order("0bad"), b"{}")
    result = start(runner, raft)
    age_order(runner, result.run_id, 1)
    assert SettledOrder(run_id=result.run_id, engine="dis") in look(runner)


def test_two_overdue_orders_are_both_settled(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any], tmp_path: Path
) -> None:
    put_pan_clip(runner.storage, "videos/other.mp4", tmp_path, dx=3)
    runs = [start(runner, raft), start(runner, {**raft, "task_id": "t2", "structure_video": "videos/other.mp4"})]
    for result in runs:
        age_order(runner, result.run_id, 1)
    assert {order.run_id for order in look(runner)} == {result.run_id for result in runs}


def test_what_the_task_said_of_its_failure_stands_in_the_record(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any]
) -> None:
    result = start(runner, raft)
    note_failure(runner.storage, gpu.started[0][0], ModelWeightsError("weights raft_large.pth: another checksum"))
    stopped(runner, result.run_id)
    (step,) = record_of(runner).fallbacks
    assert step.reason == f"{KILLED}: ModelWeightsError: weights raft_large.pth: another checksum"


def test_a_failure_does_not_bring_a_settled_order_back(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any]
) -> None:
    result = start(runner, raft)
    stopped(runner, result.run_id)
    note_failure(runner.storage, gpu.started[0][0], ModelWeightsError("too late"))
    assert runner.keys(keys.GPU_ORDERS_PREFIX) == []


def test_flows_by_other_weights_lie_elsewhere(runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any]) -> None:
    start(runner, raft)
    order = load_order(runner.storage, gpu.started[0][0])
    other = order.model_copy(update={"weights": "sha256:0123456789abcdef"})
    assert other.shared_key != order.shared_key
    record = extract_and_commit(other, order_source(other, runner.services), runner.services, engine=PanEngine())
    assert record.flow_cache_key == other.shared_key
    assert open_flow_archive(runner.storage, keys.job_flows("t1")).meta.engine == "raft"
    assert start(runner, {**raft, "task_id": "t2"}).flow_cache_hit is None, "the preset's weights were asked for"


def test_a_task_that_cannot_be_stopped_keeps_nobody_waiting(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run_id: str, reason: str) -> None:
        raise GpuUnavailableError("AccessDeniedException")

    monkeypatch.setattr(gpu, "stop", refuse)
    result = start(runner, raft)
    age_order(runner, result.run_id, 1)
    assert look(runner) == (SettledOrder(run_id=result.run_id, engine="dis"),)


def test_a_store_that_breaks_off_for_one_order_settles_the_others(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any], tmp_path: Path
) -> None:
    put_pan_clip(runner.storage, "videos/other.mp4", tmp_path, dx=3)
    videos = {"t1": "videos/pan.mp4", "t2": "videos/other.mp4"}
    runs = {
        start(runner, {**raft, "task_id": name, "structure_video": video}).run_id: name
        for name, video in videos.items()
    }
    for run_id in runs:
        age_order(runner, run_id, 1)
    # The one that is looked at first fails.
    broken_run, whole_run = sorted(runs)
    healthy = runner.services
    fault = Fault("get_to_file", videos[runs[broken_run]], error=TransientStorageError("no answer"))
    broken = FaultStorage(runner.storage, fault)
    inputs = Inputs(broken, "data", max_bytes=50_000_000)
    runner.services = replace(healthy, storage=broken, inputs=inputs)
    with pytest.raises(TransientStorageError):
        look(runner)
    assert record_of(runner, runs[whole_run]).engine == "dis"
    assert runner.keys("work/") == [keys.gpu_order(broken_run)], "the claim is given back"
    runner.services = healthy
    assert look(runner) == (SettledOrder(run_id=broken_run, engine="dis"),)


def test_a_job_that_was_deleted_is_not_brought_back(runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any]) -> None:
    result = start(runner, raft)
    runner.storage.delete(runner.keys("jobs/t1/"))
    assert stopped(runner, result.run_id) == ()
    assert runner.keys("jobs/") == runner.keys("work/") == []

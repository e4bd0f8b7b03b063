"""What is beyond a function: the way to a Batch job, every branch, with a queue that does what it is told."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.errors import BatchJobError, MediaLimitError, TransientError
from structureflow.jobs.batch_task import carry_out_on_batch
from structureflow.jobs.extraction_order import load_order
from structureflow.jobs.settle_gpu import SettledOrder
from structureflow.models.results import JobRecord, Manifest, now
from structureflow.references import Reference
from structureflow.testing.jobs import JobRunner
from tests.functional.batch_orders import (
    BEYOND,
    CODES,
    VIDEO,
    RecordingBatch,
    ended,
    failed,
    on_batch,
    orders,
    with_time_again,
    without_memory,
    without_room,
    without_time,
)
from tests.functional.gpu_orders import RecordingGpu, record_of, start
from tests.functional.parts import PartsRunner, put_long_clip, small_parts

# --- there --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", BEYOND)
def test_what_is_beyond_a_function_leaves_an_order_and_submits_one_job(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any], what: str
) -> None:
    BEYOND[what](runner)
    result = start(runner, request_document)
    assert (result.state, result.engine, result.flows_key) == ("running", "dis", None)
    ((key, run_id),) = batch.started
    assert (key, run_id) == (keys.gpu_order(result.run_id), result.run_id)
    order = load_order(runner.storage, key)
    assert (order.route, order.engine) == ("batch", "dis")
    assert order.deadline is not None
    assert order.deadline > now() + timedelta(seconds=batch.timeout_s - 60)
    assert runner.status("t1").stage == "batch"
    assert not runner.storage.exists(keys.job_flows("t1"))
    assert runner.keys("cache/") == []


@pytest.mark.parametrize("what", BEYOND)
def test_the_job_makes_what_a_function_would_have(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any], what: str
) -> None:
    BEYOND[what](runner)
    result = start(runner, request_document)
    record = carry_out_on_batch(batch.started[0][0], on_batch(runner))
    assert ended(runner, result.run_id, "SUCCEEDED") == (SettledOrder(run_id=result.run_id, engine="dis"),)
    assert orders(runner) == []
    with_time_again(runner)
    assert runner.segments("t1").state == "done"
    manifest = Manifest.model_validate_json(runner.storage.get("jobs/t1/manifest.json").data)
    assert (manifest.engine, manifest.fallbacks) == ("dis", ())
    assert [segment.flow_source for segment in manifest.segments] == ["cache", "cache"]
    assert record.notices[0].startswith("extracted by a Batch job: ")
    batched = runner.storage.get(keys.job_flows("t1")).data
    assert record.flow_cache_key is not None
    runner.storage.delete([record.flow_cache_key])
    plain = JobRunner(runner.storage, runner.services.work_dir)
    plain.run("t2", {**request_document, "task_id": "t2"})
    assert plain.storage.get(keys.job_flows("t2")).data == batched


def test_a_second_job_on_the_same_video_finds_the_flows(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any]
) -> None:
    without_room(runner)
    start(runner, request_document)
    carry_out_on_batch(batch.started[0][0], on_batch(runner))
    result = start(runner, {**request_document, "task_id": "t2"})
    assert result.flow_cache_hit is True
    assert len(batch.started) == 1


def test_flows_that_came_meanwhile_are_taken(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any]
) -> None:
    without_time(runner)
    start(runner, request_document)
    start(runner, {**request_document, "task_id": "t2"})
    first, second = (carry_out_on_batch(key, on_batch(runner)) for key, _ in batch.started)
    assert (first.flow_cache_hit, second.flow_cache_hit) == (False, True)


def test_a_part_without_key_frames_goes_to_batch(
    tmp_path: Path, runner: JobRunner, request_document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A video that has parts is extracted in parts; one whose memory no part has room for goes away whole."""
    small_parts(monkeypatch)
    parts = PartsRunner(runner.storage, tmp_path)
    put_long_clip(parts.storage, tmp_path)
    batch = RecordingBatch()
    parts.services = dataclasses.replace(parts.services, batch=batch)
    start(parts, {**request_document, "structure_video": "videos/long.mp4"})
    assert (len(parts.starts), batch.started) == (1, [])
    without_memory(parts)
    start(parts, {**request_document, "task_id": "t2", "structure_video": "videos/long.mp4"})
    assert (len(parts.starts), len(batch.started)) == (1, 1)


@pytest.mark.parametrize("engine", ["farneback", "auto", "dis"])
def test_the_order_has_the_engine_that_would_have_run_here(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any], engine: str
) -> None:
    without_time(runner)
    wanted = "dis" if engine == "auto" else engine
    assert start(runner, {**request_document, "engine": engine}).engine == wanted
    assert carry_out_on_batch(batch.started[0][0], on_batch(runner)).engine == wanted


def test_a_video_too_large_for_gpu_tasks_is_not_sent_to_one(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any]
) -> None:
    gpu = RecordingGpu()
    runner.services = dataclasses.replace(runner.services, gpu=gpu)
    without_room(runner)
    assert start(runner, {**request_document, "engine": "raft"}).engine == "dis"
    assert (gpu.started, len(batch.started)) == ([], 1)
    (step,) = carry_out_on_batch(batch.started[0][0], on_batch(runner)).fallbacks
    assert (step.wanted, step.used) == ("raft", "dis")
    assert "larger than what GPU tasks take" in step.reason


def test_raft_still_goes_to_the_gpu(runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any]) -> None:
    gpu = RecordingGpu()
    runner.services = dataclasses.replace(runner.services, gpu=gpu)
    without_time(runner)
    start(runner, {**request_document, "engine": "raft"})
    assert (len(gpu.started), batch.started) == (1, [])
    assert load_order(runner.storage, gpu.started[0][0]).route == "gpu"


# --- nobody takes it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", BEYOND)
def test_without_the_batch_part_the_refusal_names_its_parameter(
    runner: JobRunner, request_document: dict[str, Any], what: str
) -> None:
    BEYOND[what](runner)
    assert start(runner, request_document).state == "failed"
    error = failed(runner).error
    assert error is not None
    assert error.code == CODES[what]
    assert "EnableBatch" in error.message
    assert orders(runner) == []


@pytest.mark.parametrize("what", BEYOND)
def test_a_refusal_by_the_service_fails_the_job_and_leaves_no_order(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any], what: str
) -> None:
    BEYOND[what](runner)
    batch.error = BatchJobError("the Batch job was refused: AccessDeniedException")
    start(runner, request_document)
    error = failed(runner).error
    assert error is not None
    assert error.code == CODES[what]
    assert error.message.endswith("AccessDeniedException")
    assert orders(runner) == []


@pytest.mark.parametrize("gpu_too", [False, True])
def test_what_batch_refuses_for_want_of_time_goes_to_the_gpu(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any], gpu_too: bool
) -> None:
    gpu = RecordingGpu()
    gpu.refusal = None if gpu_too else "RESOURCE:GPU"
    runner.services = dataclasses.replace(runner.services, gpu=gpu)
    batch.error = BatchJobError("refused")
    without_time(runner)
    result = start(runner, request_document)
    if not gpu_too:
        assert failed(runner).error is not None
        return
    assert result.engine == "raft"
    order = load_order(runner.storage, gpu.started[0][0])
    assert order.route == "gpu"
    assert "refused" in order.fallbacks[0].reason


def test_a_service_that_does_not_answer_is_asked_again(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any]
) -> None:
    """The job may have been submitted: its order stays, for itself or for the next try."""
    without_time(runner)
    batch.error = TransientError("ThrottlingException")
    with pytest.raises(TransientError):
        start(runner, request_document)
    assert len(orders(runner)) == 1
    assert runner.status("t1").state == "running"
    batch.error = None
    result = runner.orchestrate("t1")
    assert batch.started == [(keys.gpu_order(result.run_id), result.run_id)]


def test_a_video_larger_than_batch_takes_is_refused_with_its_size(
    runner: JobRunner, request_document: dict[str, Any]
) -> None:
    size = runner.storage.head(VIDEO).size_bytes
    without_room(runner)
    runner.services = dataclasses.replace(runner.services, batch=RecordingBatch(max_video_bytes=size - 1))
    start(runner, request_document)
    error = failed(runner).error
    assert error is not None
    assert (error.code, error.detail["size_bytes"]) == ("MediaLimitError", size)


def test_a_function_never_downloads_what_has_no_room(runner: JobRunner, tmp_path: Path) -> None:
    without_room(runner)
    size = runner.storage.head(VIDEO).size_bytes
    source = runner.services.inputs.find(Reference(VIDEO), max_bytes=size)
    with pytest.raises(MediaLimitError, match=f"got {size}"):
        source.fetch(tmp_path / "video")
    assert not (tmp_path / "video").exists()


def test_what_the_record_says_of_batch(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any]
) -> None:
    without_memory(runner)
    start(runner, request_document)
    carry_out_on_batch(batch.started[0][0], on_batch(runner))
    (notice,) = record_of_run(runner).notices
    assert "extracting from 160x96 pixels needs about" in notice


def record_of_run(runner: JobRunner) -> JobRecord:
    with_time_again(runner)
    runner.segments("t1")
    return record_of(runner)

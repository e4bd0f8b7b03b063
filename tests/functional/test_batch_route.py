"""What is beyond a function: the way to a Batch job and back, every branch, with a queue that does what it is told."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.errors import (
    BatchJobError,
    CorruptMediaError,
    JobStateError,
    MediaLimitError,
    TransientError,
    TransientStorageError,
)
from structureflow.jobs.batch_task import carry_out_on_batch
from structureflow.jobs.deadline import Deadline
from structureflow.jobs.documents import put_document
from structureflow.jobs.extraction_order import load_order, note_failure
from structureflow.jobs.inputs import Inputs
from structureflow.jobs.services import Services
from structureflow.jobs.settle_gpu import SettledOrder, SettleGpuInput, settle_gpu
from structureflow.limits import STOP_BEFORE_END_S
from structureflow.models.results import JobRecord, JobStatus, Manifest, now
from structureflow.references import Reference
from structureflow.runtime.events import parse_ended_batch_job
from structureflow.testing.jobs import BUCKET, JobRunner
from structureflow.testing.storage import Fault, FaultStorage
from tests.functional.gpu_orders import RecordingGpu, age_order, look, record_of, start
from tests.functional.parts import PartsRunner, put_long_clip, small_parts

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


@pytest.fixture
def batch(runner: JobRunner) -> RecordingBatch:
    """A Batch part that takes every order; the runner's services have it."""
    found = RecordingBatch()
    runner.services = dataclasses.replace(runner.services, batch=found)
    return found


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


# --- and back -----------------------------------------------------------------------------------------


def test_a_job_that_ends_without_flows_fails_its_job_and_says_why(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any]
) -> None:
    without_time(runner)
    result = start(runner, request_document)
    assert ended(runner, result.run_id) == (SettledOrder(run_id=result.run_id, engine=None),)
    error = failed(runner).error
    assert error is not None
    assert (error.code, error.stage) == ("BatchJobError", "extract")
    assert "exit code 137" in error.message
    assert "OutOfMemoryError" in error.message
    assert orders(runner) == []
    assert runner.keys("jobs/t1/runs/") == []
    assert runner.counts["JobsFailed"] == 1
    assert ended(runner, result.run_id) == (), "told twice"
    assert runner.counts["JobsFailed"] == 1


def test_a_typed_error_of_the_job_is_the_error_of_its_job(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any]
) -> None:
    without_time(runner)
    result = start(runner, request_document)
    note_failure(runner.storage, batch.started[0][0], CorruptMediaError("pan.mp4: frame 5: it is damaged"))
    ended(runner, result.run_id)
    error = failed(runner).error
    assert error is not None
    assert (error.code, error.message) == ("CorruptMediaError", "pan.mp4: frame 5: it is damaged")
    assert "exit code 137" in error.detail["batch_job"]


def test_a_job_that_is_overdue_is_ended_and_fails_its_job(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any]
) -> None:
    """Also one that never started: nobody tells of a job that waits for ever."""
    without_time(runner)
    result = start(runner, request_document)
    assert look(runner) == (), "it has time yet"
    age_order(runner, result.run_id, 1)
    assert look(runner) == (SettledOrder(run_id=result.run_id, engine=None),)
    assert batch.stopped == [result.run_id]
    error = failed(runner).error
    assert error is not None
    assert "the Batch job was not done by" in error.message
    assert orders(runner) == []


def test_each_route_is_ended_by_its_own_service(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any]
) -> None:
    gpu = RecordingGpu()
    runner.services = dataclasses.replace(runner.services, gpu=gpu)
    on_gpu = start(runner, {**request_document, "task_id": "t2", "engine": "raft"})
    without_time(runner)
    here = start(runner, request_document)
    for run_id in (on_gpu.run_id, here.run_id):
        age_order(runner, run_id, 1)
    with_time_again(runner)
    assert {one.run_id: one.engine for one in look(runner)} == {on_gpu.run_id: "dis", here.run_id: None}
    assert (gpu.stopped, batch.stopped) == ([on_gpu.run_id], [here.run_id])


def test_a_job_that_died_between_record_and_archive_has_its_segments_started(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any]
) -> None:
    without_time(runner)
    result = start(runner, request_document)
    carry_out_on_batch(batch.started[0][0], on_batch(runner))
    runner.storage.delete([keys.job_flows("t1")])
    assert [one.engine for one in ended(runner, result.run_id)] == ["dis"]
    with_time_again(runner)
    assert runner.segments("t1").state == "done"


def test_flows_that_come_after_the_job_was_given_up_are_for_others(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any]
) -> None:
    without_time(runner)
    result = start(runner, request_document)
    order = load_order(runner.storage, batch.started[0][0])
    ended(runner, result.run_id)
    put_document(runner.storage, batch.started[0][0], order)
    with pytest.raises(JobStateError):
        carry_out_on_batch(batch.started[0][0], on_batch(runner))
    assert runner.status("t1").state == "failed"
    assert not runner.storage.exists(keys.job_flows("t1"))


def test_a_request_put_again_meanwhile_is_left_alone(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any]
) -> None:
    without_time(runner)
    first = start(runner, request_document)
    second = start(runner, {**request_document, "fps": 8})
    assert ended(runner, first.run_id) == ()
    assert orders(runner) == [keys.gpu_order(second.run_id)]
    assert runner.status("t1").run_id == second.run_id
    assert runner.status("t1").state == "running"


def test_an_order_of_the_gpu_is_not_carried_out_by_batch(runner: JobRunner, request_document: dict[str, Any]) -> None:
    gpu = RecordingGpu()
    runner.services = dataclasses.replace(runner.services, gpu=gpu)
    start(runner, {**request_document, "engine": "raft"})
    with pytest.raises(JobStateError, match="an order for Batch"):
        carry_out_on_batch(gpu.started[0][0], runner.services)


# --- killed at any request ----------------------------------------------------------------------------


class KilledError(Exception):
    """Nobody expects it, so nobody handles it."""


def attempt(runner: JobRunner, key: str, *faults: Fault) -> JobRecord:
    storage = FaultStorage(runner.storage, *faults)
    services = dataclasses.replace(
        on_batch(runner), storage=storage, inputs=Inputs(storage, BUCKET, max_bytes=10**9), requests_at_once=1
    )
    return carry_out_on_batch(key, services)


@pytest.mark.parametrize("error", [KilledError("killed"), TransientStorageError("no answer")], ids=["killed", "store"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_attempt_that_ends_at_any_request_is_made_good_by_the_next_or_settled(
    tmp_path: Path, request_document: dict[str, Any], error: Exception, after: bool
) -> None:
    from structureflow.storage.memory import MemoryStorage
    from structureflow.testing.jobs import png, put_pan_clip
    from structureflow.testing.videos import texture

    whole: bytes | None = None
    moment = 0
    while True:
        runner = JobRunner(MemoryStorage(), tmp_path)
        put_pan_clip(runner.storage, VIDEO, tmp_path, height=96, width=160)
        for name, seed in (("a", 1), ("b", 2)):
            runner.storage.put(f"images/{name}.png", png(texture(96, 160, seed=seed)))
        batch = RecordingBatch()
        runner.services = dataclasses.replace(runner.services, batch=batch)
        without_time(runner)
        result = start(runner, request_document)
        fault = Fault("*", error=error, skip=moment, after=after)
        died = True
        try:
            attempt(runner, batch.started[0][0], fault)
            died = False
        except (KilledError, TransientStorageError):
            pass
        if not fault.struck:
            break
        if moment % 2 and died:
            # no further attempt: the end is told, and the job is failed, or done if it was committed
            (settled,) = ended(runner, result.run_id)
            if settled.engine is None:
                assert failed(runner).error is not None
                assert orders(runner) == []
                moment += 1
                continue
        else:
            attempt(runner, batch.started[0][0])
            (settled,) = ended(runner, result.run_id, "SUCCEEDED")
        assert settled.engine == "dis", moment
        with_time_again(runner)
        assert runner.segments("t1").state == "done", moment
        assert orders(runner) == []
        flows = runner.storage.get(keys.job_flows("t1")).data
        whole = whole or flows
        assert flows == whole, moment
        assert len(runner.keys("cache/timelines/")) == 10
        moment += 1
    assert moment > 12


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

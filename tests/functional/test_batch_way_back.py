"""The way back from a Batch job: ended, overdue, late, told twice, and killed at any request."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow import keys
from structureflow.errors import CorruptMediaError, JobStateError, StorageError, TransientStorageError
from structureflow.jobs.batch_task import carry_out_on_batch
from structureflow.jobs.documents import put_document
from structureflow.jobs.extraction_order import load_order, note_failure
from structureflow.jobs.inputs import Inputs
from structureflow.jobs.settle_gpu import SettledOrder
from structureflow.models.results import JobRecord
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import BUCKET, JobRunner, png, put_pan_clip
from structureflow.testing.storage import CountingStorage, Fault, FaultStorage
from structureflow.testing.videos import texture
from tests.functional.batch_orders import (
    VIDEO,
    RecordingBatch,
    ended,
    failed,
    on_batch,
    orders,
    with_time_again,
    without_time,
)
from tests.functional.gpu_orders import RecordingGpu, age_order, look, record_of, start

# --- told -----------------------------------------------------------------------------------------


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
    # one clip for all: an encoder's threads make another one each time
    first = MemoryStorage()
    put_pan_clip(first, VIDEO, tmp_path, height=96, width=160)
    for name, seed in (("a", 1), ("b", 2)):
        first.put(f"images/{name}.png", png(texture(96, 160, seed=seed)))
    whole: NDArray[np.float32] | None = None
    moment = 0
    while True:
        runner = JobRunner(MemoryStorage(), tmp_path)
        for info in first.list(""):
            runner.storage.put(info.key, first.get(info.key).data)
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
        # what the store refused for good is on record; all else is there, and the same
        refused = {step.stage for step in record_of(runner).fallbacks}
        assert refused <= {"frames", "store", "commit"}, moment
        if not refused & {"store", "commit"}:
            with np.load(io.BytesIO(runner.storage.get(keys.job_flows("t1")).data), allow_pickle=False) as archive:
                flows = archive["flows"]
            whole = flows if whole is None else whole
            # AVX-512 code was seen to round one vector in millions otherwise, once
            assert flows.shape == whole.shape, moment
            assert np.abs(flows - whole).max() < 0.1, moment
        assert len(runner.keys("cache/timelines/")) == 10 or "frames" in refused, moment
        moment += 1
    assert moment > 12


@pytest.mark.parametrize("cached", [True, False], ids=["flows kept", "flows refused"])
def test_an_attempt_after_a_commit_does_no_work_again(
    runner: JobRunner, batch: RecordingBatch, request_document: dict[str, Any], cached: bool
) -> None:
    """Batch begins a job anew whose host was lost after all was done; the video may be gone by then."""
    without_time(runner)
    start(runner, request_document)
    key = batch.started[0][0]
    refusal = Fault("put_file", "cache/flows/*", error=StorageError("no room"), times=0 if cached else None)
    first = attempt(runner, key, refusal)
    assert (first.flows_key is None) is not cached
    runner.storage.delete([VIDEO])
    counting = CountingStorage(runner.storage)
    again = dataclasses.replace(on_batch(runner), storage=counting)
    assert carry_out_on_batch(key, again) == first
    assert not {"put_file", "get_to_file"} & set(counting.requests)
    assert runner.counts["Fallbacks"] == (not cached)

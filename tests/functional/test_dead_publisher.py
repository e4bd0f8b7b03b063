"""A publisher that died, and whose own execution nobody can tell any more: what it began is brought to its end."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from structureflow import keys
from structureflow.errors import JobBusyError, TransientStorageError
from structureflow.jobs.assemble_job import AssembleJobInput, assemble_job
from structureflow.jobs.fail_job import CaughtError, FailJobInput, fail_job
from structureflow.jobs.publish import TURN
from structureflow.jobs.render_segment import RenderSegmentInput, render_segment
from structureflow.testing.jobs import BUCKET, JobRunner
from structureflow.testing.storage import Fault, FaultStorage


def failed(execution_id: str) -> FailJobInput:
    error = CaughtError(Error="NotAnImageError", Cause="no image")
    return FailJobInput(execution_id=execution_id, bucket=BUCKET, key=keys.job_flows("t"), error=error)


def test_who_fails_a_newer_run_ends_the_turn_of_a_dead_publisher(
    runner: JobRunner, request_document: dict[str, Any]
) -> None:
    runner.put_request("t", request_document | {"task_id": "t"})
    runner.orchestrate("t")
    older = runner.plan("t", "one")
    for index in older.segments:
        render_segment(RenderSegmentInput(task_id="t", run_id=older.run_id, index=index), runner.services)
    fault = Fault("put", keys.job_manifest("t"), error=TransientStorageError("away"))
    broken = dataclasses.replace(runner.services, storage=FaultStorage(runner.storage, fault))
    with pytest.raises(TransientStorageError):
        assemble_job(AssembleJobInput(task_id="t", run_id=older.run_id), broken)
    # A newer request comes, and what tells whose the older execution was is damaged.
    runner.put_request("t", request_document | {"task_id": "t", "fps": 12})
    runner.orchestrate("t")
    newer = runner.plan("t", "two")
    runner.storage.put(keys.run_claim("t", older.run_id), b"{")
    with pytest.raises(JobBusyError):
        fail_job(failed("two"), runner.services)
    assert runner.status("t").state == "failed"
    begin = runner.services.clock()
    runner.services = dataclasses.replace(runner.services, clock=lambda: begin + TURN + timedelta(seconds=1))
    assert fail_job(failed("one"), runner.services) is None
    status = runner.status("t")
    assert (status.run_id, status.state, status.published, status.publishing) == (
        newer.run_id,
        "failed",
        older.run_id,
        None,
    )
    assert runner.storage.exists(keys.job_manifest("t"))

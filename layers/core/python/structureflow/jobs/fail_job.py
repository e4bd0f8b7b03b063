"""End a run as failed: the typed error goes to ``status.json``, what the run left in its folder goes away."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime
from typing import Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from structureflow import keys
from structureflow.errors import (
    IncompleteJobError,
    JobStateError,
    ObjectNotFoundError,
    StructureFlowError,
    SupersededRunError,
)
from structureflow.jobs.documents import describe_error, read_status
from structureflow.jobs.plan_segments import claimant, claimed_run
from structureflow.jobs.pointer import begin_run, fail_run, is_publishing, requested_run
from structureflow.jobs.publish import publish, remove_run, remove_unpublished
from structureflow.jobs.services import Services
from structureflow.models.results import ErrorInfo, JobStatus
from structureflow.storage.base import Storage

__all__ = ["fail_request"]

_log = logging.getLogger(__name__)
#: As the state ``SegmentFailed`` of the state machine writes it.
_OF_SEGMENT: Final = re.compile(r"segment (\d{1,6}): (.*)", re.DOTALL)


class CaughtError(BaseModel):
    """An error as a ``Catch`` of the state machine hands it on."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(alias="Error")
    cause: str = Field(alias="Cause", default="")


class FailJobInput(BaseModel):
    """Which execution, begun when, failed on which object, and with what."""

    model_config = ConfigDict(frozen=True)

    execution_id: str
    bucket: str
    key: str
    error: CaughtError
    started_at: AwareDatetime | None = None
    #: Of an execution that extracts a video in parts, which claims no run.
    run_id: str | None = None


def fail_job(event: FailJobInput, services: Services) -> JobStatus | None:
    """End the run of an execution as failed, and delete what it left in its folder.

    The run's results are published to the end instead, where that had begun: then they are whole. So are those of
    another run whose publisher died, and whose own execution nobody can tell any more.

    Returns:
        What the status says now; None, and the job is left alone, where it is at another run, or this one ended
        already: an execution that ended by its own FailJob is announced once more.

    Raises:
        JobBusyError: a publisher that may have died has its turn still; try again.
    """
    storage = services.storage
    task_id = keys.parse_job_flows(event.key)
    if event.run_id is not None:
        return _fail_extraction(task_id, event.run_id, event.error, services)
    run = claimed_run(storage, task_id, event.execution_id) or _unclaimed_run(storage, task_id, event.started_at)
    status = _readable_status(storage, task_id)
    failed = None
    if run is not None and not (status is not None and is_publishing(status, run)):
        failed = _fail(services, task_id, run, typed_error(event.error, stage="segments"))
        status = _readable_status(storage, task_id)
        remove_unpublished(storage, task_id, run, status)
    if status is None or status.publishing is None:
        return failed
    published = _publish(services, task_id, status.publishing.run_id)
    return published if status.publishing.run_id == run else failed


def _fail_extraction(task_id: str, run_id: str, error: CaughtError, services: Services) -> JobStatus | None:
    """End a run whose video was extracted in parts, unless its segments are under way; remove what the parts left."""
    storage = services.storage
    failed = None
    if not storage.exists(keys.run_claim(task_id, run_id)):
        failed = end_run(task_id, run_id, typed_error(error, stage="extract"), services)
    storage.delete([info.key for info in storage.list(keys.parts_prefix(run_id))])
    return failed


def fail_request(key: str, etag: str, error_type: str, error_message: str, services: Services) -> JobStatus | None:
    """End a job whose orchestrator died without a word (memory, timeout) on the request `key`.

    Returns None, and leaves the job alone, where the request with this `etag` is not the one that the job is at, or
    where its segments are under way.
    """
    storage, task_id = services.storage, keys.parse_job_request(key)
    try:
        # It may have died before it could say that the run began.
        begun = begin_run(storage, task_id)
    except ObjectNotFoundError:
        return None
    if (etag and etag != begun.request.info.etag) or storage.exists(keys.run_claim(task_id, begun.run_id)):
        return None
    error = ErrorInfo(code=error_type, message=error_message, stage="orchestrate")
    return end_run(task_id, begun.run_id, error, services)


def reject_request(
    task_id: str, run_id: str, error: StructureFlowError, stage: str, services: Services
) -> JobStatus | None:
    """End a run with an error that the orchestrator itself found; None where it is not open any more."""
    return end_run(task_id, run_id, describe_error(error, stage), services)


def typed_error(error: CaughtError, *, stage: str) -> ErrorInfo:
    """Turn a caught error into the form of ``status.json``.

    A Lambda function's cause is a JSON object with ``errorType`` and ``errorMessage``; anything else is text. Of a
    segment, the state machine puts its number in front: a process that was killed did not say it.
    """
    of_segment = _OF_SEGMENT.fullmatch(error.cause)
    text = error.cause if of_segment is None else of_segment[2]
    message = text or error.name
    try:
        cause: Any = json.loads(text)
    except ValueError:
        cause = None
    if isinstance(cause, dict):
        message = str(cause.get("errorMessage") or message)
    if of_segment is None:
        return ErrorInfo(code=error.name, message=message, stage=stage)
    number = int(of_segment[1])
    if not message.startswith(f"segment {number}: "):
        message = f"segment {number}: {message}"
    return ErrorInfo(code=error.name, message=message, stage=stage, detail={"segment": number})


def end_run(task_id: str, run_id: str, error: ErrorInfo, services: Services) -> JobStatus | None:
    """End a run before its segments as failed, and delete what the orchestrator left in its folder.

    Returns None, and leaves the job alone, where the run is not open any more.
    """
    failed = _fail(services, task_id, run_id, error)
    if failed is not None:
        remove_run(services.storage, task_id, run_id)
    return failed


def _fail(services: Services, task_id: str, run_id: str, error: ErrorInfo) -> JobStatus | None:
    failed = fail_run(services.storage, task_id, run_id, error)
    if failed is not None:
        services.count("JobsFailed", 1)
    return failed


def _readable_status(storage: Storage, task_id: str) -> JobStatus | None:
    """Return a job's status; None where there is none, or somebody spoiled it."""
    try:
        return read_status(storage, task_id)
    except JobStateError:
        return None


def _publish(services: Services, task_id: str, run_id: str) -> JobStatus | None:
    """End the publication of a run; None where the job was deleted meanwhile.

    Raises:
        JobBusyError: a publisher that may have died has its turn still; try again.
    """
    try:
        publish(task_id, run_id, services)
    except SupersededRunError:
        return None
    except IncompleteJobError as error:
        # The status says so already.
        _log.warning("run %s cannot be published: %s", run_id, error.message)
    return read_status(services.storage, task_id)


def _unclaimed_run(storage: Storage, task_id: str, started_at: datetime | None) -> str | None:
    """Return the run that an execution would have claimed if it had not failed before that; None where there is none.

    It is the one that the job is at, if nobody claimed it, and if it was ready when the execution began: else the
    execution is one of an earlier run, told of late.
    """
    status = _readable_status(storage, task_id)
    run = status.run_id if status is not None else _spoiled_run(storage, task_id)
    if run is None or started_at is None:
        return None
    try:
        claimant(storage, task_id, run)
    except (ObjectNotFoundError, JobStateError):
        pass
    else:
        return None
    try:
        ready_at = storage.head(keys.run_record(task_id, run)).last_modified
    except ObjectNotFoundError:
        return None
    return run if ready_at is not None and ready_at <= started_at else None


def _spoiled_run(storage: Storage, task_id: str) -> str | None:
    """Return the run that a job's request asks for, where a status lies there that nobody can read."""
    return requested_run(storage, task_id) if storage.exists(keys.job_status(task_id)) else None

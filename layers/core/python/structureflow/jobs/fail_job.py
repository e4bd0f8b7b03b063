"""End a job as failed: the typed error goes to ``status.json``, what is half-made goes away."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from structureflow import keys
from structureflow.errors import JobStateError, ObjectNotFoundError, StructureFlowError
from structureflow.jobs.documents import describe_error, get_document, load_record, put_status
from structureflow.jobs.plan_segments import claimant, remove_outputs
from structureflow.jobs.services import Services
from structureflow.models.results import ErrorInfo, JobStatus
from structureflow.storage.base import Storage


class CaughtError(BaseModel):
    """An error as a ``Catch`` of the state machine hands it on."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(alias="Error")
    cause: str = Field(alias="Cause", default="")


class FailJobInput(BaseModel):
    """Which execution failed, on which object, and with what."""

    model_config = ConfigDict(frozen=True)

    execution_id: str
    bucket: str
    key: str
    error: CaughtError
    only_if_open: bool = False


def fail_job(event: FailJobInput, services: Services) -> JobStatus | None:
    """End the job of an execution as failed.

    Returns None, and changes nothing, when another execution holds the claim of the run, or when `only_if_open` is
    set and the job has ended already: an execution that ended by its own FailJob is announced once more.
    """
    storage = services.storage
    task_id = keys.parse_job_flows(event.key)
    run_id = _run_of(storage, task_id)
    if run_id and _claimed_by_another(storage, task_id, run_id, event.execution_id):
        return None
    if event.only_if_open and not _is_open(storage, task_id):
        return None
    remove_outputs(storage, task_id)
    return _fail(services, task_id, run_id, typed_error(event.error, stage="segments"))


def fail_request(key: str, error_type: str, error_message: str, services: Services) -> JobStatus:
    """End a job whose orchestrator died without a word (memory, timeout) on the request `key`."""
    task_id = keys.parse_job_request(key)
    error = ErrorInfo(code=error_type, message=error_message, stage="orchestrate")
    return _fail(services, task_id, _run_of(services.storage, task_id), error)


def reject_request(task_id: str, run_id: str, error: StructureFlowError, stage: str, services: Services) -> JobStatus:
    """End a job with an error that the orchestrator itself found."""
    return _fail(services, task_id, run_id, describe_error(error, stage))


def typed_error(error: CaughtError, *, stage: str) -> ErrorInfo:
    """Turn a caught error into the form of ``status.json``.

    A Lambda function's cause is a JSON object with ``errorType`` and ``errorMessage``; anything else is text.
    """
    message = error.cause or error.name
    try:
        cause: Any = json.loads(error.cause)
    except ValueError:
        cause = None
    if isinstance(cause, dict):
        message = str(cause.get("errorMessage") or message)
    return ErrorInfo(code=error.name, message=message, stage=stage)


def _fail(services: Services, task_id: str, run_id: str, error: ErrorInfo) -> JobStatus:
    services.count("JobsFailed", 1)
    return put_status(services.storage, task_id=task_id, run_id=run_id, state="failed", stage=error.stage, error=error)


def _run_of(storage: Storage, task_id: str) -> str:
    try:
        return load_record(storage, task_id).run_id
    except JobStateError:
        return ""


def _is_open(storage: Storage, task_id: str) -> bool:
    try:
        status = get_document(storage, keys.job_status(task_id), JobStatus, made_by="the orchestrator")
    except JobStateError:
        return True
    return status.state == "running"


def _claimed_by_another(storage: Storage, task_id: str, run_id: str, execution_id: str) -> bool:
    try:
        return claimant(storage, task_id, run_id) != execution_id
    except ObjectNotFoundError:
        return False

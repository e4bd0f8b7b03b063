"""Reading and writing the JSON documents of a job: request, record, status, results."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from structureflow import keys
from structureflow.errors import JobStateError, ObjectNotFoundError, StructureFlowError, SupersededRunError
from structureflow.limits import MAX_DOCUMENT_BYTES, MAX_REQUEST_BYTES
from structureflow.models.bounds import first_problem, validate_json
from structureflow.models.job import JobRequest
from structureflow.models.results import ErrorInfo, JobRecord, JobStatus, Model
from structureflow.storage.base import ObjectInfo, Storage, StoredObject
from structureflow.storage.bounded import read_bounded

__all__ = ["get_document", "load_record", "read_status"]

_JSON = "application/json"
_Document = TypeVar("_Document", bound=BaseModel)


def put_document(storage: Storage, key: str, document: Model, *, if_absent: bool = False) -> ObjectInfo:
    """Write a document as JSON; with `if_absent`, only if none is there (`ObjectExistsError`)."""
    return storage.put(key, document.to_json(), content_type=_JSON, if_absent=if_absent)


def get_document(storage: Storage, key: str, model: type[_Document], *, made_by: str) -> _Document:
    """Read a document that an earlier step, `made_by`, must have left.

    Raises:
        JobStateError: it is not there, or is not what that step writes.
    """
    try:
        stored = read_bounded(storage, key, MAX_DOCUMENT_BYTES)
    except ObjectNotFoundError as error:
        raise JobStateError(f"{key}: expected from {made_by}, but it is not there") from error
    return parse_document(stored, model, made_by=made_by)


def parse_document(stored: StoredObject, model: type[_Document], *, made_by: str) -> _Document:
    """Read a document as `read_bounded` gives it.

    Raises:
        JobStateError: it is not what that step writes.
    """
    key = stored.info.key
    if stored.info.size_bytes > MAX_DOCUMENT_BYTES:
        raise JobStateError(
            f"{key}: expected at most {MAX_DOCUMENT_BYTES} bytes of {made_by}, got {stored.info.size_bytes}"
        )
    try:
        return validate_json(model, stored.data)
    except ValidationError as error:
        raise JobStateError(f"{key}: not a document of {made_by}: {first_problem(error)}") from error


def run_id(request: ObjectInfo) -> str:
    """Return the id of the run that this copy of a ``request.json`` asks for.

    Two deliveries of the same event give the same run; putting the request again, even unchanged, a new one.
    """
    moment = request.last_modified.isoformat() if request.last_modified else ""
    return hashlib.sha256(f"{request.key}|{request.etag}|{moment}".encode()).hexdigest()[:16]


def check_current(storage: Storage, task_id: str, expected_run_id: str) -> None:
    """Make sure that the request as it lies there still asks for this run.

    Raises:
        SupersededRunError: it was put again, or deleted.
    """
    _check_run(task_id, expected_run_id, storage.head)


def whole_request(storage: Storage, task_id: str, expected_run_id: str, recorded: JobRequest) -> JobRequest:
    """Return the request of a run with whole references; records keep them without the queries of URLs.

    Only a request with such URLs is read again.

    Raises:
        SupersededRunError: it was put again, or deleted.
    """
    if not recorded.is_redacted:
        return recorded
    found: list[StoredObject] = []

    def read(key: str) -> ObjectInfo:
        found.append(read_bounded(storage, key, MAX_REQUEST_BYTES))
        return found[0].info

    _check_run(task_id, expected_run_id, read)
    return JobRequest.parse_json(found[0].data, expected_task_id=task_id)


def _check_run(task_id: str, expected_run_id: str, look: Callable[[str], ObjectInfo]) -> None:
    key = keys.job_request(task_id)
    try:
        current = run_id(look(key))
    except ObjectNotFoundError as error:
        raise SupersededRunError(f"job {task_id}: run {expected_run_id} ends, for {key} was deleted") from error
    if current != expected_run_id:
        raise SupersededRunError(
            f"job {task_id}: run {expected_run_id} ends, for the job was started again as run {current}"
        )


def read_status(storage: Storage, task_id: str) -> JobStatus | None:
    """Return a job's status; None where it has none.

    Raises:
        JobStateError: what lies there is no status.
    """
    try:
        found = read_bounded(storage, keys.job_status(task_id), MAX_DOCUMENT_BYTES)
    except ObjectNotFoundError:
        return None
    return parse_document(found, JobStatus, made_by="the orchestrator")


def current_run(storage: Storage, task_id: str) -> str:
    """Return the run that a job is at.

    Raises:
        JobStateError: there is no such job.
    """
    status = read_status(storage, task_id)
    if status is None:
        raise JobStateError(f"job {task_id}: expected a status from the orchestrator, but there is none")
    return status.run_id


def load_record(storage: Storage, task_id: str, run_id: str | None = None) -> JobRecord:
    """Read the record of a run; without `run_id`, of the run that the job is at.

    Raises:
        JobStateError: it is not there.
    """
    run = current_run(storage, task_id) if run_id is None else run_id
    return get_document(storage, keys.run_record(task_id, run), JobRecord, made_by="the orchestrator")


def describe_error(error: StructureFlowError, stage: str) -> ErrorInfo:
    """Return the typed error as ``status.json`` shows it."""
    detail: dict[str, Any] = error.as_dict()["detail"]
    return ErrorInfo(code=error.code, message=error.message, stage=stage, detail=detail)

"""``status.json``: which run a job is at, and how far; changed only by comparing and swapping.

One document says it all, so that no two writers can each be right: the run that the job is at, whether it is open,
whose results lie at the documented keys, and who is putting results there at this moment. Whoever wants to change it
says which version it was decided on; if somebody was faster, the decision is taken anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from structureflow import keys
from structureflow.errors import (
    JobBusyError,
    JobStateError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    SupersededRunError,
)
from structureflow.jobs.documents import get_document, parse_document, read_status
from structureflow.jobs.documents import run_id as run_of
from structureflow.limits import MAX_DOCUMENT_BYTES, MAX_REQUEST_BYTES
from structureflow.models.results import ErrorInfo, JobStatus, Manifest, now
from structureflow.storage.base import Storage, StoredObject
from structureflow.storage.bounded import read_bounded

#: Others that swapped in between are met so often; more are no contention but a fault.
_ATTEMPTS: Final = 20

Change = Callable[[JobStatus], JobStatus | None]
"""Gives the status to write in place of the one given; None leaves it."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A request as the orchestrator takes it up; `known` is the job's status if it is at this very run already."""

    request: StoredObject
    run_id: str
    known: JobStatus | None


def begin_run(storage: Storage, task_id: str) -> Begun:
    """Put a job to the run that its request, as it lies there now, asks for.

    The request is read after the status: so it is never older than the one which the status speaks of, and of two
    orchestrators at once the one with the newer request wins, whichever event came first.

    Raises:
        ObjectNotFoundError: the request was deleted.
    """
    for _ in range(_ATTEMPTS):
        found = _look(storage, task_id)
        request = read_bounded(storage, keys.job_request(task_id), MAX_REQUEST_BYTES)
        run = run_of(request.info)
        status = None if found is None else _readable(found)
        if status is not None and status.run_id == run:
            return Begun(request, run, status)
        moment = now()
        fresh = JobStatus(
            task_id=task_id, run_id=run, state="running", stage="orchestrate", updated_at=moment, started_at=moment
        )
        if status is not None:
            fresh = fresh.model_copy(update={"published": status.published, "publishing": status.publishing})
        try:
            _write(storage, fresh, found)
        except (ObjectExistsError, ObjectChangedError):
            continue
        _check_not_deleted(storage, task_id)
        return Begun(request, run, None)
    raise _contended(task_id)


def _check_not_deleted(storage: Storage, task_id: str) -> None:
    """Take a new status away again if the job was deleted just before it was written."""
    try:
        storage.head(keys.job_request(task_id))
    except ObjectNotFoundError:
        storage.delete([keys.job_status(task_id)])
        raise


def change_status(storage: Storage, task_id: str, change: Change) -> JobStatus | None:
    """Apply `change` to the status as it is at the moment of writing; return what was written.

    Returns:
        None where the job has no status, or `change` leaves it.
    """
    for _ in range(_ATTEMPTS):
        found = _look(storage, task_id)
        if found is None:
            return None
        changed = change(parse_document(found, JobStatus, made_by="the orchestrator"))
        if changed is None:
            return None
        changed = changed.model_copy(update={"updated_at": now()})
        try:
            _write(storage, changed, found)
        except ObjectChangedError:
            continue
        return changed
    raise _contended(task_id)


def advance(
    storage: Storage,
    task_id: str,
    run_id: str,
    *,
    stage: str,
    segments: int | None = None,
    cost_usd: float | None = None,
) -> JobStatus:
    """Say that a run has come to a stage, and what it took until then, where that is known.

    Raises:
        SupersededRunError: the job is at another run, deleted, or its run ended.
    """

    def further(status: JobStatus) -> JobStatus | None:
        if not is_open(status, run_id):
            return None
        known = {"segments": segments or status.segments, "cost_usd": cost_usd or status.cost_usd}
        return status.model_copy(update={"stage": stage, **known})

    changed = change_status(storage, task_id, further)
    if changed is None:
        raise superseded(storage, task_id, run_id)
    return changed


def fail_run(storage: Storage, task_id: str, run_id: str, error: ErrorInfo) -> JobStatus | None:
    """End a run as failed; None, and nothing is changed, where it is not open or its results are being published."""

    def failed(status: JobStatus) -> JobStatus | None:
        if not is_open(status, run_id) or is_publishing(status, run_id):
            return None
        return status.model_copy(update={"state": "failed", "stage": error.stage, "error": error, "cost_usd": None})

    try:
        return change_status(storage, task_id, failed)
    except JobBusyError:
        raise
    except JobStateError:
        return _fail_unreadable(storage, task_id, run_id, error)


def requested_run(storage: Storage, task_id: str) -> str | None:
    """Return the run that a job's request asks for; None where the request was deleted."""
    try:
        return run_of(storage.head(keys.job_request(task_id)))
    except ObjectNotFoundError:
        return None


def _fail_unreadable(storage: Storage, task_id: str, run_id: str, error: ErrorInfo) -> JobStatus | None:
    """End a run whose status somebody spoiled, if the request asks for this run still; else a newer one writes it."""
    found = _look(storage, task_id)
    if found is None or _readable(found) is not None or requested_run(storage, task_id) != run_id:
        return None
    failed = JobStatus(
        task_id=task_id,
        run_id=run_id,
        state="failed",
        stage=error.stage,
        updated_at=now(),
        error=error,
        published=_published_run(storage, task_id),
    )
    try:
        _write(storage, failed, found)
    except ObjectChangedError:
        return None
    return failed


def _published_run(storage: Storage, task_id: str) -> str | None:
    """Return the run whose results the manifest at the documented key lists."""
    try:
        return get_document(storage, keys.job_manifest(task_id), Manifest, made_by="AssembleJob").run_id
    except JobStateError:
        return None


def check_open(storage: Storage, task_id: str, run_id: str) -> None:
    """Make sure that a job is at this run, and that the run has not ended.

    Raises:
        SupersededRunError: it is not so.
    """
    status = read_status(storage, task_id)
    if status is None or not is_open(status, run_id):
        raise superseded(storage, task_id, run_id)


def is_open(status: JobStatus, run_id: str) -> bool:
    """Tell whether a job is at this run and the run has not ended."""
    return status.run_id == run_id and status.state == "running"


def is_publishing(status: JobStatus, run_id: str) -> bool:
    """Tell whether somebody has begun to publish the results of this run, and they are not all there yet."""
    return status.publishing is not None and status.publishing.run_id == run_id


def superseded(storage: Storage, task_id: str, run_id: str) -> SupersededRunError:
    """Return the error that says why a run must leave its job alone."""
    status = read_status(storage, task_id)
    if status is None:
        return SupersededRunError(f"job {task_id}: run {run_id} ends, for the job was deleted")
    if status.run_id != run_id:
        return SupersededRunError(f"job {task_id}: run {run_id} ends, for it was started again as run {status.run_id}")
    return SupersededRunError(f"job {task_id}: run {run_id} ends, for it is {status.state} already")


def _look(storage: Storage, task_id: str) -> StoredObject | None:
    try:
        return read_bounded(storage, keys.job_status(task_id), MAX_DOCUMENT_BYTES)
    except ObjectNotFoundError:
        return None


def _readable(found: StoredObject) -> JobStatus | None:
    try:
        return parse_document(found, JobStatus, made_by="the orchestrator")
    except JobStateError:
        # A new run replaces what nobody can read.
        return None


def _write(storage: Storage, status: JobStatus, replaced: StoredObject | None) -> None:
    storage.put(
        keys.job_status(status.task_id),
        status.to_json(),
        content_type="application/json",
        if_absent=replaced is None,
        if_match=None if replaced is None else replaced.info.etag,
    )


def _contended(task_id: str) -> JobBusyError:
    return JobBusyError(f"job {task_id}: its status changed {_ATTEMPTS} times while it was to be changed")

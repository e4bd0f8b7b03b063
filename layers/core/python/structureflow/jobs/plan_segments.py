"""First state of the machine: claim the run, clear what an earlier run left, list the segments."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict

from structureflow import keys
from structureflow.errors import JobStateError, ObjectExistsError
from structureflow.jobs.documents import load_record, put_status
from structureflow.jobs.services import MAX_CONCURRENCY, Services
from structureflow.limits import MAX_CLAIM_BYTES
from structureflow.storage.base import Storage
from structureflow.storage.bounded import read_bounded


class PlanSegmentsInput(BaseModel):
    """The object whose arrival started the execution, and the execution itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    execution_id: str
    bucket: str
    key: str


class SegmentPlan(BaseModel):
    """What the state machine fans out, and how many at once: numbers only, never pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_id: str
    run_id: str
    claimed: bool
    segments: tuple[int, ...]
    max_concurrency: int = MAX_CONCURRENCY


def plan_segments(event: PlanSegmentsInput, services: Services) -> SegmentPlan:
    """Claim the run for this execution and return its segments.

    Another execution that holds the claim makes this one a duplicate: `claimed` is False and nothing changes.

    Raises:
        InvalidKeyError: the key is no job's flow archive.
        JobStateError: the job has no record.
    """
    storage = services.storage
    task_id = keys.parse_job_flows(event.key)
    record = load_record(storage, task_id)
    if not claim(storage, task_id, record.run_id, event.execution_id):
        services.count("DuplicateEvents", 1)
        return SegmentPlan(task_id=task_id, run_id=record.run_id, claimed=False, segments=())
    remove_outputs(storage, task_id)
    remove_overlays(storage, record.timeline_id, task_id)
    count = len(record.request.segments)
    put_status(storage, task_id=task_id, run_id=record.run_id, state="running", stage="segments", segments=count)
    return SegmentPlan(
        task_id=task_id,
        run_id=record.run_id,
        claimed=True,
        segments=tuple(range(count)),
        max_concurrency=services.max_concurrent_segments,
    )


def claim(storage: Storage, task_id: str, run_id: str, execution_id: str) -> bool:
    """Claim a run for one execution; True if it holds the claim now, also when it did before (a retry)."""
    key = keys.job_run_claim(task_id, run_id)
    claim_bytes = json.dumps({"execution_id": execution_id}).encode()
    try:
        storage.put(key, claim_bytes, content_type="application/json", if_absent=True)
    except ObjectExistsError:
        return claimant(storage, task_id, run_id) == execution_id
    return True


def claimant(storage: Storage, task_id: str, run_id: str) -> str:
    """Return the execution that holds a run's claim.

    Raises:
        ObjectNotFoundError: nobody claimed the run.
        JobStateError: the claim is unreadable.
    """
    key = keys.job_run_claim(task_id, run_id)
    data = read_bounded(storage, key, MAX_CLAIM_BYTES).data
    try:
        holder = json.loads(data)["execution_id"]
    except (ValueError, KeyError, TypeError) as error:
        raise JobStateError(f"{key}: expected a claim, got {data[:80]!r}") from error
    return str(holder)


def remove_outputs(storage: Storage, task_id: str) -> None:
    """Delete hand-over objects and every output of the segments, so that two runs never mix."""
    storage.delete(info.key for info in storage.list(keys.work_prefix(task_id)))
    storage.delete(info.key for info in storage.list(keys.segments_prefix(task_id)))
    storage.delete([keys.job_manifest(task_id), keys.job_report(task_id)])


def remove_overlays(storage: Storage, timeline_id: str, task_id: str) -> None:
    """Delete the pictures that an earlier run of the job left on its timeline; those of other jobs stay."""
    prefix = keys.timeline_overlays_prefix(timeline_id, task_id)
    storage.delete(info.key for info in storage.list(prefix))

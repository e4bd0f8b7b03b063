"""First state of the machine: claim the run that the job is at, list its segments."""

from __future__ import annotations

import json
import logging

from pydantic import BaseModel, ConfigDict

from structureflow import keys
from structureflow.errors import InvalidKeyError, JobStateError, ObjectExistsError, ObjectNotFoundError
from structureflow.jobs.documents import load_record, read_status
from structureflow.jobs.pointer import advance
from structureflow.jobs.services import Services
from structureflow.limits import MAX_CLAIM_BYTES, MAX_CONCURRENT_SEGMENTS, MAX_INLINE_SEGMENTS
from structureflow.models.cost import StepUsage, spent_usd, transitions_of
from structureflow.models.results import JobStatus
from structureflow.storage.base import Storage
from structureflow.storage.bounded import read_bounded

_log = logging.getLogger(__name__)


class PlanSegmentsInput(BaseModel):
    """The object whose arrival started the execution, and the execution itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    execution_id: str
    bucket: str
    key: str


class SegmentPlan(BaseModel):
    """What the state machine fans out, and how many at once: numbers only, never pixels.

    Attributes:
        segments: by number, of a run of few; a payload holds 256 KB, and an execution 25,000 events.
        many: whether they are too many for that; then `items_key` is the object that lists them.
        usage: what this step used, for AssembleJob to add up.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_id: str
    run_id: str
    claimed: bool
    segments: tuple[int, ...]
    max_concurrency: int = MAX_CONCURRENT_SEGMENTS
    many: bool = False
    items_key: str = ""
    usage: tuple[StepUsage, ...] = ()


def plan_segments(event: PlanSegmentsInput, services: Services) -> SegmentPlan:
    """Claim the run that the job is at for this execution, and return its segments.

    Another execution that holds the claim makes this one a duplicate: `claimed` is False and nothing changes. So does
    a run that ended already, or has no record yet: then the event is one of an earlier run. An archive that lies
    elsewhere in a job's folder, which the rule's star lets through, is nobody's.

    Raises:
        SupersededRunError: the job was started again at this moment.
    """
    storage = services.storage
    try:
        task_id = keys.parse_job_flows(event.key)
    except InvalidKeyError as error:
        _log.info("not the flows of a job: %s", error.message)
        return SegmentPlan(task_id="", run_id="", claimed=False, segments=())
    status = read_status(storage, task_id)
    if status is None or not _is_ready(storage, status) or not claim(storage, task_id, status.run_id, event):
        services.count("DuplicateEvents", 1)
        return SegmentPlan(task_id=task_id, run_id=status.run_id if status else "", claimed=False, segments=())
    record = load_record(storage, task_id, status.run_id)
    count = len(record.request.segments)
    cost_usd = spent_usd(record.usage, transitions=transitions_of(count))
    advance(storage, task_id, record.run_id, stage="segments", segments=count, cost_usd=cost_usd)
    remove_overlays(storage, record.timeline_id, task_id)
    plan = SegmentPlan(
        task_id=task_id,
        run_id=record.run_id,
        claimed=True,
        segments=tuple(range(count)) if count <= MAX_INLINE_SEGMENTS else (),
        max_concurrency=services.max_concurrent_segments,
        many=count > MAX_INLINE_SEGMENTS,
    )
    if plan.many:
        listed = json.dumps([{"index": index} for index in range(count)])
        key = keys.run_segment_list(task_id, record.run_id)
        storage.put(key, listed.encode(), content_type="application/json")
        plan = plan.model_copy(update={"items_key": key})
    return plan.model_copy(update={"usage": services.usage("PlanSegments")})


def _is_ready(storage: Storage, status: JobStatus) -> bool:
    return status.state == "running" and storage.exists(keys.run_record(status.task_id, status.run_id))


def claim(storage: Storage, task_id: str, run_id: str, event: PlanSegmentsInput) -> bool:
    """Claim a run for one execution; True if it holds the claim now, also when it did before (a retry)."""
    key = keys.run_claim(task_id, run_id)
    claim_bytes = json.dumps({"execution_id": event.execution_id}).encode()
    try:
        storage.put(key, claim_bytes, content_type="application/json", if_absent=True)
    except ObjectExistsError:
        return claimant(storage, task_id, run_id) == event.execution_id
    return True


def claimant(storage: Storage, task_id: str, run_id: str) -> str:
    """Return the execution that holds a run's claim.

    Raises:
        ObjectNotFoundError: nobody claimed the run.
        JobStateError: the claim is unreadable.
    """
    key = keys.run_claim(task_id, run_id)
    data = read_bounded(storage, key, MAX_CLAIM_BYTES).data
    try:
        holder = json.loads(data)["execution_id"]
    except (ValueError, KeyError, TypeError) as error:
        raise JobStateError(f"{key}: expected a claim, got {data[:80]!r}") from error
    return str(holder)


def claimed_run(storage: Storage, task_id: str, execution_id: str) -> str | None:
    """Return the run of a job that an execution claimed; None where it claimed none."""
    for info in storage.list(keys.runs_prefix(task_id)):
        run = keys.parse_run_claim(info.key)
        try:
            if run is not None and claimant(storage, task_id, run) == execution_id:
                return run
        except (ObjectNotFoundError, JobStateError):
            # Removed since it was listed, by whoever published a newer run; or spoiled, and then nobody's.
            continue
    return None


def remove_overlays(storage: Storage, timeline_id: str, task_id: str) -> None:
    """Delete the pictures that an earlier run of the job left on its timeline; those of other jobs stay."""
    prefix = keys.timeline_overlays_prefix(timeline_id, task_id)
    storage.delete(info.key for info in storage.list(prefix))

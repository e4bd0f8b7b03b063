"""Carry out an order in a Batch job: the same extraction as the orchestrator's, with more time, memory and disk."""

from __future__ import annotations

from structureflow.errors import JobStateError
from structureflow.jobs.extract_job import commit_cached, extract_and_commit, finish_commit
from structureflow.jobs.extraction_order import committed_record, load_order, look_up, order_source
from structureflow.jobs.services import Services
from structureflow.jobs.timeline import keep_frames
from structureflow.models.results import JobRecord


def carry_out_on_batch(key: str, services: Services) -> JobRecord:
    """Extract what the order at `key` asks for, and start its segments.

    Flows that another job has left meanwhile are taken as they are.

    Returns:
        The job's record; the one that is there, and no work is done, if the run is committed already: an attempt before
        this one may have been stopped after its commit.

    Raises:
        JobStateError: there is no such order, it is not for Batch, or (`SupersededRunError`) its job began anew.
        MediaError, InputNotFoundError, InputChangedError, EngineUnavailableError, FlowError: as `extract_and_commit`.
        TransientError: a later try may succeed.
    """
    order = load_order(services.storage, key)
    if order.route != "batch":
        raise JobStateError(f"{key}: expected an order for Batch, got one for the {order.route} route")
    committed = committed_record(services.storage, order)
    if committed is not None:
        finish_commit(order, committed, services)
        return committed
    order, meta = look_up(order, services)
    source = order_source(order, services)
    if meta is None:
        return extract_and_commit(order, source, services, step="Batch")
    record = commit_cached(order, meta, services)
    keep_frames(order.timeline_id, source, services)
    return record

"""The way back from a GPU task or a Batch job: it ended, or is overdue; whoever has no flows then gets them by DIS.

What a Batch job was asked for is beyond a function: without its flows the job is failed, and says why.

Nobody waits for a task. Its end is an event, and a schedule looks for orders past their deadline; whichever comes
first settles the order, and both may come.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict

from structureflow import keys
from structureflow.errors import (
    BatchJobError,
    EngineUnavailableError,
    JobStateError,
    StructureFlowError,
    SupersededRunError,
    TransientError,
)
from structureflow.jobs.documents import check_current
from structureflow.jobs.extract_job import commit_cached, extract_and_commit, finish_commit
from structureflow.jobs.extraction_order import ExtractionOrder, committed_record, load_order, look_up, order_source
from structureflow.jobs.fail_job import end_run, reject_request
from structureflow.jobs.gpu_claim import settling
from structureflow.jobs.pointer import check_open
from structureflow.jobs.services import Services
from structureflow.jobs.timeline import keep_frames
from structureflow.models.results import ErrorInfo

__all__ = ["SettleGpuInput", "settle_gpu"]

_GPU_ENGINE: Final = "raft"
_LAMBDA_ENGINE: Final = "dis"
#: Past the deadline. Who could not be settled until then (every try ran out of memory or time) never will be.
_GIVE_UP_AFTER: Final = timedelta(hours=1)

_log = logging.getLogger(__name__)


class SettleGpuInput(BaseModel):
    """The run whose task or Batch job ended, and why; without a run, every order is looked at for its deadline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str | None = None
    reason: str = ""


class SettledOrder(BaseModel):
    """How an order ended: with which engine's flows, or None where the job is failed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str
    engine: str | None


class SettleGpuResult(BaseModel):
    """The orders that were settled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    settled: tuple[SettledOrder, ...]


def settle_gpu(event: SettleGpuInput, services: Services) -> SettleGpuResult:
    """Settle the order of one run, or orders past their deadline, all of whose tasks are stopped first.

    One at a time settles an order: who finds it claimed leaves it. What half of the function's time does not do is left
    to the next look.

    A run that is committed loses its order, and its segments start if they did not. A run without an order is somebody
    else's task, or settled already. An order of a job that was started again meanwhile goes, and the job is left
    alone. All others are extracted here by DIS, and their record says so; those of Batch jobs are failed.

    Raises:
        TransientError: the store broke off; that order is still there for the next try, all others are settled.
    """
    if event.run_id is None:
        return SettleGpuResult(settled=tuple(_settle_overdue(services)))
    settled = _settle(event.run_id, event.reason, services)
    return SettleGpuResult(settled=() if settled is None else (settled,))


def _settle_overdue(services: Services) -> Iterator[SettledOrder]:
    failures: list[TransientError] = []
    overdue = list(_overdue_orders(services))
    for order in overdue:
        # Before any extraction, which takes minutes: until then the others would go on, at the price of an instance.
        _stop(order, services)
    time_s = services.deadline.left_s
    for number, order in enumerate(overdue):
        left_s = services.deadline.left_s
        if number and time_s is not None and left_s is not None and left_s < time_s / 2:
            _log.warning("%d overdue orders are left to the next look", len(overdue) - number)
            break
        try:
            settled = _settle(order.run_id, _overdue_reason(order), services)
        except TransientError as error:
            _log.warning("run %s cannot be settled yet: %s: %s", order.run_id, error.code, error.message)
            failures.append(error)
            continue
        if settled is not None:
            yield settled
    if failures:
        raise failures[0]


def _overdue_orders(services: Services) -> Iterator[ExtractionOrder]:
    for info in services.storage.list(keys.GPU_ORDERS_PREFIX):
        try:
            order = load_order(services.storage, info.key)
        except JobStateError as error:
            # Settled since it was listed; or not an order, which only its expiry in the bucket removes.
            _log.warning("%s is passed over: %s", info.key, error.message)
            continue
        if order.deadline is not None and order.deadline <= services.clock():
            yield order


def _stop(order: ExtractionOrder, services: Services) -> None:
    launcher = services.batch if order.route == "batch" else services.gpu
    if launcher is not None:
        try:
            launcher.stop(order.run_id, "structureflow: not done in time")
        except EngineUnavailableError as error:
            # The job does not need the task to end; what the task still writes is for other jobs.
            _log.warning("run %s: %s", order.run_id, error.message)


def _overdue_reason(order: ExtractionOrder) -> str:
    if order.route == "batch":
        return f"the Batch job was not done by {order.deadline:%Y-%m-%d %H:%M} UTC"
    return f"the GPU task was not done by {order.deadline:%H:%M:%S} UTC"


def _settle(run_id: str, reason: str, services: Services) -> SettledOrder | None:
    if not services.storage.exists(keys.gpu_order(run_id)):
        return None
    with settling(run_id, services) as is_ours:
        if is_ours:
            return _settle_claimed(run_id, reason, services)
    _log.info("run %s is settled by another at this moment", run_id)
    return None


def _settle_claimed(run_id: str, reason: str, services: Services) -> SettledOrder | None:
    key = keys.gpu_order(run_id)
    try:
        order = load_order(services.storage, key)
    except JobStateError:
        return None
    try:
        settled = SettledOrder(run_id=run_id, engine=_engine_of(order, reason, services))
    except SupersededRunError as error:
        _log.info("run %s is left: %s", run_id, error.message)
        settled = None
    services.storage.delete([key])
    return settled


def _engine_of(order: ExtractionOrder, reason: str, services: Services) -> str | None:
    """See to it that the job has flows, and return whose they are; None where the job is failed."""
    check_current(services.storage, order.task_id, order.run_id)
    check_open(services.storage, order.task_id, order.run_id)
    record = committed_record(services.storage, order)
    if record is not None:
        # The task may have died between the record and the archive.
        finish_commit(order, record, services)
        return record.engine
    if order.route == "batch":
        _fail_batch(order, reason, services)
        return None
    try:
        if order.deadline is not None and services.clock() > order.deadline + _GIVE_UP_AFTER:
            raise EngineUnavailableError(
                f"neither the GPU task nor DIS extracted the flows until {_GIVE_UP_AFTER} past the deadline: {reason}"
            )
        return _extract_here(order, reason, services)
    except SupersededRunError:
        raise
    except StructureFlowError as error:
        if error.transient:
            raise
        reject_request(order.task_id, order.run_id, error, "extract", services)
        return None


def _fail_batch(order: ExtractionOrder, reason: str, services: Services) -> None:
    """End a job whose Batch job left no flows: by the error that it named, if it did, else by what became of it."""
    if order.failure is None:
        reject_request(order.task_id, order.run_id, BatchJobError(reason), "extract", services)
        return
    code, _, message = order.failure.partition(": ")
    error = ErrorInfo(code=code, message=message, stage="extract", detail={"batch_job": reason})
    end_run(order.task_id, order.run_id, error, services)


def _extract_here(order: ExtractionOrder, reason: str, services: Services) -> str:
    services.count("Fallbacks", 1)
    why = reason if order.failure is None else f"{reason}: {order.failure}"
    fallen = order.falling_back("route", _GPU_ENGINE, _LAMBDA_ENGINE, why)
    fallen, meta = look_up(fallen.model_copy(update={"engine": _LAMBDA_ENGINE}), services)
    source = order_source(order, services)
    if meta is None:
        return extract_and_commit(fallen, source, services).engine
    record = commit_cached(fallen, meta, services)
    keep_frames(order.timeline_id, source, services)
    return record.engine

"""The way back from the GPU: a task ended, or is overdue; whoever has no flows then gets them by DIS.

Nobody waits for a task. Its end is an event, and a schedule looks for orders past their deadline; whichever comes
first settles the order, and both may come.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel, ConfigDict

from structureflow import keys
from structureflow.errors import JobStateError, StructureFlowError
from structureflow.jobs.extract_job import ExtractionOrder, committed_record, extract_and_commit, load_order
from structureflow.jobs.fail_job import reject_request
from structureflow.jobs.services import Services
from structureflow.models.results import now

_GPU_ENGINE: Final = "raft"
_LAMBDA_ENGINE: Final = "dis"


class SettleGpuInput(BaseModel):
    """The run whose task ended and why; without a run, every order is looked at for its deadline."""

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
    """Settle the order of one run, or every order past its deadline, its task stopped first.

    A run that is committed only loses its order. A run without an order is somebody else's task, or settled
    already. All others are extracted here by DIS, and their record says so.
    """
    if event.run_id is not None:
        settled = [_settle(event.run_id, event.reason, services)]
    else:
        settled = [_settle_overdue(order, services) for order in _open_orders(services)]
    return SettleGpuResult(settled=tuple(order for order in settled if order is not None))


def _open_orders(services: Services) -> Iterator[ExtractionOrder]:
    for info in services.storage.list(keys.GPU_ORDERS_PREFIX):
        yield load_order(services.storage, info.key)


def _settle_overdue(order: ExtractionOrder, services: Services) -> SettledOrder | None:
    if order.deadline is None or order.deadline > now():
        return None
    if services.gpu is not None:
        services.gpu.stop(order.run_id, "structureflow: not done in time")
    return _settle(order.run_id, f"the GPU task was not done by {order.deadline:%H:%M:%S} UTC", services)


def _settle(run_id: str, reason: str, services: Services) -> SettledOrder | None:
    key = keys.gpu_order(run_id)
    try:
        order = load_order(services.storage, key)
    except JobStateError:
        return None
    record = committed_record(services.storage, order)
    engine = record.engine if record else _extract_here(order, reason, services)
    services.storage.delete([key])
    return SettledOrder(run_id=run_id, engine=engine)


def _extract_here(order: ExtractionOrder, reason: str, services: Services) -> str | None:
    services.count("Fallbacks", 1)
    fallen = order.falling_back("route", _GPU_ENGINE, _LAMBDA_ENGINE, reason)
    try:
        return extract_and_commit(fallen.model_copy(update={"engine": _LAMBDA_ENGINE}), services).engine
    except StructureFlowError as error:
        if error.transient:
            raise
        reject_request(order.task_id, order.run_id, error, "extract", services)
        return None

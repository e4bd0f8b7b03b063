"""The way to a GPU task or a Batch job: leave an order, start the task, go. `structureflow.jobs.settle_gpu` is the
way back.

An order is removed when its run is committed, so an order that is there is work that is not done.
"""

from __future__ import annotations

from datetime import timedelta

from structureflow import keys
from structureflow.errors import EngineUnavailableError
from structureflow.jobs.documents import put_document
from structureflow.jobs.extraction_order import ExtractionOrder
from structureflow.jobs.services import Services, TaskLauncher


def leave_order(order: ExtractionOrder, launcher: TaskLauncher, services: Services) -> None:
    """Leave an order and start its task.

    Raises:
        EngineUnavailableError: no task was started, and no order stays behind.
        TransientError: perhaps one was; the order stays, for the next try or to be settled when it is overdue.
    """
    key = keys.gpu_order(order.run_id)
    deadline = services.clock() + timedelta(seconds=launcher.timeout_s)
    put_document(services.storage, key, order.model_copy(update={"deadline": deadline}))
    try:
        launcher.start(key, order.run_id)
    except EngineUnavailableError:
        services.storage.delete([key])
        raise

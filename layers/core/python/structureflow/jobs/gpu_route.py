"""The way to the GPU: leave an order, start a task, go. `structureflow.jobs.settle_gpu` is the way back.

An order is removed when its run is committed, so an order that is there is work that is not done.
"""

from __future__ import annotations

from datetime import timedelta

from structureflow import keys
from structureflow.errors import GpuUnavailableError
from structureflow.jobs.documents import put_document
from structureflow.jobs.extraction_order import ExtractionOrder
from structureflow.jobs.services import GpuLauncher, Services


def order_gpu(order: ExtractionOrder, launcher: GpuLauncher, services: Services) -> None:
    """Leave an order and start its task.

    Raises:
        GpuUnavailableError: no task was started, and no order stays behind.
    """
    key = keys.gpu_order(order.run_id)
    deadline = services.clock() + timedelta(seconds=launcher.timeout_s)
    put_document(services.storage, key, order.model_copy(update={"deadline": deadline}))
    try:
        launcher.start(key, order.run_id)
    except GpuUnavailableError:
        services.storage.delete([key])
        raise

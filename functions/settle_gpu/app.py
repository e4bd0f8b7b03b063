"""SettleGpu: a GPU task ended, or it is time to look for overdue ones; give their jobs flows all the same."""

from typing import Any

from structureflow.jobs.settle_gpu import SettleGpuInput, settle_gpu
from structureflow.runtime.events import parse_stopped_task
from structureflow.runtime.wiring import instrumented, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle an "ECS Task State Change" to STOPPED, or the schedule."""
    if event.get("detail-type") == "ECS Task State Change":
        stopped = parse_stopped_task(event)
        order = SettleGpuInput(run_id=stopped.run_id, reason=stopped.reason)
    else:
        order = SettleGpuInput()
    return settle_gpu(order, services()).model_dump(mode="json")

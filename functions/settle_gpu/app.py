"""SettleGpu: a GPU task or a Batch job ended, or it is time to look for overdue ones; bring their jobs to an end."""

from typing import Any

from structureflow.jobs.settle_gpu import SettleGpuInput, settle_gpu
from structureflow.runtime.events import parse_ended_batch_job, parse_stopped_task
from structureflow.runtime.wiring import instrumented, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle an "ECS Task State Change" to STOPPED, the end of a Batch job, or the schedule."""
    kind = event.get("detail-type")
    order = SettleGpuInput()
    if kind == "ECS Task State Change":
        stopped = parse_stopped_task(event)
        order = SettleGpuInput(run_id=stopped.run_id, reason=stopped.reason)
    elif kind == "Batch Job State Change":
        ended = parse_ended_batch_job(event)
        order = SettleGpuInput(run_id=ended.run_id, reason=ended.reason)
    return settle_gpu(order, services()).model_dump(mode="json")

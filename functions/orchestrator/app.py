"""Orchestrator: a request waits in the queue; extract or find its flows and start its segments."""

from typing import Any

from structureflow.errors import StructureFlowError
from structureflow.jobs.fail_job import fail_request
from structureflow.jobs.orchestrate import OrchestrateInput, orchestrate
from structureflow.runtime.events import parse_created_object
from structureflow.runtime.wiring import instrumented, logger, queued, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> Any:
    """Handle a message of the jobs' queue: an EventBridge "Object Created" event of ``jobs/{task_id}/request.json``."""
    return queued(event, take_up, give_up)


def take_up(event: dict[str, Any]) -> Any:
    """Take up the request that the event names."""
    created = parse_created_object(event)
    if not created.is_job_request:
        # The star of the rule stands for slashes too: a file of that name deeper in a job's folder, or elsewhere.
        logger().info("not the request of a job", extra={"key": created.key})
        return {"ignored": created.key}
    return orchestrate(OrchestrateInput(bucket=created.bucket, key=created.key), services()).model_dump(mode="json")


def give_up(event: dict[str, Any], error: StructureFlowError) -> Any:
    """End the job as failed: the store broke off every time that its request was taken up."""
    created = parse_created_object(event)
    status = fail_request(created.key, created.etag, error.code, error.message, services())
    return status.model_dump(mode="json") if status else None

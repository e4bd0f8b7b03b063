"""Orchestrator: a request arrived; extract or find its flows and start its segments."""

from typing import Any

from structureflow.jobs.orchestrate import OrchestrateInput, orchestrate
from structureflow.runtime.events import parse_created_object
from structureflow.runtime.wiring import instrumented, logger, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle an EventBridge "Object Created" event of ``jobs/{task_id}/request.json``."""
    created = parse_created_object(event)
    if not created.is_job_request:
        # The star of the rule stands for slashes too: a file of that name deeper in a job's folder, or elsewhere.
        logger().info("not the request of a job", extra={"key": created.key})
        return {"ignored": created.key}
    result = orchestrate(OrchestrateInput(bucket=created.bucket, key=created.key), services())
    return result.model_dump(mode="json")

"""Orchestrator: a request arrived; extract or find its flows and start its segments."""

from typing import Any

from structureflow.jobs.orchestrate import OrchestrateInput, orchestrate
from structureflow.runtime.events import parse_created_object
from structureflow.runtime.wiring import instrumented, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle an EventBridge "Object Created" event of ``jobs/{task_id}/request.json``."""
    created = parse_created_object(event)
    result = orchestrate(OrchestrateInput(bucket=created.bucket, key=created.key), services())
    return result.model_dump(mode="json")

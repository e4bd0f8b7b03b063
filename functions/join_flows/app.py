"""JoinFlows: check all parts of a long video, put its archive together, start its segments."""

from typing import Any

from structureflow.jobs.join_flows import JoinFlowsInput, join_flows
from structureflow.runtime.events import parse_event
from structureflow.runtime.wiring import instrumented, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle the state ``JoinFlows`` of the state machine of extractions."""
    return join_flows(parse_event(JoinFlowsInput, event), services()).model_dump(mode="json")

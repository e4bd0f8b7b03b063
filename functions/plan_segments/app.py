"""PlanSegments: claim the run and list its segments."""

from typing import Any

from structureflow.jobs.plan_segments import PlanSegmentsInput, plan_segments
from structureflow.runtime.events import parse_event
from structureflow.runtime.wiring import instrumented, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle the state ``PlanSegments`` of the state machine."""
    return plan_segments(parse_event(PlanSegmentsInput, event), services()).model_dump(mode="json")

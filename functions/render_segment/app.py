"""RenderSegment: carry guided frames through the unguided ones of one segment."""

from typing import Any

from structureflow.jobs.render_segment import RenderSegmentInput, render_segment
from structureflow.runtime.events import parse_event
from structureflow.runtime.wiring import instrumented, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle the state ``RenderSegment`` of the state machine."""
    return render_segment(parse_event(RenderSegmentInput, event), services()).model_dump(mode="json")

"""RenderSegment: carry guided frames through the unguided ones of one segment."""

from typing import Any

from structureflow.jobs.render_segment import RenderSegmentInput, render_segment
from structureflow.runtime.callbacks import answer
from structureflow.runtime.events import parse_event
from structureflow.runtime.queued import is_queued
from structureflow.runtime.wiring import instrumented, queued, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any] | None:
    """Handle the state ``RenderSegment`` of the state machine, or a message of its state ``QueueSegment``."""
    if is_queued(event):
        return queued(event, lambda body: answer(body, render))
    return render(event)


def render(segment: dict[str, Any]) -> dict[str, Any]:
    """Render one segment."""
    return render_segment(parse_event(RenderSegmentInput, segment), services()).model_dump(mode="json")

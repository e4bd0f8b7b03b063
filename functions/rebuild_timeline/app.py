"""RebuildTimeline: write a timeline's cached frames anew from its source chunks."""

from typing import Any

from structureflow.jobs.rebuild_timeline import RebuildTimelineInput, rebuild_timeline
from structureflow.runtime.events import parse_event
from structureflow.runtime.wiring import instrumented, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle ``{"timeline_id": …}``."""
    return rebuild_timeline(parse_event(RebuildTimelineInput, event), services()).model_dump(mode="json")

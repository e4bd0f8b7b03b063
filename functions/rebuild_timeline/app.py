"""RebuildTimeline: write a timeline's cached frames anew from its source chunks."""

from typing import Any

from structureflow.jobs.rebuild_timeline import RebuildTimelineInput, rebuild_timeline
from structureflow.runtime.wiring import instrumented, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle ``{"timeline_id": …}``."""
    return rebuild_timeline(RebuildTimelineInput.model_validate(event), services()).model_dump(mode="json")

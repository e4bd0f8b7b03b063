"""ExtractPart: frames and flows of one part of a long video."""

from typing import Any

from structureflow.jobs.extract_part import ExtractPartInput, extract_part
from structureflow.runtime.events import parse_event
from structureflow.runtime.wiring import instrumented, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle the state ``ExtractPart`` of the state machine of extractions."""
    return extract_part(parse_event(ExtractPartInput, event), services()).model_dump(mode="json")

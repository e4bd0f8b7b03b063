"""EncodeSegment: encode guide and mask of one segment as H.264."""

from typing import Any

from structureflow.jobs.encode_segment import EncodeSegmentInput, encode_segment
from structureflow.runtime.events import parse_event
from structureflow.runtime.wiring import instrumented, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle the state ``EncodeSegment`` of the state machine."""
    return encode_segment(parse_event(EncodeSegmentInput, event), services()).model_dump(mode="json")

"""FailJob: end a job as failed, with its typed error and nothing half-made."""

from typing import Any

from structureflow.jobs.fail_job import CaughtError, FailJobInput, fail_job, fail_request
from structureflow.runtime.callbacks import is_asked, refuse
from structureflow.runtime.events import parse_created_object, parse_ended_execution, parse_event
from structureflow.runtime.queued import is_queued, parse_message
from structureflow.runtime.wiring import instrumented, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any] | None:
    """Handle the state ``FailJob``, what another function died on in its queue, or the end of an execution."""
    if is_queued(event):
        body = parse_message(event).body
        if is_asked(body):
            refuse(body, "SegmentDied", f"RenderSegment {_DIED}")
            return None
        created = parse_created_object(body)
        status = fail_request(created.key, created.etag, "OrchestratorDied", f"the orchestrator {_DIED}", services())
        return status.model_dump(mode="json") if status else None
    if "detail-type" in event:
        ended = parse_ended_execution(event)
        error = CaughtError(Error=ended.error_type, Cause=ended.cause or f"the execution ended as {ended.status}")
        request = FailJobInput(
            execution_id=ended.execution_arn,
            bucket=ended.created.bucket,
            key=ended.created.key,
            error=error,
            started_at=ended.started_at,
        )
    else:
        request = parse_event(FailJobInput, event)
    status = fail_job(request, services())
    return status.model_dump(mode="json") if status else None


_DIED = "took this up several times and died each time, out of memory or out of time; the function's log says more"

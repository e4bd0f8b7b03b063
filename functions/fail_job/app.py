"""FailJob: end a job as failed, with its typed error and nothing half-made."""

from typing import Any

from structureflow.jobs.fail_job import FailJobInput, fail_job, fail_request
from structureflow.runtime.events import FailedInvocation, parse_created_object
from structureflow.runtime.wiring import instrumented, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any] | None:
    """Handle the state ``FailJob``, or the on-failure destination of the orchestrator."""
    if "requestPayload" in event:
        failed = FailedInvocation.model_validate(event)
        key = parse_created_object(failed.request).key
        return fail_request(key, failed.error_type, failed.error_message, services()).model_dump(mode="json")
    status = fail_job(FailJobInput.model_validate(event), services())
    return status.model_dump(mode="json") if status else None

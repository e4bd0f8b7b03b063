"""AssembleJob: check every planned output, write report, manifest and status."""

from typing import Any

from structureflow.jobs.assemble_job import AssembleJobInput, assemble_job
from structureflow.runtime.events import parse_event
from structureflow.runtime.wiring import instrumented, services


@instrumented
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle the state ``AssembleJob``; the manifest itself stays in the bucket, it grows with the job."""
    manifest = assemble_job(parse_event(AssembleJobInput, event), services())
    return {"task_id": manifest.task_id, "run_id": manifest.run_id, "segments": len(manifest.segments)}

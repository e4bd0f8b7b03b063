"""The Batch part of the template on this machine: its job is a process with the packages of this environment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from structureflow.errors import InvalidRequestError, MediaError
from structureflow.jobs.forecast import Plan, batch_forecast
from structureflow.limits import MAX_CONCURRENT_SEGMENTS, MAX_VIDEO_FRAMES, NEW_ACCOUNT_MEMORY_MB
from structureflow.models.job import JobRequest
from structureflow_local.client import PreparedJob

REPO: Final = Path(__file__).resolve().parents[2]
JOB_DEFINITION: Final = "BatchJobDefinition"
TASK: Final = REPO / "functions" / "batch_task" / "task.py"

#: Nothing here is an AWS resource, but the template demands values.
_PARAMETERS: Final = {
    "EnableBatch": "true",
    "BatchImageUri": "local/batch",
    "BatchVpcId": "vpc-local",
    "BatchSubnetIds": "subnet-local",
}
#: What functions take, as the template has it by default.
_FUNCTION_BYTES: Final = 1024 * 1_000_000


def wants_batch(job: PreparedJob) -> bool:
    """Tell whether no function alone can extract the structure video of a job: whether it may come to a Batch job."""
    from structureflow import DecodeLimits, VideoReader

    try:
        request = JobRequest.parse_json(job.request, expected_task_id=job.task_id)
    except InvalidRequestError:
        # what is no request is refused by the orchestrator
        return False
    path = job.uploads.get(str(request.structure_video))
    if path is None:
        return False
    if path.stat().st_size > _FUNCTION_BYTES:
        return True
    try:
        with VideoReader(path, DecodeLimits(max_frames=MAX_VIDEO_FRAMES)) as reader:
            info = reader.info
    except MediaError:
        return False
    plan = Plan(NEW_ACCOUNT_MEMORY_MB, NEW_ACCOUNT_MEMORY_MB, MAX_CONCURRENT_SEGMENTS)
    return batch_forecast(request, [info], plan) is not None


def batch_part() -> dict[str, Any]:
    """Return the arguments with which a `LocalCloud` has the Batch part."""
    return {"parameters": dict(_PARAMETERS), "task_commands": {JOB_DEFINITION: [sys.executable, str(TASK)]}}


def together(*parts: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with which a `LocalCloud` has several parts of the template."""
    names = {name for part in parts for name in part}
    return {name: {key: value for part in parts for key, value in part.get(name, {}).items()} for name in sorted(names)}

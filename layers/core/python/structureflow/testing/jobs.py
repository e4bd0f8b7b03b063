"""A whole job in one process, over any storage: the steps in the order of the state machine."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from structureflow import keys
from structureflow.errors import StructureFlowError
from structureflow.jobs.assemble_job import AssembleJobInput, assemble_job
from structureflow.jobs.fail_job import CaughtError, FailJobInput, fail_job
from structureflow.jobs.inputs import Inputs
from structureflow.jobs.orchestrate import OrchestrateInput, OrchestrateResult, orchestrate
from structureflow.jobs.plan_segments import PlanSegmentsInput, SegmentPlan, plan_segments
from structureflow.jobs.render_segment import RenderSegmentInput, render_segment
from structureflow.jobs.services import Services
from structureflow.models.results import JobStatus
from structureflow.storage.base import Storage
from structureflow.testing.videos import pan_frames, write_clip

BUCKET: Final = "data"


_MAX_BYTES: Final = 50_000_000


def services_over(
    storage: Storage, work_dir: Path, counts: Counter[str], start_segments: Callable[[str, Mapping[str, Any]], None]
) -> Services:
    """Return what the steps of small jobs need, over any storage; metrics are added up in `counts`."""

    def count(name: str, value: int) -> None:
        counts[name] += value

    return Services(
        storage=storage,
        inputs=Inputs(storage, BUCKET, max_bytes=_MAX_BYTES),
        max_video_frames=500,
        max_input_bytes=_MAX_BYTES,
        workers=2,
        work_dir=work_dir,
        start_segments=start_segments,
        count=count,
    )


class JobRunner:
    """Plays the part of S3 events and Step Functions over one storage.

    Attributes:
        counts: every metric counted so far.
        started: executions that were started directly, as (name, input).
    """

    def __init__(self, storage: Storage, work_dir: Path, *, inputs: Inputs | None = None) -> None:
        self.storage = storage
        self.counts: Counter[str] = Counter()
        self.started: list[tuple[str, Mapping[str, Any]]] = []
        self._executions = 0
        self.services = services_over(
            storage, work_dir, self.counts, lambda name, payload: self.started.append((name, payload))
        )
        if inputs is not None:
            self.services = replace(self.services, inputs=inputs)

    def put_request(self, task_id: str, document: Any) -> None:
        """Put a request; bytes are taken as they are."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.storage.put(keys.job_request(task_id), data)

    def orchestrate(self, task_id: str) -> OrchestrateResult:
        """Run the orchestrator on the request that lies there."""
        return orchestrate(OrchestrateInput(bucket=BUCKET, key=keys.job_request(task_id)), self.services)

    def plan(self, task_id: str, execution_id: str = "") -> SegmentPlan:
        """Run PlanSegments as a new execution, or as `execution_id`."""
        self._executions += 1
        event = PlanSegmentsInput(
            execution_id=execution_id or f"execution-{self._executions}", bucket=BUCKET, key=keys.job_flows(task_id)
        )
        return plan_segments(event, self.services)

    def segments(self, task_id: str, execution_id: str = "") -> JobStatus:
        """Run the whole state machine, its Catch included, and return the status it leaves."""
        self._executions += 1
        execution_id = execution_id or f"execution-{self._executions}"
        try:
            plan = self.plan(task_id, execution_id)
            if plan.claimed:
                for index in plan.segments:
                    render_segment(RenderSegmentInput(task_id=task_id, run_id=plan.run_id, index=index), self.services)
                assemble_job(AssembleJobInput(task_id=task_id, run_id=plan.run_id), self.services)
        except StructureFlowError as error:
            cause = json.dumps({"errorType": error.code, "errorMessage": error.message})
            caught = CaughtError(Error=error.code, Cause=cause)
            event = FailJobInput(execution_id=execution_id, bucket=BUCKET, key=keys.job_flows(task_id), error=caught)
            fail_job(event, self.services)
        return self.status(task_id)

    def run(self, task_id: str, document: Any) -> JobStatus:
        """Put a request and carry it to its end."""
        self.put_request(task_id, document)
        result = self.orchestrate(task_id)
        return self.segments(task_id) if result.state == "running" else self.status(task_id)

    def status(self, task_id: str) -> JobStatus:
        """Return the job's status."""
        return JobStatus.model_validate_json(self.storage.get(keys.job_status(task_id)).data)

    def keys(self, prefix: str = "") -> list[str]:
        """Return every key below a prefix."""
        return [info.key for info in self.storage.list(prefix)]


def put_pan_clip(
    storage: Storage, key: str, folder: Path, *, frames: int = 9, height: int = 96, width: int = 160, dx: int = 2
) -> None:
    """Put a small H.264 clip whose content moves `dx` pixels to the right per frame."""
    path = folder / "clip.mp4"
    write_clip(path, pan_frames(frames, height, width, dx=dx, dy=0), fps=25)
    storage.put(key, path.read_bytes())


def png(image: NDArray[np.uint8]) -> bytes:
    """Encode ``(H, W, 3) uint8 RGB`` as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()

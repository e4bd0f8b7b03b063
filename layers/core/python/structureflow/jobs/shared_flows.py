"""Where a job would find its flows, had another one extracted them before."""

from __future__ import annotations

from structureflow.jobs.extraction_order import ExtractionOrder
from structureflow.jobs.inputs import Source
from structureflow.jobs.services import Services
from structureflow.jobs.timeline import default_timeline_id
from structureflow.models.job import JobRequest


def timeline_of(request: JobRequest, source: Source) -> str:
    """Return the timeline that has the frames of a job's structure video, or will have them."""
    return request.timeline_id or default_timeline_id(source.identity)


def shared_flow_keys(request: JobRequest, source: Source, services: Services) -> tuple[str, ...]:
    """Return the keys under which flows for a request may lie: one for each engine that it may take, in this order.

    Args:
        request: of a job with one source of motion.
        source: that source, found.
        services: for their clock.
    """
    engines = ("raft", "dis", "farneback") if request.engine == "auto" else (request.engine,)
    pin = source.pin()
    order = ExtractionOrder(
        bucket="",
        task_id=request.task_id,
        run_id="preview",
        request=request,
        source=pin,
        flow_cache=pin if request.structure_video is None else None,
        timeline_id=timeline_of(request, source),
        engine=engines[0],
        created_at=services.clock(),
    )
    return tuple(order.model_copy(update={"engine": engine}).shared_key for engine in engines)

"""Last step: prove that every planned object is there, write the report, and publish the run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pydantic import BaseModel, ConfigDict

from structureflow import keys
from structureflow.errors import IncompleteJobError, ObjectNotFoundError, SupersededRunError
from structureflow.jobs.documents import current_run, get_document, load_record, put_document, read_status
from structureflow.jobs.notices import job_notices
from structureflow.jobs.pointer import check_open, is_publishing
from structureflow.jobs.publish import as_published, publish, remove_unpublished
from structureflow.jobs.services import Services
from structureflow.models.cost import StepUsage, estimate_cost, transitions_of
from structureflow.models.results import Fallback, JobRecord, Manifest, OutputObject, SegmentResult, now
from structureflow.report.html import render_report
from structureflow.storage.base import Storage


class AssembleJobInput(BaseModel):
    """The run to finish; without `run_id`, the one that the job is at. `usage` is that of steps which leave no file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_id: str
    run_id: str | None = None
    usage: tuple[StepUsage, ...] = ()


def assemble_job(event: AssembleJobInput, services: Services) -> Manifest:
    """Check a run whose segments all ended, write its report, and publish it.

    Raises:
        IncompleteJobError: a planned object is missing, belongs to another run, or is not the one that its
            result lists; the message names each.
        SupersededRunError: the job was started again meanwhile, or deleted, or the run ended otherwise.
        JobBusyError: results of the job are being published by another call; try again.
    """
    storage, task_id = services.storage, event.task_id
    run_id = event.run_id or current_run(storage, task_id)
    if not _is_publishing(storage, task_id, run_id):
        check_open(storage, task_id, run_id)
        _finish(services, load_record(storage, task_id, run_id), event.usage)
    try:
        published, new = publish(task_id, run_id, services)
    except SupersededRunError:
        remove_unpublished(storage, task_id, run_id, read_status(storage, task_id))
        raise
    if new:
        services.count("JobsDone", 1)
    return published


def _is_publishing(storage: Storage, task_id: str, run_id: str) -> bool:
    """Tell whether an earlier try of this step came so far that the run will be published in any case, or was."""
    status = read_status(storage, task_id)
    if status is None:
        return False
    return status.published == run_id or is_publishing(status, run_id)


def _finish(services: Services, record: JobRecord, usage: tuple[StepUsage, ...]) -> None:
    """Leave report and manifest in the run's folder."""
    storage, task_id, run_id = services.storage, record.task_id, record.run_id
    indices = range(len(record.request.segments))
    with ThreadPoolExecutor(services.requests_at_once, thread_name_prefix="assemble") as pool:
        results = tuple(pool.map(lambda index: _result(storage, record, index), indices))
        problems = [problem for found in pool.map(lambda r: _problems(storage, r), results) for problem in found]
        if problems:
            raise IncompleteJobError(
                f"job {task_id}: {len(problems)} planned objects are not as listed: {'; '.join(problems[:10])}"
            )
        previews = list(pool.map(lambda index: _preview(storage, record, index), indices))
    manifest = _manifest(storage, record, results)
    manifest = manifest.model_copy(update={"usage": (*record.usage, *usage, *services.usage("AssembleJob"))})
    manifest = manifest.model_copy(update={"cost_usd": _cost(manifest)})
    report = storage.put(
        keys.run_report(task_id, run_id),
        render_report(as_published(manifest), record, previews, manifest.cost_usd),
        content_type="text/html; charset=utf-8",
    )
    manifest = manifest.model_copy(
        update={"report": OutputObject(key=report.key, size_bytes=report.size_bytes, etag=report.etag)}
    )
    put_document(storage, keys.run_manifest(task_id, run_id), manifest)


def _result(storage: Storage, record: JobRecord, index: int) -> SegmentResult:
    key = keys.run_segment_file(record.task_id, record.run_id, index, "result.json")
    result = get_document(storage, key, SegmentResult, made_by="RenderSegment")
    if result.run_id != record.run_id:
        raise IncompleteJobError(f"{key}: expected run {record.run_id}, got run {result.run_id}")
    return result


def _problems(storage: Storage, result: SegmentResult) -> list[str]:
    problems = [
        f"segment {result.index}: no {name} in its result" for name in ("guide", "mask") if name not in result.outputs
    ]
    for output in result.outputs.values():
        try:
            found = storage.head(output.key)
        except ObjectNotFoundError:
            problems.append(f"{output.key}: missing")
            continue
        if (found.size_bytes, found.etag) != (output.size_bytes, output.etag):
            problems.append(f"{output.key}: expected {output.size_bytes} bytes, ETag {output.etag}, got {found}")
    return problems


def _preview(storage: Storage, record: JobRecord, index: int) -> bytes:
    return storage.get(keys.run_segment_file(record.task_id, record.run_id, index, "preview.json")).data


def _manifest(storage: Storage, record: JobRecord, results: tuple[SegmentResult, ...]) -> Manifest:
    segment_fallbacks = tuple(
        Fallback(
            stage=f"segment {result.index}: {fallback.stage}",
            wanted=fallback.wanted,
            used=fallback.used,
            reason=fallback.reason,
        )
        for result in results
        for fallback in result.fallbacks
    )
    finished = now()
    total_s = (finished - record.created_at).total_seconds()
    return Manifest(
        task_id=record.task_id,
        run_id=record.run_id,
        project_id=record.request.project_id,
        timeline_id=record.timeline_id,
        engine_requested=record.engine_requested,
        engine=record.engine,
        flow_cache_hit=record.flow_cache_hit,
        flow_cache_key=record.flow_cache_key,
        flows=_flows(storage, record),
        report=None,
        segments=results,
        fallbacks=record.fallbacks + segment_fallbacks,
        notices=job_notices(record, results),
        timings_s={**record.timings_s, "job": round(total_s, 3)},
        created_at=record.created_at,
        finished_at=finished,
    )


def _cost(manifest: Manifest) -> dict[str, float]:
    """Estimate what the run cost, from what each step says of itself; empty where nobody measured."""
    usage = (*manifest.usage, *(one for result in manifest.segments for one in result.usage))
    if not usage:
        return {}
    outputs = [output for result in manifest.segments for output in result.outputs.values()]
    stored_bytes = sum(output.size_bytes for output in (*outputs, manifest.flows) if output is not None)
    found = estimate_cost(usage, transitions=transitions_of(len(manifest.segments)), stored_bytes=stored_bytes)
    return {item: round(usd, 8) for item, usd in found.items()}


def _flows(storage: Storage, record: JobRecord) -> OutputObject | None:
    """Return the job's flow archive; None where none could be written, or where it is gone since."""
    if record.flows_key is None:
        return None
    try:
        info = storage.head(record.flows_key)
    except ObjectNotFoundError:
        return None
    return OutputObject(key=info.key, size_bytes=info.size_bytes, etag=info.etag)

"""Last step: prove that every planned object is there, then write report, manifest and status."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pydantic import BaseModel, ConfigDict

from structureflow import keys
from structureflow.errors import IncompleteJobError, ObjectNotFoundError
from structureflow.jobs.documents import get_document, load_record, put_document, put_status
from structureflow.jobs.services import Services
from structureflow.models.cost import estimate_cost, transitions_of
from structureflow.models.results import Fallback, JobRecord, Manifest, OutputObject, SegmentResult, now
from structureflow.report.html import render_report
from structureflow.storage.base import Storage

#: Requests in flight at once; each is small.
_CONCURRENCY = 16


class AssembleJobInput(BaseModel):
    """The run to finish; without `run_id`, the one that the job's record names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_id: str
    run_id: str | None = None


def assemble_job(event: AssembleJobInput, services: Services) -> Manifest:
    """Check, report and close a run whose segments all ended.

    Raises:
        IncompleteJobError: a planned object is missing, belongs to another run, or is not the one that its
            result lists; the message names each.
        JobStateError: the job was started again meanwhile.
    """
    storage = services.storage
    record = load_record(storage, event.task_id, expected_run_id=event.run_id)
    manifest = _finished(storage, record) or _finish(services, record)
    put_status(
        storage,
        task_id=event.task_id,
        run_id=record.run_id,
        state="done",
        stage="done",
        segments=len(manifest.segments),
    )
    storage.delete(info.key for info in storage.list(keys.work_prefix(event.task_id)))
    services.count("JobsDone", 1)
    return manifest


def _finished(storage: Storage, record: JobRecord) -> Manifest | None:
    """Return the manifest if an earlier try of this step already wrote it."""
    key = keys.job_manifest(record.task_id)
    if not storage.exists(key):
        return None
    manifest = get_document(storage, key, Manifest, made_by="AssembleJob")
    return manifest if manifest.run_id == record.run_id else None


def _finish(services: Services, record: JobRecord) -> Manifest:
    storage = services.storage
    indices = range(len(record.request.segments))
    with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="assemble") as pool:
        results = tuple(pool.map(lambda index: _result(storage, record, index), indices))
        problems = [problem for found in pool.map(lambda r: _problems(storage, r), results) for problem in found]
        if problems:
            raise IncompleteJobError(
                f"job {record.task_id}: {len(problems)} planned objects are not as listed: {'; '.join(problems[:10])}"
            )
        previews = list(pool.map(lambda index: _preview(storage, record.task_id, index), indices))
    manifest = _manifest(storage, record, results)
    manifest = manifest.model_copy(update={"cost_usd": _cost(manifest, record, services)})
    report = storage.put(
        keys.job_report(record.task_id),
        render_report(manifest, record, previews, manifest.cost_usd),
        content_type="text/html; charset=utf-8",
    )
    manifest = manifest.model_copy(
        update={"report": OutputObject(key=report.key, size_bytes=report.size_bytes, etag=report.etag)}
    )
    put_document(storage, keys.job_manifest(record.task_id), manifest)
    return manifest


def _result(storage: Storage, record: JobRecord, index: int) -> SegmentResult:
    key = keys.segment_file(record.task_id, index, "result.json")
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


def _preview(storage: Storage, task_id: str, index: int) -> bytes:
    return storage.get(keys.work_file(task_id, index, "preview.json")).data


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
        timings_s={**record.timings_s, "job": round(total_s, 3)},
        created_at=record.created_at,
        finished_at=finished,
    )


def _cost(manifest: Manifest, record: JobRecord, services: Services) -> dict[str, float]:
    """Estimate what the run cost, from what each step says of itself; empty where nobody measured."""
    usage = (
        *record.usage,
        *(one for result in manifest.segments for one in result.usage),
        *services.usage("AssembleJob"),
    )
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

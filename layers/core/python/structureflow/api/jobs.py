"""Jobs for screens: which there are, where each is, what a finished one made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from pathlib import PurePosixPath
from typing import Final, TypeVar

from structureflow import keys
from structureflow.api.queries import JobsQuery, OutputsQuery, SegmentsQuery
from structureflow.api.replies import (
    Downloads,
    FileGroup,
    FileView,
    FlowsView,
    FrameState,
    JobOutputs,
    JobPage,
    JobRow,
    JobView,
    Progress,
    RequestView,
    SegmentFrames,
    SegmentPage,
    SegmentView,
    SourceView,
    Span,
)
from structureflow.errors import InvalidIdError, JobStateError, ObjectNotFoundError
from structureflow.jobs.documents import describe_error, get_document, load_record, read_status
from structureflow.jobs.progress import read_progress
from structureflow.jobs.services import Services
from structureflow.models.results import (
    JobRecord,
    JobStatus,
    Manifest,
    Model,
    OutputObject,
    SegmentResult,
)

_Document = TypeVar("_Document", bound=Model)
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

#: Of the files that no generator takes: they come last, in this order.
_REPORT: Final = "report"
_FLOWS: Final = "flows"
#: Parts of running jobs that a page of the list reads for what they have taken: of one job, and of all. It is polled.
_READS: Final = 4
_PAGE_READS: Final = 64
_KINDS: Final = {".mp4": "video", ".png": "image", ".npz": "array", ".npy": "array", ".json": "json", ".html": "text"}


def job_page(query: JobsQuery, services: Services) -> JobPage:
    """Return a page of jobs, in the order of their ids."""
    folders = services.storage.folders("jobs/", start_after=query.page)
    found = list(islice(folders, query.limit + 1))
    known = _each(found[: query.limit], lambda task_id: _looked_up(task_id, services), services)
    running = [one.task_id for one in known if isinstance(one, JobStatus) and one.state == "running"]
    reads = {task_id: min(_READS, (_PAGE_READS + at) // len(running)) for at, task_id in enumerate(running)}
    rows = _each(
        [one for one in known if one is not None],
        lambda one: _row(one, reads.get(one.task_id, 0), services) if isinstance(one, JobStatus) else one,
        services,
    )
    return JobPage(
        jobs=tuple(rows),
        next_page=found[query.limit - 1] if len(found) > query.limit else None,
    )


def _looked_up(task_id: str, services: Services) -> JobStatus | JobRow | None:
    """Return a job's status, or its row where it has none; None for a folder that is no job: of uploads, no more."""
    storage = services.storage
    try:
        status = read_status(storage, task_id)
        if status is None:
            return JobRow(task_id=task_id, state="requested") if storage.exists(keys.job_request(task_id)) else None
    except (InvalidIdError, JobStateError) as error:
        return _unreadable(task_id, error)
    return status


def _unreadable(task_id: str, error: InvalidIdError | JobStateError) -> JobRow:
    """Return the row of a job whose status is none: whoever writes into the bucket may call a folder and fill it as he
    likes, and the others still show."""
    return JobRow(task_id=task_id, state="unreadable", error=describe_error(error, "status"))


def _row(status: JobStatus, reads: int, services: Services) -> JobRow:
    try:
        progress = read_progress(services.storage, status, reads=reads)
    except InvalidIdError as error:
        return _unreadable(status.task_id, error)
    return JobRow(
        task_id=status.task_id,
        state=status.state,
        stage=status.stage,
        segments=status.segments,
        segments_done=progress.segments_done,
        started_at=status.started_at,
        updated_at=status.updated_at,
        elapsed_s=_elapsed_s(status, services.clock()),
        cost_usd=progress.cost_usd if status.state == "running" else status.cost_usd,
        error=status.error,
    )


def job_status(task_id: str, services: Services) -> JobView:
    """Return where a job is, and how far.

    Raises:
        ObjectNotFoundError: no such job.
    """
    status = _document(services, keys.job_status(task_id), JobStatus, made_by="the orchestrator")
    progress = read_progress(services.storage, status)
    known = {name: getattr(status, name) for name in JobStatus.model_fields}
    return JobView(
        **known | ({"cost_usd": progress.cost_usd} if status.state == "running" else {}),
        elapsed_s=_elapsed_s(status, services.clock()),
        progress=Progress(segments_done=progress.segments_done, parts=progress.parts),
    )


def _elapsed_s(status: JobStatus, moment: datetime) -> float | None:
    if status.started_at is None:
        return None
    end = moment if status.state == "running" else status.updated_at
    return round(max(0.0, (end - status.started_at).total_seconds()), 3)


def job_request(task_id: str, services: Services) -> RequestView:
    """Return what the run that a job is at was asked for, as it took it.

    Raises:
        ObjectNotFoundError: no such job.
        JobStateError: the request was not taken: it is being looked at, or was refused.
    """
    status = _document(services, keys.job_status(task_id), JobStatus, made_by="the orchestrator")
    record = load_record(services.storage, task_id, status.run_id)
    return RequestView(
        task_id=task_id,
        run_id=record.run_id,
        timeline_id=record.timeline_id,
        engine_requested=record.engine_requested,
        engine=record.engine,
        resolution=record.resolution,
        sources=tuple(
            SourceView(
                reference=one.source.reference,
                timeline_id=one.timeline_id,
                frames=one.source.frames,
                fps=one.source.fps,
                width_px=one.source.width_px,
                height_px=one.source.height_px,
            )
            for one in ([record.of_source(number) for number in range(len(record.sources))] or [record])
        ),
        flow_cache_hit=record.flow_cache_hit,
        flow_cache_key=record.flow_cache_key,
        scene_cuts=record.scene_cuts,
        request=record.request.model_dump(mode="json", by_alias=True, exclude_none=True),
    )


def job_manifest(task_id: str, services: Services) -> Manifest:
    """Return every output of a finished job.

    Raises:
        ObjectNotFoundError: no such job, or it is not done.
    """
    return _document(services, keys.job_manifest(task_id), Manifest, made_by="AssembleJob")


def job_outputs(task_id: str, query: OutputsQuery, services: Services) -> JobOutputs:
    """Return URLs that read a finished job's objects without credentials; errors as `job_manifest`."""
    manifest = job_manifest(task_id, services)
    objects = [manifest.flows, manifest.report]
    objects += [output for segment in manifest.segments for output in segment.outputs.values()]
    prefix = keys.job_prefix(task_id)
    return JobOutputs(
        task_id=task_id,
        run_id=manifest.run_id,
        expires_s=query.expires_s,
        urls={
            one.key.removeprefix(prefix): services.storage.presigned_url(one.key, expires_s=query.expires_s)
            for one in objects
            if one is not None
        },
    )


def job_segments(task_id: str, query: SegmentsQuery, services: Services) -> SegmentPage:
    """Return a page of a finished job's segments; errors as `job_manifest`."""
    manifest = job_manifest(task_id, services)
    record = _record(task_id, services)
    stop = query.page + query.limit
    expires_s = query.expires_s
    report = _file(manifest.report, manifest, services, expires_s)
    return SegmentPage(
        task_id=task_id,
        run_id=manifest.run_id,
        timeline_id=manifest.timeline_id,
        engine=manifest.engine,
        flow_cache_hit=manifest.flow_cache_hit,
        cost_usd=manifest.cost_usd,
        timings_s=manifest.timings_s,
        fallbacks=manifest.fallbacks,
        notices=manifest.notices,
        report_url=report and report.url,
        flows=_flows(manifest, services, expires_s),
        total=len(manifest.segments),
        segments=tuple(
            _segment(result, start, manifest, services, expires_s)
            for result, start in islice(
                zip(manifest.segments, record.request.segment_starts, strict=False), query.page, stop
            )
        ),
        next_page=str(stop) if stop < len(manifest.segments) else None,
    )


def job_segment_frames(task_id: str, index: int, services: Services) -> SegmentFrames:
    """Return the frames of a finished segment.

    Raises:
        ObjectNotFoundError: no such job or segment, or it is not done.
    """
    key = keys.segment_file(task_id, index, "result.json")
    result = _document(services, key, SegmentResult, made_by="AssembleJob")
    record = _record(task_id, services)
    states: list[FrameState] = ["guided"] * result.frames
    ranges: tuple[tuple[FrameState, tuple[Span, ...]], ...] = (
        ("filled", result.filled),
        ("generated", result.left_unguided),
    )
    for state, spans in ranges:
        for first, last in spans:
            states[first : last + 1] = [state] * (last + 1 - first)
    known = {one.frame: one for one in result.evidence}
    unguided = (frame for first, last in result.unguided for frame in range(first, last + 1))
    # results of before 2026-11-26 do not say it
    played = dict(zip(unguided, result.structure_frames, strict=False))
    structure = [_on_timeline(played.get(frame, -1), record) for frame in range(result.frames)]
    return SegmentFrames(
        task_id=task_id,
        index=index,
        timeline_id=record.timeline_id,
        frames=result.frames,
        state=tuple(states),
        kept=tuple(known[frame].kept if frame in known else None for frame in range(result.frames)),
        path_error=tuple(known[frame].unlike if frame in known else None for frame in range(result.frames)),
        structure_frame=tuple(None if one is None else one[1] for one in structure),
        structure_timeline=tuple(None if one is None else one[0] for one in structure),
    )


def _on_timeline(frame: int, record: JobRecord) -> tuple[str, int] | None:
    """Return the timeline that has a structure frame, and its number there."""
    if frame < 0:
        return None
    if not record.sources:
        return record.timeline_id, frame
    for part in record.sources:
        if 0 <= frame - part.first_frame < part.part_frames:
            return part.timeline_id, frame - part.first_frame + part.source_start_frame
    return None


def job_downloads(task_id: str, query: OutputsQuery, services: Services) -> Downloads:
    """Return every file of a finished job by who takes it; errors as `job_manifest`."""
    manifest = job_manifest(task_id, services)
    groups: dict[str, list[FileView]] = {}
    for result in manifest.segments:
        for file in _files(result, manifest, services, query.expires_s):
            groups.setdefault(file.consumer or "other", []).append(file)
    for name, output in ((_REPORT, manifest.report), (_FLOWS, manifest.flows)):
        found = _file(output, manifest, services, query.expires_s)
        if found is not None:
            groups[name] = [found]
    return Downloads(
        task_id=task_id,
        run_id=manifest.run_id,
        groups=tuple(FileGroup(consumer=name, files=tuple(files)) for name, files in groups.items()),
    )


# --- of one segment ----------------------------------------------------------------------------------


def _segment(result: SegmentResult, start: int, manifest: Manifest, services: Services, expires_s: int) -> SegmentView:
    files = _files(result, manifest, services, expires_s)
    unguided = [*result.filled, *result.left_unguided]
    errors = [one.unlike for one in result.evidence]
    by_key = {file.path: file for file in files}
    prefix = keys.job_prefix(manifest.task_id)
    named = {name: by_key[output.key.removeprefix(prefix)] for name, output in result.outputs.items()}
    return SegmentView(
        index=result.index,
        frames=result.frames,
        width_px=result.width_px,
        height_px=result.height_px,
        fps=result.fps,
        duration_s=round(result.frames / result.fps, 3),
        first_on_timeline=start,
        guided=tuple(_between(sorted(unguided), result.frames)),
        filled=result.filled,
        generated=result.left_unguided,
        kept=result.kept,
        path_error=round(sum(errors) / len(errors), 3) if errors else None,
        flow_source=result.flow_source,
        engine=result.engine,
        tracking=result.tracking,
        treatment=result.treatment,
        mask=result.mask,
        target=result.target,
        seconds=result.timings_s.get("segment"),
        fallbacks=result.fallbacks,
        notices=result.notices,
        videos={name: file for name, file in named.items() if file.kind == "video"},
        files=files,
    )


def _between(spans: Iterable[Span], frames: int) -> Iterable[Span]:
    """Iterate over what rising spans leave of `frames`."""
    first = 0
    for start, last in spans:
        if start > first:
            yield first, start - 1
        first = last + 1
    if first < frames:
        yield first, frames - 1


def _files(result: SegmentResult, manifest: Manifest, services: Services, expires_s: int) -> tuple[FileView, ...]:
    found = (_file(output, manifest, services, expires_s, result.index) for output in result.outputs.values())
    return tuple(file for file in found if file is not None)


def _file(
    output: OutputObject | None, manifest: Manifest, services: Services, expires_s: int, segment: int | None = None
) -> FileView | None:
    if output is None:
        return None
    path = PurePosixPath(output.key)
    description = output.description
    return FileView(
        name=path.name,
        path=output.key.removeprefix(keys.job_prefix(manifest.task_id)),
        size_bytes=output.size_bytes,
        url=services.storage.presigned_url(output.key, expires_s=expires_s),
        kind=description.kind if description is not None else _KINDS.get(path.suffix, "file"),
        consumer=None if description is None else description.consumer,
        meaning=None if description is None else description.meaning,
        segment=segment,
    )


def _flows(manifest: Manifest, services: Services, expires_s: int) -> FlowsView | None:
    if manifest.flows is None:
        return None
    url = services.storage.presigned_url(manifest.flows.key, expires_s=expires_s)
    return FlowsView(key=manifest.flows.key, size_bytes=manifest.flows.size_bytes, url=url)


# --- reading -----------------------------------------------------------------------------------------


def _record(task_id: str, services: Services) -> JobRecord:
    """Return the record of the run whose results are published."""
    return _document(services, keys.job_record(task_id), JobRecord, made_by="AssembleJob")


def _document(services: Services, key: str, model: type[_Document], *, made_by: str) -> _Document:
    """Read a document; that it is not there is no fault of an earlier step here, but the answer."""
    if not services.storage.exists(key):
        raise ObjectNotFoundError(f"{key}: there is no such object", key=key)
    return get_document(services.storage, key, model, made_by=made_by)


def _each(items: list[_Item], do: Callable[[_Item], _Made], services: Services) -> list[_Made]:
    if not items:
        return []
    with ThreadPoolExecutor(min(services.requests_at_once, len(items)), thread_name_prefix="api") as pool:
        return list(pool.map(do, items))

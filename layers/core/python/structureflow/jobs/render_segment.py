"""One segment in one pass: read its part of the flows, carry the guided frames, encode them as they are drawn."""

from __future__ import annotations

import time

from pydantic import BaseModel, ConfigDict

from structureflow import keys
from structureflow.errors import DeadlineError, StructureFlowError, SupersededRunError
from structureflow.flow.fields import FlowMeta
from structureflow.guide.masks import Masking
from structureflow.guide.pictures import PLANES
from structureflow.guide.plan import Plan
from structureflow.guide.refine import MATCHING
from structureflow.guide.render import RenderOutcome, RenderSettings, path_plan
from structureflow.guide.render import render_segment as render
from structureflow.guide.spans import flow_window, unguided_ranges
from structureflow.jobs import live_keys
from structureflow.jobs.control_pass import control_pass, frames_shown
from structureflow.jobs.documents import current_run, load_record, put_document, whole_request
from structureflow.jobs.estimate import segment_mb, segment_s
from structureflow.jobs.flow_sources import SegmentFlows
from structureflow.jobs.guides import FittedGuides
from structureflow.jobs.joined_frames import JoinedFrames
from structureflow.jobs.joined_sources import timeline_plan
from structureflow.jobs.notices import segment_notices
from structureflow.jobs.pointer import check_open
from structureflow.jobs.segment_files import SegmentFiles
from structureflow.jobs.services import Services
from structureflow.jobs.structure_frames import STAGE, SegmentFrames
from structureflow.models.job import JobRequest, Segment
from structureflow.models.results import Fallback, FrameEvidence, JobRecord, SegmentResult
from structureflow.models.targets import TARGETS
from structureflow.storage.base import Storage


class RenderSegmentInput(BaseModel):
    """Which segment of which run; without `run_id`, of the run that the job is at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_id: str
    run_id: str | None = None
    index: int


class RenderedSegment(BaseModel):
    """What the step says of itself; the result itself is in the bucket."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_id: str
    index: int
    frames: int
    flow_source: str
    engine: str
    fallbacks: int
    result_key: str


def render_segment(event: RenderSegmentInput, services: Services) -> RenderedSegment:
    """Make ``guide.mp4``, ``mask.mp4`` and what else is asked for of a segment, then its ``result.json``.

    Raises:
        JobStateError: the job has no record.
        SupersededRunError: the job was started again meanwhile, or deleted, or the run ended; what this call made is
            gone.
        DeadlineError: the segment is too long, or took too long, for the function's time.
        MemoryLimitError: its pictures and outputs take more than the function has to spare.
        EncodeError: the encoder failed.
        GuidanceError, MediaError: guides, flows and segment do not fit together.
        InputNotFoundError: a guide is gone, or neither flows, frames nor video can be read any more.
    """
    try:
        return _render(event, services)
    except StructureFlowError as error:
        raise error.within(f"segment {event.index}") from error


def _render(event: RenderSegmentInput, services: Services) -> RenderedSegment:
    storage, task_id = services.storage, event.task_id
    run_id = event.run_id or current_run(storage, task_id)
    check_open(storage, task_id, run_id)
    record = load_record(storage, task_id, run_id)
    request = whole_request(services.storage, record.task_id, record.run_id, record.request)
    segment = request.segments[event.index]
    width, height = record.resolution
    _check_time(request, segment, width, height, services)
    services.check_memory(segment_mb(request, width, height), f"rendering {width}x{height} pixels")
    sources = {
        reference: services.inputs.known(reference, pin)
        for reference, pin in zip(request.references(), record.guides, strict=True)
        if reference in segment.references()
    }
    begin = time.perf_counter()
    report = services.report(task_id, run_id, "segment", event.index, segment.frames)
    with services.scratch() as folder, report:
        flows = SegmentFlows(record, services, folder)
        settings = _settings(record, event.index, flows.meta, services.workers)
        plan = path_plan(segment, settings, flows.meta)
        flows.expect(*plan.flows_read)
        # a path may be looked at in the frame behind its last flow
        structure = (JoinedFrames if record.sources else SegmentFrames)(
            record,
            services,
            folder,
            height=flows.meta.height,
            width=flows.meta.width,
            first=plan.flows_read[0],
            last=plan.flows_read[1],
        )
        with (
            FittedGuides(segment, services, sources, folder, height=height, width=width) as guides,
            SegmentFiles(record, event.index, flows, plan, services, folder, report.advance) as files,
        ):
            if files.controls:
                looked_at = settings.matching is not None and plan.anchorable
                control_pass(files.controls, frames_shown(segment, plan), structure, keep_grays=looked_at)
            outcome = render(segment, files.flows, guides, settings, files, structure)
            outputs = files.finish()
        report.announce()
    fallbacks = flows.fallbacks + structure.fallbacks + files.fallbacks
    if outcome.frames_problem:
        used = "composed" if outcome.tracking == "composed" else "composed in part"
        fallbacks += (Fallback(stage=STAGE, wanted="anchored", used=used, reason=outcome.frames_problem),)
    timings_s = {f"render.{name}": s for name, s in outcome.timings_s.items()} | files.timings_s
    timings_s["segment"] = time.perf_counter() - begin
    result = _result(record, event, flows, outcome).model_copy(
        update={
            "structure_frames": _structure_frames(segment, plan),
            "fallbacks": fallbacks,
            "outputs": outputs,
            "timings_s": {name: round(s, 3) for name, s in timings_s.items()},
            "usage": services.usage("RenderSegment"),
        }
    )
    result_key = keys.run_segment_file(task_id, run_id, event.index, "result.json")
    put_document(storage, result_key, result)
    _check_still_open(storage, task_id, run_id, event.index)
    services.count("SegmentsRendered", 1)
    if fallbacks:
        services.count("Fallbacks", len(fallbacks))
    return RenderedSegment(
        task_id=event.task_id,
        index=event.index,
        frames=segment.frames,
        flow_source=flows.source,
        engine=flows.engine,
        fallbacks=len(fallbacks),
        result_key=result_key,
    )


def _settings(record: JobRecord, index: int, meta: FlowMeta, workers: int) -> RenderSettings:
    request = record.request
    width, height = record.resolution
    start, stop = flow_window(
        request.segments, index, request.flow_span, meta.total_flows, request.treatment, meta.timestamps_s
    )
    return RenderSettings(
        height=height,
        width=width,
        treatment=request.treatment,
        anchors=request.anchors,
        motion_strength=request.motion_strength,
        flow_start=start,
        flow_stop=stop,
        workers=workers,
        form=PLANES,
        matching=MATCHING[request.quality] if request.tracking == "anchored" else None,
        masking=masking_of(request),
        seams=request.seams,
        match_color=request.match_color,
        motion=request.motion,
        timeline=timeline_plan(record, index, meta) if record.sources else None,
    )


def _structure_frames(segment: Segment, plan: Plan) -> tuple[int, ...]:
    """Return for each unguided frame the structure frame that stands there; -1 past the end of the flows."""
    shown = frames_shown(segment, plan)
    frames = (frame for first, last in unguided_ranges(segment) for frame in range(first, last + 1))
    return tuple(-1 if (number := shown[frame]) is None else number for frame in frames)


def masking_of(request: JobRequest) -> Masking:
    """Return how the motion-filled frames of a job are masked."""
    group = 1 if request.target is None else TARGETS[request.target].frame_step
    return Masking(request.mask, request.holes, request.mask_grid, group)


def _check_time(request: JobRequest, segment: Segment, width: int, height: int, services: Services) -> None:
    """Refuse a segment that cannot end in time, before any work.

    Raises:
        DeadlineError: it cannot; the message says how many frames could.
    """
    needs_s = segment_s(request, segment, width, height, processors=services.processors)
    if services.deadline.fits(needs_s):
        return
    left_s = max(0.0, services.deadline.left_s or 0.0)
    raise DeadlineError(
        f"rendering {segment.frames} frames of {width}x{height} at quality {request.quality} needs about "
        f"{needs_s:.0f} s, and {left_s:.0f} s are left; up to {int(left_s / needs_s * segment.frames)} such frames "
        "can be rendered here",
        frames=segment.frames,
        left_s=round(left_s),
    )


def _check_still_open(storage: Storage, task_id: str, run_id: str, index: int) -> None:
    """Leave nothing behind in the folder of a run that ended while this segment was made."""
    try:
        check_open(storage, task_id, run_id)
    except SupersededRunError:
        folder = keys.run_segment_file(task_id, run_id, index, "result.json").removesuffix("result.json")
        whole = live_keys.run_progress(task_id, run_id, "segment", index, ended=True)
        storage.delete([*(info.key for info in storage.list(folder)), whole])
        raise


def _result(record: JobRecord, event: RenderSegmentInput, flows: SegmentFlows, outcome: RenderOutcome) -> SegmentResult:
    request = record.request
    width, height = record.resolution
    return SegmentResult(
        task_id=event.task_id,
        run_id=record.run_id,
        index=event.index,
        frames=request.segments[event.index].frames,
        width_px=width,
        height_px=height,
        fps=request.fps,
        treatment=request.treatment,
        anchors=request.anchors,
        motion_strength=request.motion_strength,
        mask=request.mask,
        holes=request.holes,
        mask_grid=request.mask_grid,
        target=request.target,
        kept=outcome.kept,
        notices=segment_notices(record, request.segments[event.index], outcome.kept),
        motion=request.motion,
        flow_source=flows.source,
        engine=flows.engine,
        flows_used=outcome.flows_used,
        tracking=outcome.tracking,
        evidence=tuple(
            FrameEvidence(frame=frame, kept=round(known.kept, 4), unlike=round(known.unlike, 3))
            for frame, known in outcome.evidence.items()
        ),
        unguided=tuple(outcome.unguided),
        filled=tuple(outcome.filled),
        left_unguided=tuple(outcome.left_unguided),
        extra_outputs=request.outputs,
    )

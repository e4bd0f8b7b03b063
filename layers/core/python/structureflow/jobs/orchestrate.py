"""From a request to its segments: validate, find the flows or have them extracted once, here or by a task."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from structureflow import keys
from structureflow.errors import (
    BatchJobError,
    DeadlineError,
    GpuUnavailableError,
    MediaLimitError,
    MemoryLimitError,
    ObjectNotFoundError,
    StructureFlowError,
    SupersededRunError,
    VideoPartsError,
)
from structureflow.flow.fields import FlowMeta
from structureflow.jobs.documents import load_record
from structureflow.jobs.estimate import frame_s
from structureflow.jobs.extract_job import check_extraction, commit_cached, extract_and_commit
from structureflow.jobs.extraction_order import ExtractionOrder, look_up
from structureflow.jobs.extraction_parts import PartsPlan, StartMachine, cut_video, leave_plan, start_parts
from structureflow.jobs.fail_job import reject_request
from structureflow.jobs.given_flows import start_given
from structureflow.jobs.guide_checks import check_guides
from structureflow.jobs.inputs import Source
from structureflow.jobs.joined_flows import start_joined
from structureflow.jobs.joined_sources import joined_pin
from structureflow.jobs.pointer import advance, begin_run
from structureflow.jobs.publish import remove_run
from structureflow.jobs.services import Services
from structureflow.jobs.task_route import leave_order
from structureflow.jobs.timeline import default_timeline_id, keep_frames
from structureflow.limits import MAX_ALONE_FRAMES, MAX_FUNCTION_S, STOP_BEFORE_END_S
from structureflow.media.decode import DecodeLimits, VideoInfo, VideoReader
from structureflow.models.bounds import check_request_bytes
from structureflow.models.cost import StepUsage
from structureflow.models.job import JobRequest
from structureflow.models.results import InputPin, JobRecord, JobState, JobStatus, now
from structureflow.references import Reference
from structureflow.storage.base import Storage

__all__ = ["OrchestrateInput", "orchestrate"]

_NO_BATCH = "with the parameter EnableBatch, a stack has a Batch job do it (docs/batch.md)"


class OrchestrateInput(BaseModel):
    """The request whose arrival started the function."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bucket: str
    key: str


class OrchestrateResult(BaseModel):
    """What became of the request: `running` when its segments are on their way, `failed` when it was refused.

    A job that a GPU task or a Batch job extracts, or that is extracted in parts, is `running` without a `flows_key`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_id: str
    run_id: str
    state: JobState
    engine: str | None = None
    flow_cache_hit: bool | None = None
    flows_key: str | None = None
    error: str | None = None


def orchestrate(event: OrchestrateInput, services: Services) -> OrchestrateResult:
    """Carry a request to the point where its segments start, or a task has its order.

    It is the request that lies there now which counts, whichever event came. A permanent error ends the job as
    failed, with a typed error in ``status.json``, and is returned, not raised: a retry would fail again. A transient
    one is raised, so that the event is retried.

    Raises:
        InvalidKeyError: the key is no ``jobs/{task_id}/request.json``.
        TransientError: the store broke off; nothing is committed.
    """
    task_id = keys.parse_job_request(event.key)
    try:
        begun = begin_run(services.storage, task_id)
    except ObjectNotFoundError as error:
        return OrchestrateResult(task_id=task_id, run_id="", state="failed", error=f"{error.code}: {error.message}")
    if begun.known is not None and not _must_go_on(services.storage, begun.known):
        services.count("DuplicateEvents", 1)
        return _known(services.storage, begun.known)
    services.count("JobsStarted", 1)
    try:
        check_request_bytes(begun.request.info.size_bytes)
        request = JobRequest.parse_json(begun.request.data, expected_task_id=task_id)
        return _Orchestration(event.bucket, request, begun.run_id, services).run()
    except StructureFlowError as error:
        if error.transient:
            raise
        if isinstance(error, SupersededRunError):
            remove_run(services.storage, task_id, begun.run_id)
        reject_request(task_id, begun.run_id, error, "orchestrate", services)
        return OrchestrateResult(
            task_id=task_id, run_id=begun.run_id, state="failed", error=f"{error.code}: {error.message}"
        )


def _must_go_on(storage: Storage, status: JobStatus) -> bool:
    """Tell whether a run that was begun before is still the orchestrator's: open, and no execution has claimed it."""
    return status.state == "running" and not storage.exists(keys.run_claim(status.task_id, status.run_id))


def _known(storage: Storage, status: JobStatus) -> OrchestrateResult:
    """Say of an event that came once more what became of its run."""
    task_id, run = status.task_id, status.run_id
    if not storage.exists(keys.run_record(task_id, run)):
        error = None if status.error is None else f"{status.error.code}: {status.error.message}"
        return OrchestrateResult(task_id=task_id, run_id=run, state=status.state, error=error)
    return _started(load_record(storage, task_id, run)).model_copy(update={"state": status.state})


def _started(record: JobRecord) -> OrchestrateResult:
    return OrchestrateResult(
        task_id=record.task_id,
        run_id=record.run_id,
        state="running",
        engine=record.engine,
        flow_cache_hit=record.flow_cache_hit,
        flows_key=record.flows_key,
    )


class _Orchestration:
    """One request on its way; the order fills up as facts become known."""

    def __init__(self, bucket: str, request: JobRequest, run: str, services: Services) -> None:
        self._services = services
        self._request = request
        self._order = ExtractionOrder(
            bucket=bucket,
            task_id=request.task_id,
            run_id=run,
            request=request,
            timeline_id="",
            engine="dis",
            created_at=now(),
        )

    def run(self) -> OrchestrateResult:
        if self._request.structure_videos:
            return self._start_joined()
        with self._timed("validate"):
            source = self._find_video()
            guides = check_guides(self._request, self._services)
        timeline_id = self._request.timeline_id or default_timeline_id(source.identity)
        self._update(source=source.pin(), guides=tuple(guide.pin() for guide in guides), timeline_id=timeline_id)
        if self._request.flow_cache is not None:
            return self._start_given(self._request.flow_cache, source)
        with self._timed("lookup"):
            meta = self._find_flows()
        self._services.count("FlowCacheMisses" if meta is None else "FlowCacheHits", 1)
        if meta is not None:
            return self._start_cached(meta, source)
        with self._services.scratch() as folder:
            return self._extract(folder, source)

    def _find_video(self) -> Source:
        """Look the structure video up; one that has no room in a function only where a Batch job would take it."""
        batch, reference = self._services.batch, self._request.motion_source
        if batch is not None:
            return self._services.inputs.find(reference, max_bytes=batch.max_video_bytes)
        try:
            return self._services.inputs.find(reference)
        except MediaLimitError as error:
            if not error.detail.get("size_bytes"):
                raise
            raise MediaLimitError(f"{error.message}; {_NO_BATCH}", **error.detail) from error

    def _find_one(self, number: int) -> Source:
        """Look one of several structure videos up."""
        try:
            return self._services.inputs.find(self._request.structure_videos[number].path)
        except StructureFlowError as error:
            raise error.within(f"structure_videos[{number}].path") from error

    # --- which engine ---------------------------------------------------------------------------------

    def _engines(self) -> list[str]:
        """Engines whose flows would do, the best first; ``auto`` takes what is there."""
        wanted = self._request.engine
        if wanted == "auto":
            return ["raft", "dis"] if self._services.gpu is not None else ["dis"]
        return [wanted]

    def _find_flows(self) -> FlowMeta | None:
        """Look for the flows of any engine that would do; the order then names that one."""
        for engine in self._engines():
            self._update(engine=engine)
            self._order, meta = look_up(self._order, self._services)
            if meta is not None:
                return meta
        return None

    def _is_heavy(self, info: VideoInfo) -> bool:
        """Tell whether ``auto`` sends this video to a GPU."""
        gpu = self._services.gpu
        if self._request.engine != "auto" or gpu is None:
            return False
        return info.width_px * info.height_px * info.frames >= gpu.auto_pixel_frames

    # --- the five ways on -----------------------------------------------------------------------------

    def _start_cached(self, meta: FlowMeta, source: Source) -> OrchestrateResult:
        order = self._order
        record = commit_cached(order, meta, self._services)
        # The segments are on their way; now see to it that the timeline has the frames too.
        keep_frames(order.timeline_id, source, self._services)
        return _started(record)

    def _start_joined(self) -> OrchestrateResult:
        with self._timed("validate"):
            sources = [self._find_one(number) for number in range(len(self._request.structure_videos))]
            guides = check_guides(self._request, self._services)
        pins = tuple(source.pin() for source in sources)
        joined = joined_pin(self._request, pins)
        self._update(
            source=joined,
            sources=pins,
            guides=tuple(guide.pin() for guide in guides),
            timeline_id=default_timeline_id(joined.identity),
        )
        return _started(start_joined(self._order, sources, self._engines(), self._services))

    def _start_given(self, reference: Reference, source: Source) -> OrchestrateResult:
        video = source if self._request.structure_video is not None else None
        given = source if video is None else self._services.inputs.find(reference)
        self._update(flow_cache=given.pin(), engine="given")
        return _started(start_given(self._order, given, video, self._services))

    def _extract(self, folder: Path, source: Source) -> OrchestrateResult:
        large = source.size_bytes > self._services.max_input_bytes
        if self._request.engine == "raft":
            if large:
                self._fall_back("route", "raft", "dis", "the video is larger than what GPU tasks take")
            elif self._order_gpu():
                return self._ordered()
            self._update(engine="dis")
            self._order, meta = look_up(self._order, self._services)
            if meta is not None:
                return self._start_cached(meta, source)
        if large:
            self._update(engine=self._engine_here())
            most = self._services.max_input_bytes
            return self._hand_on(MediaLimitError(f"{source.size_bytes} bytes of video, and functions take {most}"))
        if self._services.start_extraction is not None and self._cut(source, self._services.start_extraction):
            return self._ordered()
        video = folder / "structure_video"
        with self._timed("download"):
            source = source.fetch(video)
        self._update(source=source.pin())
        with VideoReader(video, DecodeLimits(max_frames=self._services.max_video_frames)) as reader:
            info = reader.info
        if self._is_heavy(info) and self._order_gpu():
            return self._ordered()
        self._update(engine=self._engine_here())
        try:
            check_extraction(self._order, info, self._services)
            self._check_time(info)
        except (DeadlineError, MemoryLimitError) as error:
            return self._hand_on(error)
        if info.frames <= MAX_ALONE_FRAMES:
            self._update(notices=())
        return _started(extract_and_commit(self._order, source, self._services, fetched=video))

    def _engine_here(self) -> str:
        return "farneback" if self._request.engine == "farneback" else "dis"

    def _cut(self, source: Source, start: StartMachine) -> bool:
        """Have a long video extracted in parts, or by a task; False, with the reason on record, where it cannot be."""
        order, services = self._order, self._services
        try:
            with self._timed("plan"):
                video = cut_video(source, services)
        except VideoPartsError as error:
            self._update(notices=(f"extracted by one function: {error.message}",))
            return False
        if video is None:
            return False
        if self._is_heavy(video.info) and self._order_gpu():
            return True
        self._update(engine=self._engine_here())
        longest = max(part.frames for part in video.parts)
        part_s = longest * frame_s(
            video.info, self._order.engine, self._request.quality, processors=services.processors
        )
        if part_s > MAX_FUNCTION_S - 2 * STOP_BEFORE_END_S:
            self._update(notices=(f"extracted by one function: a part of {longest} frames is too long for one",))
            return False
        try:
            check_extraction(self._order, video.info, services)
        except MemoryLimitError as error:
            self._hand_on(error)
            return True
        advance(services.storage, order.task_id, order.run_id, stage="extract")
        # What it has used until now; the function that joins the parts writes the record.
        self._update(usage=services.usage("Orchestrator"))
        plan = leave_plan(PartsPlan(order=self._order, video=video), services.storage)
        start_parts(plan, start, at_once=services.max_concurrent_parts)
        return True

    def _order_gpu(self) -> bool:
        """Hand the order to a GPU task; False, with the reason on record, where none can be had."""
        gpu = self._services.gpu
        if gpu is None:
            self._fall_back("route", "raft", "dis", "the GPU part of the stack is not deployed")
            return False
        self._update(engine="raft", route="gpu")
        advance(self._services.storage, self._order.task_id, self._order.run_id, stage="gpu")
        try:
            leave_order(self._order, gpu, self._services)
        except GpuUnavailableError as error:
            self._fall_back("route", "raft", "dis", error.message)
            return False
        return True

    def _hand_on(self, beyond: DeadlineError | MediaLimitError | MemoryLimitError) -> OrchestrateResult:
        """Have a Batch job do what is `beyond` a function; without one a GPU task, where time alone is the matter.

        Raises:
            DeadlineError, MediaLimitError, MemoryLimitError: nobody takes it; `beyond`, with what was tried.
        """
        services, order = self._services, self._order
        said = _NO_BATCH
        if services.batch is not None:
            advance(services.storage, order.task_id, order.run_id, stage="batch")
            notices = (f"extracted by a Batch job: {beyond.message}",)
            self._update(notices=notices, route="batch", usage=services.usage("Orchestrator"))
            try:
                leave_order(self._order, services.batch, services)
            except BatchJobError as error:
                self._update(notices=order.notices, usage=order.usage)
                said = error.message
            else:
                return self._ordered()
        if isinstance(beyond, DeadlineError) and services.gpu is not None:
            self._fall_back("route", order.engine, "raft", f"{beyond.message}; {said}")
            if self._order_gpu():
                return self._ordered()
        raise type(beyond)(f"{beyond.message}; {said}", **beyond.detail) from beyond

    def _check_time(self, info: VideoInfo) -> None:
        """Go on, if the extraction can end here in time.

        Raises:
            DeadlineError: it cannot.
        """
        order, services = self._order, self._services
        per_frame_s = frame_s(info, order.engine, self._request.quality, processors=services.processors)
        if services.deadline.fits(info.frames * per_frame_s):
            return
        left_s = services.deadline.left_s or 0.0
        why = (
            f"{order.engine} at quality {self._request.quality} needs about {info.frames * per_frame_s:.0f} s for "
            f"{info.frames} frames of {info.width_px}x{info.height_px}, and {left_s:.0f} s are left; "
            f"up to {int(left_s / per_frame_s)} such frames can be extracted here"
        )
        raise DeadlineError(why, frames=info.frames, left_s=round(left_s))

    # --- bookkeeping ----------------------------------------------------------------------------------

    def _ordered(self) -> OrchestrateResult:
        order = self._order
        return OrchestrateResult(task_id=order.task_id, run_id=order.run_id, state="running", engine=order.engine)

    def _update(self, **known: str | InputPin | tuple[InputPin | StepUsage | str, ...]) -> None:
        self._order = self._order.model_copy(update=known)

    def _fall_back(self, stage: str, wanted: str, used: str, reason: str) -> None:
        self._order = self._order.falling_back(stage, wanted, used, reason)
        self._services.count("Fallbacks", 1)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        timings = {**self._order.timings_s, name: round(time.perf_counter() - begin, 3)}
        self._order = self._order.model_copy(update={"timings_s": timings})

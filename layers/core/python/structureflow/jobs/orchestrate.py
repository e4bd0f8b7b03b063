"""From a request to its segments: validate, find the flows or have them extracted once, here or on a GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from structureflow import keys
from structureflow.errors import (
    DeadlineError,
    GpuUnavailableError,
    MediaError,
    ObjectNotFoundError,
    StructureFlowError,
    SupersededRunError,
)
from structureflow.flow.fields import FlowMeta
from structureflow.guide.images import check_guide_image
from structureflow.jobs.documents import load_record
from structureflow.jobs.estimate import frame_s
from structureflow.jobs.extract_job import commit_cached, extract_and_commit
from structureflow.jobs.extraction_order import ExtractionOrder, look_up
from structureflow.jobs.fail_job import reject_request
from structureflow.jobs.given_flows import start_given
from structureflow.jobs.gpu_route import order_gpu
from structureflow.jobs.inputs import Source
from structureflow.jobs.joined_flows import start_joined
from structureflow.jobs.joined_sources import joined_pin
from structureflow.jobs.pointer import advance, begin_run
from structureflow.jobs.publish import remove_run
from structureflow.jobs.services import Services
from structureflow.jobs.timeline import default_timeline_id, keep_frames
from structureflow.limits import MAX_IMAGE_BYTES
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.media.still import FILES_IN_FLIGHT, PIXELS_IN_FLIGHT
from structureflow.models.bounds import check_request_bytes
from structureflow.models.job import JobRequest
from structureflow.models.results import InputPin, JobRecord, JobState, JobStatus, now
from structureflow.references import Reference
from structureflow.storage.base import Storage

__all__ = ["OrchestrateInput", "orchestrate"]

_IMAGE_CHECKS = 8


class OrchestrateInput(BaseModel):
    """The request whose arrival started the function."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bucket: str
    key: str


class OrchestrateResult(BaseModel):
    """What became of the request: `running` when its segments are on their way, `failed` when it was refused.

    A job that a GPU task extracts is `running` without a `flows_key`.
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
    """Carry a request to the point where its segments start, or a GPU task has its order.

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
            source = self._services.inputs.find(self._request.motion_source)
            guides = self._check_guides()
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

    def _check_guides(self) -> list[Source]:
        """Look at every guide before any work is done: a missing or broken one fails the job at once."""
        videos = {
            guide.video for segment in self._request.segments for guide in segment.guides if guide.video is not None
        }

        def check(reference: Reference) -> Source:
            found = self._services.inputs.find(reference)
            if reference in videos:
                return self._check_guide_video(found)
            with FILES_IN_FLIGHT.hold(min(found.size_bytes, MAX_IMAGE_BYTES)):
                data, source = found.read(max_bytes=MAX_IMAGE_BYTES)
                check_guide_image(data, what=str(reference))
            return source

        with ThreadPoolExecutor(
            min(_IMAGE_CHECKS, self._services.requests_at_once), thread_name_prefix="guides"
        ) as pool:
            return list(pool.map(check, self._request.references()))

    def _check_guide_video(self, found: Source) -> Source:
        """Open a guide video; that it is as long as asked for shows when its frames are decoded."""
        with self._services.scratch() as folder:
            path = folder / "guide_video"
            source = found.fetch(path)
            limits = DecodeLimits(max_frames=self._services.max_video_frames, min_frames=1)
            try:
                # One at a time: what a decoder takes for its first picture is known only when it has it.
                with PIXELS_IN_FLIGHT.hold(PIXELS_IN_FLIGHT.capacity_bytes):
                    VideoReader(path, limits, threads=1).close()
            except MediaError as error:
                raise error.within(f"guide video {found.reference}") from error
        return source

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

    def _is_heavy(self, video: Path) -> bool:
        """Tell whether ``auto`` sends this video to a GPU."""
        gpu = self._services.gpu
        if self._request.engine != "auto" or gpu is None:
            return False
        with VideoReader(video, DecodeLimits(max_frames=self._services.max_video_frames)) as reader:
            info = reader.info
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
            sources = [self._services.inputs.find(video.path) for video in self._request.structure_videos]
            guides = self._check_guides()
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
        if self._request.engine == "raft":
            if self._order_gpu():
                return self._ordered()
            self._update(engine="dis")
            self._order, meta = look_up(self._order, self._services)
            if meta is not None:
                return self._start_cached(meta, source)
        video = folder / "structure_video"
        with self._timed("download"):
            source = source.fetch(video)
        self._update(source=source.pin())
        if self._is_heavy(video) and self._order_gpu():
            return self._ordered()
        self._update(engine="farneback" if self._request.engine == "farneback" else "dis")
        if not self._ends_in_time(video):
            return self._ordered()
        return _started(extract_and_commit(self._order, source, self._services, fetched=video))

    def _order_gpu(self) -> bool:
        """Hand the order to a GPU task; False, with the reason on record, where none can be had."""
        gpu = self._services.gpu
        if gpu is None:
            self._fall_back("route", "raft", "dis", "the GPU part of the stack is not deployed")
            return False
        self._update(engine="raft")
        advance(self._services.storage, self._order.task_id, self._order.run_id, stage="gpu")
        try:
            order_gpu(self._order, gpu, self._services)
        except GpuUnavailableError as error:
            self._fall_back("route", "raft", "dis", error.message)
            return False
        return True

    def _ends_in_time(self, video: Path) -> bool:
        """Tell whether the extraction can be done here; False where a GPU task has the order instead.

        Raises:
            DeadlineError: neither can do it.
        """
        order, services = self._order, self._services
        with VideoReader(video, DecodeLimits(max_frames=services.max_video_frames)) as reader:
            info = reader.info
        per_frame_s = frame_s(info, order.engine, self._request.quality, processors=services.processors)
        if services.deadline.fits(info.frames * per_frame_s):
            return True
        left_s = services.deadline.left_s or 0.0
        why = (
            f"{order.engine} at quality {self._request.quality} needs about {info.frames * per_frame_s:.0f} s for "
            f"{info.frames} frames of {info.width_px}x{info.height_px}, and {left_s:.0f} s are left; "
            f"up to {int(left_s / per_frame_s)} such frames can be extracted here"
        )
        self._fall_back("route", order.engine, "raft", why)
        if services.gpu is not None and self._order_gpu():
            return False
        raise DeadlineError(why, frames=info.frames, left_s=round(left_s))

    # --- bookkeeping ----------------------------------------------------------------------------------

    def _ordered(self) -> OrchestrateResult:
        order = self._order
        return OrchestrateResult(task_id=order.task_id, run_id=order.run_id, state="running", engine=order.engine)

    def _update(self, **known: str | InputPin | tuple[InputPin, ...]) -> None:
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

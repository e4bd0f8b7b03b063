"""From a request to the job's flow archive: validate, look the flows up or extract them once, write last."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from structureflow import keys
from structureflow.errors import (
    FlowCacheError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StructureFlowError,
)
from structureflow.flow.address import flow_address
from structureflow.flow.cache import open_flow_archive
from structureflow.flow.extract import ExtractionResult, extract_to_archive, plan_extraction
from structureflow.flow.fields import FlowMeta
from structureflow.guide.images import check_guide_image
from structureflow.jobs.documents import put_document, put_status, run_id
from structureflow.jobs.fail_job import reject_request
from structureflow.jobs.inputs import InputInfo
from structureflow.jobs.services import Services
from structureflow.jobs.timeline import FrameKeeper, default_timeline_id
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.models.job import JobRequest
from structureflow.models.results import Fallback, JobRecord, JobState, SourceInfo, now

_IMAGE_CHECKS = 8
_NPZ = "application/zip"


class OrchestrateInput(BaseModel):
    """The request whose arrival started the function."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bucket: str
    key: str


class OrchestrateResult(BaseModel):
    """What became of the request: `running` when its segments are on their way, `failed` when it was refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_id: str
    run_id: str
    state: JobState
    engine: str | None = None
    flow_cache_hit: bool | None = None
    flows_key: str | None = None
    error: str | None = None


def orchestrate(event: OrchestrateInput, services: Services) -> OrchestrateResult:
    """Carry a request to the point where its segments start.

    A permanent error ends the job as failed, with a typed error in ``status.json``, and is returned, not
    raised: a retry would fail again. A transient one is raised, so that the event is retried.

    Raises:
        InvalidKeyError: the key is no ``jobs/{task_id}/request.json``.
        TransientError: the store broke off; nothing is committed.
    """
    task_id = keys.parse_job_request(event.key)
    document = services.storage.get(event.key)
    run = run_id(document)
    services.count("JobsStarted", 1)
    try:
        put_status(services.storage, task_id=task_id, run_id=run, state="running", stage="orchestrate")
        request = JobRequest.parse_json(document.data, expected_task_id=task_id)
        return _Orchestration(event.bucket, request, run, services).run()
    except StructureFlowError as error:
        if error.transient:
            raise
        reject_request(task_id, run, error, "orchestrate", services)
        return OrchestrateResult(task_id=task_id, run_id=run, state="failed", error=f"{error.code}: {error.message}")


class _Orchestration:
    """One request on its way; fields fill up as facts become known."""

    def __init__(self, bucket: str, request: JobRequest, run: str, services: Services) -> None:
        self._bucket = bucket
        self._request = request
        self._run = run
        self._services = services
        self._storage = services.storage
        self._created_at = now()
        self._timings_s: dict[str, float] = {}
        self._fallbacks: list[Fallback] = []

    def run(self) -> OrchestrateResult:
        request, services = self._request, self._services
        with self._timed("validate"):
            source = services.inputs.find(request.structure_video)
            self._check_guides()
        timeline_id = request.timeline_id or default_timeline_id(source.identity)
        engine = self._route()
        shared_key = keys.flow_cache(flow_address(source.identity, engine, request.quality))
        with self._timed("lookup"):
            meta = self._cached_meta(shared_key)
        hit = meta is not None
        services.count("FlowCacheHits" if hit else "FlowCacheMisses", 1)
        if meta is None:
            with services.scratch() as folder:
                return self._extract(folder, source, timeline_id, engine, shared_key)
        return self._commit(meta, source, timeline_id, shared_key, hit=True)

    def _check_guides(self) -> None:
        """Look at every guide before any work is done: a missing or broken one fails the job at once."""
        videos = {
            guide.video for segment in self._request.segments for guide in segment.guides if guide.video is not None
        }

        def check(reference: str) -> None:
            if reference in videos:
                self._services.inputs.find(reference)
            else:
                check_guide_image(self._services.inputs.read(reference), what=reference)

        with ThreadPoolExecutor(_IMAGE_CHECKS, thread_name_prefix="guides") as pool:
            for _ in pool.map(check, self._request.references()):
                pass

    def _route(self) -> str:
        wanted = self._request.engine
        if wanted == "raft":
            self._fall_back("route", "raft", "dis", "the GPU part of the stack is not deployed")
        return "farneback" if wanted == "farneback" else "dis"

    def _cached_meta(self, shared_key: str) -> FlowMeta | None:
        try:
            return open_flow_archive(self._storage, shared_key).meta
        except ObjectNotFoundError:
            return None
        except FlowCacheError as error:
            self._fall_back("lookup", "cache", "video", f"{shared_key} is unusable: {error}")
            self._storage.delete([shared_key])
            return None

    def _extract(
        self, folder: Path, source: InputInfo, timeline_id: str, engine: str, shared_key: str
    ) -> OrchestrateResult:
        services, request = self._services, self._request
        put_status(self._storage, task_id=request.task_id, run_id=self._run, state="running", stage="extract")
        video = folder / "structure_video"
        with self._timed("download"):
            source = services.inputs.fetch(request.structure_video, video)
        archive = folder / "flows.npz"
        with self._timed("extract"):
            result = self._extract_with_frames(video, archive, source, timeline_id, engine)
        self._timings_s.update({f"extract.{name}": round(s, 3) for name, s in result.timings_s.items()})
        with self._timed("store"):
            stored = self._store(archive, shared_key)
        if not stored:
            return self._start_without_cache(result.meta, source, timeline_id)
        return self._commit(result.meta, source, timeline_id, shared_key, hit=False)

    def _extract_with_frames(
        self, video: Path, archive: Path, source: InputInfo, timeline_id: str, engine: str
    ) -> ExtractionResult:
        """Decode once: every frame goes to the frame cache and to the flow engine."""
        services, request = self._services, self._request
        limits = DecodeLimits(max_frames=services.max_video_frames)
        with VideoReader(video, limits) as reader:
            plan = plan_extraction(reader.info, engine, request.quality)
        with FrameKeeper.open(services.storage, timeline_id, source.identity) as keeper:
            result = extract_to_archive(
                video,
                archive,
                plan,
                source_video=request.structure_video,
                source_identity=source.identity,
                limits=limits,
                workers=services.workers,
                on_frame=keeper.add,
            )
            problem = keeper.commit()
        if problem is not None:
            self._fall_back("frames", "frame cache", "none", problem)
        return result

    def _store(self, archive: Path, shared_key: str) -> bool:
        """Put the archive where all jobs find it; False if the store refuses. Another writer's is as good."""
        try:
            self._storage.put_file(shared_key, archive, content_type=_NPZ, if_absent=True)
        except ObjectExistsError:
            return True
        except StorageError as error:
            self._fall_back("store", "cache", "none", f"{shared_key} cannot be written: {error}")
            return False
        return True

    def _commit(
        self, meta: FlowMeta, source: InputInfo, timeline_id: str, shared_key: str, *, hit: bool
    ) -> OrchestrateResult:
        """Write the record, then the archive: its arrival starts the segments."""
        flows_key = keys.job_flows(self._request.task_id)
        record = self._record(meta, source, timeline_id, flows_key=flows_key, shared_key=shared_key, hit=hit)
        put_document(self._storage, keys.job_record(self._request.task_id), record)
        try:
            self._storage.copy(shared_key, flows_key)
        except StorageError as error:
            self._fall_back("commit", "cache", "none", f"{flows_key} cannot be written: {error}")
            return self._start_without_cache(meta, source, timeline_id)
        return self._started(record)

    def _start_without_cache(self, meta: FlowMeta, source: InputInfo, timeline_id: str) -> OrchestrateResult:
        """Start the state machine directly; each segment then extracts the flow that it needs."""
        record = self._record(meta, source, timeline_id, flows_key=None, shared_key=None, hit=False)
        put_document(self._storage, keys.job_record(self._request.task_id), record)
        self._start_directly()
        return self._started(record)

    def _start_directly(self) -> None:
        """Start the state machine as the archive's arrival would have."""
        task_id = self._request.task_id
        payload = {
            "source": "structureflow.orchestrator",
            "detail": {"bucket": {"name": self._bucket}, "object": {"key": keys.job_flows(task_id)}},
        }
        self._services.start_segments(f"{task_id[:60]}-{self._run}", payload)

    def _started(self, record: JobRecord) -> OrchestrateResult:
        return OrchestrateResult(
            task_id=record.task_id,
            run_id=record.run_id,
            state="running",
            engine=record.engine,
            flow_cache_hit=record.flow_cache_hit,
            flows_key=record.flows_key,
        )

    def _record(
        self,
        meta: FlowMeta,
        source: InputInfo,
        timeline_id: str,
        *,
        flows_key: str | None,
        shared_key: str | None,
        hit: bool,
    ) -> JobRecord:
        request = self._request
        even = (meta.original_width // 2 * 2, meta.original_height // 2 * 2)
        return JobRecord(
            task_id=request.task_id,
            run_id=self._run,
            request=request,
            source=SourceInfo(
                reference=request.structure_video,
                identity=source.identity,
                size_bytes=source.size_bytes,
                frames=meta.total_flows + 1,
                fps=meta.original_fps,
                width_px=meta.original_width,
                height_px=meta.original_height,
            ),
            timeline_id=timeline_id,
            resolution=request.resolution or even,
            engine_requested=request.engine,
            engine=meta.engine,
            engine_params=dict(meta.engine_params),
            flows_key=flows_key,
            flow_cache_key=shared_key,
            flow_cache_hit=hit,
            scene_cuts=meta.scene_cuts,
            display_max_px=meta.display_max_px,
            fallbacks=tuple(self._fallbacks),
            timings_s=self._timings_s,
            created_at=self._created_at,
        )

    def _fall_back(self, stage: str, wanted: str, used: str, reason: str) -> None:
        self._fallbacks.append(Fallback(stage=stage, wanted=wanted, used=used, reason=reason))
        self._services.count("Fallbacks", 1)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._timings_s[name] = round(time.perf_counter() - begin, 3)

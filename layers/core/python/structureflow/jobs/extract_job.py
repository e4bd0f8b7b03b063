"""Extract a job's frames and flows and commit them: the same call in the orchestrator and in the GPU task.

What shall be extracted stands in an `ExtractionOrder`. Whoever carries it out writes frames on the way, then the
shared archive, then the job's record, and last the job's own archive, whose arrival starts the segments.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from structureflow import keys
from structureflow.errors import InvalidRequestError, ObjectExistsError, StorageError
from structureflow.flow.engines import FlowEngine
from structureflow.flow.extract import ExtractionResult, extract_to_archive, plan_extraction
from structureflow.flow.fields import FlowMeta
from structureflow.flow.joined import SOURCES
from structureflow.flow.times import uneven_times
from structureflow.jobs.documents import check_current, put_document
from structureflow.jobs.estimate import extraction_mb
from structureflow.jobs.extraction_order import ExtractionOrder, committed_record
from structureflow.jobs.inputs import Source
from structureflow.jobs.joined_sources import recorded_sources, source_notices
from structureflow.jobs.pointer import advance, check_open
from structureflow.jobs.services import Services
from structureflow.jobs.timeline import FrameKeeper
from structureflow.media.decode import DecodedFrame, DecodeLimits, VideoReader
from structureflow.models.problems import lines_of
from structureflow.models.results import JobRecord, SourceInfo

_NPZ: Final = "application/zip"

_log = logging.getLogger(__name__)


def extract_and_commit(
    order: ExtractionOrder,
    source: Source,
    services: Services,
    *,
    engine: FlowEngine | None = None,
    fetched: Path | None = None,
) -> JobRecord:
    """Extract frames and flows of an order, and start its segments.

    Args:
        order: what to do.
        source: its structure video.
        services: adapters and limits.
        engine: runs the flows in place of the engine that is registered by that name (RAFT must be given).
        fetched: the bytes of `source`, where they are a local file already.

    Returns:
        The record of the job. If somebody committed the run meanwhile, it is theirs, with their flows; these here are
        kept for other jobs all the same. A record of this run is never rewritten, for its segments may be under way;
        if they are not, only the archive is copied once more.

    Raises:
        MediaError, InputNotFoundError, InputChangedError, EngineUnavailableError, FlowError: it can't be done;
            nothing is committed.
        SupersededRunError: the job was started again meanwhile, or deleted, or the run ended.
        TransientError: a later try may succeed; nothing is committed.
    """
    return _Extraction(order, services, engine).run(source, fetched)


def extract_source(order: ExtractionOrder, video: Path, archive: Path, services: Services) -> ExtractionOrder:
    """Extract frames and flows of one of several sources, and put them where all jobs find them.

    Args:
        order: as if the source were the job's only one.
        video: its bytes.
        archive: where its flows shall be, as a local file too.
        services: adapters and limits.

    Returns:
        The order, with what did not go as it should.

    Raises:
        MediaError, EngineUnavailableError, FlowError, SupersededRunError, TransientError: as `extract_and_commit`.
    """
    return _Extraction(order, services, None).extract_only(video, archive)


def finish_commit(order: ExtractionOrder, record: JobRecord, services: Services) -> None:
    """Start the segments of a run that somebody committed, unless they are under way.

    Raises:
        TransientError: a later try may succeed.
    """
    _Extraction(order, services, None).finish(record)


def commit_cached(order: ExtractionOrder, meta: FlowMeta, services: Services) -> JobRecord:
    """Start the segments of a job whose flows are in the shared cache already."""
    return _Extraction(order, services, None).commit(meta, hit=True)


def commit_archive(order: ExtractionOrder, archive: Path, meta: FlowMeta, services: Services) -> JobRecord:
    """Start the segments of a job on the flows of the local file `archive`, which all jobs then find."""
    return _Extraction(order, services, None).keep(archive, meta)


class _Extraction:
    def __init__(self, order: ExtractionOrder, services: Services, engine: FlowEngine | None) -> None:
        self._order = order
        self._services = services
        self._storage = services.storage
        self._engine = engine
        self._timings_s = dict(order.timings_s)

    def run(self, source: Source, fetched: Path | None) -> JobRecord:
        order = self._order
        self._check_current()
        advance(self._storage, order.task_id, order.run_id, stage="extract")
        with self._services.scratch() as folder:
            video = fetched or folder / "structure_video"
            if fetched is None:
                with self._timed("download"):
                    source = source.fetch(video)
            self._order = order.model_copy(update={"source": source.pin()})
            archive = folder / "flows.npz"
            with self._timed("extract"):
                result = self._extract(video, archive)
            self._timings_s |= {f"extract.{name}": round(s, 3) for name, s in result.timings_s.items()}
            return self.keep(archive, result.meta)

    def extract_only(self, video: Path, archive: Path) -> ExtractionOrder:
        order = self._order
        self._check_current()
        advance(self._storage, order.task_id, order.run_id, stage="extract")
        self._extract(video, archive, sizes_job=False)
        self._store(archive)
        return self._order

    def keep(self, archive: Path, meta: FlowMeta) -> JobRecord:
        """Put the archive where all jobs find it, and start the segments, without it if need be."""
        with self._timed("store"):
            stored = self._store(archive)
        return self.commit(meta, hit=False) if stored else self._start_without_cache(meta)

    def _extract(self, video: Path, archive: Path, *, sizes_job: bool = True) -> ExtractionResult:
        """Decode once: every frame goes to the frame cache and to the flow engine."""
        order, services = self._order, self._services
        limits = DecodeLimits(max_frames=services.max_video_frames)
        with VideoReader(video, limits) as reader:
            info = reader.info
            services.check_memory(extraction_mb(info), f"extracting from {info.width_px}x{info.height_px} pixels")
            if sizes_job:
                self._resolution(info.width_px, info.height_px)
            plan = plan_extraction(info, order.engine, order.request.quality)

        decoded = 0

        def keep(frame: DecodedFrame) -> None:
            nonlocal decoded
            services.deadline.check("extraction")
            keeper.add(frame)
            decoded += 1
            report.advance(decoded)

        with (
            services.report(order.task_id, order.run_id, "extract", 0, info.frames) as report,
            FrameKeeper.open(self._storage, order.timeline_id, order.identity) as keeper,
        ):
            result = extract_to_archive(
                video,
                archive,
                plan,
                source_video=order.found.reference,
                source_identity=order.identity,
                limits=limits,
                workers=services.workers,
                on_frame=keep,
                engine=self._engine,
            )
            problem = keeper.commit()
        if problem is not None:
            self._fall_back("frames", "frame cache", "none", problem)
        return result

    def _store(self, archive: Path) -> bool:
        """Put the archive where all jobs find it; False if the store refuses. Another writer's is as good."""
        try:
            self._storage.put_file(self._order.shared_key, archive, content_type=_NPZ, if_absent=True)
        except ObjectExistsError:
            return True
        except StorageError as error:
            self._fall_back("store", "cache", "none", f"{self._order.shared_key} cannot be written: {error}")
            return False
        return True

    def commit(self, meta: FlowMeta, *, hit: bool) -> JobRecord:
        """Write the record, then the archive: its arrival starts the segments."""
        order = self._order
        self._check_current()
        flows_key = keys.job_flows(order.task_id)
        record = committed_record(self._storage, order)
        if record is not None:
            self.finish(record)
            return record
        record = self._record(meta, flows_key=flows_key, shared_key=order.shared_key, hit=hit)
        put_document(self._storage, keys.run_record(order.task_id, order.run_id), record)
        # Whoever took over since writes these flows anew; a copy that is late all the same, AssembleJob sets right.
        self._check_current()
        try:
            self._storage.copy(order.shared_key, flows_key)
        except StorageError as error:
            self._fall_back("commit", "cache", "none", f"{flows_key} cannot be written: {error}")
            return self._start_without_cache(meta)
        return record

    def finish(self, record: JobRecord) -> None:
        """Start the segments of a run whose record is there: whoever wrote it may have died before it did that."""
        if self._storage.exists(keys.run_claim(record.task_id, record.run_id)):
            return
        if record.flows_key is not None and record.flow_cache_key is not None:
            try:
                self._storage.copy(record.flow_cache_key, record.flows_key)
                return
            except StorageError as error:
                if error.transient:
                    raise
                _log.warning("%s cannot be written: %s", record.flows_key, error)
        self._start_directly()

    def _start_without_cache(self, meta: FlowMeta) -> JobRecord:
        """Start the state machine as the archive's arrival would have; each segment extracts what it needs."""
        self._check_current()
        record = self._record(meta, flows_key=None, shared_key=None, hit=False)
        put_document(self._storage, keys.run_record(record.task_id, record.run_id), record)
        self._start_directly()
        return record

    def _check_current(self) -> None:
        """Leave a job alone that is at another run; the request is looked at for orders that are not seconds old."""
        check_open(self._storage, self._order.task_id, self._order.run_id)
        if self._order.deadline is not None:
            check_current(self._storage, self._order.task_id, self._order.run_id)

    def _start_directly(self) -> None:
        order = self._order
        payload: dict[str, Any] = {
            "source": "structureflow.orchestrator",
            "detail": {"bucket": {"name": order.bucket}, "object": {"key": keys.job_flows(order.task_id)}},
        }
        # The name makes a second start of the same run a no-op.
        self._services.start_segments(f"{order.task_id[:60]}-{order.run_id}", payload)

    def _record(self, meta: FlowMeta, *, flows_key: str | None, shared_key: str | None, hit: bool) -> JobRecord:
        order, request = self._order, self._order.request
        # of several sources, the times are of what they are joined to, which is played by no clock
        times_s = None if order.sources else uneven_times(meta.timestamps_s, meta.total_flows)
        sources = recorded_sources(request, order.sources, meta) if order.sources else ()
        params = dict(meta.engine_params)
        params.pop(SOURCES, None)
        return JobRecord(
            task_id=order.task_id,
            run_id=order.run_id,
            request=request,
            source=SourceInfo(
                **order.found.model_dump(),
                frames=meta.total_flows + 1,
                fps=meta.original_fps,
                width_px=meta.original_width,
                height_px=meta.original_height,
                timestamps_s=() if times_s is None else tuple(times_s.tolist()),
            ),
            sources=sources,
            guides=order.guides,
            flow_cache=order.flow_cache,
            timeline_id=order.timeline_id,
            resolution=self._resolution(meta.original_width, meta.original_height),
            engine_requested=request.engine,
            engine=meta.engine,
            engine_params=params,
            flows_key=flows_key,
            flow_cache_key=shared_key,
            flow_cache_hit=hit,
            scene_cuts=meta.scene_cuts,
            display_max_px=meta.display_max_px,
            fallbacks=self._order.fallbacks,
            notices=source_notices(request, sources) if sources else (),
            timings_s=self._timings_s,
            usage=self._services.usage("Orchestrator"),
            created_at=order.created_at,
        )

    def _resolution(self, width: int, height: int) -> tuple[int, int]:
        """Return the size of the job's videos.

        Raises:
            InvalidRequestError: as of `JobRequest.problems_of_size`.
        """
        problems = lines_of(self._order.request.problems_of_size(width, height))
        if problems:
            raise InvalidRequestError("; ".join(problems), problems=problems)
        return self._order.request.size_for(width, height)

    def _fall_back(self, stage: str, wanted: str, used: str, reason: str) -> None:
        self._order = self._order.falling_back(stage, wanted, used, reason)
        self._services.count("Fallbacks", 1)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._timings_s[name] = round(time.perf_counter() - begin, 3)

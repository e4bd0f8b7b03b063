"""Where a segment's flows really come from: the job's archive, else the cached frames, else the video.

The way down is taken when the archive cannot be opened, and also when a block of it turns out corrupt in the
middle of a segment. Each step is recorded; a segment never goes on as if nothing had happened.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import (
    FlowCacheCorruptError,
    FlowCacheError,
    FrameCacheError,
    InputChangedError,
    InputNotFoundError,
    ObjectNotFoundError,
    StorageError,
    TransientError,
)
from structureflow.flow.archive import FlowArchive, open_flow_archive
from structureflow.flow.extract import ExtractionPlan, extract_from_frames, plan_extraction
from structureflow.flow.fields import Direction, Field32, FlowMeta, FlowSource
from structureflow.flow.joined import JoinedFlows, Part
from structureflow.flow.sources import ArrayFlows
from structureflow.frames.cache import FrameCache, FrameManifest
from structureflow.jobs.documents import whole_request
from structureflow.jobs.given_flows import open_given
from structureflow.jobs.healing import FlowRange, FrameRepair, remove_rotten_flows
from structureflow.jobs.services import Services
from structureflow.limits import MAX_WORKING_GRID_PX
from structureflow.media.decode import DecodeLimits, VideoInfo, VideoReader
from structureflow.models.results import Fallback, FlowSourceName, JobRecord

_STAGE: Final = "flows"
_DOWN: Final[tuple[FlowSourceName, ...]] = ("cache", "frames", "video")
#: What makes a source unusable, as against a store that will answer a later try.
_UNUSABLE: Final = (FlowCacheError, FrameCacheError, StorageError)

LoadFrames = Callable[[int, int], Iterator[NDArray[np.uint8]]]
"""Called as ``load(first, last)``, both inclusive; gives ``(H, W, 3) uint8 RGB`` frames in order."""


class ComputedFlows:
    """Flows computed when they are read, from exactly the frames that they need.

    The pairs of the last range are kept, so that the second direction of the same range costs nothing.
    """

    def __init__(self, meta: FlowMeta, plan: ExtractionPlan, load: LoadFrames, *, workers: int) -> None:
        self.meta = meta
        self._plan = plan
        self._load = load
        self._workers = workers
        self._kept: tuple[int, int, ArrayFlows] | None = None

    def read(self, direction: Direction, start: int, stop: int) -> Field32:
        """Compute flows `start` (inclusive) to `stop` (exclusive); see `FlowSource.read`."""
        # Of two directions that are read at once, each returns what it computed itself.
        kept = self._kept
        if kept is None or kept[:2] != (start, stop):
            flows = extract_from_frames(
                self._load(start, stop),
                self._plan,
                original_fps=self.meta.original_fps,
                source_identity=self.meta.source_identity,
                workers=self._workers,
            )
            self._kept = kept = start, stop, flows
        return kept[2].read(direction, 0, stop - start)


class SegmentFlows:
    """The flows of one segment; falls back by itself, and remembers that it did.

    Attributes:
        meta: of the flows as they are read first; fallbacks compute on the same grid.
    """

    def __init__(self, record: JobRecord, services: Services, folder: Path) -> None:
        self._source: FlowSourceName = "cache"
        self._fallbacks: tuple[Fallback, ...] = ()
        self._parts: list[SegmentFlows] = []
        self._record = record
        self._services = services
        self._folder = folder
        self._lock = threading.Lock()
        self._grid: tuple[int, int] | None = None
        self._reading: FlowRange | None = None
        self._reopened = False
        self._given_tried = False
        self._opened: str | None = None
        self._repair: FrameRepair | None = None
        self._manifest: FrameManifest | None = None
        self._flows = self._open_first()
        self.meta = self._flows.meta
        self._grid = self.meta.height, self.meta.width

    @property
    def source(self) -> FlowSourceName:
        """What flows are really read from, as of now; of several sources, what is furthest from the cache."""
        return max((self._source, *(part.source for part in self._parts)), key=_DOWN.index)

    @property
    def fallbacks(self) -> tuple[Fallback, ...]:
        """Every step down, in order."""
        return self._fallbacks + tuple(step for part in self._parts for step in part.fallbacks)

    def expect(self, start: int, stop: int) -> None:
        """Say that flows `start` (inclusive) to `stop` (exclusive) will be read; see `FlowArchive.expect`."""
        if isinstance(self._flows, FlowArchive) and start < stop:
            self._flows.expect(start, stop)

    def read(self, direction: Direction, start: int, stop: int) -> Field32:
        """Read flows `start` (inclusive) to `stop` (exclusive), in any thread; see `FlowSource.read`."""
        while True:
            self._services.deadline.check("rendering")
            flows = self._flows
            try:
                return flows.read(direction, start, stop)
            except TransientError:
                raise
            except _UNUSABLE as error:
                with self._lock:
                    # Else another thread met the same source before and has gone down already.
                    if flows is self._flows:
                        self._reading = direction, start, stop
                        self._flows = self._read_again(error) or self._next_source(error)

    def _read_again(self, error: Exception) -> FlowSource | None:
        """Open the archive once more after a block was corrupt: ranges come without a checksum of the store's."""
        key = self._opened
        if self._reopened or key is None or self._source != "cache" or not isinstance(error, FlowCacheCorruptError):
            return None
        self._reopened = True
        try:
            return self._open(key)
        except TransientError:
            raise
        except _UNUSABLE:
            return None

    def _open_first(self) -> FlowSource:
        record = self._record
        if record.flows_key is None:
            return self._next_source(ObjectNotFoundError("the job was started without a flow archive"))
        try:
            archive = self._open(record.flows_key)
            if not self._is_ours(archive.meta) and record.flow_cache_key is not None:
                # A run that was superseded wrote its flows at the last moment; where all jobs find them are this run's.
                archive = self._open(record.flow_cache_key)
            return archive
        except TransientError:
            raise
        except _UNUSABLE as error:
            return self._next_source(error)

    def _open(self, key: str) -> FlowArchive:
        self._opened = key
        archive = open_flow_archive(self._services.storage, key, workers=self._services.workers)
        return archive.within(MAX_WORKING_GRID_PX)

    def _is_ours(self, meta: FlowMeta) -> bool:
        """Tell whether an archive may be this run's; one that does not say of what it is was put there on purpose."""
        record = self._record
        of = record.flow_cache or record.source
        return not meta.source_identity or (meta.source_identity, meta.engine) == (of.identity, record.engine)

    def _next_source(self, error: Exception) -> FlowSource:
        """Go one step down; from the last one, raise."""
        if self._source == "cache":
            if isinstance(error, FlowCacheError):
                remove_rotten_flows(self._record.flow_cache_key, self._reading, self._services)
            if self._record.sources:
                return self._from_parts(error)
            given = self._given(error)
            if given is not None:
                return given
            if self._record.request.structure_video is None and self._record.only_source is None:
                raise error
            self._fall_back("frames", error)
            try:
                return self._from_cached_frames()
            except TransientError:
                raise
            except _UNUSABLE as next_error:
                error = next_error
        if self._source == "frames":
            if self._manifest is not None and isinstance(error, FrameCacheError):
                self._repair = FrameRepair(self._manifest, error, self._services)
            self._fall_back("video", error)
            return self._from_video()
        raise error

    def _from_parts(self, error: Exception) -> FlowSource:
        """Join what the job joined from where each source's flows really are: the shared cache, frames, video."""
        if self._parts:
            raise error
        record = self._record
        self._fallbacks += (Fallback(stage=_STAGE, wanted="cache", used="sources", reason=str(error)),)
        opened: dict[str, SegmentFlows] = {}
        parts = []
        for number, source in enumerate(record.sources):
            if source.identity not in opened:
                folder = source_folder(self._folder, number)
                opened[source.identity] = SegmentFlows(record.of_source(number), self._services, folder)
            parts.append(Part(opened[source.identity], source.source_start_frame, source.part_frames, {}))
        self._parts = list(opened.values())
        return JoinedFlows(self._joined_meta(opened[record.sources[0].identity].meta), parts)

    def _joined_meta(self, first: FlowMeta) -> FlowMeta:
        """Return the description of the joined flows, the grid being `first`'s where the archive never told one."""
        record, source = self._record, self._record.source
        grid = self._grid or (first.height, first.width)
        return self._meta(grid, record.engine, record.engine_params, np.arange(source.frames) / source.fps)

    def _given(self, error: Exception) -> FlowSource | None:
        """Open the very archive that the request gives, once; None where it gives none, or it is gone."""
        record = self._record
        if record.flow_cache is None or self._given_tried:
            return None
        self._given_tried = True
        request = whole_request(self._services.storage, record.task_id, record.run_id, record.request)
        if request.flow_cache is None:
            return None
        source = self._services.inputs.known(request.flow_cache, record.flow_cache)
        try:
            flows = open_given(source, self._services, self._folder)
        except (InputChangedError, InputNotFoundError, FlowCacheError) as gone:
            self._fallbacks += (Fallback(stage=_STAGE, wanted="flow_cache", used="none", reason=str(gone)),)
            return None
        self._fallbacks += (Fallback(stage=_STAGE, wanted="cache", used="flow_cache", reason=str(error)),)
        return flows

    def _fall_back(self, used: FlowSourceName, error: Exception) -> None:
        step = Fallback(stage=_STAGE, wanted=self._source, used=used, reason=str(error))
        self._fallbacks += (step,)
        self._source = used

    def _from_cached_frames(self) -> FlowSource:
        cache = FrameCache(self._services.storage)
        timeline_id = self._record.timeline_id
        manifest = cache.manifest(timeline_id, source_identity=self._record.source.identity)
        self._manifest = manifest

        def load(first: int, last: int) -> Iterator[NDArray[np.uint8]]:
            # Always by the manifest that was looked at: another video may be cached there by now.
            wanted = range(first, last + 1)
            return (frame.image for frame in cache.iter_cached_frames(timeline_id, wanted, manifest=manifest))

        return self._computed(load)

    def _from_video(self) -> FlowSource:
        limits = DecodeLimits(max_frames=self._services.max_video_frames)
        decode = functools.partial(_decode, fetch_structure_video(self._record, self._services, self._folder), limits)
        repair = self._repair

        def load(first: int, last: int) -> Iterator[NDArray[np.uint8]]:
            frames = decode(first, last)
            return frames if repair is None else repair.watch(first, frames)

        return self._computed(load)

    def _computed(self, load: LoadFrames) -> FlowSource:
        record, source = self._record, self._record.source
        info = VideoInfo(source.frames, source.fps, source.width_px, source.height_px, source.frames / source.fps)
        engine = record.engine if runs_here(record.engine) else "dis"
        plan = plan_extraction(info, engine, record.request.quality)
        if self._grid is not None:
            plan = replace(plan, height=self._grid[0], width=self._grid[1])
        times_s = np.array(source.timestamps_s, np.float64)
        meta = self._meta((plan.height, plan.width), plan.engine, plan.params, times_s)
        return ComputedFlows(meta, plan, load, workers=self._services.workers)

    def _meta(
        self, grid: tuple[int, int], engine: str, params: Mapping[str, Any], times_s: NDArray[np.float64]
    ) -> FlowMeta:
        """Return the description of flows of the record's source, on a grid (height, width)."""
        record, source = self._record, self._record.source
        return FlowMeta(
            total_flows=source.frames - 1,
            height=grid[0],
            width=grid[1],
            original_height=source.height_px,
            original_width=source.width_px,
            original_fps=source.fps,
            has_backward=True,
            engine=engine,
            engine_params=params,
            timestamps_s=times_s,
            scene_cuts=record.scene_cuts,
            display_max_px=record.display_max_px,
            source_video=source.reference,
            source_identity=source.identity,
        )

    @property
    def engine(self) -> str:
        """The engine whose flows are really read, as of now."""
        return self._flows.meta.engine


def source_folder(folder: Path, number: int) -> Path:
    """Return the folder, made if need be, for temporary files of one of several sources."""
    path = folder / f"source_{number}"
    path.mkdir(exist_ok=True)
    return path


def fetch_structure_video(record: JobRecord, services: Services, folder: Path) -> Path:
    """Return the job's structure video as a file in `folder`; fetched once.

    Raises:
        InputNotFoundError, InputChangedError: it is gone, or another one lies there.
    """
    path = folder / "structure_video"
    if not path.exists():
        request = whole_request(services.storage, record.task_id, record.run_id, record.request)
        number = record.only_source
        reference = request.motion_source if number is None else request.structure_videos[number].path
        services.inputs.known(reference, record.source).fetch(path)
    return path


def runs_here(engine: str) -> bool:
    """Tell whether an engine runs in a function process; RAFT runs in the GPU container only."""
    return engine in ("dis", "farneback")


def _decode(path: Path, limits: DecodeLimits, first: int, last: int) -> Iterator[NDArray[np.uint8]]:
    with VideoReader(path, limits) as reader:
        reader.skip(first)
        for frame in reader:
            yield frame.image
            if frame.index == last:
                return

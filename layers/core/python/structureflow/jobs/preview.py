"""A gap of a segment at a quarter of its size, in seconds: what guides and settings make of it, before a job is sent.

The rendering is a segment's own. What costs time is left out: videos are not encoded, and flows that no job has
extracted yet are computed small, for the frames that the segment plays alone. Nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.errors import (
    FlowCacheError,
    FrameCacheError,
    InvalidRequestError,
    ObjectNotFoundError,
)
from structureflow.flow.archive import FlowArchive, open_flow_archive
from structureflow.flow.extract import plan_for_size
from structureflow.flow.fields import FlowMeta, FlowSource
from structureflow.frames.cache import FrameCache
from structureflow.frames.jpeg import encode_jpeg
from structureflow.frames.manifest import FrameManifest
from structureflow.guide.pictures import PLANES
from structureflow.guide.ports import Mask, Picture, StructureFrames
from structureflow.guide.refine import MATCHING
from structureflow.guide.render import RenderOutcome, RenderSettings, render_segment
from structureflow.guide.spans import flow_window, unguided_ranges
from structureflow.jobs.estimate import EXTRACTION_MB_PER_MPX, SEGMENT_BASE_MB
from structureflow.jobs.flow_sources import ComputedFlows
from structureflow.jobs.guides import FittedGuides
from structureflow.jobs.inputs import Source
from structureflow.jobs.preview_frames import CachedGrays, SmallGrays
from structureflow.jobs.render_segment import masking_of
from structureflow.jobs.services import Services
from structureflow.jobs.shared_flows import shared_flow_keys, timeline_of
from structureflow.limits import MAX_PREVIEW_BYTES, MAX_PREVIEW_FRAMES, MAX_PREVIEW_WINDOW, MAX_WORKING_GRID_PX
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.media.planes import planes_to_rgb
from structureflow.models.job import JobRequest, Segment
from structureflow.models.results import FlowSourceName
from structureflow.models.targets import output_size

_SHARE: Final = 4
_MAX_PIXELS: Final = 480 * 480
_MIN_SIDE: Final = 64
_QUALITY: Final = 80
#: Of small frames and the flows between them, which are held at once: RGB, two floats for both directions, and what the
#: rendering makes of them. Measured on 2026-11-26 with 242 frames of 1920x1080.
_HELD_PER_PIXEL: Final = 30
_HELD_BYTES: Final = 400_000_000

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """A frame of the gap: its number, and JPEGs of guide and mask."""

    frame: int
    guide: bytes
    mask: bytes


@dataclass(frozen=True, slots=True)
class Preview:
    """What a gap will look like.

    Attributes:
        gap: its first and last frame, both inclusive.
        width, height: of the pictures.
        frames: of it, evenly, the first and the last among them.
        outcome: what became of the whole segment.
        flow_source: what flows were read from, or computed of.
        notices: what of the job itself may look otherwise, in words.
        took_s: seconds.
    """

    gap: tuple[int, int]
    width: int
    height: int
    frames: tuple[ShownFrame, ...]
    outcome: RenderOutcome
    flow_source: FlowSourceName
    notices: tuple[str, ...]
    took_s: float


def preview_gap(
    request: JobRequest, index: int, gap: tuple[int, int] | None, shown: int, services: Services
) -> Preview:
    """Render one segment of a request small, and show a gap of it.

    Args:
        request: checked.
        index: of the segment.
        gap: first and last frame of one of its gaps; None: the first one.
        shown: so many frames of it, each is a JPEG in the reply.
        services: adapters and limits.

    Raises:
        InvalidRequestError: the segment has no such gap, or is too long; or the request has several structure videos.
        InputNotFoundError, MediaError, GuidanceError, FlowError: as a job would fail.
        MemoryLimitError: it takes more memory than the function has.
        DeadlineError: it takes longer than the function has.
    """
    begin = time.perf_counter()
    segment = _segment(request, index)
    chosen = _gap(segment, gap)
    source = services.inputs.find(request.motion_source)
    sources = {reference: services.inputs.find(reference) for reference in segment.references()}
    _check_size(sum(one.size_bytes for one in sources.values()), f"segments.{index}.guides")
    with services.scratch() as folder:
        motion = _Motion(request, index, source, services, folder)
        height, width = _size(request, motion.flows.meta)
        full = masking_of(request)
        settings = RenderSettings(
            height=height,
            width=width,
            treatment=request.treatment,
            anchors=request.anchors,
            motion_strength=request.motion_strength,
            flow_start=motion.window[0],
            flow_stop=motion.window[1],
            workers=services.workers,
            form=PLANES,
            matching=MATCHING["fast"] if request.tracking == "anchored" and motion.structure is not None else None,
            masking=replace(full, grid=max(1, full.grid // _SHARE)),
            seams=request.seams,
            match_color=request.match_color,
            motion=request.motion,
        )
        wanted = _evenly(chosen, shown)
        sink = _Shown(wanted, height, width, services)
        with FittedGuides(segment, services, sources, folder, height=height, width=width) as guides:
            outcome = render_segment(segment, motion.flows, guides, settings, sink, motion.structure)
    return Preview(
        gap=chosen,
        width=width,
        height=height,
        frames=tuple(sink.frames),
        outcome=outcome,
        flow_source=motion.source,
        notices=tuple(motion.notices),
        took_s=round(time.perf_counter() - begin, 3),
    )


def _segment(request: JobRequest, index: int) -> Segment:
    if request.structure_videos:
        raise InvalidRequestError("structure_videos: a preview is of one structure video, expected structure_video")
    if not 0 <= index < len(request.segments):
        raise InvalidRequestError(f"segment: expected 0 to {len(request.segments) - 1}, got {index}")
    segment = request.segments[index]
    if segment.frames > MAX_PREVIEW_FRAMES:
        raise InvalidRequestError(
            f"segments.{index}.frames: expected at most {MAX_PREVIEW_FRAMES} for a preview, got {segment.frames}"
        )
    return segment


def _check_size(size_bytes: int, what: str) -> None:
    if size_bytes > MAX_PREVIEW_BYTES:
        raise InvalidRequestError(
            f"{what}: expected at most {MAX_PREVIEW_BYTES} bytes for a preview, which fetches them whole, got "
            f"{size_bytes}; a job takes more"
        )


def _gap(segment: Segment, asked: tuple[int, int] | None) -> tuple[int, int]:
    gaps = unguided_ranges(segment)
    if asked is None and gaps:
        return gaps[0]
    if asked not in gaps:
        known = ", ".join(f"[{first}, {last}]" for first, last in gaps) or "none, for guides cover every frame"
        raise InvalidRequestError(f"gap: expected one of {known}, got {None if asked is None else list(asked)}")
    return asked


def _evenly(gap: tuple[int, int], count: int) -> list[int]:
    first, last = gap
    count = min(count, last - first + 1)
    if count == 1:
        return [first]
    return [first + round(step * (last - first) / (count - 1)) for step in range(count)]


def _size(request: JobRequest, meta: FlowMeta) -> tuple[int, int]:
    """Return height and width of the preview: a quarter of the job's, both even."""
    width, height = request.resolution or output_size(request.target, meta.original_width, meta.original_height)
    scale = min(1 / _SHARE, (_MAX_PIXELS / (width * height)) ** 0.5)
    scale = min(1.0, max(scale, _MIN_SIDE / min(width, height)))
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


class _Shown:
    """A `SegmentSink` that keeps the wanted frames as JPEGs."""

    def __init__(self, wanted: Sequence[int], height: int, width: int, services: Services) -> None:
        self.frames: list[ShownFrame] = []
        self._wanted = frozenset(wanted)
        self._size = height, width
        self._services = services

    def write(self, index: int, guide: Picture, mask: Mask) -> None:
        """See `SegmentSink.write`."""
        self._services.deadline.check("the preview")
        if index not in self._wanted:
            return
        values = np.full(self._size, mask, np.uint8) if isinstance(mask, int) else mask
        pictures = (planes_to_rgb(guide), np.repeat(values[:, :, None], 3, axis=2))
        encoded = [encode_jpeg(np.ascontiguousarray(picture), _QUALITY) for picture in pictures]
        self.frames.append(ShownFrame(index, encoded[0], encoded[1]))


class _Motion:
    """What a segment plays, from where it can be had soonest.

    Attributes:
        flows: the archive, or flows that are computed as they are read.
        window: those that the segment plays, start inclusive, stop exclusive.
        structure: the structure video's frames, where they are at hand.
        source: where flows come from.
        notices: what the job itself may make otherwise.
    """

    flows: FlowSource
    structure: StructureFrames | None

    def __init__(self, request: JobRequest, index: int, source: Source, services: Services, folder: Path) -> None:
        self.notices: list[str] = []
        self._request = request
        self._index = index
        self._services = services
        archive = self._archive(source)
        if archive is not None:
            self.source: FlowSourceName = "cache"
            self.flows = archive
            self.window = self._window(archive.meta.total_flows, archive.meta.timestamps_s)
            self.structure = self._cached_grays(source, archive.meta)
            return
        if request.flow_cache is not None:
            raise InvalidRequestError(
                "flow_cache: a preview plays the flows of an archive that a job has used before; expected "
                "structure_video, or a job on that archive first"
            )
        self.notices.append(
            "no job has extracted these flows yet: cuts are not looked for, and small motion may differ"
        )
        cached = self._manifest(source)
        if cached is not None:
            self.source = "frames"
            self._compute(*self._of_cache(cached), source)
        else:
            self.source = "video"
            video = folder / "structure_video"
            _check_size(source.size_bytes, "structure_video, whose flows no job has extracted yet")
            source.fetch(video)
            self._compute(*self._of_video(video), source)

    def _window(self, total: int, times_s: NDArray[np.float64]) -> tuple[int, int]:
        request = self._request
        return flow_window(request.segments, self._index, request.flow_span, total, request.treatment, times_s)

    def _archive(self, source: Source) -> FlowArchive | None:
        """Return the flows that a job would find, of the first engine whose there are."""
        for key in shared_flow_keys(self._request, source, self._services):
            try:
                archive = open_flow_archive(self._services.storage, key, workers=self._services.workers)
                return archive.within(MAX_WORKING_GRID_PX)
            except ObjectNotFoundError:
                continue
            except FlowCacheError as error:
                self.notices.append(f"{key} is damaged, the job will extract it anew: {error.message}")
        return None

    def _manifest(self, source: Source) -> FrameManifest | None:
        try:
            return FrameCache(self._services.storage).manifest(
                timeline_of(self._request, source), source_identity=source.identity
            )
        except FrameCacheError:
            return None

    def _cached_grays(self, source: Source, meta: FlowMeta) -> StructureFrames | None:
        manifest = self._manifest(source)
        if manifest is None:
            if self._request.tracking == "anchored":
                self.notices.append("the video's frames are not cached: paths are made of flows alone here")
            return None
        return CachedGrays(FrameCache(self._services.storage), manifest, meta.height, meta.width)

    # --- flows that are not there yet --------------------------------------------------------------

    def _of_cache(self, manifest: FrameManifest) -> tuple[int, int, int, NDArray[np.float64], Iterator[Image]]:
        """Return frames in all, height, width, times, and the frames of the window."""
        times_s = np.array(manifest.frames.timestamp_s, np.float64)
        first, last = self._frames_of(manifest.total, times_s)
        cache = FrameCache(self._services.storage)
        loaded = cache.iter_cached_frames(manifest.timeline_id, range(first, last + 1), manifest=manifest)
        chunk = manifest.chunks[0]
        return manifest.total, chunk.height_px, chunk.width_px, times_s, (frame.image for frame in loaded)

    def _of_video(self, video: Path) -> tuple[int, int, int, NDArray[np.float64], Iterator[Image]]:
        limits = DecodeLimits(max_frames=self._services.max_video_frames)
        with VideoReader(video, limits) as reader:
            info = reader.info
        times_s = np.arange(info.frames) / info.fps
        first, last = self._frames_of(info.frames, times_s)

        def decode() -> Iterator[Image]:
            with VideoReader(video, limits) as again:
                again.skip(first)
                for _, frame in zip(range(first, last + 1), again, strict=False):
                    yield frame.image

        return info.frames, info.height_px, info.width_px, times_s, decode()

    def _frames_of(self, total: int, times_s: NDArray[np.float64]) -> tuple[int, int]:
        """Return the frames that the window's flows lie between, and one more, both inclusive."""
        self.window = self._window(total - 1, times_s)
        first, last = self.window[0], min(self.window[1] + 1, total - 1)
        if last - first + 1 > MAX_PREVIEW_WINDOW:
            raise InvalidRequestError(
                f"segments.{self._index}: it plays {last - first + 1} frames of a video whose flows no job has "
                f"extracted yet; a preview computes them for {MAX_PREVIEW_WINDOW} at most, so send the job first"
            )
        return first, last

    def _compute(
        self,
        total: int,
        height: int,
        width: int,
        times_s: NDArray[np.float64],
        frames: Iterator[Image],
        source: Source,
    ) -> None:
        first, last = self.window
        bytes_per_pixel = (last - first + 2) * _HELD_PER_PIXEL
        pixels = min(_MAX_PIXELS, _HELD_BYTES / bytes_per_pixel)
        scale = min(1 / _SHARE, (pixels / (width * height)) ** 0.5)
        small_height, small_width = max(32, int(height * scale)), max(32, int(width * scale))
        held_mb = small_height * small_width * bytes_per_pixel / 1e6
        decoding_mb = EXTRACTION_MB_PER_MPX * width * height / 1e6
        self._services.check_memory(SEGMENT_BASE_MB + decoding_mb + held_mb, "the preview")
        small: list[Image] = []
        for image in frames:
            self._services.deadline.check("the preview")
            size = (small_width, small_height)
            small.append(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8))
        plan = plan_for_size(small_height, small_width, "dis", "fast")

        def load(begin: int, end: int) -> Iterator[Image]:
            return iter(small[begin - first : end - first + 1])

        span_s = float(times_s[-1] - times_s[0]) if total > 1 else 0.0
        meta = FlowMeta(
            total_flows=total - 1,
            height=plan.height,
            width=plan.width,
            original_height=height,
            original_width=width,
            original_fps=(total - 1) / span_s if span_s > 0 else 16.0,
            has_backward=True,
            engine=plan.engine,
            engine_params=plan.params,
            timestamps_s=times_s,
            source_identity=source.identity,
        )
        self.flows = ComputedFlows(meta, plan, load, workers=self._services.workers)
        self.structure = SmallGrays(small, first, plan.height, plan.width)

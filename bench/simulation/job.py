"""The way of a job through the cloud: taken up, extracted in one function or in parts, rendered, assembled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.simulation.cloud import EVENT_S, REQUEST_S, TRANSITION_S, Cloud
from bench.simulation.loop import Places, Process, Rate, Wait
from structureflow.jobs.estimate import ANCHOR_MS, CARRY_MS_PER_MPX, ENCODE_MS_PER_MPX, FLOW_MS_PER_PAIR
from structureflow.jobs.forecast import ASSEMBLE_MB, FLOW_BYTES, PLAN_MB
from structureflow.limits import DECODE_MS_PER_MPX, JPEG_MS_PER_MPX, MAX_INLINE_SEGMENTS, MAX_SEGMENTS

#: Frames of a part, and of the longest video that one function extracts.
PART_FRAMES: Final = 150
#: S3's least size of a part of an upload: blocks are copied in groups of it.
COPY_BYTES: Final = 5 * 2**20
#: Of a container's index, for each frame: sizes, times, offsets, key frames.
INDEX_BYTES: Final = 16
#: Threads that a function's work can use.
_THREADS: Final = 8.0
#: Small requests of a function that are in flight.
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Video:
    """A structure video."""

    seconds: float
    width_px: int
    height_px: int
    fps: float = 25.0
    bits_per_pixel: float = 0.18

    @property
    def frames(self) -> int:
        """How many."""
        return max(2, round(self.seconds * self.fps))

    @property
    def megapixels(self) -> float:
        """Of a frame."""
        return self.width_px * self.height_px / 1e6

    @property
    def size_bytes(self) -> float:
        """Of the file."""
        return self.frames * self.megapixels * 1e6 * self.bits_per_pixel / 8


@dataclass(frozen=True, slots=True)
class Work:
    """A job: its video, its segments of so many frames, the preset.

    Attributes:
        cached: flows and frames are there already.
        in_parts: long videos are extracted in parts.
    """

    video: Video
    segments: int
    segment_frames: int = 81
    quality: str = "balanced"
    anchors: int = 2
    cached: bool = False
    in_parts: bool = True


@dataclass(slots=True)
class Outcome:
    """Seconds from the request: when the flows were there, the first and the last segment began, all was done."""

    flows_s: float = 0.0
    first_segment_s: float = 0.0
    last_segment_s: float = 0.0
    done_s: float = 0.0


def segments_of(video: Video, seconds: float = 5.0) -> int:
    """Return how many segments of that length a video fills, at most what a job may have."""
    return min(MAX_SEGMENTS, max(1, round(video.seconds / seconds)))


def extraction_core_s(video: Video, quality: str, frames: int) -> float:
    """Return seconds of one core to decode frames, compute their flows and write their JPEGs, as measured."""
    each_ms = (DECODE_MS_PER_MPX + JPEG_MS_PER_MPX) * video.megapixels + FLOW_MS_PER_PAIR["dis", quality]
    return frames * each_ms / 1000


def segment_core_s(work: Work) -> float:
    """Return seconds of one core for a segment, nearly all of whose frames are unguided."""
    moved_ms = work.anchors * (CARRY_MS_PER_MPX * work.video.megapixels + ANCHOR_MS[work.quality])
    return work.segment_frames * (ENCODE_MS_PER_MPX * work.video.megapixels + moved_ms) / 1000


class Job:
    """One job on its way; `outcome` fills up as `run` goes on."""

    def __init__(self, cloud: Cloud, work: Work, *, segment_s: float | None = None) -> None:
        self._cloud = cloud
        self._work = work
        self._segment_core_s = segment_core_s(work) if segment_s is None else segment_s
        self._began = 0.0
        # Frames of a video are under one prefix, of its own timeline.
        self._frames = Rate(cloud.loop, cloud.quotas.writes_per_s, cloud.quotas.writes_per_s)
        self.outcome = Outcome()

    def run(self) -> Process:
        """Put the request, and follow the job to its end."""
        cloud, work = self._cloud, self._work
        self._began = cloud.loop.now
        yield EVENT_S
        yield cloud.orchestrators.take
        in_parts = work.in_parts and work.video.frames > PART_FRAMES
        whole = not in_parts and not work.cached
        yield from self._pixels("Orchestrator", self._extract_whole() if whole else self._plan())
        cloud.orchestrators.give_back()
        if in_parts and not work.cached:
            yield from self._extract_in_parts()
        self.outcome.flows_s = self._passed_s()
        yield EVENT_S
        yield from self._render()
        self.outcome.done_s = self._passed_s()

    # --- extraction ------------------------------------------------------------------------------------

    def _plan(self) -> Process:
        """Validate, look the flows up, read the container's index."""
        yield self._cloud.small_requests(writes=4, reads=17, at_once=2)
        yield self._cloud.transfer(self._work.video.frames * INDEX_BYTES)

    def _extract_whole(self) -> Process:
        yield from self._plan()
        yield self._cloud.transfer(self._work.video.size_bytes)
        yield from self._extract(self._work.video.frames)
        yield self._cloud.small_requests(writes=4)

    def _extract(self, frames: int) -> Process:
        """Compute the flows of frames while the frames are written; the slower of both is waited for."""
        cloud, work = self._cloud, self._work
        cloud.used.counts["writes"] += frames
        computed = cloud.compute(extraction_core_s(work.video, work.quality, frames), _THREADS)
        yield cloud.loop.together([_waiting(computed), self._write_frames(frames)])

    def _write_frames(self, frames: int) -> Process:
        yield self._frames.take(frames)
        yield REQUEST_S * -(-frames // _AT_ONCE)

    def _extract_in_parts(self) -> Process:
        """A Distributed Map of parts, then the join of what they wrote."""
        cloud, work = self._cloud, self._work
        left, parts = work.video.frames, []
        while left:
            parts.append(min(PART_FRAMES, left))
            left -= parts[-1]
        yield cloud.executions.take()
        yield from self._distributed(parts, cloud.quotas.children, self._part)
        yield from self._pixels("JoinParts", self._join(len(parts)))

    def _part(self, frames: int) -> Process:
        yield from self._pixels("ExtractPart", self._one_part(frames))

    def _one_part(self, frames: int) -> Process:
        cloud, work = self._cloud, self._work
        yield cloud.transfer(work.video.size_bytes * frames / work.video.frames)
        yield from self._extract(frames)
        yield cloud.small_requests(writes=3, reads=3, at_once=2)

    def _join(self, parts: int) -> Process:
        """Copy compressed blocks into one archive, without reading them; the tables of parts are read."""
        groups = max(1, round(FLOW_BYTES * self._work.video.frames / COPY_BYTES))
        yield self._cloud.small_requests(writes=min(groups, parts) + 4, reads=parts)

    # --- segments --------------------------------------------------------------------------------------

    def _render(self) -> Process:
        cloud, work = self._cloud, self._work
        yield cloud.executions.take()
        yield from self._light("PlanSegments", cloud.small_requests(writes=3, reads=4, at_once=2), PLAN_MB)
        cloud.used.counts["transitions"] += 6 + work.segments
        items = list(range(work.segments))
        if work.segments <= MAX_INLINE_SEGMENTS:
            yield cloud.loop.together(self._segment(item) for item in items)
        else:
            yield from self._distributed(items, cloud.quotas.segments_at_once, self._segment)
        # Results, previews and files are looked at, copied and listed.
        requests_s = cloud.small_requests(writes=10 + 3 * work.segments, reads=19 + 12 * work.segments)
        yield from self._light("AssembleJob", requests_s, ASSEMBLE_MB)

    def _segment(self, _: int) -> Process:
        yield TRANSITION_S
        yield from self._pixels("RenderSegment", self._one_segment())

    def _one_segment(self) -> Process:
        cloud, work = self._cloud, self._work
        self.outcome.first_segment_s = self.outcome.first_segment_s or self._passed_s()
        self.outcome.last_segment_s = self._passed_s()
        yield cloud.small_requests(reads=18 + work.segment_frames)
        yield cloud.transfer(FLOW_BYTES * work.segment_frames)
        yield cloud.compute(self._segment_core_s, _THREADS)
        yield cloud.small_requests(writes=4, at_once=2)

    # --- calls -----------------------------------------------------------------------------------------

    def _pixels(self, function: str, work: Process) -> Process:
        yield from self._cloud.call(function, work, memory_mb=self._cloud.quotas.memory_mb, kind="image")

    def _light(self, function: str, seconds: float, memory_mb: int) -> Process:
        yield from self._cloud.call(function, _waiting(seconds), memory_mb=memory_mb, kind="zip")

    def _distributed(self, items: list[int], width: int, process: Callable[[int], Process]) -> Process:
        """A Distributed Map: every item is an execution, which has to be started."""
        cloud = self._cloud
        places = Places(cloud.loop, width)
        cloud.used.counts["transitions"] += 2 * len(items)

        def child(item: int) -> Process:
            yield places.take
            yield cloud.executions.take()
            yield from process(item)
            places.give_back()

        yield cloud.loop.together(child(item) for item in items)

    def _passed_s(self) -> float:
        return self._cloud.loop.now - self._began


def _waiting(wait: float | Wait) -> Process:
    yield wait

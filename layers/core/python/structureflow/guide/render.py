"""Render one segment: its guided frames as given, its unguided frames filled by the structure video's motion.

What stands where is decided once, from the request alone:

* Frames that a guide covers show it, and are kept (mask 0).
* The unguided frames between are filled by motion (mask 0) where an anchor's content reaches them: the last
  guided frame before them, carried forward, and under ``anchors: both`` the next guided frame, carried back.
* All other frames are mid-grey and left to the generator (mask 255): before the first guided frame (a grey
  anchor carries nothing, and keeping its grey would make the generator keep grey), behind a scene cut that no
  anchor lies on the far side of, past the last flow under ``clip``, and all of them without flows.

Flows are consumed in order, one step per unguided frame, by frames that stay unguided too: what a segment's
third gap plays does not depend on whether the first had an anchor.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np

from structureflow.errors import GuidanceError
from structureflow.flow.fields import FlowMeta, FlowSource, Treatment
from structureflow.guide.drawing import Anchors as HeldAnchors
from structureflow.guide.drawing import Sheet, Slot
from structureflow.guide.feed import FrameFeed
from structureflow.guide.gap import FrameEvidence, GapMotion
from structureflow.guide.masks import GENERATE, KEEP, MaskValue
from structureflow.guide.pictures import RGB, PictureFormat
from structureflow.guide.plan import PathPlan
from structureflow.guide.planned import PlannedFlows
from structureflow.guide.ports import GuideSource, MotionSink, PathSink, Picture, SegmentSink, StructureFrames
from structureflow.guide.refine import Matching, fits_matcher
from structureflow.guide.spans import unguided_count, unguided_ranges, without
from structureflow.guide.tracker import GuidanceTracker
from structureflow.guide.travel import Move, TravelSink, segment_moves
from structureflow.guide.warp import expand_mask
from structureflow.models.job import Anchors, Guide, MotionPart, Segment, Tracking

MAX_MOTION_STRENGTH: Final = 10.0


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """How a segment is rendered.

    Attributes:
        height, width: of the output, in pixels.
        treatment: how the flows of the window become one step per unguided frame.
        anchors: `start`, or `both` to carry the next guided frame back as well.
        motion_strength: every step of the path is this many times as long; 0 (anchors stand still) to 10.
        flow_start, flow_stop: the window of flows to play, start inclusive, stop exclusive (`spans.flow_window`).
        workers: threads, 1 or more; the result does not depend on it.
        form: in which pictures of guides come and frames go; planes need even sides.
        matching: how paths are refined against structure frames; None: they are composed of flows alone.
        motion: which part of it is applied: all of it, the camera's, or that of what moves by itself.
    """

    height: int
    width: int
    treatment: Treatment
    anchors: Anchors
    motion_strength: float
    flow_start: int
    flow_stop: int
    workers: int = 2
    form: PictureFormat = RGB
    matching: Matching | None = None
    motion: MotionPart = "all"

    def __post_init__(self) -> None:
        """Refuse what no request can ask for.

        Raises:
            GuidanceError: a value is out of its range.
        """
        if self.height < 1 or self.width < 1:
            raise GuidanceError(f"resolution: expected positive sides, got {self.width}x{self.height}")
        if self.form is not RGB and (self.height % 2 or self.width % 2):
            raise GuidanceError(f"resolution: expected even sides, got {self.width}x{self.height}")
        if not 0 <= self.motion_strength <= MAX_MOTION_STRENGTH:
            raise GuidanceError(f"motion_strength: expected 0 to {MAX_MOTION_STRENGTH:g}, got {self.motion_strength}")
        if self.workers < 1:
            raise GuidanceError(f"workers: expected 1 or more, got {self.workers}")


@dataclass(frozen=True, slots=True)
class RenderOutcome:
    """What became of the frames; ranges are inclusive pairs of frame numbers.

    Attributes:
        unguided: ranges that no guide covers.
        filled: the part of them that motion filled (mask 0).
        left_unguided: the rest (mask 255, mid-grey).
        flows_used: how many flows of the window the segment's steps are made of.
        tracking: `anchored` if paths were refined against structure frames, else `composed`.
        frames_problem: why structure frames were missing though they were wanted; empty if none was.
        evidence: how well each filled frame is known, by its number; empty where paths are composed.
        timings_s: seconds in `flows` (reading and joining), `wait` (for warps), `sink` (writing), `total`.
    """

    unguided: tuple[tuple[int, int], ...]
    filled: tuple[tuple[int, int], ...]
    left_unguided: tuple[tuple[int, int], ...]
    flows_used: int
    timings_s: dict[str, float]
    tracking: Tracking = "composed"
    frames_problem: str = ""
    evidence: dict[int, FrameEvidence] = field(default_factory=dict)


def render_segment(
    segment: Segment,
    flows: FlowSource | None,
    guides: GuideSource,
    settings: RenderSettings,
    sink: SegmentSink,
    structure: StructureFrames | None = None,
) -> RenderOutcome:
    """Render every frame of a segment into a sink, in order.

    Flows are read in chunks, only those that are played; memory does not grow with the structure video.

    Args:
        segment: its length and guides.
        flows: the structure video's flows; None where there are none, which leaves unguided frames unguided.
        guides: the pictures.
        settings: see `RenderSettings`.
        sink: takes the frames; a `MotionSink` may also take flow and visibility.
        structure: the structure video's frames, in which paths are anchored; None: they are composed.

    Returns:
        What became of the unguided frames.

    Raises:
        GuidanceError: a guide picture is not of the resolution, a guide video ends early, or the window does
            not lie inside of the flows.
        FlowError: a flow is unusable.
        FlowCacheError: the archive is unreadable or corrupt where it was read.
    """
    return _SegmentRenderer(segment, flows, guides, settings, sink, structure).run()


class _SegmentRenderer:
    def __init__(
        self,
        segment: Segment,
        flows: FlowSource | None,
        guides: GuideSource,
        settings: RenderSettings,
        sink: SegmentSink,
        structure: StructureFrames | None,
    ) -> None:
        self._structure = structure
        self._feed: FrameFeed | None = None
        self._evidence: dict[int, FrameEvidence] = {}
        self._segment = segment
        self._guides = guides
        self._settings = settings
        self._sink = sink
        self._motion_sink = sink if isinstance(sink, MotionSink) else None
        self._path_sink = sink if isinstance(sink, PathSink) and sink.wants_path else None
        self._wants_flow = self._motion_sink is not None and self._motion_sink.wants_flow
        self._wants_visibility = self._motion_sink is not None and self._motion_sink.wants_visibility
        self._travel_sink = sink if isinstance(sink, TravelSink) and sink.wants_steps else None
        self._moves: Iterator[Move] = iter(())
        self._tracker = GuidanceTracker(segment.frames)
        self._timings = {"flows": 0.0, "wait": 0.0, "sink": 0.0}
        self._grey = settings.form.grey(settings.height, settings.width)
        self._still = np.zeros((settings.height, settings.width, 2), np.float32) if self._wants_flow else None
        self._plan: PathPlan | None = None
        self._anchors: HeldAnchors | None = None
        self._flows = flows
        if flows is not None:
            self._plan = path_plan(segment, settings, flows.meta)
            self._sheet = Sheet(settings.form, flows.meta, settings.height, settings.width)
            self._anchors = HeldAnchors(self._sheet)
        self._planned: PlannedFlows | None = None
        self._slots: list[Slot] = []

    def run(self) -> RenderOutcome:
        begin = time.perf_counter()
        unguided = unguided_ranges(self._segment)
        consumed = 0
        position = 0
        last: Picture | None = None
        upcoming: Iterator[Picture] | None = None
        with (
            ThreadPoolExecutor(self._settings.workers, thread_name_prefix="warp") as pool,
            ThreadPoolExecutor(2, thread_name_prefix="flows") as io,
            ThreadPoolExecutor(1, thread_name_prefix="travel") as travel,
            ExitStack() as stack,
        ):
            if self._flows is not None and self._plan is not None:
                strength, part = self._settings.motion_strength, self._settings.motion
                self._planned = PlannedFlows(self._flows, self._plan, io, strength=strength, part=part)
                self._feed = self._anchoring(self._plan, self._planned.shape, io)
            if self._travel_sink is not None and self._planned is not None and self._plan is not None:
                self._moves = stack.enter_context(
                    closing(
                        segment_moves(
                            self._planned,
                            self._plan,
                            unguided_count(self._segment),
                            travel,
                            ways=self._travel_sink.wants_ways,
                            feed=self._feed,
                            matching=self._settings.matching,
                        )
                    )
                )
            for first, final in unguided:
                last, upcoming = self._write_guides(position, first, upcoming, last)
                end_anchor: Picture | None = None
                if self._settings.anchors == "both" and final + 1 < self._segment.frames:
                    upcoming = self._frames_of(self._guide_at(final + 1))
                    end_anchor = next(upcoming)
                    upcoming = itertools.chain((end_anchor,), upcoming)
                self._fill(pool, first, final, consumed, last, end_anchor)
                consumed += final + 1 - first
                position = final + 1
            self._write_guides(position, self._segment.frames, upcoming, last)
        self._timings["total"] = time.perf_counter() - begin
        left = tuple(self._tracker.get_unguidanced_ranges())
        return RenderOutcome(
            unguided=tuple(unguided),
            filled=without(unguided, left),
            left_unguided=left,
            flows_used=self._plan.flows_used if self._plan else 0,
            timings_s=self._timings,
            tracking="anchored" if self._feed is not None and self._feed.delivered else "composed",
            frames_problem=self._feed.problem if self._feed else "",
            evidence=self._evidence,
        )

    def _anchoring(self, plan: PathPlan, shape: tuple[int, int], io: Executor) -> FrameFeed | None:
        """Return the structure frames that paths are looked at in; None where paths are composed."""
        settings = self._settings
        if settings.matching is None or self._structure is None or settings.motion_strength == 0:
            return None
        if not plan.anchorable or not plan.steps or not fits_matcher(shape):
            return None
        return FrameFeed(self._structure, plan.frames_looked_at(), shape, io)

    # --- guides --------------------------------------------------------------------------------------

    def _guide_at(self, index: int) -> Guide:
        return next(guide for guide in self._segment.guides if guide.first == index)

    def _frames_of(self, guide: Guide) -> Iterator[Picture]:
        count = guide.last - guide.first + 1
        if guide.image is not None:
            yield from itertools.repeat(self._checked(self._guides.image(guide.image), guide), count)
        elif guide.fade is not None:
            before, after = (self._checked(self._guides.image(reference), guide) for reference in guide.fade)
            mixed = np.empty_like(before)
            for number in range(1, count + 1):
                yield cross_fade(before, after, number / count, out=mixed)
        elif guide.video is not None:
            given = 0
            for frame in itertools.islice(self._guides.video(guide.video, guide.from_frame, count), count):
                given += 1
                yield self._checked(frame, guide)
            if given < count:
                raise GuidanceError(
                    f"guide at {guide.at}: expected {count} frames from frame {guide.from_frame} of {guide.video}, "
                    f"got {given}"
                )

    def _checked(self, frame: Picture, guide: Guide) -> Picture:
        expected = self._settings.form.shape(self._settings.height, self._settings.width)
        if frame.shape != expected or frame.dtype != np.uint8:
            raise GuidanceError(f"guide at {guide.at}: expected {expected} uint8, got {frame.shape} {frame.dtype}")
        return np.ascontiguousarray(frame)

    def _write_guides(
        self, position: int, stop: int, upcoming: Iterator[Picture] | None, last: Picture | None
    ) -> tuple[Picture | None, None]:
        """Write the guided frames from `position` to `stop` (exclusive); return a copy of the last one."""
        while position < stop:
            guide = self._guide_at(position)
            for frame in upcoming or self._frames_of(guide):
                if position == stop - 1:
                    last = frame.copy() if frame.flags.writeable else frame
                self._write(position, frame, KEEP)
                position += 1
            upcoming = None
        return last, None

    # --- motion --------------------------------------------------------------------------------------

    def _fill(
        self,
        pool: ThreadPoolExecutor,
        first: int,
        final: int,
        consumed: int,
        start_anchor: Picture | None,
        end_anchor: Picture | None,
    ) -> None:
        count = final + 1 - first
        if self._plan is None or self._planned is None or self._anchors is None:
            for index in range(first, final + 1):
                self._write(index, self._grey, GENERATE)
            return
        gap = GapMotion(
            self._planned,
            self._plan,
            consumed,
            count,
            from_start=start_anchor is not None,
            from_end=end_anchor is not None,
            wants_visibility=self._wants_visibility,
            wants_flow=self._wants_flow,
            feed=self._feed,
            matching=self._settings.matching,
        )
        if not self._slots and gap.start_reach + gap.end_reach:
            self._slots = [Slot(self._sheet) for _ in range(self._settings.workers + 1)]
        self._anchors.hold(start_anchor if gap.start_reach else None, end_anchor if gap.end_reach else None, pool)
        pending: deque[tuple[int, Slot | None, Future[None] | None]] = deque()
        idle = list(self._slots)
        begin = time.perf_counter()
        for offset, motion in enumerate(gap.frames()):
            slot: Slot | None = None
            future: Future[None] | None = None
            if motion is not None:
                self._timings["flows"] += time.perf_counter() - begin
                if not idle:
                    idle.extend(self._finish(pending))
                begin = time.perf_counter()
                slot = idle.pop()
                slot.take(motion)
                if motion.evidence is not None:
                    self._evidence[first + offset] = motion.evidence
                future = pool.submit(slot.draw, self._anchors)
            pending.append((first + offset, slot, future))
        self._timings["flows"] += time.perf_counter() - begin
        while pending:
            self._finish(pending)

    def _finish(self, pending: deque[tuple[int, Slot | None, Future[None] | None]]) -> list[Slot]:
        """Write the oldest frames under way, up to and including the first that was drawn; return its slot."""
        while pending:
            index, slot, future = pending.popleft()
            if slot is None or future is None:
                self._write(index, self._grey, GENERATE)
                continue
            begin = time.perf_counter()
            future.result()
            self._timings["wait"] += time.perf_counter() - begin
            self._write(index, slot.picture, KEEP, slot)
            return [slot]
        return []

    # --- sink ----------------------------------------------------------------------------------------

    def _write(self, index: int, frame: Picture, mask: MaskValue, slot: Slot | None = None) -> None:
        begin = time.perf_counter()
        if self._motion_sink is not None:
            self._show_motion(self._motion_sink, index, mask, slot)
        if self._path_sink is not None and slot is not None:
            self._path_sink.path(index, slot.path())
        if self._travel_sink is not None:
            guided = any(guide.first <= index <= guide.last for guide in self._segment.guides)
            self._travel_sink.move(index, None if guided else next(self._moves, None))
        self._sink.write(index, frame, mask)
        if mask == KEEP:
            self._tracker.mark_single_frame(index)
        self._timings["sink"] += time.perf_counter() - begin

    def _show_motion(self, sink: MotionSink, index: int, mask: MaskValue, slot: Slot | None) -> None:
        if self._still is not None:
            if slot is None or slot.motion.step is None:
                sink.flow(index, self._still)
            else:
                sink.flow(index, slot.flow())
        if self._wants_visibility:
            height, width = self._settings.height, self._settings.width
            if slot is None or slot.motion.visibility is None:
                sink.visibility(index, np.full((height, width), 255 - mask, np.uint8))
            else:
                sink.visibility(index, expand_mask(slot.motion.visibility, self._sheet.geometry))


def path_plan(segment: Segment, settings: RenderSettings, meta: FlowMeta) -> PathPlan:
    """Return what the unguided frames of a segment play of flows that `meta` describes."""
    return PathPlan(
        start=settings.flow_start,
        stop=settings.flow_stop,
        total_flows=meta.total_flows,
        target_count=unguided_count(segment),
        treatment=settings.treatment,
        scene_cuts=meta.scene_cuts,
        timestamps_s=meta.timestamps_s,
    )


def cross_fade(before: Picture, after: Picture, share: float, out: Picture | None = None) -> Picture:
    """Mix two pictures of one format: `share` 0 is all `before`, 1 is exactly `after`; to `out`, or to a new array."""
    mixed = np.empty_like(before) if out is None else out
    cv2.addWeighted(before, 1 - share, after, share, 0, dst=mixed)
    return mixed

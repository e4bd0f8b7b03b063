"""Render one segment: its guided frames as given, its unguided frames filled by the structure video's motion.

What stands where is decided once, from the request alone:

* Frames that a guide covers show it, and are kept (mask 0).
* The unguided frames between are filled by motion where an anchor's content reaches them: the last guided frame
  before them, carried forward, and under ``anchors: both`` the next guided frame, carried back. What of them is
  kept, `Masking` says.
* All other frames are mid-grey and left to the generator (mask 255): before the first guided frame (a grey
  anchor carries nothing, and keeping its grey would make the generator keep grey), behind a scene cut that no
  anchor lies on the far side of, past the last flow under ``clip``, those of which `Masking` hides all, and all of
  them without flows.

Flows are consumed in order, one step per unguided frame, by frames that stay unguided too: what a segment's
third gap plays does not depend on whether the first had an anchor. Under ``retime`` the step into the guide behind a
gap is one of them (`spans.led_frames`).
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing

import cv2
import numpy as np

from structureflow.flow.fields import FlowMeta, FlowSource
from structureflow.guide.drawing import Anchors as HeldAnchors
from structureflow.guide.drawing import Sheet, Slot
from structureflow.guide.feed import FrameFeed
from structureflow.guide.gap import FrameEvidence, GapMotion
from structureflow.guide.given import GivenFrames
from structureflow.guide.groups import in_groups
from structureflow.guide.masks import GENERATE, KEEP
from structureflow.guide.plan import PathPlan, Plan
from structureflow.guide.planned import PlannedFlows
from structureflow.guide.ports import (
    GuideSource,
    Mask,
    MotionSink,
    PathSink,
    Picture,
    SegmentSink,
    StructureFrames,
    WholeSink,
)
from structureflow.guide.refine import fits_matcher
from structureflow.guide.seams import Comparison
from structureflow.guide.settings import RenderOutcome as RenderOutcome
from structureflow.guide.settings import RenderSettings as RenderSettings
from structureflow.guide.spans import led_frames, unguided_ranges, without
from structureflow.guide.tracker import GuidanceTracker
from structureflow.guide.travel import Move, TravelSink, segment_moves
from structureflow.guide.warp import expand_mask
from structureflow.models.job import Segment


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
        self._given = GivenFrames(segment, guides, settings)
        self._settings = settings
        self._sink = sink
        self._motion_sink = sink if isinstance(sink, MotionSink) else None
        self._path_sink = sink if isinstance(sink, PathSink) and sink.wants_path else None
        self._wants_flow = self._motion_sink is not None and self._motion_sink.wants_flow
        self._wants_visibility = self._motion_sink is not None and self._motion_sink.wants_visibility
        self._travel_sink = sink if isinstance(sink, TravelSink) and sink.wants_steps else None
        self._whole_sink = sink if isinstance(sink, WholeSink) and sink.wants_whole else None
        self._moves: Iterator[Move] = iter(())
        self._led: frozenset[int] = frozenset()
        self._tracker = GuidanceTracker(segment.frames)
        self._kept = 0.0
        self._timings = {"flows": 0.0, "wait": 0.0, "sink": 0.0}
        self._grey = settings.form.grey(settings.height, settings.width)
        self._still = np.zeros((settings.height, settings.width, 2), np.float32) if self._wants_flow else None
        self._plan: Plan | None = None
        self._anchors: HeldAnchors | None = None
        self._comparison: Comparison | None = None
        self._flows = flows
        if flows is not None:
            self._plan = path_plan(segment, settings, flows.meta)
            self._led = frozenset(self._plan.led)
            self._sheet = Sheet(settings.form, flows.meta, settings.height, settings.width)
            self._anchors = HeldAnchors(self._sheet)
            if settings.seams == "choose" or settings.match_color:
                self._comparison = Comparison(settings.form, self._sheet.geometry)
        self._planned: PlannedFlows | None = None
        self._slots: list[Slot] = []

    def run(self) -> RenderOutcome:
        begin = time.perf_counter()
        unguided = unguided_ranges(self._segment)
        position = 0
        last: Picture | None = None
        upcoming: Iterator[Picture] | None = None
        with (
            ThreadPoolExecutor(self._settings.workers, thread_name_prefix="warp") as pool,
            ThreadPoolExecutor(2, thread_name_prefix="flows") as io,
            ThreadPoolExecutor(1, thread_name_prefix="frames") as frames_io,
            ThreadPoolExecutor(1, thread_name_prefix="travel") as travel,
            ExitStack() as stack,
        ):
            if self._flows is not None and self._plan is not None:
                strength = self._plan.strength(self._settings.motion_strength)
                self._planned = PlannedFlows(self._flows, self._plan, io, strength=strength, part=self._settings.motion)
                self._feed = self._anchoring(self._plan, self._planned.shape, frames_io)
            if self._travel_sink is not None and self._planned is not None and self._plan is not None:
                self._moves = stack.enter_context(
                    closing(
                        segment_moves(
                            self._planned,
                            self._plan,
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
                    upcoming = self._given.of(self._given.guide_at(final + 1))
                    end_anchor = next(upcoming)
                    upcoming = itertools.chain((end_anchor,), upcoming)
                self._fill(pool, first, final, last, end_anchor)
                position = final + 1
            self._write_guides(position, self._segment.frames, upcoming, last)
        self._timings["total"] = time.perf_counter() - begin
        left = tuple(self._tracker.get_unguidanced_ranges())
        return RenderOutcome(
            unguided=tuple(unguided),
            filled=without(unguided, left),
            left_unguided=left,
            kept=self._kept / self._segment.frames,
            flows_used=self._plan.flows_used if self._plan else 0,
            timings_s=self._timings,
            tracking="anchored" if self._feed is not None and self._feed.delivered else "composed",
            frames_problem=self._feed.problem if self._feed else "",
            evidence=self._evidence,
        )

    def _anchoring(self, plan: Plan, shape: tuple[int, int], io: Executor) -> FrameFeed | None:
        """Return the structure frames that paths are looked at in; None where paths are composed."""
        settings = self._settings
        if settings.matching is None or self._structure is None or not any(settings.strengths):
            return None
        if not plan.anchorable or not plan.steps or not fits_matcher(shape):
            return None
        looked_at = plan.frames_looked_at()
        feed = FrameFeed(self._structure, looked_at, shape, io)
        feed.begin(looked_at[0])
        return feed

    # --- guides --------------------------------------------------------------------------------------

    def _write_guides(
        self, position: int, stop: int, upcoming: Iterator[Picture] | None, last: Picture | None
    ) -> tuple[Picture | None, None]:
        """Write the guided frames from `position` to `stop` (exclusive); return a copy of the last one."""
        while position < stop:
            guide = self._given.guide_at(position)
            for frame in upcoming or self._given.of(guide):
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
        start_anchor: Picture | None,
        end_anchor: Picture | None,
    ) -> None:
        count = final + 1 - first
        if self._plan is None or self._planned is None or self._anchors is None:
            for index in range(first, final + 1):
                self._write(index, self._grey, GENERATE)
            return
        masking = self._settings.masking
        gap = GapMotion(
            self._planned,
            self._plan,
            self._plan.consumed(first),
            count,
            from_start=start_anchor is not None,
            from_end=end_anchor is not None,
            wants_visibility=self._wants_visibility,
            wants_flow=self._wants_flow,
            wants_unseen=masking.needs_evidence,
            shown=(self._sheet.geometry.y.bounds, self._sheet.geometry.x.bounds),
            comparison=self._comparison,
            seams=self._settings.seams,
            match_color=self._settings.match_color,
            feed=self._feed,
            matching=self._settings.matching,
        )
        if not self._slots and gap.start_reach + gap.end_reach:
            self._slots = [
                Slot(self._sheet, masking, keeps_whole=self._whole_sink is not None)
                for _ in range(self._settings.workers + 1)
            ]
        if self._comparison is not None and start_anchor is not None and end_anchor is not None:
            self._comparison.hold(start_anchor, end_anchor)
        self._anchors.hold(start_anchor if gap.start_reach else None, end_anchor if gap.end_reach else None, pool)
        pending: deque[tuple[int, Slot | None, Future[None] | None]] = deque()
        idle = list(self._slots)
        begin = time.perf_counter()
        for offset, motion in enumerate(in_groups(gap.frames(), first, masking.group)):
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
            if slot.shows:
                self._write(index, slot.picture, self._mask_of(slot), slot)
            else:
                # an anchor reaches it, and nothing of that is to be seen
                self._evidence.pop(index, None)
                self._write(index, self._grey, GENERATE)
            return [slot]
        return []

    # --- sink ----------------------------------------------------------------------------------------

    def _mask_of(self, slot: Slot) -> Mask:
        """Return the mask of a frame that motion filled."""
        if self._settings.masking.mode == "visibility" and slot.hidden is not None:
            return slot.hidden
        return GENERATE if self._settings.masking.mode == "keyframes" else KEEP

    def _write(self, index: int, frame: Picture, mask: Mask, slot: Slot | None = None) -> None:
        begin = time.perf_counter()
        if self._motion_sink is not None:
            self._show_motion(self._motion_sink, index, mask, slot)
        if self._path_sink is not None and slot is not None:
            self._path_sink.path(index, slot.path())
        if self._whole_sink is not None and slot is not None:
            self._whole_sink.whole(index, slot.whole)
        if self._travel_sink is not None:
            self._travel_sink.move(index, next(self._moves, None) if index in self._led else None)
        self._sink.write(index, frame, mask)
        if isinstance(mask, int):
            self._kept += mask == KEEP
        else:
            self._kept += 1 - cv2.countNonZero(mask) / mask.size
        if slot is not None or (isinstance(mask, int) and mask == KEEP):
            self._tracker.mark_single_frame(index)
        self._timings["sink"] += time.perf_counter() - begin

    def _show_motion(self, sink: MotionSink, index: int, mask: Mask, slot: Slot | None) -> None:
        if self._still is not None:
            if slot is None or slot.motion.step is None:
                sink.flow(index, self._still)
            else:
                sink.flow(index, slot.flow())
        if self._wants_visibility:
            height, width = self._settings.height, self._settings.width
            if slot is None or slot.motion.visibility is None:
                seen = 255 if isinstance(mask, int) and mask == KEEP else 0
                sink.visibility(index, np.full((height, width), seen, np.uint8))
            else:
                sink.visibility(index, expand_mask(slot.motion.visibility, self._sheet.geometry))


def path_plan(segment: Segment, settings: RenderSettings, meta: FlowMeta) -> Plan:
    """Return what the frames of a segment play of flows that `meta` describes."""
    if settings.timeline is not None:
        return settings.timeline
    return PathPlan(
        start=settings.flow_start,
        stop=settings.flow_stop,
        total_flows=meta.total_flows,
        led=led_frames(segment, settings.treatment),
        treatment=settings.treatment,
        scene_cuts=meta.scene_cuts,
        timestamps_s=meta.timestamps_s,
    )

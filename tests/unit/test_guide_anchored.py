"""Anchored tracking through gaps: every treatment, both anchors, cuts, strength, and frames that are missing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.errors import FlowError, StructureFramesError
from structureflow.flow.fields import Treatment
from structureflow.guide.feed import BLOCK_FRAMES, FrameFeed
from structureflow.guide.gap import GapMotion, refined_nodes
from structureflow.guide.lookahead import run_ahead
from structureflow.guide.plan import PathPlan
from structureflow.guide.planned import PlannedFlows
from structureflow.guide.ports import Gray, Mask, Picture
from structureflow.guide.refine import MATCHING
from structureflow.guide.render import RenderOutcome, RenderSettings, render_segment
from structureflow.guide.strength import Strength
from structureflow.models.job import Anchors, Segment
from structureflow.testing.scenes import ArrayFlows, Scene, join, occlusion_scene, pan_scene

HEIGHT, WIDTH = 96, 144
#: Added to every flow of a scene: composed, paths drift by this much per step.
DRIFT = np.array([0.25, -0.15], np.float32)


class Frames:
    """Structure frames from memory, with a log."""

    def __init__(self, pictures: NDArray[np.uint8], *, missing: bool = False) -> None:
        self._grays = [np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)) for picture in pictures]
        self.missing = missing
        self.asked: list[int] = []

    def gray(self, indices: Sequence[int]) -> list[Gray]:
        self.asked += indices
        if self.missing:
            raise StructureFramesError("all gone")
        return [self._grays[index] for index in indices]


def drifting(scene: Scene, **options: Any) -> ArrayFlows:
    return ArrayFlows(scene.forward + DRIFT, scene.backward + DRIFT, scene_cuts=scene.cuts, **options)


class Guides:
    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def image(self, reference: Any) -> Picture:
        frame: Picture = self._scene.frames[int(str(reference).rpartition("/")[2])]
        return frame

    def video(self, reference: Any, first: int, count: int) -> Iterator[Picture]:
        raise AssertionError(f"{reference} {first} {count}")


class Kept:
    def __init__(self) -> None:
        self.frames: list[NDArray[np.uint8]] = []

    def write(self, index: int, guide: Picture, mask: Mask) -> None:
        assert (index, mask) in ((len(self.frames), 0), (len(self.frames), 255))
        self.frames.append(guide.copy())


def rendered(
    scene: Scene,
    frames: Frames | None,
    guides: Sequence[tuple[int, int]],
    count: int,
    *,
    treatment: Treatment = "clip",
    anchors: Anchors = "start",
    strength: float = 1.0,
    flows: ArrayFlows | None = None,
    stop: int | None = None,
    workers: int = 2,
    quality: str = "best",
) -> tuple[list[NDArray[np.uint8]], RenderOutcome]:
    """Fill a segment of `count` frames between frames of the scene, given as (at, which)."""
    asked = [{"at": at, "image": f"images/{which}"} for at, which in guides]
    segment = Segment.model_validate({"frames": count, "guides": asked})
    played = flows or drifting(scene)
    window = played.meta.total_flows if stop is None else stop
    settings = RenderSettings(
        HEIGHT, WIDTH, treatment, anchors, strength, 0, window, workers=workers, matching=MATCHING[quality]
    )
    sink = Kept()
    outcome = render_segment(segment, played, Guides(scene), settings, sink, frames)
    return sink.frames, outcome


def miss(frame: NDArray[np.uint8], truth: NDArray[np.uint8], margin: int = 40) -> float:
    inner = (slice(24, -24), slice(margin, -margin))
    return float(np.abs(frame[inner].astype(int) - truth[inner]).mean())


def scene_of(dx: float = 1.0, frames: int = 26) -> Scene:
    return pan_scene(dx, 0.3, frames=frames, height=HEIGHT, width=WIDTH, seed=7)


# --- treatments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("anchors", ["start", "both"])
def test_clip_lands_where_the_video_is(anchors: Anchors) -> None:
    scene = scene_of()
    guides = [(0, 0), (24, 24)]
    composed, before = rendered(scene, None, guides, 25, anchors=anchors)
    anchored, after = rendered(scene, Frames(scene.frames), guides, 25, anchors=anchors)
    assert (before.tracking, after.tracking) == ("composed", "anchored")
    assert before.evidence == {}
    assert list(after.evidence) == list(range(1, 24))
    for index in (6, 12, 18, 23):
        assert miss(anchored[index], scene.frames[index]) < 1.6, index
        assert after.evidence[index].kept > 0.6
        assert after.evidence[index].unlike < 1.5
    assert miss(composed[12], scene.frames[12]) > 4 * miss(anchored[12], scene.frames[12])


@pytest.mark.parametrize(("steps", "anchors"), [(13, "start"), (50, "start"), (50, "both"), (38, "both")])
def test_retime_lands_where_the_video_is_between_its_frames_too(steps: int, anchors: Anchors) -> None:
    """25 flows in fewer and in more steps; the end anchor stands at the video's last frame."""
    scene = scene_of()
    guides = [(0, 0)] if anchors == "start" else [(0, 0), (steps + 1, 25)]
    total = steps + (1 if anchors == "start" else 2)
    anchored, outcome = rendered(scene, Frames(scene.frames), guides, total, treatment="retime", anchors=anchors)
    composed, _ = rendered(scene, None, guides, total, treatment="retime", anchors=anchors)
    assert outcome.tracking == "anchored"
    grid = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    for index in range(1, steps + 1, 5):
        truth = pan_truth(scene, index * 25 / (total - 1), grid)
        assert miss(anchored[index], truth) < 3, index
    middle = steps // 2
    truth = pan_truth(scene, middle * 25 / (total - 1), grid)
    assert miss(anchored[middle], truth) < 0.4 * miss(composed[middle], truth)


def pan_truth(scene: Scene, time: float, grid: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Frame 0 of the pan, moved to `time`."""
    places = np.stack([grid[1] - 1.0 * time, grid[0] - 0.3 * time], axis=-1).astype(np.float32)
    moved = cv2.remap(scene.frames[0], places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(moved, np.uint8)


def test_adjust_stays_composed() -> None:
    scene = scene_of()
    frames = Frames(scene.frames)
    anchored, outcome = rendered(scene, frames, [(0, 0)], 20, treatment="adjust")
    composed, _ = rendered(scene, None, [(0, 0)], 20, treatment="adjust")
    assert outcome.tracking == "composed"
    assert frames.asked == []
    np.testing.assert_array_equal(anchored, composed)


def test_an_anchor_between_two_frames_is_matched_by_the_one_behind() -> None:
    """Two gaps under retime at one and a quarter flows a step: the second anchor stands at node 7.5."""
    scene = scene_of()
    anchored, _ = rendered(scene, Frames(scene.frames), [(0, 0), (6, 8), (12, 0)], 13, treatment="retime", stop=15)
    composed, _ = rendered(scene, None, [(0, 0), (6, 8), (12, 0)], 13, treatment="retime", stop=15)
    x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    for index in (8, 10):
        # the picture of frame 8 stands for node 7.5 and travels 1.25 flows a step from there
        travelled = (index - 6) * 1.25
        places = np.stack([x[1] - travelled, x[0] - 0.3 * travelled], axis=-1).astype(np.float32)
        truth = cv2.remap(scene.frames[8], places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        assert miss(anchored[index], np.asarray(truth)) < 2
        assert miss(composed[index], np.asarray(truth)) > 1.5 * miss(anchored[index], np.asarray(truth))


@pytest.mark.parametrize("strength", [0.5, 2.0])
@pytest.mark.parametrize("anchors", ["start", "both"])
def test_strength_scales_the_refined_motion(strength: float, anchors: Anchors) -> None:
    scene = scene_of(0.8)
    guides = [(0, 0)] if anchors == "start" else [(0, 0), (20, 0)]
    anchored, outcome = rendered(scene, Frames(scene.frames), guides, 21, anchors=anchors, strength=strength, stop=20)
    assert outcome.tracking == "anchored"
    x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    for index in (5, 10) if anchors == "start" else (5,):
        travelled = index * strength
        places = np.stack([x[1] - 0.8 * travelled, x[0] - 0.3 * travelled], axis=-1).astype(np.float32)
        truth = cv2.remap(scene.frames[0], places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        if anchors == "start":
            assert miss(anchored[index], np.asarray(truth)) < 2.2, index
        else:
            assert outcome.filled == ((1, 19),)


def test_at_strength_zero_nothing_is_looked_at() -> None:
    scene = scene_of()
    frames = Frames(scene.frames)
    still, outcome = rendered(scene, frames, [(0, 0)], 20, strength=0.0)
    assert frames.asked == []
    assert outcome.tracking == "composed"
    assert all((frame == scene.frames[0]).all() for frame in still)


def test_no_path_leads_across_a_cut() -> None:
    scene = join(scene_of(frames=10), pan_scene(-1.0, 0, frames=12, height=HEIGHT, width=WIDTH, seed=9))
    guides = [(0, 0), (20, 20)]
    anchored, outcome = rendered(scene, Frames(scene.frames), guides, 21, anchors="both")
    assert outcome.filled == ((1, 19),)
    for index in (4, 9, 10, 15):
        assert miss(anchored[index], scene.frames[index]) < 2, index
    # what lies behind the cut has an anchor there and none here
    _, outcome = rendered(scene, Frames(scene.frames), guides[:1], 21)
    assert outcome.left_unguided == ((10, 20),)


# --- evidence ----------------------------------------------------------------------------------------


def test_what_an_anchor_cannot_show_counts_as_unseen_and_comes_from_the_other() -> None:
    scene = occlusion_scene(frames=16, height=HEIGHT, width=WIDTH)
    flows = ArrayFlows.of(scene)
    plan = PathPlan(start=0, stop=14, total_flows=15, led=range(1, 15), treatment="clip")
    with ThreadPoolExecutor(2) as io:
        feed = FrameFeed(Frames(scene.frames), plan.frames_looked_at(), (HEIGHT, WIDTH), io)
        gap = GapMotion(
            PlannedFlows(flows, plan, io),
            plan,
            0,
            14,
            from_start=True,
            from_end=True,
            wants_visibility=True,
            feed=feed,
            matching=MATCHING["best"],
        )
        motions = list(gap.frames())
    middle = motions[7]
    assert middle is not None
    assert middle.end_weight is not None
    # the disc has gone 20 px to the right: what it uncovers on its left is in the end anchor alone
    uncovered = middle.end_weight[20:23, 14:17]
    assert uncovered.min() > 200
    covered_soon = middle.end_weight[20:23, 46:50]
    assert covered_soon.max() < 80


# --- order -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("treatment", ["clip", "retime"])
@pytest.mark.parametrize("strength", [1.0, 1.5])
def test_blocks_and_threads_change_nothing(treatment: Treatment, strength: float) -> None:
    scene = occlusion_scene(frames=20, height=48, width=64)
    flows = ArrayFlows.of(scene)
    count = 24 if treatment == "retime" else 18
    led = range(1, count + (2 if treatment == "retime" else 1))
    plan = PathPlan(start=0, stop=18, total_flows=19, led=led, treatment=treatment)
    found = []
    for block_bytes in (2**30, 1):
        with ThreadPoolExecutor(2) as io:
            feed = FrameFeed(Frames(scene.frames), plan.frames_looked_at(), (48, 64), io, held_bytes=0)
            gap = GapMotion(
                PlannedFlows(flows, plan, io, strength=Strength.always(strength)),
                plan,
                0,
                count,
                from_start=True,
                from_end=True,
                feed=feed,
                matching=MATCHING["balanced"],
                block_bytes=block_bytes,
            )
            found.append(
                [
                    (motion.start.copy(), motion.end.copy(), motion.end_weight)
                    for motion in gap.frames()
                    if motion is not None and motion.start is not None and motion.end is not None
                ]
            )
    assert len(found[0]) == len(found[1]) == count
    for one, other in zip(*found, strict=True):
        for array, twin in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, twin)


def test_nodes_are_refined_where_positions_stand_or_pass_by() -> None:
    assert refined_nodes([1, 2, 3, 4], 0, 1) == {1, 2, 3, 4}
    assert refined_nodes([1, 2, 3, 4], 0, 2) == {2, 4}
    assert refined_nodes([0.5, 1, 1.5, 2.0], 0, 1) == {1, 2}
    assert refined_nodes([0.75, 1.5, 2.25], 0, 1) == {1, 2, 3}
    assert refined_nodes([2.5, 5.0, 7.5], 0, 1) == {2, 5, 7}
    assert refined_nodes([8.0, 9.0], 7.5, 1) == {9}


# --- frames ------------------------------------------------------------------------------------------


def test_without_frames_paths_are_composed_and_the_outcome_says_so() -> None:
    scene = scene_of()
    composed, _ = rendered(scene, None, [(0, 0), (24, 24)], 25, anchors="both")
    anchored, outcome = rendered(scene, Frames(scene.frames, missing=True), [(0, 0), (24, 24)], 25, anchors="both")
    assert (outcome.tracking, outcome.frames_problem) == ("composed", "all gone")
    np.testing.assert_array_equal(anchored, composed)


def test_frames_that_end_midway_leave_the_rest_composed_from_there() -> None:
    scene = scene_of(0.4, frames=2 * BLOCK_FRAMES + 2)
    frames = Frames(scene.frames)
    given = frames.gray

    def gray(indices: Sequence[int]) -> list[Gray]:
        frames.missing = min(indices) >= BLOCK_FRAMES
        return given(indices)

    frames.gray = gray  # type: ignore[method-assign]
    anchored, outcome = rendered(scene, frames, [(0, 0)], 2 * BLOCK_FRAMES)
    assert (outcome.tracking, outcome.frames_problem) == ("anchored", "all gone")
    last = BLOCK_FRAMES - 2
    assert miss(anchored[last], scene.frames[last]) < 1.6
    composed, _ = rendered(scene, None, [(0, 0)], 2 * BLOCK_FRAMES)
    beyond = BLOCK_FRAMES + 4
    assert miss(anchored[beyond], scene.frames[beyond]) < 0.6 * miss(composed[beyond], scene.frames[beyond])


def test_frames_are_never_asked_for_by_two_at_once() -> None:
    """A source that falls back from cached frames to the video does so once, whatever threads the feed has."""
    scene = scene_of(frames=4 * BLOCK_FRAMES)
    frames = Frames(scene.frames)
    given, busy, most = frames.gray, threading.Lock(), 0

    def gray(indices: Sequence[int]) -> list[Gray]:
        nonlocal most
        most += not busy.acquire(blocking=False)
        time.sleep(0.02)
        try:
            return given(indices)
        finally:
            if busy.locked():
                busy.release()

    frames.gray = gray  # type: ignore[method-assign]
    with ThreadPoolExecutor(4) as io, ThreadPoolExecutor(4) as askers:
        feed = FrameFeed(frames, range(4 * BLOCK_FRAMES), (HEIGHT, WIDTH), io)
        list(askers.map(feed, range(0, 4 * BLOCK_FRAMES, BLOCK_FRAMES)))
    assert most == 0


def test_only_frames_that_are_needed_are_fetched_and_each_once() -> None:
    scene = scene_of()
    frames = Frames(scene.frames)
    rendered(scene, frames, [(0, 0), (9, 9)], 10, anchors="both", stop=8)
    assert sorted(frames.asked) == list(range(10))


def test_frames_of_another_size_are_refused() -> None:
    scene = scene_of()
    frames = Frames(scene.frames[:, ::2])
    with pytest.raises(StructureFramesError, match="expected"):
        rendered(scene, frames, [(0, 0)], 10)


# --- running ahead -----------------------------------------------------------------------------------


def test_a_generator_that_runs_ahead_keeps_order_and_bounds() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    with ThreadPoolExecutor(1) as pool:
        ahead = run_ahead(items(), pool, 3)
        assert [next(ahead) for _ in range(10)] == list(range(10))
        assert len(made) <= 10 + 3 + 2
        ahead.close()
    assert len(made) < 50


def test_what_making_raises_is_raised_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise FlowError("broken")

    with ThreadPoolExecutor(1) as pool:
        ahead = run_ahead(items(), pool, 4)
        assert next(ahead) == 1
        with pytest.raises(FlowError, match="broken"):
            next(ahead)

"""Which flows are played when: windows, nodes, legs, cuts; how flows are read; what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structureflow.errors import FlowError, GuidanceError
from structureflow.flow.fields import Treatment
from structureflow.guide.path import Carry, Trace, bounded_chunk
from structureflow.guide.plan import Leg, PathPlan
from structureflow.guide.planned import PlannedFlows
from structureflow.guide.spans import flow_window, led_frames, unguided_ranges
from structureflow.models.job import Segment
from structureflow.testing.scenes import ArrayFlows, pan_scene


def plan(
    treatment: Treatment, target: int, flows: int, *, start: int = 0, total: int | None = None, cuts: Any = ()
) -> PathPlan:
    return PathPlan(
        start=start,
        stop=start + flows,
        total_flows=start + flows if total is None else total,
        led=range(1, target + 1),
        treatment=treatment,
        scene_cuts=tuple(cuts),
    )


# --- plan --------------------------------------------------------------------------------------------


def test_clip_plays_flow_by_flow_from_the_start_of_its_window() -> None:
    clip = plan("clip", 3, 10, start=5)
    assert [clip.leg(step) for step in range(3)] == [Leg(5), Leg(6), Leg(7)]
    assert (clip.steps, clip.flows_used, clip.last_position) == (3, 3, 4)
    assert clip.leg(3) == Leg(8)


def test_clip_ends_with_the_flows() -> None:
    clip = plan("clip", 12, 10)
    assert (clip.steps, clip.flows_used, clip.last_position) == (10, 10, 10)


def test_clip_looks_past_its_window_but_not_past_the_video() -> None:
    assert plan("clip", 4, 4, total=5).last_position == 5
    assert plan("clip", 4, 4, total=4).last_position == 4


def test_adjust_spreads_positions_from_the_first_to_the_last_flow() -> None:
    adjust = plan("adjust", 5, 3, start=2, total=9)
    assert [adjust.leg(step) for step in range(5)] == [Leg(2), Leg(2, 0.5), Leg(3), Leg(3, 0.5), Leg(4)]
    assert adjust.leg(5) == Leg(5)
    assert (adjust.steps, adjust.flows_used, adjust.last_position) == (5, 3, 6)


def test_adjust_to_fewer_steps_uses_only_what_it_looks_at() -> None:
    adjust = plan("adjust", 3, 101)
    assert [adjust.leg(step) for step in range(3)] == [Leg(0), Leg(50), Leg(100)]
    assert adjust.flows_used == 3


def test_retime_stands_between_the_flows() -> None:
    retime = plan("retime", 4, 6)
    assert [retime.node_at(position) for position in range(5)] == [0, 1.5, 3, 4.5, 6]
    assert retime.legs_between(1, 3) == (1, 5)
    assert (retime.flows_used, retime.last_position, retime.flows_read) == (6, 4, (0, 6))
    assert plan("retime", 4, 6, total=7).last_position == 4, "its steps end with its window"


def test_what_may_be_read_is_what_may_be_looked_at() -> None:
    assert plan("clip", 3, 10, start=5).flows_read == (5, 9)
    assert plan("clip", 12, 10).flows_read == (0, 10)
    assert plan("adjust", 5, 3, start=2, total=9).flows_read == (2, 6)
    assert plan("retime", 5, 3, start=2, total=9).flows_read == (2, 5)
    for treatment in ("adjust", "clip", "retime"):
        assert plan(treatment, 0, 3, total=9).flows_read == (0, 0), "without steps nothing is"


def led_by(treatment: Treatment, led: Sequence[int], flows: int, start: int = 0) -> PathPlan:
    return PathPlan(start=start, stop=start + flows, total_flows=start + flows, led=led, treatment=treatment)


@pytest.mark.parametrize("treatment", ["adjust", "clip"])
def test_adjust_and_clip_stand_still_in_guides(treatment: Treatment) -> None:
    """As the original has it: the step into a guide is looked at, and played again by the frame behind it."""
    planned = led_by(treatment, led_frames(guided(12, 0, 5, 11), treatment), 9)
    assert list(planned.led) == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert [planned.consumed(frame) for frame in (1, 4, 6, 10)] == [0, 3, 4, 8]
    assert [planned.frame_shown(planned.consumed(frame) + 1) for frame in (1, 4, 6, 10)] == [1, 4, 5, 9]


def test_retime_leads_into_the_guide_behind_a_gap() -> None:
    planned = led_by("retime", led_frames(guided(12, 0, 5, 11), "retime"), 11)
    assert list(planned.led) == list(range(1, 12))
    assert [planned.consumed(frame) for frame in (1, 4, 6, 10)] == [0, 3, 5, 9]
    assert [planned.frame_shown(planned.consumed(frame) + 1) for frame in (1, 4, 6, 10)] == [1, 4, 6, 10]
    assert [planned.flow_into(frame) for frame in (1, 4, 6, 10)] == [0, 3, 5, 9]


def test_held_guides_take_no_time() -> None:
    held = Segment.model_validate(
        {"frames": 20, "guides": [{"at": [0, 3], "image": "a"}, {"at": [9, 19], "image": "b"}]}
    )
    assert led_frames(held, "retime") == (4, 5, 6, 7, 8, 9)
    assert led_frames(held, "clip") == led_frames(held, "adjust") == (4, 5, 6, 7, 8)


def test_a_video_begins_at_the_first_frame_of_a_segment_that_begins_without_a_guide() -> None:
    planned = led_by("retime", led_frames(guided(6, 5), "retime"), 5, start=3)
    assert [planned.node_at(position) for position in range(7)] == [0, 0, 1, 2, 3, 4, 5]
    assert [planned.frame_shown(planned.consumed(frame) + 1) for frame in range(5)] == [3, 4, 5, 6, 7]
    assert [planned.flow_into(frame) for frame in range(6)] == [None, 3, 4, 5, 6, 7]
    assert planned.steps == 6


def test_one_frame_alone_shows_the_first_of_the_video() -> None:
    planned = led_by("retime", [0], 5)
    assert (planned.frame_shown(1), planned.flows_used, planned.last_position) == (0, 0, 1)


@given(
    frames=st.integers(2, 60),
    guides=st.sets(st.integers(0, 59)),
    flows=st.integers(1, 90),
    beyond=st.integers(0, 2),
)
def test_under_retime_every_frame_has_one_place_in_time(frames: int, guides: set[int], flows: int, beyond: int) -> None:
    """By walking: from frame to frame one step on, but in guides; the first frame first, the last one last."""
    segment = guided(frames, *(guide for guide in guides if guide < frames))
    steps = [0]
    for frame in range(1, frames):
        held = is_guided(segment, frame) and is_guided(segment, frame - 1)
        steps.append(steps[-1] + (not held))
    planned = PathPlan(
        start=0, stop=flows, total_flows=flows + beyond, led=led_frames(segment, "retime"), treatment="retime"
    )
    if not segment.unguided:
        assert planned.steps == 0
        return
    for first, last in unguided_ranges(segment):
        consumed = planned.consumed(first)
        for frame in range(first, last + 1):
            position = planned.consumed(frame) + 1
            assert position == consumed + 1 + frame - first
            assert planned.node_at(position) == pytest.approx(steps[frame] * flows / steps[-1], abs=1e-5)
        # the anchors beside a gap stand where the gaps beside them say, too
        if first:
            assert planned.node_at(consumed) == pytest.approx(steps[first - 1] * flows / steps[-1], abs=1e-5)
        if last + 1 < frames:
            end = min(consumed + last - first + 2, planned.last_position)
            assert planned.node_at(end) == pytest.approx(steps[last + 1] * flows / steps[-1], abs=1e-5)


def test_no_flows_make_no_steps() -> None:
    for treatment in ("adjust", "clip", "retime"):
        empty = plan(treatment, 5, 0, total=3)
        assert (empty.steps, empty.last_position, empty.flows_used) == (0, 0, 0)


def test_windows_outside_are_refused() -> None:
    with pytest.raises(GuidanceError, match="flow window"):
        plan("clip", 2, 5, total=4)
    for led in ([3, 2], [1, 1], [-1, 0]):
        with pytest.raises(GuidanceError, match="led"):
            led_by("clip", led, 5)
    with pytest.raises(GuidanceError, match="position"):
        plan("clip", 2, 2).node_at(3)


@given(
    treatment=st.sampled_from(["adjust", "retime"]),
    target=st.integers(1, 60),
    flows=st.integers(1, 60),
    cut=st.integers(0, 59),
)
def test_each_cut_is_crossed_by_one_step_and_its_flow_moves_nothing_else(
    treatment: Treatment, target: int, flows: int, cut: int
) -> None:
    cut %= flows
    planned = plan(treatment, target, flows, cuts=[cut])
    crossing = [step for step in range(planned.steps) if planned.crosses_cut(step)]
    # fewer steps than flows may pass the last flow by under adjust: its last position is the last flow
    assert len(crossing) == 1 or (treatment == "adjust" and target == 1 and not crossing and cut > 0)
    for step in set(range(planned.steps)) - set(crossing):
        for number in range(*planned.legs_between(step, step + 1)):
            leg = planned.leg(number)
            assert leg.index != cut
            assert not (leg.weight and leg.index + 1 == cut)


@given(target=st.integers(1, 40), flows=st.integers(1, 40))
def test_no_cut_no_crossing(target: int, flows: int) -> None:
    for treatment in ("adjust", "clip", "retime"):
        planned = plan(treatment, target, flows, cuts=[flows + 3])
        assert not any(planned.crosses_cut(step) for step in range(planned.steps))


def test_a_single_frame_between_two_cuts_gets_no_motion() -> None:
    planned = plan("adjust", 31, 11, cuts=[4, 5])
    # positions 4, 4 1/3, 4 2/3 and 5 look at nothing but the two flows across the cuts
    assert [step for step in range(31) if planned.crosses_cut(step)] == [12, 13, 14, 15]


# --- windows of segments -----------------------------------------------------------------------------


def guided(frames: int, *at: int) -> Segment:
    return Segment.model_validate({"frames": frames, "guides": [{"at": one, "image": "a"} for one in at]})


def is_guided(segment: Segment, frame: int) -> bool:
    return any(guide.first <= frame <= guide.last for guide in segment.guides)


def segments(*counts: int) -> list[Segment]:
    return [Segment.model_validate({"frames": count + 1, "guides": [{"at": 0, "image": "a"}]}) for count in counts]


def test_per_segment_plays_all() -> None:
    assert [flow_window(segments(5, 9), index, "per_segment", 40) for index in range(2)] == [(0, 40), (0, 40)]


def test_timeline_plays_consecutive_parts_in_proportion_to_unguided_frames() -> None:
    windows = [flow_window(segments(10, 20, 10), index, "timeline", 99) for index in range(3)]
    assert windows == [(0, 24), (24, 74), (74, 99)]


def test_retimed_parts_are_in_proportion_to_steps() -> None:
    """Frames 0 to 10, 10 to 30 and 30 to 40 of the video, the guides among them."""
    ends = [guided(11, 0, 10), guided(21, 20), guided(11, 0, 5, 10)]
    assert [flow_window(ends, index, "timeline", 40, "retime") for index in range(3)] == [(0, 10), (10, 30), (30, 40)]


def test_timeline_clip_goes_on_where_the_segment_before_stopped() -> None:
    windows = [flow_window(segments(10, 20, 10), index, "timeline", 25, "clip") for index in range(3)]
    assert windows == [(0, 10), (10, 25), (25, 25)]


@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    total=st.integers(0, 200),
    treatment=st.sampled_from(["adjust", "clip", "retime"]),
)
def test_windows_lie_inside_and_leave_no_gap(counts: list[int], total: int, treatment: Treatment) -> None:
    job = [Segment.model_validate({"frames": count + 2, "guides": [{"at": [0, 1], "image": "a"}]}) for count in counts]
    assert [segment.unguided for segment in job] == counts
    reached = 0
    for index, count in enumerate(counts):
        start, stop = flow_window(job, index, "timeline", total, treatment)
        assert 0 <= start <= stop <= total
        assert start <= reached or not count
        if count and total and treatment != "clip":
            assert stop > start
        reached = max(reached, stop)
    if treatment != "clip" and any(counts):
        assert reached == total


def test_unknown_segments_are_refused() -> None:
    with pytest.raises(GuidanceError, match="segment"):
        flow_window(segments(3), 1, "timeline", 5)
    with pytest.raises(GuidanceError, match="total_flows"):
        flow_window(segments(3), 0, "timeline", -1)


# --- reading -----------------------------------------------------------------------------------------


def test_only_what_is_needed_is_read_and_far_positions_are_read_alone() -> None:
    flows = ArrayFlows.of(pan_scene(1, frames=402, height=8, width=8))
    sparse = plan("adjust", 5, 400, total=401)
    with ThreadPoolExecutor(1) as io:
        legs = PlannedFlows(flows, sparse, io).legs("backward", (0, 5))
        travel = [float(legs(number)[4, 4, 0]) for number in range(5)]
    assert travel == [-1] * 5
    assert all(stop - start <= 2 for _, start, stop in flows.reads)
    assert len(flows.reads) == 5


def test_long_windows_are_read_in_chunks_that_do_not_grow_with_them() -> None:
    flows = ArrayFlows.of(pan_scene(1, frames=302, height=8, width=8))
    with ThreadPoolExecutor(1) as io:
        planned = PlannedFlows(flows, plan("clip", 300, 300, total=301), io, chunk_bytes=8 * 8 * 8 * 20)
        legs = planned.legs("backward", (0, 300))
        for number in range(300):
            legs(number)
    assert {stop - start for _, start, stop in flows.reads} == {20}
    assert len(flows.reads) == 15


def test_mixed_legs_are_interpolated() -> None:
    forward = np.zeros((3, 8, 8, 2), np.float32)
    forward[:, ..., 0] = np.array([0, 8, 32], np.float32)[:, None, None]
    with ThreadPoolExecutor(1) as io:
        legs = PlannedFlows(ArrayFlows(forward, None), plan("adjust", 5, 3), io).legs("forward", (0, 5))
        assert [float(legs(number)[0, 0, 0]) for number in range(5)] == [0, 4, 8, 20, 32]


def test_without_backward_flows_the_forward_ones_are_turned_around() -> None:
    scene = pan_scene(2, -1, frames=4)
    with ThreadPoolExecutor(1) as io:
        legs = PlannedFlows(ArrayFlows.of(scene, backward=False), plan("clip", 3, 3), io).legs("backward", (0, 3))
        np.testing.assert_allclose(legs(1), scene.backward[1], atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_flows_that_are_not_finite_are_refused_by_number(bad: float) -> None:
    chunk = np.zeros((3, 4, 4, 2), np.float32)
    chunk[2, 1, 1, 0] = bad
    with pytest.raises(FlowError, match="flow 12"):
        bounded_chunk(chunk, 100, 10)


def test_absurd_flows_are_cut_and_sane_ones_not_copied() -> None:
    chunk = np.zeros((2, 4, 4, 2), np.float32)
    assert bounded_chunk(chunk, 100, 0) is chunk
    chunk[0, 0, 0] = 60_000, -60_000
    assert bounded_chunk(chunk, 100, 0)[0, 0, 0].tolist() == [100, -100]
    assert chunk[0, 0, 0, 0] > 50_000


def test_sources_of_another_shape_or_type_are_refused() -> None:
    class Short(ArrayFlows):
        def read(self, *arguments: Any) -> Any:
            return super().read(*arguments)[:-1]

    class Wide(ArrayFlows):
        def read(self, *arguments: Any) -> Any:
            return super().read(*arguments).astype(np.float64)

    for kind, message in ((Short, "expected shape"), (Wide, "float32")):
        flows = kind(np.zeros((4, 8, 8, 2), np.float32), None)
        with ThreadPoolExecutor(1) as io:
            legs = PlannedFlows(flows, plan("clip", 4, 4), io).legs("forward", (0, 4))
            with pytest.raises(FlowError, match=message):
                legs(0)


def test_paths_only_go_on() -> None:
    leg = np.zeros((4, 4, 2), np.float32)
    for kind in (Carry, Trace):
        path = kind(lambda _: leg, 1.5, (4, 4))
        path.to(3)
        with pytest.raises(GuidanceError, match="expected a position"):
            path.to(2)


def test_endless_paths_stay_bounded() -> None:
    leg = np.full((4, 4, 2), 4_000, np.float32)
    assert Carry(lambda _: leg, 0.0, (4, 4)).to(50).max() == 16_384
    assert Trace(lambda _: leg, 0.0, (4, 4)).to(50).max() == 16_384

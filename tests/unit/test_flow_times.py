"""When motion is placed by time, and when by index."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from structureflow.flow.fields import adjust_flow_field_count
from structureflow.flow.times import node_at_time, retimed_nodes, uneven_times
from structureflow.guide.path import Carry
from structureflow.guide.plan import PathPlan
from structureflow.guide.spans import flow_window
from structureflow.models.job import Segment

RATES = st.sampled_from([Fraction(6), Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(60)])
#: Seconds in which a container counts: MPEG's clock, milliseconds, microseconds.
TICKS = st.sampled_from([Fraction(1, 90_000), Fraction(1, 1_000), Fraction(1, 1_000_000)])


def constant_rate(frames: int, rate: Fraction, tick: Fraction, first: int) -> NDArray[np.float64]:
    return np.array([float(round((first + index) / rate / tick) * tick) for index in range(frames)])


def slowing(fast: int, slow: int, *, first_s: float = 0.0) -> NDArray[np.float64]:
    """Times of a video that has `fast` flows at 24 frames per second and then `slow` ones at 6."""
    return first_s + np.concatenate([[0.0], np.cumsum([1 / 24] * fast + [1 / 6] * slow)])


def plan(times: NDArray[np.float64] | None, target: int, *, start: int = 0, stop: int, total: int) -> PathPlan:
    led = range(1, target + 1)
    return PathPlan(start=start, stop=stop, total_flows=total, led=led, treatment="retime", timestamps_s=times)


def nodes(planned: PathPlan) -> list[float]:
    return [planned.node_at(position) for position in range(planned.last_position + 1)]


@given(
    rate=RATES,
    tick=TICKS,
    first=st.integers(0, 100),
    flows=st.integers(1, 80),
    target=st.integers(1, 120),
    cropped=st.booleans(),
)
@example(rate=Fraction(24000, 1001), tick=Fraction(1, 1000), first=7, flows=79, target=43, cropped=True)
def test_a_constant_rate_is_placed_by_index_exactly(
    rate: Fraction, tick: Fraction, first: int, flows: int, target: int, cropped: bool
) -> None:
    times = constant_rate(flows + 1, rate, tick, first)
    assert uneven_times(times, flows) is None
    stop = max(1, flows // 2) if cropped else flows
    assert nodes(plan(times, target, stop=stop, total=flows)) == nodes(plan(None, target, stop=stop, total=flows))
    job = [Segment.model_validate({"frames": frames, "guides": []}) for frames in (5, 9, 3)]
    for index in range(3):
        by_time = flow_window(job, index, "timeline", flows, "retime", times)
        assert by_time == flow_window(job, index, "timeline", flows, "retime")


@given(
    fast=st.integers(1, 40),
    slow=st.integers(1, 12),
    target=st.integers(1, 90),
    first_s=st.floats(-5, 5),
    start=st.integers(0, 20),
    beyond=st.integers(0, 1),
)
def test_motion_sampled_at_24_then_6_frames_per_second_travels_at_one_speed(
    fast: int, slow: int, target: int, first_s: float, start: int, beyond: int
) -> None:
    """48 px/s to the right: 2 px per fast flow, 8 px per slow one."""
    total = fast + slow
    times = slowing(fast, slow, first_s=first_s)
    start, stop = min(start, total - 1 - beyond), total - beyond
    if start >= stop:
        return
    legs = [np.full((4, 4, 2), (-2.0 if index < fast else -8.0, 0), np.float32) for index in range(total)]
    planned = plan(times, target, start=start, stop=stop, total=total)
    carry = Carry(lambda number: legs[start + number], 0.0, (4, 4))
    pace_px = 48 * (times[stop] - times[start]) / target
    for position in range(planned.steps + 1):
        travelled = -float(carry.to(planned.node_at(position))[0, 0, 0])
        assert travelled == pytest.approx(position * pace_px, abs=1e-3)
    assert planned.last_position == planned.steps, "the step into an end anchor is one of them"


@given(fast=st.integers(4, 60), slow=st.integers(1, 20), counts=st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_parts_of_a_timeline_are_equally_long_in_time_and_leave_nothing_out(
    fast: int, slow: int, counts: list[int]
) -> None:
    times = slowing(fast, slow)
    total = fast + slow
    job = [Segment.model_validate({"frames": count + 1, "guides": [{"at": 0, "image": "a"}]}) for count in counts]
    windows = [flow_window(job, index, "timeline", total, "retime", times) for index in range(len(counts))]
    assert windows[-1][1] == total
    share_s = times[-1] / sum(counts)
    for index, (start, stop) in enumerate(windows):
        due_s = sum(counts[:index]) * share_s
        assert start == total - 1 or times[start] <= due_s + 1e-5 < times[start + 1]
        assert start < stop
    for (_, stop), (start, _) in itertools.pairwise(windows):
        # a segment has one flow at least, so neighbours may share it
        assert start in (stop, stop - 1)


def test_adjust_and_clip_stay_by_index() -> None:
    times = slowing(6, 3)
    job = [Segment.model_validate({"frames": 6, "guides": []})] * 2
    for treatment in ("adjust", "clip"):
        planned, plain = (
            PathPlan(start=0, stop=9, total_flows=9, led=range(6), treatment=treatment, timestamps_s=given)
            for given in (times, None)
        )
        assert nodes(planned) == nodes(plain)
        assert [planned.leg(step) for step in range(6)] == [plain.leg(step) for step in range(6)]
        for index in range(2):
            assert flow_window(job, index, "timeline", 9, treatment, times) == flow_window(
                job, index, "timeline", 9, treatment
            )
        legs = [np.full((4, 4, 2), index, np.float32) for index in range(9)]
        np.testing.assert_array_equal(
            adjust_flow_field_count(legs, 6, treatment, timestamps_s=times), adjust_flow_field_count(legs, 6, treatment)
        )


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_steps_of_retime_are_even_in_time(direction: str) -> None:
    flows = [np.full((8, 8, 2), 2.0 if index < 8 else 8.0, np.float32) for index in range(10)]
    steps = adjust_flow_field_count(flows, 7, "retime", direction, slowing(8, 2))  # type: ignore[arg-type]
    assert [float(step[4, 4, 0]) for step in steps] == pytest.approx([32 / 7] * 7, abs=1e-4)
    by_index = adjust_flow_field_count(flows, 10, "retime", direction)  # type: ignore[arg-type]
    assert [float(step[4, 4, 0]) for step in by_index] == [2.0] * 8 + [8.0] * 2


@pytest.mark.parametrize(
    "times",
    [
        np.zeros(0),
        np.array([0.0, 0.1]),
        np.array([0.0, 0.1, 0.1, 0.5]),
        np.array([0.0, 0.3, 0.2, 0.5]),
        np.array([0.0, np.nan, 0.2, 0.9]),
        np.array([0.0, 0.1, 0.2, np.inf]),
        np.zeros((4, 1)),
    ],
    ids=["none", "too few", "standing", "falling", "not a number", "endless", "another shape"],
)
def test_times_of_no_use_place_by_index(times: NDArray[np.float64]) -> None:
    assert uneven_times(times, 3) is None
    assert nodes(plan(times, 5, stop=3, total=3)) == nodes(plan(None, 5, stop=3, total=3))


def test_times_begin_at_zero_and_are_looked_up_between_frames() -> None:
    times = uneven_times(np.array([5.0, 5.1, 5.5]), 2)
    assert times is not None
    assert times.tolist() == pytest.approx([0, 0.1, 0.5])
    assert [node_at_time(times, at) for at in (-1.0, 0.05, 0.3, 9.0)] == pytest.approx([0, 0.5, 1.5, 2])
    assert retimed_nodes(2, 5, times) == pytest.approx([0, 1, 1.25, 1.5, 1.75, 2])

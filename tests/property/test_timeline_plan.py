"""Which frame of which source stands at a frame of the timeline, against a model that walks through them one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from structureflow.guide.gap import GapMotion
from structureflow.guide.timeline import Stretch, TimelinePlan

FPS = st.sampled_from([8, 16, 24, 25, 30])


@dataclass(frozen=True)
class Source:
    """A source as a request names it, before anybody laid anything end to end."""

    gap: int
    driven: int
    frames: int
    treatment: str
    rate: int
    start: int = 0


@st.composite
def timelines(draw: st.DrawFn) -> tuple[list[Source], int, int]:
    """Sources with gaps before them, the rate of the timeline, and its length."""
    sources = draw(
        st.lists(
            st.builds(
                Source,
                gap=st.integers(0, 6),
                driven=st.integers(1, 20),
                frames=st.integers(2, 30),
                treatment=st.sampled_from(["adjust", "retime", "clip"]),
                rate=FPS,
            ),
            min_size=1,
            max_size=4,
        )
    )
    return sources, draw(FPS), sum(one.gap + one.driven for one in sources) + draw(st.integers(0, 6))


def stretches(sources: list[Source], fps: int) -> list[Stretch]:
    laid, base, frame = [], 0, 0
    for one in sources:
        frame += one.gap
        laid.append(
            Stretch(
                first=frame,
                stop=frame + one.driven,
                base=base,
                frames=one.frames,
                treatment=one.treatment,  # type: ignore[arg-type]
                rate_fps=one.rate,
                step_s=1 / fps,
            )
        )
        frame += one.driven
        base += one.frames
    return laid


def model(sources: list[Source], fps: int, length: int) -> list[tuple[int, Fraction] | None]:
    """For each frame of the timeline the number of its source, and where in it, exactly."""
    found: list[tuple[int, Fraction] | None] = []
    for number, one in enumerate(sources):
        found += [None] * one.gap
        for step in range(one.driven):
            if one.treatment == "clip":
                place = Fraction(step * one.rate, fps)
            else:
                place = Fraction(step * (one.frames - 1), max(one.driven - 1, 1))
            found.append((number, place) if place <= one.frames - 1 else None)
    return found + [None] * (length - len(found))


def total_flows(sources: list[Source]) -> int:
    return sum(one.frames for one in sources) - 1


@given(timelines(), st.data())
@settings(max_examples=300)
def test_every_frame_stands_where_the_model_says(case: tuple[list[Source], int, int], data: st.DataObject) -> None:
    sources, fps, length = case
    start = data.draw(st.integers(0, length - 1))
    count = data.draw(st.integers(1, length - start))
    plan = TimelinePlan(stretches(sources, fps), start=start, count=count, total_flows=total_flows(sources))
    expected = model(sources, fps, length)[start : start + count]
    bases = np.cumsum([0, *(one.frames for one in sources)]).tolist()
    driven = [one for one in expected if one is not None]
    assert plan.steps == (count if driven else 0)
    for frame, place in enumerate(expected):
        shown = plan.frame_shown(frame + 1)
        if place is None:
            assert shown is None
            continue
        number, within = place
        node = float(bases[number] + within)
        assert abs(plan.node_at(frame + 1) - node) < 1e-5
        assert shown is not None
        assert abs(shown - node) <= 0.5 + 1e-5
        assert bases[number] <= shown < bases[number + 1], "never a frame of another source"
    for step in range(1, count):
        one, other = expected[step - 1], expected[step]
        apart = one is None or other is None or one[0] != other[0]
        assert plan.crosses_cut(step) == apart
        if not apart and plan.steps:
            begin, end = plan.legs_between(step, step + 1)
            number = one[0] if one else 0
            assert begin >= bases[number]
            assert end <= bases[number + 1] - 1, "no leg across the border to the next part"
    nodes = [plan.node_at(position) for position in range(plan.last_position + 1)]
    assert nodes == sorted(nodes)
    looked = plan.frames_looked_at()
    assert looked == sorted({f(n) for p, n in enumerate(nodes[1:]) if expected[p] for f in (math.floor, math.ceil)})


class Nothing:
    """Flows that nobody may read."""

    shape = (4, 4)


@given(timelines(), st.data())
@settings(max_examples=200)
def test_anchors_reach_as_far_as_their_source_drives(case: tuple[list[Source], int, int], data: st.DataObject) -> None:
    """By walking: from the guided frame on, as long as the next frame has the same source."""
    sources, fps, length = case
    plan = TimelinePlan(stretches(sources, fps), start=0, count=length, total_flows=total_flows(sources))
    first = data.draw(st.integers(0, length - 1))
    final = data.draw(st.integers(first, length - 1))
    expected = model(sources, fps, length)
    gap = GapMotion(
        Nothing(),  # type: ignore[arg-type]
        plan,
        plan.consumed(first),
        final - first + 1,
        from_start=first > 0,
        from_end=final + 1 < length,
    )

    def number(frame: int) -> int | None:
        place = expected[frame]
        return None if place is None else place[0]

    reached = 0
    for frame in range(first, final + 1):
        if first == 0 or number(frame) is None or number(frame) != number(frame - 1):
            break
        reached += 1
    assert gap.start_reach == reached
    reached = 0
    for frame in range(final, first - 1, -1):
        if final + 1 == length or number(frame) is None or number(frame) != number(frame + 1):
            break
        reached += 1
    assert gap.end_reach == reached


@given(timelines(), st.floats(0, 10), st.data())
@settings(max_examples=200)
def test_every_leg_has_the_strength_of_its_source(
    case: tuple[list[Source], int, int], given_strength: float, data: st.DataObject
) -> None:
    sources, fps, length = case
    laid = stretches(sources, fps)
    own = data.draw(st.lists(st.none() | st.floats(0, 10), min_size=len(laid), max_size=len(laid)))
    laid = [replace(one, strength=strength) for one, strength in zip(laid, own, strict=True)]
    plan = TimelinePlan(laid, start=0, count=length, total_flows=total_flows(sources))
    strength = plan.strength(given_strength)
    expected = model(sources, fps, length)
    for step in range(1, length):
        place = expected[step]
        if plan.crosses_cut(step) or place is None:
            continue
        wanted = own[place[0]]
        for leg in range(*plan.legs_between(step, step + 1)):
            assert abs(strength(leg) - (given_strength if wanted is None else wanted)) < 1e-9


@given(st.integers(2, 30), st.integers(2, 40), st.lists(st.floats(0.01, 0.2), min_size=30, max_size=30))
@settings(max_examples=200)
def test_time_is_kept_where_the_rate_varies(frames: int, driven: int, gaps: list[float]) -> None:
    """Stretched by time, equally far apart in time; at its own speed, the frame of the moment."""
    times = np.concatenate([[0.0], np.cumsum(gaps[: frames - 1])])
    stretched = Stretch(0, driven, 0, frames, "retime", times_s=times)
    at = [float(np.interp(stretched.source_node(frame) or 0, np.arange(frames), times)) for frame in range(driven)]
    np.testing.assert_allclose(np.diff(at), times[-1] / (driven - 1), atol=1e-5)
    assert (stretched.source_node(0), stretched.source_node(driven - 1)) == (0, frames - 1)
    own_speed = Stretch(0, driven, 0, frames, "clip", step_s=0.05, times_s=times)
    for frame in range(driven):
        node = own_speed.source_node(frame)
        if frame * 0.05 > times[-1] + 1e-6:
            assert node is None
        elif frame * 0.05 < times[-1]:
            assert node is not None
            assert abs(np.interp(node, np.arange(frames), times) - frame * 0.05) < 1e-6


def test_a_cut_within_a_source_is_not_crossed_and_not_stood_in() -> None:
    """Nine frames over five, a cut between frames 3 and 4."""
    plan = TimelinePlan([Stretch(0, 6, 0, 9, "adjust")], start=0, count=6, total_flows=8, scene_cuts=(3,))
    assert [plan.node_at(position) for position in range(1, 7)] == [0, 1.6, 3, 4.8, 6.4, 8]
    assert [plan.crosses_cut(step) for step in range(1, 6)] == [False, False, True, False, False]

"""Motion strength over time: key frames of a segment become the strength of each leg of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.errors import GuidanceError
from structureflow.flow.fields import Treatment
from structureflow.guide.plan import PathPlan
from structureflow.guide.ports import Mask
from structureflow.guide.refine import MATCHING
from structureflow.guide.render import RenderSettings, render_segment
from structureflow.guide.strength import ONCE
from structureflow.models.job import Anchors, Segment
from structureflow.references import Reference
from structureflow.testing.scenes import ArrayFlows, pan_scene

Frame = NDArray[np.uint8]


def plan(treatment: Treatment, flows: int, led: Sequence[int]) -> PathPlan:
    return PathPlan(start=0, stop=flows, total_flows=flows, led=led, treatment=treatment)


def test_one_number_is_the_same_everywhere() -> None:
    strength = plan("clip", 8, range(8)).strength(2.5)
    assert strength.constant == 2.5
    assert [strength(leg) for leg in (0, 5, 99)] == [2.5] * 3
    assert ONCE.constant == 1


def test_key_frames_are_joined_by_lines_and_go_on_at_both_ends() -> None:
    strength = plan("clip", 9, range(8, 17)).strength({10: 1.0, 14: 3.0})
    assert strength.constant is None
    assert [strength(leg) for leg in range(9)] == [1, 1, 1, 1.5, 2, 2.5, 3, 3, 3]
    assert plan("clip", 9, range(8, 17)).strength({0: 2, 50: 2}).constant == 2
    assert plan("clip", 0, range(9)).strength({5: 4.0}).constant == 4


def test_a_second_gap_has_the_strength_of_its_own_frames() -> None:
    strength = plan("clip", 4, [2, 3, 12, 13]).strength({2: 0.0, 12: 1.0})
    np.testing.assert_allclose([strength(leg) for leg in range(4)], [0, 0.1, 1, 1])


@pytest.mark.parametrize(("flows", "steps"), [(12, 6), (6, 12)])
def test_retimed_legs_have_the_strength_of_their_time(flows: int, steps: int) -> None:
    strength = plan("retime", flows, range(1, steps + 1)).strength({1: 0.0, steps: 1.0})
    found = [strength(leg) for leg in range(flows)]
    assert found == sorted(found)
    np.testing.assert_allclose(found, (np.arange(flows) + 0.5) / flows, atol=0.12)


class Moves:
    """Takes frames and forgets them."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def write(self, index: int, guide: Frame, mask: Mask) -> None:  # noqa: ARG002 - frames come in order
        self.frames.append(guide.copy())


class Guides:
    def __init__(self, frames: Any) -> None:
        self._frames = frames

    def image(self, reference: Reference) -> Frame:
        return np.ascontiguousarray(self._frames[int(str(reference).rpartition("/")[2])])

    def video(self, reference: Reference, first: int, count: int) -> Iterator[Frame]:
        raise NotImplementedError


class Frames:
    def __init__(self, frames: Any) -> None:
        self._grays = [np.asarray(frame @ np.array([0.299, 0.587, 0.114]), np.uint8) for frame in frames]

    def gray(self, indices: Any) -> list[Frame]:
        return [self._grays[index] for index in indices]


@pytest.mark.parametrize("tracking", ["anchored", "composed"])
@pytest.mark.parametrize("anchors", ["start", "both"])
def test_a_pan_that_is_sped_up_travels_the_sum_of_its_steps(tracking: str, anchors: Anchors) -> None:
    """2 px per frame, from standing still to twice the speed: frame n is moved by the sum of the steps so far."""
    scene = pan_scene(2, frames=14, height=96, width=160)
    strength = {1: 0.0, 9: 2.0}
    guides = [{"at": 0, "image": "images/0"}]
    if anchors == "both":
        guides.append({"at": 11, "image": "images/11"})
    settings = RenderSettings(
        96, 160, "clip", anchors, strength, 0, 13, matching=MATCHING["balanced"] if tracking == "anchored" else None
    )
    sink = Moves()
    segment = Segment.model_validate({"frames": 12, "guides": guides})
    render_segment(segment, ArrayFlows.of(scene), Guides(scene.frames), settings, sink, Frames(scene.frames))
    steps = np.interp(range(1, 12), [1, 9], [0.0, 2.0]) * 2
    for index in (3, 6, 9) if anchors == "start" else (10,):
        # the end anchor is led back by the last step; it stands where the scene is at its time
        moved = steps[:index].sum() if anchors == "start" else 11 * 2 - steps[-1]
        # a pan is the same at every time: the first frame, moved by so much, is the scene at another time
        real = pan_scene(moved, frames=2, height=96, width=160).frames[1]
        inside = np.s_[8:-8, int(moved) + 12 : -12]
        assert np.abs(sink.frames[index][inside].astype(int) - real[inside]).mean() < 4, index


def test_strengths_out_of_range_are_refused() -> None:
    for strength in ({}, {0: 11.0}, {0: 1.0, 5: -1.0}, {3: float("nan")}):
        with pytest.raises(GuidanceError, match="motion_strength"):
            RenderSettings(96, 160, "clip", "start", strength, 0, 13)

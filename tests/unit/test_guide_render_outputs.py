"""Guides of every kind, further pictures of the motion, settings and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from structureflow.errors import FlowError, GuidanceError
from structureflow.guide.given import cross_fade
from structureflow.guide.masks import grey_frame, mask_frame
from structureflow.guide.ports import Mask, MotionSink
from structureflow.testing.scenes import (
    ArrayFlows,
    occlusion_scene,
    pan_scene,
    psnr_db,
)
from tests.unit.rendering import Frame, Kept, KeptMotion, gap, render, segment


def test_every_kind_of_guide_is_shown_as_given() -> None:
    scene = pan_scene(2, frames=12)
    wanted = segment(
        12,
        {"at": [0, 1], "image": "3"},
        {"at": 2, "image": "7"},
        {"at": [3, 6], "video": "v", "from": 4},
        {"at": [7, 11], "fade": ["1", "9"]},
    )
    sink, _ = render(wanted, ArrayFlows.of(scene), scene.frames)
    for index, number in ((0, 3), (1, 3), (2, 7), (3, 4), (4, 5), (5, 6), (6, 7), (11, 9)):
        np.testing.assert_array_equal(sink.frames[index], scene.frames[number])
    for place, index in enumerate(range(7, 12), start=1):
        exact = scene.frames[1] + (scene.frames[9].astype(float) - scene.frames[1]) * place / 5
        assert np.abs(sink.frames[index] - exact).max() <= 0.6
    assert sink.masks == [0] * 12


def test_a_video_guide_is_an_anchor_at_its_last_and_first_frame() -> None:
    scene = pan_scene(2, frames=12)
    wanted = segment(8, {"at": [0, 2], "video": "v"}, {"at": [6, 7], "video": "v", "from": 6})
    flows = ArrayFlows.of(scene)
    start, _ = render(wanted, flows, scene.frames, flow_start=2, flow_stop=5)
    both, _ = render(wanted, flows, scene.frames, flow_start=2, flow_stop=5, anchors="both")
    for index in range(3, 6):
        assert psnr_db(start.frames[index], scene.frames[index], margin_px=16) > 45
        assert psnr_db(both.frames[index], scene.frames[index], margin_px=16) > 45
    np.testing.assert_array_equal(both.frames[6], scene.frames[6])
    np.testing.assert_array_equal(both.frames[7], scene.frames[7])


def test_an_anchor_is_kept_although_a_video_reuses_its_memory() -> None:
    scene = pan_scene(0, frames=12)
    other = pan_scene(0, frames=12, seed=9)
    frames = np.concatenate([scene.frames[:3], other.frames[3:]])
    wanted = segment(8, {"at": [0, 2], "video": "v"}, {"at": [6, 7], "video": "v", "from": 6})
    sink, _ = render(wanted, ArrayFlows.of(scene), frames, anchors="start")
    np.testing.assert_array_equal(sink.frames[5], scene.frames[2])


def test_a_short_guide_video_is_refused_by_name() -> None:
    scene = pan_scene(1, frames=5)
    wanted = segment(8, {"at": [0, 7], "video": "clip", "from": 2})
    with pytest.raises(GuidanceError, match=r"expected 8 frames from frame 2 of clip, got 3"):
        render(wanted, ArrayFlows.of(scene), scene.frames)


def test_a_guide_of_another_size_is_refused() -> None:
    scene = pan_scene(1, frames=5)
    with pytest.raises(GuidanceError, match="guide at 0"):
        render(gap(2), ArrayFlows.of(scene), scene.frames, height=64)


def test_fade_ends_are_exact() -> None:
    before, after = pan_scene(1, frames=2).frames
    np.testing.assert_array_equal(cross_fade(before, after, 0), before)
    np.testing.assert_array_equal(cross_fade(before, after, 1), after)


def test_flow_shown_points_where_content_goes_and_strength_shows() -> None:
    scene = pan_scene(3, 1)
    for strength in (1.0, 0.5, 0.0):
        sink = KeptMotion()
        assert isinstance(sink, MotionSink)
        wanted = segment(10, {"at": [0, 1], "image": "0"}, {"at": [6, 6], "image": "5"})
        render(wanted, ArrayFlows.of(scene), scene.frames, sink, motion_strength=strength)
        expected = np.array([3, 1]) * strength
        for index in range(10):
            shown = sink.flows[index][40, 60]
            np.testing.assert_allclose(shown, [0, 0] if index in (0, 1, 6) else expected, atol=1e-3)


def test_retimed_flow_shown_is_as_long_as_the_steps() -> None:
    scene = pan_scene(3)
    sink = KeptMotion()
    render(gap(21, 0, 0), ArrayFlows.of(scene), scene.frames, sink, treatment="retime", anchors="both")
    for index in range(1, 22):
        assert sink.flows[index][40, 60, 0] == pytest.approx(1.5, abs=1e-3)


def test_visibility_falls_where_the_anchor_shows_nothing() -> None:
    scene = pan_scene(4, frames=14)
    wanted = segment(14, {"at": 0, "image": "0"})
    sink = KeptMotion()
    render(wanted, ArrayFlows.of(scene), scene.frames, sink)
    assert (sink.visibilities[0] == 255).all()
    for index in (3, 8, 12):
        shown = sink.visibilities[index]
        assert (shown[:, 4 * index + 14 :] == 255).all()
        assert (shown[:, : 4 * index - 10] == 0).all()


def test_visibility_of_both_is_what_either_shows() -> None:
    scene = pan_scene(4, frames=14)
    sink = KeptMotion()
    _, outcome = render(gap(11, 0, 12), ArrayFlows.of(scene), scene.frames, sink, anchors="both")
    assert outcome.left_unguided == ()
    # on the left the end anchor shows what the start anchor does not
    assert (sink.visibilities[6][:, : 128 - 4 * 6 - 14] == 255).all()


def test_visibility_of_unguided_frames_is_none() -> None:
    scene = pan_scene(1, frames=4)
    sink = KeptMotion()
    render(gap(6, 0, 1), ArrayFlows.of(scene), scene.frames, sink)
    assert [int(visibility.max()) for visibility in sink.visibilities] == [255] * 4 + [0] * 3 + [255]


def test_what_is_not_wanted_is_not_worked_out() -> None:
    scene = pan_scene(1)
    sink = KeptMotion()
    sink.wants_flow = sink.wants_visibility = False
    flows = ArrayFlows.of(scene)
    render(gap(5), flows, scene.frames, sink)
    assert sink.flows == sink.visibilities == []
    assert {direction for direction, _, _ in flows.reads} == {"backward"}


def test_extra_outputs_do_not_change_the_guide() -> None:
    scene = occlusion_scene()
    for treatment in ("clip", "retime", "adjust"):
        plain, _ = render(gap(8, 0, 9), ArrayFlows.of(scene), scene.frames, anchors="both", treatment=treatment)
        extra, _ = render(
            gap(8, 0, 9), ArrayFlows.of(scene), scene.frames, KeptMotion(), anchors="both", treatment=treatment
        )
        np.testing.assert_array_equal(np.stack(plain.frames), np.stack(extra.frames))


@pytest.mark.parametrize(
    "options", [{"motion_strength": -0.1}, {"motion_strength": 10.5}, {"motion_strength": float("nan")}, {"workers": 0}]
)
def test_settings_out_of_range_are_refused(options: dict[str, Any]) -> None:
    scene = pan_scene(1)
    with pytest.raises(GuidanceError, match=next(iter(options))):
        render(gap(3), ArrayFlows.of(scene), scene.frames, **options)


def test_broken_flows_stop_the_segment() -> None:
    scene = pan_scene(1)
    flows = ArrayFlows.of(scene)
    flows.read("backward", 0, 11)[4, 2, 2] = np.nan
    with pytest.raises(FlowError, match="flow 4"):
        render(gap(8), flows, scene.frames)


def test_wild_flows_are_survived() -> None:
    random = np.random.default_rng(0)
    wild = (random.normal(0, 1, (11, 32, 32, 2)) * 60_000).clip(-65_000, 65_000)
    frames = pan_scene(1, height=32, width=32).frames
    for strength in (1.0, 10.0, 0.3):
        sink, _ = render(
            gap(9), ArrayFlows(wild, -wild), frames, KeptMotion(), anchors="both", motion_strength=strength
        )
        assert len(sink.frames) == 11


def test_a_sinks_error_ends_the_work() -> None:
    class Full(Kept):
        def write(self, index: int, guide: Frame, mask: Mask) -> None:
            if index == 4:
                raise OSError("disk full")
            super().write(index, guide, mask)

    scene = pan_scene(1)
    with pytest.raises(OSError, match="disk full"):
        render(gap(8), ArrayFlows.of(scene), scene.frames, Full())


def test_grey_and_masks_have_the_agreed_values() -> None:
    assert (grey_frame(4, 6) == 128).all()
    assert grey_frame(4, 6).shape == (4, 6, 3)
    assert (mask_frame(4, 6, 255) == 255).all()
    out = np.ones((4, 6, 3), np.uint8)
    assert mask_frame(4, 6, 0, out) is out
    assert not out.any()

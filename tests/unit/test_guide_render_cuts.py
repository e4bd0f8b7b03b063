"""Cuts and strength: where motion ends, and how far it goes."""

from __future__ import annotations

import numpy as np
import pytest

from structureflow.testing.scenes import (
    ArrayFlows,
    Scene,
    join,
    pan_scene,
    psnr_db,
    rotation_scene,
    zoom_scene,
)
from tests.unit.rendering import Frame, Kept, gap, render


def travelled(sink: Kept, frames: Frame, index: int, most: int = 60) -> int:
    """How far (in whole pixels to the right) frame `index` is from frame 0, by best match."""
    width = frames.shape[2]
    moved, still = sink.frames[index].astype(int), frames[0].astype(int)
    errors = [np.abs(moved[:, shift:] - still[:, : width - shift]).mean() for shift in range(most)]
    assert min(errors) < 1
    return int(np.argmin(errors))


@pytest.fixture(scope="module")
def cut_scene() -> Scene:
    return join(pan_scene(2, frames=7), zoom_scene(1.02, frames=9))


def test_from_the_start_nothing_is_carried_across_a_cut(cut_scene: Scene) -> None:
    sink, outcome = render(gap(13), ArrayFlows.of(cut_scene), cut_scene.frames)
    assert outcome.filled == ((1, 6),)
    assert outcome.left_unguided == ((7, 13),)
    assert psnr_db(sink.frames[6], cut_scene.frames[6], margin_px=20) > 45


def test_both_anchors_meet_at_the_cut(cut_scene: Scene) -> None:
    sink, outcome = render(gap(13), ArrayFlows.of(cut_scene), cut_scene.frames, anchors="both")
    assert outcome.left_unguided == ()
    for index in range(1, 14):
        assert psnr_db(sink.frames[index], cut_scene.frames[index], margin_px=24) > 33


@pytest.mark.parametrize("count", [5, 9, 14, 31])
@pytest.mark.parametrize("treatment", ["adjust", "retime"])
def test_other_treatments_mix_nothing_across_a_cut(cut_scene: Scene, treatment: str, count: int) -> None:
    """Every filled frame shows one of the two scenes, none of them the noise between."""
    ends = np.stack([np.full((96, 128, 3), 40, np.uint8), np.full((96, 128, 3), 220, np.uint8)])
    sink, outcome = render(gap(count, 0, 1), ArrayFlows.of(cut_scene), ends, anchors="both", treatment=treatment)
    assert outcome.left_unguided == ()
    values = [int(frame[48, 64, 0]) for frame in sink.frames]
    assert set(values) == {40, 220}
    assert values == sorted(values)


def test_between_two_cuts_frames_stay_unguided() -> None:
    scene = join(join(pan_scene(1, frames=4), pan_scene(2, frames=4)), pan_scene(1, frames=4))
    _, outcome = render(gap(10), ArrayFlows.of(scene), scene.frames, anchors="both")
    assert scene.cuts == (3, 7)
    assert outcome.left_unguided == ((4, 7),)


def test_a_cut_right_before_the_end_anchor_stops_it() -> None:
    scene = join(pan_scene(1, frames=6), pan_scene(2, frames=4))
    both, outcome = render(gap(5), ArrayFlows.of(scene), scene.frames, anchors="both")
    start, _ = render(gap(5), ArrayFlows.of(scene), scene.frames)
    assert outcome.left_unguided == ()
    for one, other in zip(both.frames, start.frames, strict=True):
        np.testing.assert_array_equal(one, other)


def test_strength_zero_leaves_the_anchor_still_to_the_bit() -> None:
    scene = zoom_scene(1.05)
    sink, _ = render(gap(8), ArrayFlows.of(scene), scene.frames, motion_strength=0.0)
    for index in range(1, 9):
        np.testing.assert_array_equal(sink.frames[index], scene.frames[0])
        assert sink.masks[index] == 0


def test_motionless_flows_leave_the_anchor_still_to_the_bit() -> None:
    frames = pan_scene(0, height=90, width=150).frames
    flows = ArrayFlows(np.zeros((9, 36, 52, 2)), np.zeros((9, 36, 52, 2)), original=(180, 260))
    sink, _ = render(gap(8), flows, frames)
    for index in range(1, 9):
        np.testing.assert_array_equal(sink.frames[index], frames[0])


@pytest.mark.parametrize(("strength", "travel"), [(0.5, 8), (2.0, 32)])
def test_strength_scales_the_way(strength: float, travel: int) -> None:
    scene = pan_scene(2)
    sink, _ = render(gap(8), ArrayFlows.of(scene), scene.frames, motion_strength=strength)
    assert travelled(sink, scene.frames, 8) == travel


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_strength_scales_the_steps_of_a_zoom(strength: float) -> None:
    scene = zoom_scene(1.02)
    truth = zoom_scene(1.02**strength)
    sink, _ = render(gap(8, 0, 0), ArrayFlows.of(scene), scene.frames, motion_strength=strength)
    assert psnr_db(sink.frames[8], truth.frames[8], margin_px=16) > 32


def test_strength_bends_no_turn() -> None:
    """Twice the motion of a turn is twice the angle, not twice the chord."""
    scene = rotation_scene(0.03)
    truth = rotation_scene(0.06)
    sink, _ = render(gap(8, 0, 0), ArrayFlows.of(scene), scene.frames, motion_strength=2.0)
    assert psnr_db(sink.frames[8], truth.frames[8], margin_px=32) > 27


def test_strength_holds_for_flows_of_one_direction_too() -> None:
    scene = pan_scene(2)
    sink, _ = render(gap(8), ArrayFlows.of(scene, backward=False), scene.frames, motion_strength=1.5)
    assert travelled(sink, scene.frames, 8) == 24

"""Flow arithmetic against exact motion: counts, composition, inversion, visibility, refusals."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from structureflow.errors import FlowError
from structureflow.flow.fields import (
    MAX_DISPLACEMENT_PX,
    Direction,
    Treatment,
    adjust_flow_field_count,
    check_flow,
    compose_flows,
    invert_flow,
    partial_flow,
    pull,
    resize_flow,
)
from structureflow.flow.visibility import visible_where
from structureflow.testing.scenes import (
    Scene,
    end_point_error,
    occlusion_scene,
    pan_scene,
    rotation_scene,
    zoom_scene,
)


def constant(dx: float, dy: float = 0.0, shape: tuple[int, int] = (24, 32)) -> np.ndarray:
    return np.tile(np.array([dx, dy], np.float32), (*shape, 1))


def joined(flows: list[np.ndarray], direction: Direction) -> np.ndarray:
    total = flows[0]
    for flow in flows[1:]:
        total = compose_flows(total, flow) if direction == "forward" else compose_flows(flow, total)
    return total


# --- count -------------------------------------------------------------------------------------------


def test_adjust_looks_at_evenly_spread_positions() -> None:
    flows = [constant(dx) for dx in (0, 10, 20)]
    steps = adjust_flow_field_count(flows, 5, "adjust")
    assert [float(step[0, 0, 0]) for step in steps] == [0, 5, 10, 15, 20]


def test_adjust_keeps_the_length_of_steps_so_travel_changes() -> None:
    for count, target in ((10, 5), (10, 30)):
        steps = adjust_flow_field_count([constant(2)] * count, target, "adjust")
        travel = sum(float(step[5, 5, 0]) for step in steps)
        assert travel == pytest.approx(2 * count * target / count)


def test_adjust_to_one_step_takes_the_first_flow() -> None:
    steps = adjust_flow_field_count([constant(3), constant(5)], 1, "adjust")
    assert len(steps) == 1
    np.testing.assert_array_equal(steps[0], constant(3))


def test_clip_takes_the_first_and_never_pads() -> None:
    flows = [constant(dx) for dx in range(4)]
    assert [float(step[0, 0, 0]) for step in adjust_flow_field_count(flows, 2, "clip")] == [0, 1]
    assert len(adjust_flow_field_count(flows, 9, "clip")) == 4
    assert adjust_flow_field_count([], 9, "clip") == []


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.77, 1.0, 1.3, 2.0, 3.0])
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    "scene", [pan_scene(1.3, -0.6, frames=11), zoom_scene(1.02, frames=11), rotation_scene(0.02, frames=11)]
)
def test_retime_travels_as_far_at_any_ratio(scene: Scene, ratio: float, direction: Direction) -> None:
    flows = list(scene.forward if direction == "forward" else scene.backward)
    target = round(len(flows) * ratio)
    steps = adjust_flow_field_count(flows, target, "retime", direction)
    assert len(steps) == target
    truth = joined(flows, direction)
    margin = 24
    travelled = joined(steps, direction)
    length = float(np.hypot(*truth[margin:-margin, margin:-margin].reshape(-1, 2).T).mean())
    assert end_point_error(travelled, truth, margin_px=margin) < 0.01 * length


def test_retime_steps_are_even_inside_of_a_flow() -> None:
    scene = zoom_scene(1.05, frames=2)
    thirds = adjust_flow_field_count(list(scene.forward), 3, "retime")
    # a pixel at distance r from the middle goes 0.05 r in all, a third of that in each step
    for number, step in enumerate(thirds):
        truth = scene.forward[0] / 3 / (1 + 0.05 * number / 3)
        assert end_point_error(step, truth, margin_px=8) < 0.005


def test_arrays_and_float16_are_taken_too() -> None:
    scene = pan_scene(2, frames=5)
    from_array = adjust_flow_field_count(scene.forward.astype(np.float16), 8, "adjust")
    from_list = adjust_flow_field_count(list(scene.forward), 8, "adjust")
    np.testing.assert_allclose(from_array, from_list, atol=1e-3)
    assert all(step.dtype == np.float32 for step in from_array)


@pytest.mark.parametrize("treatment", ["adjust", "retime"])
def test_steps_cannot_be_made_of_nothing(treatment: Treatment) -> None:
    with pytest.raises(FlowError, match="at least 1 flow"):
        adjust_flow_field_count([], 3, treatment)
    assert adjust_flow_field_count([], 0, treatment) == []


def test_bad_counts_treatments_and_sizes_are_refused() -> None:
    with pytest.raises(FlowError, match="target_count"):
        adjust_flow_field_count([constant(1)], -1, "clip")
    with pytest.raises(FlowError, match="stretch"):
        adjust_flow_field_count([constant(1)], 2, cast("Treatment", "stretch"))
    with pytest.raises(FlowError, match="flow 1"):
        adjust_flow_field_count([constant(1), constant(1, shape=(24, 30))], 2, "clip")


def test_inputs_are_left_alone() -> None:
    scene = rotation_scene(0.03, frames=6)
    before = scene.backward.copy()
    adjust_flow_field_count(list(scene.backward), 9, "retime", "backward")
    adjust_flow_field_count(list(scene.backward), 9, "adjust")
    invert_flow(scene.backward[0])
    compose_flows(scene.backward[0], scene.backward[1])
    np.testing.assert_array_equal(scene.backward, before)


# --- arithmetic --------------------------------------------------------------------------------------


def test_pull_takes_from_where_the_displacement_points() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
    pulled = pull(values, constant(1, shape=(3, 4)))
    np.testing.assert_array_equal(pulled.reshape(3, 4), [[1, 2, 3, 3], [5, 6, 7, 7], [9, 10, 11, 11]])


def test_composed_flows_lead_where_the_scene_goes() -> None:
    y, x = np.mgrid[0:96, 0:128]
    offset = np.stack([x - (128 - 1) / 2, y - (96 - 1) / 2], axis=-1)
    grown = joined(list(zoom_scene(1.03).forward[:6]), "forward")
    assert end_point_error(grown, offset * (1.03**6 - 1), margin_px=24) < 0.02
    turned = joined(list(rotation_scene(0.04).forward[:6]), "forward")
    cos, sin = np.cos(0.24), np.sin(0.24)
    turn = np.array([[cos, -sin], [sin, cos]])
    assert end_point_error(turned, offset @ turn.T - offset, margin_px=24) < 0.02


@pytest.mark.parametrize("scene", [pan_scene(2.5, 1), zoom_scene(1.05), rotation_scene(0.05)])
def test_inverted_forward_flow_is_the_backward_flow(scene: Scene) -> None:
    assert end_point_error(invert_flow(scene.forward[0]), scene.backward[0], margin_px=10) < 0.01


def test_partial_flow_scales_straight_ways() -> None:
    np.testing.assert_allclose(partial_flow(constant(4, -2), 0.7, 0.5), constant(2, -1), atol=1e-5)


def test_resize_scales_vectors_by_each_axis() -> None:
    resized = resize_flow(constant(3, 4, (10, 20)), 30, 50)
    assert resized.shape == (30, 50, 2)
    np.testing.assert_allclose(resized, constant(7.5, 12, (30, 50)), rtol=1e-6)


def test_resize_to_the_same_grid_changes_nothing() -> None:
    flow = zoom_scene(1.1, frames=2).forward[0]
    np.testing.assert_array_equal(resize_flow(flow, *flow.shape[:2]), flow)


# --- visibility --------------------------------------------------------------------------------------


def test_what_the_disc_covers_and_what_leaves_is_not_visible() -> None:
    scene = occlusion_scene()
    visible = visible_where(scene.forward[3], scene.backward[3])
    hidden = scene.hidden_next[3]
    assert hidden.any()
    # the rule allows an error of about 0.7 px, so the very edge of the disc is open
    assert (visible == ~hidden).mean() > 0.985
    assert visible[hidden].mean() < 0.25
    assert visible[~hidden].mean() > 0.99


def test_content_that_leaves_the_frame_is_not_visible() -> None:
    visible = visible_where(constant(5), constant(-5))
    assert visible[:, :-5].all()
    assert not visible[:, -5:].any()


def test_flows_that_disagree_are_not_visible() -> None:
    assert not visible_where(constant(2), constant(2))[:, :-2].any()


# --- checks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused(bad: float) -> None:
    flow = constant(1)
    flow[3, 4, 1] = bad
    with pytest.raises(FlowError, match="finite"):
        check_flow(flow)
    with pytest.raises(FlowError, match="flow 0"):
        adjust_flow_field_count([flow], 2, "retime")


def test_absurd_vectors_are_cut() -> None:
    flow = constant(1)
    flow[0, 0] = 2e9, -2e9
    checked = check_flow(flow)
    assert checked[0, 0].tolist() == [MAX_DISPLACEMENT_PX, -MAX_DISPLACEMENT_PX]
    assert flow[0, 0, 0] == np.float32(2e9)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 3), (0, 4, 2)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(FlowError, match="expected"):
        check_flow(np.zeros(shape, np.float32))


def test_whole_numbers_are_no_flow() -> None:
    with pytest.raises(FlowError, match="float"):
        check_flow(np.zeros((4, 4, 2), np.int16))


def test_empty_grids_are_refused() -> None:
    with pytest.raises(FlowError, match="grid"):
        resize_flow(constant(1), 0, 4)

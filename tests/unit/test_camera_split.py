"""Motion split into that of the camera and that of what moves by itself, on drawn scenes with known parts."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.guide.camera import PartLegs, global_motion
from structureflow.guide.feed import FrameFeed
from structureflow.guide.gap import GapMotion
from structureflow.guide.path import Carry
from structureflow.guide.plan import PathPlan
from structureflow.guide.planned import PlannedFlows
from structureflow.models.job import MotionPart
from structureflow.testing.scenes import (
    ArrayFlows,
    Camera,
    Layer,
    WaveTexture,
    disc,
    draw,
    pan,
    pan_scene,
    rotation,
    zoom,
)

HEIGHT, WIDTH = 120, 160
CENTRE = (WIDTH / 2, HEIGHT / 2)

Field = NDArray[np.float32]


def places() -> NDArray[np.float64]:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([columns, rows], axis=-1).astype(np.float64)


def apply(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    moved = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1) @ matrix.T
    return np.asarray(moved[..., :2] / moved[..., 2:], np.float64)


def perspective(time: float) -> NDArray[np.float64]:
    """A camera that tilts: no affine map shows it."""
    return np.array([[1 + 0.002 * time, 0, time], [0.001 * time, 1, -0.5 * time], [0.00012 * time, 0, 1]])


CAMERAS: dict[str, Camera] = {
    "pan": pan(3, -1),
    "zoom": zoom(1.03, CENTRE),
    "turn": rotation(0.02, CENTRE),
    "tilt": perspective,
}


@pytest.mark.parametrize("name", CAMERAS)
@pytest.mark.parametrize("radius", [0, 25, 42])
def test_the_cameras_motion_is_found_beside_an_object(name: str, radius: int) -> None:
    """Up to a third of the frame goes elsewhere, and noise lies on all."""
    truth = apply(CAMERAS[name](1) @ np.linalg.inv(CAMERAS[name](0)), places())
    flow = truth - places() + np.random.default_rng(0).normal(0, 0.15, truth.shape)
    flow[radius > np.hypot(*(places() - CENTRE).T).T] += (-6, 4)
    found = apply(global_motion(flow.astype(np.float32)), places())
    assert np.abs(found - truth).max() < 0.35


def test_flow_without_any_agreement_is_a_shift_at_most() -> None:
    flow = np.random.default_rng(1).normal(0, 30, (HEIGHT, WIDTH, 2)).astype(np.float32)
    found = global_motion(flow)
    np.testing.assert_array_equal(found[2], [0, 0, 1])
    np.testing.assert_array_equal(found[:2, :2], np.eye(2))
    assert np.abs(found[:2, 2]).max() < 5


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 4)])
def test_the_smallest_grids_have_a_motion(shape: tuple[int, int]) -> None:
    flow = np.full((*shape, 2), 1.5, np.float32)
    moved = apply(global_motion(flow), np.zeros((1, 2)))
    np.testing.assert_allclose(moved, [[1.5, 1.5]], atol=1e-6)


STEPS = 8


def once(_: int) -> float:
    return 1.0


def twice(_: int) -> float:
    return 2.0


@pytest.fixture(scope="module")
def followed() -> tuple[Field, Camera, Camera]:
    """A camera that pans so that an object, which goes right over the ground, stays in the middle."""
    ground, thing = pan(-3, 0), pan(0, 1)
    layers = [Layer(ground, WaveTexture(3)), Layer(thing, WaveTexture(4), disc(*CENTRE, 22))]
    scene = draw(layers, frames=STEPS + 1, height=HEIGHT, width=WIDTH)
    return scene.backward, ground, thing


def test_the_cameras_part_moves_everything_as_the_ground_goes(followed: tuple[Field, Camera, Camera]) -> None:
    legs = PartLegs(lambda number: followed[0][number], 0.0, "camera", once)
    way = Carry(legs, 0.0, (HEIGHT, WIDTH)).to(STEPS)
    np.testing.assert_allclose(way, np.broadcast_to(np.array([3 * STEPS, 0], np.float32), way.shape), atol=0.5)


def test_the_subjects_part_moves_the_object_across_a_ground_that_stands(
    followed: tuple[Field, Camera, Camera],
) -> None:
    """It stays in the middle of the structure video; with the camera still it goes 3 px to the right each frame."""
    legs = PartLegs(lambda number: followed[0][number], 0.0, "subject", once)
    way = Carry(legs, 0.0, (HEIGHT, WIDTH)).to(STEPS)
    x, y = CENTRE[0] + 3 * STEPS, CENTRE[1] + STEPS
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    away = np.hypot(columns - x, rows - y)
    on, off = away < 16, (np.abs(rows - y) > 36) & (columns < WIDTH - 3 * STEPS - 4)
    error = np.abs(way[on] - np.array([-3 * STEPS, -STEPS], np.float32)).max(axis=-1)
    assert np.percentile(error, 95) < 1
    assert np.abs(way[off]).max() < 0.3


@pytest.mark.parametrize("part", ["camera", "subject"])
def test_strength_makes_steps_longer(followed: tuple[Field, Camera, Camera], part: MotionPart) -> None:
    single, double = (PartLegs(lambda n: followed[0][n], 0.0, part, strength) for strength in (once, twice))
    for number in (0, 3, 1):
        np.testing.assert_allclose(double(number), 2 * single(number), atol=1e-4)


def test_legs_are_the_same_in_any_order(followed: tuple[Field, Camera, Camera]) -> None:
    """The end anchor's ways are done in blocks, from several beginnings."""
    forth = PartLegs(lambda number: followed[0][number], 0.0, "subject", once)
    back = PartLegs(lambda number: followed[0][number], 0.0, "subject", once)
    in_order = [forth(number).copy() for number in range(STEPS)]
    for number in (7, 2, 5, 0, 7):
        np.testing.assert_array_equal(back(number), in_order[number])


def test_an_anchor_between_two_frames_is_seen_from_there(followed: tuple[Field, Camera, Camera]) -> None:
    """Half a step after frame 2 the object has gone half of its way; from there on it goes on as it does."""
    legs = PartLegs(lambda number: followed[0][number], 2.5, "subject", once)
    way = Carry(legs, 2.5, (HEIGHT, WIDTH)).to(6.5)
    # in the view at 2.5 the object is in the middle, 4 frames later 12 px further right
    middle = way[int(CENTRE[1]) + 6, int(CENTRE[0]) + 12]
    np.testing.assert_allclose(middle, [-12, -4], atol=0.6)


# --- through a gap -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize("part", ["camera", "subject"])
def test_both_anchors_of_a_gap_take_the_part_of_the_motion(part: MotionPart, anchored: bool) -> None:
    """Of a pan the camera has all, and nothing else moves; also behind the end anchor, where time runs backwards."""
    scene = pan_scene(2.0, -1.0, frames=10, height=HEIGHT, width=WIDTH)
    flows = ArrayFlows.of(scene)
    count = 8
    plan = PathPlan(start=0, stop=9, total_flows=9, led=range(1, count + 1), treatment="clip")
    grays = [np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8) for frame in scene.frames]
    with ThreadPoolExecutor(2) as io:
        feed = FrameFeed(Grays(grays), plan.frames_looked_at(), (HEIGHT, WIDTH), io) if anchored else None
        planned = PlannedFlows(flows, plan, io, part=part)
        gap = GapMotion(
            planned, plan, 0, count, from_start=True, from_end=True, wants_visibility=True, wants_flow=True, feed=feed
        )
        moved = np.array([2, -1] if part == "camera" else [0, 0], np.float32)
        inner = np.s_[20:-20, 24:-24]
        for offset, frame in enumerate(gap.frames(), start=1):
            assert frame is not None
            assert frame.start is not None
            assert frame.end is not None
            assert frame.step is not None
            assert frame.visibility is not None
            np.testing.assert_allclose(frame.start[inner], np.broadcast_to(-offset * moved, (80, 112, 2)), atol=0.6)
            ahead = (count + 1 - offset) * moved
            np.testing.assert_allclose(frame.end[inner], np.broadcast_to(ahead, (80, 112, 2)), atol=0.6)
            np.testing.assert_allclose(frame.step[inner], np.broadcast_to(-moved, (80, 112, 2)), atol=0.6)
            assert frame.visibility[12:-12, 14:-14].mean() > 250


class Grays:
    def __init__(self, grays: list[NDArray[np.uint8]]) -> None:
        self._grays = grays

    def gray(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        return [self._grays[index] for index in indices]

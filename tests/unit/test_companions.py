"""What finds lost points again: patches of the first frame, and groups that one similarity moves."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.guide.timeline import Stretch, TimelinePlan
from structureflow.guide.travel import Move, Pictures, _Shown
from structureflow.targets.companions import Layer, groups_around, similarity
from structureflow.targets.patches import Patches
from structureflow.targets.points import PointTracker
from structureflow.testing.videos import texture

HEIGHT, WIDTH = 96, 160
POINTS = np.array([[40.0, 30.0], [80.5, 48.25], [120.0, 60.0]])
STILL = np.array([[1.0, 0, 0], [0, 1, 0]])


def gray(seed: int = 1) -> NDArray[np.uint8]:
    smooth = cv2.GaussianBlur(texture(HEIGHT, WIDTH, seed=seed), (0, 0), 1.5)
    return np.asarray(cv2.cvtColor(smooth, cv2.COLOR_RGB2GRAY), np.uint8)


def warped(picture: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.asarray(cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT), np.uint8)


def turned(radians: float, scale: float, x: float, y: float) -> NDArray[np.float64]:
    cos, sin = scale * math.cos(radians), scale * math.sin(radians)
    return np.array([[cos, -sin, x], [sin, cos, y]])


def at(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2])


@pytest.mark.parametrize("light", [1.0, 0.8])
def test_a_patch_is_found_where_it_went(light: float) -> None:
    """To a quarter of a pixel, turned and in other light, from up to eight pixels away."""
    first = gray()
    truth = turned(0.1, 1.05, 9.5, -4.25)
    now = np.asarray(np.clip(warped(first, truth) * light + 10, 0, 255), np.uint8)
    patches = Patches(first, POINTS)
    numbers = np.arange(3)
    begin = np.repeat(truth[None], 3, axis=0)
    begin[:, :, 2] += [[6.5, -5.0], [-3.25, 7.5], [0.0, 0.0]]
    found = patches.found(now, numbers, begin, 8.0)
    np.testing.assert_allclose(found[:, :, 2], np.repeat(truth[None, :, 2], 3, axis=0), atol=0.3)
    away = found + np.array([[0.0, 0, 3], [0, 0, 3]])
    right, wrong = (patches.unlike(now, numbers, matrices) for matrices in (found, away))
    assert (right < 0.5 * wrong).all()


def test_two_things_are_told_apart_and_a_third_of_two_points_is_none() -> None:
    random = np.random.default_rng(3)
    begin = random.uniform(0, 100, (30, 2))
    ground, thing = turned(0.02, 1.0, 3, 1), turned(-0.2, 1.1, -20, 30)
    now = at(ground, begin)
    now[20:28] = at(thing, begin[20:28])
    now[28:] = [[500, 500], [-300, 20]]
    first, second = groups_around(0, np.arange(1, 30), begin, now)
    assert set(first.members) == set(range(1, 20))
    assert set(second.members) == set(range(20, 28))
    np.testing.assert_allclose(first.place(begin[0]), now[0], atol=1e-3)
    np.testing.assert_allclose(second.matrix, thing, atol=1e-3)


@pytest.mark.parametrize("count", [0, 2])
def test_two_points_make_no_similarity(count: int) -> None:
    points = np.arange(2.0 * count).reshape(-1, 2)
    assert similarity(points, points) is None


def test_nothing_grows_beyond_measure() -> None:
    begin = np.random.default_rng(1).uniform(0, 50, (9, 2))
    assert similarity(begin, 2 * begin) is not None
    assert similarity(begin, 3 * begin) is None
    assert similarity(begin, 0.3 * begin) is None


def test_a_layer_goes_with_its_members_and_drops_those_that_leave() -> None:
    begin = np.random.default_rng(2).uniform(0, 80, (12, 2))
    layer = Layer(np.arange(10), STILL.copy())
    now = at(turned(0.03, 1, 2, 0), begin)
    now[7:10] += [30, 0]
    found = np.ones(12, np.bool_)
    assert layer.go_on(begin, now, found, begin[11], np.array([2.0, 0.0]))
    np.testing.assert_allclose(layer.place(begin[11]), now[11], atol=1e-3)
    assert layer.members.tolist() == list(range(7))


def test_a_layer_whose_members_went_over_to_something_else_follows_the_flow() -> None:
    """Most of what was near has been covered and gone with the cover: that is a leap, and no way to go."""
    begin = np.random.default_rng(2).uniform(0, 80, (12, 2))
    layer = Layer(np.arange(10), STILL.copy())
    now = begin + np.array([60.0, 20.0])
    assert not layer.go_on(begin, now, np.ones(12, np.bool_), begin[11], np.array([1.0, 0.5]))
    np.testing.assert_allclose(layer.place(begin[11]), begin[11] + np.array([1.0, 0.5]))


def test_the_layer_that_looked_right_while_it_was_seen_is_the_likelier() -> None:
    """A point that is covered in most frames looks wrong there on its own layer."""
    own, other = Layer(np.arange(0), STILL, unlike=[20, 25, 20, 1, 1, 2, 1]), Layer(np.arange(0), STILL, unlike=[4] * 7)
    assert own.score < other.score
    assert Layer(np.arange(0), STILL, trust=0.5).score < Layer(np.arange(0), STILL).score


class Frames:
    """Frame n as a picture of just that number."""

    def __call__(self, index: int) -> NDArray[np.uint8]:
        return np.full((2, 2), index, np.uint8)


def test_pictures_say_how_far_they_are_from_the_frame() -> None:
    """Nine frames over thirteen: two thirds of a flow a step."""
    plan = TimelinePlan([Stretch(0, 13, 0, 9, "adjust")], start=0, count=13, total_flows=8)
    shown = _Shown(Frames(), plan)  # type: ignore[arg-type]
    found = [shown.to(position) for position in range(1, 14)]
    assert [picture and picture.first[0, 0] for picture in found] == [0] * 13
    assert [int(picture.now[0, 0]) for picture in found if picture] == [0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8]
    early = [picture.early for picture in found if picture]
    np.testing.assert_allclose(early[1:], [0.5, -0.5, 0.0] * 4, atol=1e-6)
    begun = TimelinePlan([Stretch(0, 13, 0, 9, "adjust")], start=1, count=9, total_flows=8)
    assert _Shown(Frames(), begun).to(1) is None, "the first frame lies between two of the video"  # type: ignore[arg-type]


@pytest.mark.parametrize("early", [0.0, 0.5, -0.5])
def test_a_lost_point_is_found_in_frames_beside_its_own(early: float) -> None:
    """Nobody else is near: it is looked for, along a pan of 3 px, in frames that lie before or behind."""
    first = gray()
    tracker = PointTracker(POINTS, (HEIGHT, WIDTH))
    nothing = np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8)
    way = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    for time in range(1, 7):
        # the flow is a third short
        step = np.full((HEIGHT, WIDTH, 2), [2.0, 0.0], np.float32)
        now = warped(first, np.array([[1.0, 0, 3 * (time + early)], [0, 1, 0]]))
        tracker.move(Move(step, step, way, nothing, pictures=Pictures(first, now, early)))
    np.testing.assert_allclose(tracker.places - POINTS, [[18, 0]] * 3, atol=0.8)
    assert not tracker.visible.any()

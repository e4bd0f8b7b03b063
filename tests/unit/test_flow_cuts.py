"""Scene cuts: the rule and its threshold, against values worked out here."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.flow.cuts import CUT_THRESHOLD, discontinuity, find_cuts
from structureflow.testing.flows import texture

HEIGHT, WIDTH = 60, 96
Gray = NDArray[np.uint8]
Flow = NDArray[np.float32]


def gray(seed: int, *, height: int = HEIGHT, width: int = WIDTH) -> Gray:
    return np.ascontiguousarray(texture(height, width, seed=seed)[..., 1])


def constant(dx: float, dy: float = 0.0) -> Flow:
    return np.full((HEIGHT, WIDTH, 2), (dx, dy), np.float32)


def contrast(image: Gray) -> NDArray[np.float64]:
    """A picture without its local mean over a window of a twelfth of the width, mirrored at the border."""
    window = max(5, WIDTH // 12 | 1)
    half = window // 2
    padded = np.pad(image.astype(np.float64), half, mode="reflect")
    mean = np.zeros(image.shape)
    for dy in range(window):
        for dx in range(window):
            mean += padded[dy : dy + image.shape[0], dx : dx + image.shape[1]]
    found: NDArray[np.float64] = image - mean / window**2
    return found


def likeness(one: Gray, two: Gray) -> float:
    first, second = contrast(one).ravel(), contrast(two).ravel()
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


#: Two scenes, and flows of which neither leads back to where the other came from.
ONE, TWO = gray(1), gray(2)
ASTRAY = constant(0, 0), constant(20, 0)


def test_a_cut_is_a_flow_above_the_threshold() -> None:
    assert CUT_THRESHOLD == 0.25
    assert find_cuts([0.0, 0.2499, 0.25, 0.2501, 1.0, 0.1]) == (3, 4)
    assert find_cuts([]) == ()


def test_two_scenes_are_as_discontinuous_as_they_are_unlike() -> None:
    assert abs(likeness(ONE, TWO)) < 0.2
    expected = 1 - max(0.0, likeness(ONE, TWO), likeness(ONE, shifted(TWO, 0)), likeness(shifted(ONE, 20), TWO))
    assert discontinuity(ONE, TWO, *ASTRAY) == pytest.approx(expected, abs=0.02)
    assert discontinuity(ONE, TWO, *ASTRAY) > 3 * CUT_THRESHOLD


def test_contrast_is_against_the_mean_of_a_twelfth_of_the_width() -> None:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    alike = 40 * np.sin(columns / 5) * np.sin(rows / 5)
    first, second = (np.rint(128 + alike + 8 * np.sin(columns * f) * np.sin(rows * f)).astype(np.uint8) for f in (2, 3))
    # a smaller window sees less of the coarse waves, in which the two are alike
    expected = 1 - likeness(first, second)
    assert 0.3 < expected < 0.7
    assert discontinuity(first, second, *ASTRAY) == pytest.approx(expected, abs=0.02)


def shifted(image: Gray, dx: int) -> Gray:
    """What `image` shows `dx` pixels further right, its edge repeated."""
    return image[:, np.minimum(np.arange(WIDTH) + dx, WIDTH - 1)]


def test_only_the_share_of_pixels_that_contradict_each_other_counts() -> None:
    forward, backward = constant(0), constant(0)
    backward[:, : WIDTH // 4] = 20
    whole = discontinuity(ONE, TWO, *ASTRAY)
    part = discontinuity(ONE, TWO, forward, backward)
    assert part == pytest.approx(whole / 4, rel=0.08)
    assert discontinuity(ONE, TWO, constant(5, 2), constant(-5, -2)) == 0.0, "they agree everywhere"


@pytest.mark.parametrize(
    ("backward", "miss", "contradicts"),
    [
        # without motion: miss^2 > 0.01 miss^2 + 0.5 from 0.7107 on
        (0.0, 0.70, False),
        (0.0, 0.72, True),
        # with motion m: miss^2 > 0.01 (m^2 + (m - miss)^2) + 0.5
        (8.0, 1.25, False),
        (8.0, 1.28, True),
        (40.0, 5.31, False),
        (40.0, 5.37, True),
    ],
)
def test_two_directions_contradict_each_other_by_the_rule_of_sundaram(
    backward: float, miss: float, contradicts: bool
) -> None:
    rule = miss**2 > 0.01 * (backward**2 + (miss - backward) ** 2) + 0.5
    assert rule is contradicts
    found = discontinuity(ONE, TWO, constant(miss - backward), constant(backward))
    assert (found > 0.3) is contradicts
    assert (found == 0.0) is not contradicts


def test_a_pair_that_is_alike_without_motion_is_no_cut_whatever_its_flows() -> None:
    noisy = np.clip(ONE.astype(int) + np.random.default_rng(0).integers(-9, 10, ONE.shape), 0, 255).astype(np.uint8)
    assert likeness(ONE, noisy) > 1 - CUT_THRESHOLD
    assert discontinuity(ONE, noisy, *ASTRAY) == 0.0


@pytest.mark.parametrize("right", ["forward", "backward"])
def test_one_direction_that_explains_the_picture_is_enough(right: str) -> None:
    wide = gray(3, width=WIDTH + 24)
    first, second = np.ascontiguousarray(wide[:, 24:]), np.ascontiguousarray(wide[:, :WIDTH])
    assert abs(likeness(first, second)) < 0.4
    # the scene moves 24 pixels to the right; the other direction says that nothing does
    forward = constant(24 if right == "forward" else 0)
    backward = constant(-24 if right == "backward" else 0)
    assert discontinuity(first, second, forward, backward) < CUT_THRESHOLD
    assert discontinuity(first, second, constant(0), constant(20)) > CUT_THRESHOLD


def test_empty_pictures_are_like_nothing() -> None:
    flat = np.full((HEIGHT, WIDTH), 90, np.uint8)
    assert discontinuity(flat, flat, *ASTRAY) == 1.0
    assert discontinuity(flat, flat, constant(0), constant(0)) == 0.0


def test_colour_is_looked_at_by_its_luma() -> None:
    first, second = texture(HEIGHT, WIDTH, seed=1), texture(HEIGHT, WIDTH, seed=2)
    weights = np.array([0.299, 0.587, 0.114])
    one, two = (np.rint(image @ weights).astype(np.uint8) for image in (first, second))
    assert discontinuity(first, second, *ASTRAY) == pytest.approx(discontinuity(one, two, *ASTRAY), abs=0.01)
    # alike in red, which has more of the luma than blue, in which they are not
    red_first = np.dstack([ONE, np.zeros_like(ONE), ONE])
    red_second = np.dstack([ONE, np.zeros_like(ONE), TWO])
    mixed = discontinuity(red_first, red_second, *ASTRAY)
    assert mixed == 0.0
    assert discontinuity(red_first[..., ::-1], red_second[..., ::-1], *ASTRAY) > 0.3

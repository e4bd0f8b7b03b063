"""Warped noise: white, of unit variance and Gaussian, whatever the motion; and it goes where the motion goes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.targets.noise import FINENESS, NoiseWarper

HEIGHT, WIDTH, CHANNELS = 60, 90, 16
FINE = HEIGHT * FINENESS, WIDTH * FINENESS

Field = NDArray[np.float32]


def places() -> NDArray[np.float64]:
    rows, columns = np.mgrid[0 : FINE[0], 0 : FINE[1]]
    return np.stack([columns, rows], axis=-1).astype(np.float64)


def pan(dx: float, dy: float) -> Field:
    return np.broadcast_to(np.array([dx, dy], np.float32), (*FINE, 2))


def zoom(rate: float) -> Field:
    return ((places() - np.array([FINE[1], FINE[0]]) / 2) * (rate - 1)).astype(np.float32)


def turn(radians: float) -> Field:
    x, y = np.moveaxis(places() - np.array([FINE[1], FINE[0]]) / 2, -1, 0)
    cos, sin = np.cos(radians) - 1, np.sin(radians)
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1).astype(np.float32)


def torn(distance: float) -> Field:
    """The left half goes right, over the right half; behind it the ground is uncovered."""
    flow = np.zeros((*FINE, 2), np.float32)
    flow[:, FINE[1] // 4 : FINE[1] // 2, 0] = distance
    return flow


def rough(seed: int) -> Field:
    """Flow as engines give it where they fail."""
    return np.random.default_rng(seed).normal(0, 6, (*FINE, 2)).astype(np.float32)


MOTIONS: dict[str, Callable[[], Field]] = {
    "still": lambda: pan(0, 0),
    "pan of whole samples": lambda: pan(2.0 * FINENESS, 0),
    "slow pan": lambda: pan(0.3, -0.2),
    "zoom in": lambda: zoom(1.06),
    "zoom out": lambda: zoom(0.95),
    "turn": lambda: turn(0.05),
    "torn": lambda: torn(5),
    "rough": lambda: rough(1),
    "out of the frame": lambda: pan(10_000, 0),
}


def warper(seed: int = 0) -> NoiseWarper:
    return NoiseWarper(HEIGHT, WIDTH, CHANNELS, np.random.default_rng(seed))


def correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


@pytest.mark.parametrize("name", MOTIONS)
def test_every_frame_is_white_unit_normal_noise(name: str) -> None:
    noise, flow = warper(), MOTIONS[name]()
    for _ in range(5):
        noise.move(flow)
    frame = noise.latents()
    assert frame.shape == (HEIGHT, WIDTH, CHANNELS)
    assert frame.dtype == np.float32
    assert abs(frame.mean()) < 1e-3
    assert frame.std() == pytest.approx(1, abs=1e-3)
    for channel in range(CHANNELS):
        assert frame[..., channel].std() == pytest.approx(1, abs=0.05)
    assert abs(correlation(frame[:, 1:], frame[:, :-1])) < 0.02
    assert abs(correlation(frame[1:], frame[:-1])) < 0.02
    assert abs(correlation(frame[1:, 1:], frame[:-1, :-1])) < 0.02
    assert abs(correlation(frame[..., 1:], frame[..., :-1])) < 0.02
    # Gaussian: no longer tails, no flatter top
    assert float((frame**4).mean()) == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("name", MOTIONS)
def test_unit_variance_does_not_come_from_the_last_step_alone(name: str) -> None:
    """Before mean and deviation are made exact, they are what chance makes them: 1/sqrt of the number of samples."""
    noise, flow = warper(seed=3), MOTIONS[name]()
    for _ in range(5):
        noise.move(flow)
    area = noise._area.reshape(HEIGHT, FINENESS, WIDTH, FINENESS).sum(axis=(1, 3))
    sums = noise._noise.reshape(-1, HEIGHT, FINENESS, WIDTH, FINENESS).sum(axis=(2, 4), dtype=np.float64)
    samples = sums / np.sqrt(area)
    assert abs(samples.mean()) < 0.015
    assert samples.std() == pytest.approx(1, abs=0.012)
    # each pixel of the fine grid too, dense or thin
    fine = noise._noise / np.sqrt(noise._area)
    assert fine.std() == pytest.approx(1, abs=0.006)
    for rarer in (noise._area > 1.5, noise._area < 0.7):
        if rarer.sum() > 500:
            assert fine[:, rarer].std() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("dx", "dy"), [(1, 0), (-2, 1), (0, 3)])
def test_noise_goes_with_a_rigid_pan(dx: int, dy: int) -> None:
    noise = warper()
    before = noise.latents()
    noise.move(pan(dx * FINENESS, dy * FINENESS))
    after = noise.latents()
    moved = np.roll(before, (dy, dx), axis=(0, 1))
    inner = (slice(4, -4), slice(4, -4))
    assert correlation(after[inner], moved[inner]) > 0.999
    assert abs(correlation(after[inner], before[inner])) < 0.02


@pytest.mark.parametrize("steps", [3, 10, 40])
def test_slow_motion_adds_up(steps: int) -> None:
    """A third of a fine pixel a frame never rounds to one; after many frames the noise has gone as far as it should."""
    noise = warper()
    before = noise.latents()
    for _ in range(steps):
        noise.move(pan(0.1 * FINENESS, 0))
    after = noise.latents()
    best = max(range(-2, 8), key=lambda shift: correlation(after[:, 8:-8], np.roll(before, shift, axis=1)[:, 8:-8]))
    assert best == pytest.approx(0.1 * steps, abs=0.5)


def test_a_zoom_keeps_the_middle_and_draws_new_noise_between() -> None:
    noise = warper()
    before = noise.latents()
    for _ in range(2):
        noise.move(zoom(1.5))
    after = noise.latents()
    # twice 1.5: a sample of before is 2.25 wide now, so one of after shows a fifth of it: 0.44 at best
    middle = after[HEIGHT // 2 - 4 : HEIGHT // 2 + 4, WIDTH // 2 - 4 : WIDTH // 2 + 4]
    rows = (np.arange(HEIGHT // 2 - 4, HEIGHT // 2 + 4) + 0.5 - HEIGHT / 2) / 2.25 + HEIGHT / 2 - 0.5
    columns = (np.arange(WIDTH // 2 - 4, WIDTH // 2 + 4) + 0.5 - WIDTH / 2) / 2.25 + WIDTH / 2 - 0.5
    came = before[np.rint(rows).astype(int)][:, np.rint(columns).astype(int)]
    assert 0.2 < correlation(middle, came) < 0.5
    assert abs(correlation(middle, np.roll(came, 3, axis=1))) < 0.1
    assert abs(correlation(after[1:], after[:-1])) < 0.02


def test_the_same_seed_gives_the_same_noise_and_another_one_another() -> None:
    frames = []
    for seed in (5, 5, 6):
        noise = warper(seed)
        noise.move(zoom(1.1))
        frames.append(noise.latents())
    np.testing.assert_array_equal(frames[0], frames[1])
    assert abs(correlation(frames[0], frames[2])) < 0.02


def test_new_noise_has_nothing_to_do_with_what_was() -> None:
    noise = warper()
    before = noise.latents()
    noise.renew()
    assert abs(correlation(before, noise.latents())) < 0.02

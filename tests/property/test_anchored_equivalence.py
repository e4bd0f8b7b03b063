"""Anchored paths: the fast way equals a plain one, identity stays identity, a known pan is found."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from structureflow.guide.anchored import AnchoredPath
from structureflow.guide.gap import refined_nodes
from structureflow.guide.refine import MATCHING, Look, Matcher, Matching, Refiner
from structureflow.testing.flows import smooth_flows
from structureflow.testing.plain_anchored import looks_plainly, refine_plainly, unlike_plainly
from structureflow.testing.plain_motion import pull_plainly
from structureflow.testing.scenes import WaveTexture

SEEDS = st.integers(0, 10_000)


def gray(height: int, width: int, seed: int, dx: float = 0.0, dy: float = 0.0) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    return np.asarray(cv2.cvtColor(WaveTexture(seed)(x - dx, y - dy), cv2.COLOR_RGB2GRAY))


@settings(max_examples=15, deadline=None)
@given(
    seed=SEEDS,
    height=st.integers(40, 70),
    width=st.integers(40, 90),
    spread_px=st.sampled_from([0, 4]),
    quality=st.sampled_from(["fast", "balanced", "best"]),
)
def test_refinement_is_the_plain_choice(seed: int, height: int, width: int, spread_px: int, quality: str) -> None:
    anchor = gray(height, width, seed)
    truth, wrong = smooth_flows(2, height, width, seed=seed, scale_px=1.5)
    now = np.asarray(np.rint(pull_plainly(anchor[..., None], truth)[..., 0]), np.uint8)
    path = (truth + 0.4 * wrong).astype(np.float32)
    matching = Matching(MATCHING[quality].finest_scale, MATCHING[quality].smoothings, spread_px=spread_px)
    matched = Matcher(anchor.shape, matching)(now, anchor, path)
    plain, least = refine_plainly(now, anchor, path, matched, spread_px, seed)

    refined, unlike = Refiner(anchor, matching).refine(Look(now), path, turn=seed)

    # OpenCV samples at 1/32 px, so that offers nearly as good as each other may change places
    same = np.abs(refined - plain).max(axis=-1) < 0.1
    assert same.mean() > 0.95
    np.testing.assert_allclose(unlike, least, atol=0.6)
    # and either way the choice is as good as the plain one, and explains the frame better than the path did
    looks = looks_plainly(now), looks_plainly(anchor)
    chosen = unlike_plainly(*looks, refined).mean()
    assert chosen <= least.mean() + 0.1
    assert chosen < unlike_plainly(*looks, path).mean()


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, quality=st.sampled_from(["fast", "balanced", "best"]), noise=st.booleans())
def test_an_identity_path_stays_identity(seed: int, quality: str, noise: bool) -> None:
    frame = gray(64, 96, seed)
    if noise:
        frame = np.random.default_rng(seed).integers(0, 256, frame.shape, np.uint8)
    still = np.zeros((64, 96, 2), np.float32)
    refined, unlike = Refiner(frame, MATCHING[quality]).refine(Look(frame), still)
    np.testing.assert_array_equal(refined, still)
    assert not unlike.any()
    path = AnchoredPath(lambda _: still, 0.0, (64, 96), lambda _: frame, range(1, 6), MATCHING[quality])
    for position in (0, 0.5, 1, 3, 4.25, 5):
        found = path.to(position)
        np.testing.assert_array_equal(found.displacement, still)
        assert found.seen.all()


@pytest.mark.parametrize("quality", ["fast", "balanced", "best"])
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS, dx=st.floats(-3, 3), dy=st.floats(-2, 2))
def test_a_known_pan_is_found_to_a_tenth_of_a_pixel(quality: str, seed: int, dx: float, dy: float) -> None:
    """Legs that are wrong by a third of a pixel each: composed, the path would be 4 px off after 12 frames."""
    count, height, width = 12, 144, 192
    frames = [gray(height, width, seed, dx * time, dy * time) for time in range(count + 1)]
    leg = np.empty((height, width, 2), np.float32)
    leg[...] = (-dx + 0.3, -dy - 0.15)
    path = AnchoredPath(
        lambda _: leg, 0.0, (height, width), lambda node: frames[node], range(1, count + 1), MATCHING[quality]
    )
    margin = 48
    inner = (slice(margin, -margin), slice(margin + 8, -margin - 8))
    for position in range(1, count + 1):
        found = path.to(float(position))
        if MATCHING[quality].every > 1 and position % 2:
            continue
        error = found.displacement[inner] - np.array([-dx * position, -dy * position])
        assert np.abs(error).mean() < 0.1, position
        assert found.seen[margin // 2 : -margin // 2, margin // 2 + 4 : -margin // 2 - 4].mean() > 0.97


class Legs:
    """Legs in two buffers by turns, as `LegReader` gives them: intact until the second call after them, no longer."""

    def __init__(self, legs: NDArray[np.float32], delays: np.random.Generator) -> None:
        self._legs = legs
        self._delays = delays
        self._slots = [np.full_like(legs[0], 99) for _ in range(2)]
        self._numbers: list[int | None] = [None, None]

    def __call__(self, number: int) -> NDArray[np.float32]:
        slot = number % 2
        if self._numbers[slot] != number:
            self._slots[slot].fill(99)
            time.sleep(self._delays.uniform(0, 0.002))
            self._slots[slot][...] = self._legs[number]
            self._numbers[slot] = number
        return self._slots[slot]


@settings(max_examples=15, deadline=None)
@given(
    seed=SEEDS,
    start=st.sampled_from([0.0, 0.25, 1.0]),
    paces=st.lists(st.sampled_from([0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0]), min_size=1, max_size=3),
    quality=st.sampled_from(["fast", "balanced"]),
    missing=st.sampled_from([None, None, 4]),
    copied=st.booleans(),
)
def test_a_path_that_looks_ahead_is_the_same(
    seed: int, start: float, paces: list[float], quality: str, missing: int | None, copied: bool
) -> None:
    height, width, count = 40, 56, 9
    noise = np.random.default_rng(seed)
    legs = smooth_flows(count, height, width, seed=seed, scale_px=0.7)
    grays = [gray(height, width, seed, 0.6 * node, -0.3 * node) for node in range(count + 1)]
    positions = [start + pace for pace in np.cumsum([paces[turn % len(paces)] for turn in range(12)])]
    positions = [position for position in positions if position <= count - 1]
    refined = refined_nodes(positions or [start], start, MATCHING[quality].every)

    def frame(node: int) -> NDArray[np.uint8] | None:
        time.sleep(noise.uniform(0, 0.002))
        return None if node == missing else grays[node]

    def found(ahead: ThreadPoolExecutor | None) -> list[NDArray[np.float32]]:
        path = AnchoredPath(Legs(legs, noise), start, (height, width), frame, refined, MATCHING[quality], ahead)
        kept: list[NDArray[np.float32]] = []
        for turn, position in enumerate(positions):
            if copied and turn == 2:
                path = path.copy()
            judged = path.to(float(position))
            kept += [judged.displacement.copy(), judged.seen.copy(), judged.unlike.copy()]
        return kept

    with ThreadPoolExecutor(1) as ahead:
        for one, other in zip(found(None), found(ahead), strict=True):
            np.testing.assert_array_equal(one, other)

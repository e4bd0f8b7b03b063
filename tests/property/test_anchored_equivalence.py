"""Anchored paths: the fast way equals a plain one, identity stays identity, a known pan is found."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from structureflow.guide.anchored import AnchoredPath
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

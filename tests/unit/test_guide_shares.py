"""How two anchors share a gap over time: without flicker, and each alone next to itself."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.errors import GuidanceError
from structureflow.flow.fields import Treatment
from structureflow.guide.evidence import Evidence, Judgement
from structureflow.guide.feed import FrameFeed
from structureflow.guide.gap import GapMotion
from structureflow.guide.plan import PathPlan
from structureflow.guide.planned import PlannedFlows
from structureflow.guide.ports import Gray
from structureflow.guide.refine import MATCHING
from structureflow.guide.ways import Moment, Way, end_share, soft_visibility
from structureflow.testing.plain_anchored import held_plainly
from structureflow.testing.scenes import ArrayFlows, Scene, pan_scene

HEIGHT, WIDTH = 96, 144
FLOWS = 24
PAN = (1.0, 0.3)
NOISE_LEVELS = 6


class NoisyFrames:
    """The frames of a scene, each with noise of its own: fine texture that no path can follow."""

    def __init__(self, scene: Scene) -> None:
        random = np.random.default_rng(5)
        self._grays = [
            np.asarray(np.clip(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) + noise, 0, 255), np.uint8)
            for frame, noise in zip(
                scene.frames, random.normal(0, NOISE_LEVELS, (len(scene.frames), HEIGHT, WIDTH)), strict=True
            )
        ]

    def gray(self, indices: Sequence[int]) -> list[Gray]:
        return [self._grays[index] for index in indices]


def shares(count: int, treatment: Treatment, quality: str = "balanced") -> tuple[list[NDArray[np.float32]], float]:
    """Return the end anchor's share in each of `count` frames of a pan, and how many flows a frame plays."""
    scene = pan_scene(*PAN, frames=FLOWS + 1, height=HEIGHT, width=WIDTH, seed=7)
    flows = ArrayFlows.of(scene)
    stop = FLOWS if treatment == "retime" else count + 1
    plan = PathPlan(start=0, stop=stop, total_flows=FLOWS, led=range(1, count + 2), treatment=treatment)
    with ThreadPoolExecutor(2) as io:
        feed = FrameFeed(NoisyFrames(scene), plan.frames_looked_at(), (HEIGHT, WIDTH), io)
        gap = GapMotion(
            PlannedFlows(flows, plan, io),
            plan,
            0,
            count,
            from_start=True,
            from_end=True,
            feed=feed,
            matching=MATCHING[quality],
        )
        found = [motion.end_weight for motion in gap.frames() if motion is not None and motion.end_weight is not None]
    assert len(found) == count
    return [weight.astype(np.float32) * np.float32(1 / 255) for weight in found], plan.node_at(1)


def along(before: NDArray[np.float32], pace: float) -> NDArray[np.float32]:
    """Return the share of the frame before, where its content has gone; the evidence's grid is half as fine."""
    x, y = (-pace * way / 2 for way in PAN)
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float64)
    size = before.shape[1], before.shape[0]
    return np.asarray(
        cv2.warpAffine(
            before, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        ),
        np.float32,
    )


@pytest.mark.parametrize(
    ("count", "treatment"),
    [(47, "retime"), (40, "retime"), (23, "retime"), (15, "retime"), (22, "clip")],
    ids=["half a flow a frame", "0.59 of a flow", "whole flows", "a flow and a half", "clip"],
)
@pytest.mark.parametrize("quality", ["balanced", "fast"])
def test_shares_go_from_one_anchor_to_the_other_and_not_to_and_fro(
    count: int, treatment: Treatment, quality: str
) -> None:
    found, pace = shares(count, treatment, quality)
    changes = [(now - along(before, pace))[8:-8, 20:-20] for before, now in itertools.pairwise(found)]
    back = sum(float(np.maximum(-change, 0).mean()) for change in changes)
    whole = sum(float(np.abs(change).mean()) for change in changes)
    assert back < 0.25, "without flicker each share only rises"
    assert whole < 1.45
    for share, alone in ((found[0], 0), (found[-1], 1)):
        assert abs(float(share[8:-8, 20:-20].mean()) - alone) < 0.05, "next to a guide its frame looks like it"
    assert 0.4 < found[count // 2].mean() < 0.6


# --- evidence over time ------------------------------------------------------------------------------


def test_what_is_held_equals_the_plain_rule_and_goes_with_the_motion() -> None:
    random = np.random.default_rng(3)
    shape = (12, 20)
    step = np.zeros((*shape, 2), np.float32)
    step[..., 0] = -2
    evidence = Evidence.at_anchor(shape)
    plain = np.zeros((6, 10))
    for _ in range(8):
        unlike = random.uniform(0, 12, shape).astype(np.float32)
        evidence = evidence.followed(step).judged(unlike, np.full(shape, 5, np.float32))
        # two pixels to the right are one of the evidence's
        plain = held_plainly(np.pad(plain, ((0, 0), (1, 0)), mode="edge")[:, :-1], unlike[::2, ::2])
        np.testing.assert_allclose(evidence.look[..., 2], plain, atol=1e-4)
        np.testing.assert_array_equal(evidence.look[..., 1], unlike[::2, ::2])


def test_flicker_is_not_followed_and_a_change_is_at_once() -> None:
    still, busy = np.zeros((4, 4, 2), np.float32), np.full((4, 4), 5, np.float32)
    evidence = Evidence.at_anchor((4, 4))
    held = []
    for levels in (6, 5.2, 6.1, 5.0, 6, 30, 28, 31, 2):
        evidence = evidence.followed(still).judged(np.full((4, 4), levels, np.float32), busy)
        held.append(float(evidence.look[0, 0, 2]))
    assert np.ptp(held[:5]) < 0.1
    assert np.ptp(held[5:8]) < 1.5
    assert held[5] > 24
    assert held[8] < 3


def test_between_two_frames_what_is_said_of_both_comes_in_evenly() -> None:
    shape = (8, 12)
    still = np.zeros((*shape, 2), np.float32)

    def said(levels: float) -> Judgement:
        there = np.ones((4, 6), np.float32)
        return Judgement(still, there, there * np.float32(levels), there * np.float32(levels / 2))

    for share in (0.0, 0.25, 0.5, 1.0):
        found = said(4).between(still, said(8), still, share, still)
        np.testing.assert_allclose(found.unlike, 4 + 4 * share)
        np.testing.assert_allclose(found.held, 2 + 2 * share)
        assert found.seen.min() == 1


# --- time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("looked", [True, False], ids=["anchored", "composed"])
@pytest.mark.parametrize("count", [1, 2, 9, 43, 200])
def test_by_time_alone_shares_rise_evenly_from_nothing_to_all(count: int, looked: bool) -> None:
    still, everywhere = np.zeros((4, 4, 2), np.float32), np.full((2, 2), 255, np.uint8)
    alike = np.ones((2, 2), np.float32) if looked else None
    way = Way(still, everywhere, unlike=alike, held=alike)
    found = [int(end_share(Moment(at, count + 1 - at), way, way)[0, 0]) for at in range(count + 2)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 255)
    assert all(abs(one + other - 255) <= 1 for one, other in zip(found, found[::-1], strict=True))
    if count > 5:
        assert found[1] <= 0.11 * 255, "the frame next to a guide looks like it"


def test_an_anchor_is_itself_whatever_is_seen() -> None:
    still, nowhere = np.zeros((4, 4, 2), np.float32), np.zeros((2, 2), np.uint8)
    bad, good = np.full((2, 2), 200, np.float32), np.zeros((2, 2), np.float32)
    worst, best = Way(still, nowhere, unlike=bad, held=bad), Way(still, nowhere + 255, unlike=good, held=good)
    assert end_share(Moment(0, 9), worst, best).max() == 0
    assert end_share(Moment(9, 0), best, worst).min() == 255


# --- visibility and likeness ---------------------------------------------------------------------------


def test_where_both_see_time_decides_and_where_one_sees_it_prevails() -> None:
    still = np.zeros((4, 4, 2), np.float32)
    seen, unseen = Way(still, np.full((4, 4), 255, np.uint8)), Way(still, np.zeros((4, 4), np.uint8))
    assert end_share(Moment(1, 3), seen, seen)[0, 0] == 64
    assert end_share(Moment(1, 3), unseen, unseen)[0, 0] == 64
    assert end_share(Moment(2, 2), seen, unseen)[0, 0] < 60 < 195 < end_share(Moment(2, 2), unseen, seen)[0, 0]
    assert end_share(Moment(0, 4), unseen, seen)[0, 0] == 0
    assert end_share(Moment(4, 0), seen, unseen)[0, 0] == 255
    with pytest.raises(GuidanceError, match="visibilit"):
        end_share(Moment(2, 2), Way(still), seen)


def test_of_two_that_are_seen_the_one_that_looks_right_prevails() -> None:
    still, everywhere = np.zeros((4, 4, 2), np.float32), np.full((4, 4), 255, np.uint8)

    def way(visible: NDArray[np.uint8], levels: float) -> Way:
        plane = np.full((4, 4), levels, np.float32)
        return Way(still, visible, unlike=plane, held=plane)

    alike, unlike = way(everywhere, 1), way(everywhere, 9)
    assert end_share(Moment(2, 2), alike, alike)[0, 0] == 128
    assert end_share(Moment(2, 2), alike, unlike)[0, 0] < 3
    assert end_share(Moment(2, 2), unlike, alike)[0, 0] > 252
    # what is unlike but shown is better than what is less unlike and not shown at all
    assert end_share(Moment(2, 2), unlike, way(np.zeros((4, 4), np.uint8), 8))[0, 0] < 115


def test_hidden_parts_are_widened_and_feathered() -> None:
    visible = np.ones((21, 21), np.bool_)
    visible[:, 10:] = False
    soft = soft_visibility(visible)
    assert soft[10, 4] == 255
    assert soft[10, 14] == 0
    assert 0 < soft[10, 8] < 255
    assert soft[10, 9] < 128

"""Points followed through drawn scenes whose motion is known exactly, along exact flows and along anchored ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.flow.fields import FlowSource, sample
from structureflow.guide.feed import FrameFeed
from structureflow.guide.plan import PathPlan
from structureflow.guide.planned import PlannedFlows
from structureflow.guide.ports import Gray
from structureflow.guide.refine import MATCHING
from structureflow.guide.travel import Move, segment_moves
from structureflow.models.outputs import TrackOptions
from structureflow.targets.points import PointTracker
from structureflow.testing.photo_scenes import PhotoScene
from structureflow.testing.scenes import (
    ArrayFlows,
    Layer,
    WaveTexture,
    disc,
    draw,
    join,
    pan,
    picture_of,
    rotation,
    way_between,
    zoom,
)
from structureflow.testing.videos import texture

HEIGHT, WIDTH, FRAMES = 96, 128, 49
CENTRE = (WIDTH / 2, HEIGHT / 2)

SCENES: dict[str, list[Layer]] = {
    "pan": [Layer(pan(1.3, -0.4), WaveTexture(1))],
    "zoom in": [Layer(zoom(1.012, CENTRE), WaveTexture(2))],
    "zoom out": [Layer(zoom(0.985, CENTRE), WaveTexture(3))],
    "turn": [Layer(rotation(0.012, CENTRE), WaveTexture(4))],
    "an object passes": [
        Layer(pan(-0.3, 0), WaveTexture(5)),
        Layer(pan(1.5, 0.2), WaveTexture(6), disc(WIDTH * 0.2, HEIGHT * 0.45, HEIGHT * 0.22)),
    ],
}


@dataclass(frozen=True)
class Tracked:
    """Places ``(T, N, 2)`` and visibilities ``(T, N)``, as they are and as they were found."""

    truth: NDArray[np.float64]
    shown: NDArray[np.bool_]
    places: NDArray[np.float64]
    visible: NDArray[np.bool_]

    @property
    def error_px(self) -> NDArray[np.float64]:
        return np.asarray(np.hypot(*np.moveaxis(self.places - self.truth, -1, 0)), np.float64)


class Grays:
    def __init__(self, grays: Sequence[Gray]) -> None:
        self._grays = grays

    def gray(self, indices: Sequence[int]) -> list[Gray]:
        return [self._grays[index] for index in indices]


def moves(flows: FlowSource, grays: Sequence[Gray] | None = None, quality: str = "balanced") -> Iterator[Move]:
    count, shape = flows.meta.total_flows, (flows.meta.height, flows.meta.width)
    cuts = flows.meta.scene_cuts
    plan = PathPlan(start=0, stop=count, total_flows=count, led=range(1, count + 1), treatment="clip", scene_cuts=cuts)
    with ThreadPoolExecutor(2) as io, ThreadPoolExecutor(1) as pool:
        feed = FrameFeed(Grays(grays), plan.frames_looked_at(), shape, io) if grays else None
        matching = MATCHING[quality] if grays else None
        planned = PlannedFlows(flows, plan, io)
        with closing(segment_moves(planned, plan, pool, ways=True, feed=feed, matching=matching)) as found:
            yield from found


def follow(points: NDArray[np.float64], shape: tuple[int, int], way: Iterator[Move]) -> tuple[list, list]:  # type: ignore[type-arg]
    tracker = PointTracker(points, shape)
    places, visible = [tracker.places], [tracker.visible]
    for move in way:
        tracker.move(move)
        places.append(tracker.places)
        visible.append(tracker.visible)
    return places, visible


def tracked(layers: list[Layer]) -> Tracked:
    scene = draw(layers, frames=FRAMES, height=HEIGHT, width=WIDTH)
    points = np.array(TrackOptions(grid=(8, 6)).places(HEIGHT, WIDTH))
    _, seen = picture_of(layers, 0, HEIGHT, WIDTH)
    truth, shown = [], []
    cells = np.rint(points).astype(int)
    for time in range(FRAMES):
        way, hidden = way_between(layers, seen, 0, time)
        # the exact way of each point: its layer's, not what lies between two pixels
        truth.append(points + way[cells[:, 1], cells[:, 0]] if time else points)
        shown.append(~hidden[cells[:, 1], cells[:, 0]])
    places, visible = follow(points, (HEIGHT, WIDTH), moves(ArrayFlows.of(scene)))
    return Tracked(np.stack(truth), np.stack(shown), np.stack(places), np.stack(visible))


@pytest.mark.parametrize("name", SCENES)
def test_points_go_with_exact_flows(name: str) -> None:
    found = tracked(SCENES[name])
    # half a pixel lies between a point and the middle of its cell, which a zoom or turn carries on
    assert found.error_px[found.shown].mean() < (1.5 if len(SCENES[name]) > 1 else 1.0)
    assert (found.visible == found.shown).mean() > 0.9
    if len(SCENES[name]) == 1:
        assert np.percentile(found.error_px[found.shown], 95) < 1.5
        inside = (found.truth > 4).all(axis=-1) & (found.truth < np.array([WIDTH, HEIGHT]) - 5).all(axis=-1)
        assert found.visible[inside].mean() > 0.98


def test_what_an_object_covers_is_hidden_and_found_again() -> None:
    found = tracked(SCENES["an object passes"])
    covered = found.shown[0] & found.shown[-1] & ~found.shown[1:-1].all(axis=0)
    assert covered.sum() >= 6
    hidden = ~found.shown[:, covered]
    assert (~found.visible[:, covered])[hidden].mean() > 0.8
    # while it is hidden a point goes with the ground, not with what covers it
    assert np.median(found.error_px[:, covered][hidden]) < 1.5
    assert np.median(found.error_px[-1, covered]) < 0.5
    assert found.error_px[-1, covered].mean() < 1.5


def test_nothing_is_seen_behind_a_cut() -> None:
    first, second = (
        draw([Layer(pan(1, 0), WaveTexture(seed))], frames=6, height=HEIGHT, width=WIDTH) for seed in (1, 2)
    )
    flows = ArrayFlows.of(join(first, second))
    points = np.array([[30.0, 40.0], [60.5, 20.25]])
    found = list(moves(flows))
    assert [move.cut for move in found] == [False] * 5 + [True] + [False] * 5
    places, visible = follow(points, (HEIGHT, WIDTH), iter(found))
    for index, (place, seen) in enumerate(zip(places, visible, strict=True)):
        np.testing.assert_allclose(place, points + np.array([min(index, 5), 0]), atol=0.3)
        assert seen.all() == (index <= 5)
        assert seen.any() == (index <= 5)


def test_points_outside_of_the_frame_are_never_seen() -> None:
    flows = ArrayFlows.of(draw([Layer(pan(2, 0), WaveTexture(1))], frames=5, height=HEIGHT, width=WIDTH))
    _, visible = follow(np.array([[-3.0, 10.0], [500.0, 10.0], [10.0, 10.0]]), (HEIGHT, WIDTH), moves(flows))
    assert not np.stack(visible)[:, :2].any()
    assert np.stack(visible)[:, 2].all()


def test_anchored_tracks_of_a_scene_of_photographs() -> None:
    """Engine, matcher and evidence as in a job; a camera that pans, turns and zooms, and an object on a curve."""
    height, width = 180, 320
    photos = tuple(
        np.asarray(cv2.GaussianBlur(texture(height, width, seed=seed), (0, 0), 2.2), np.uint8) for seed in (1, 2)
    )
    scene = PhotoScene((photos[0], photos[1]), height=height, width=width, speed=0.6, noise=2.0, seed=1)
    frames = [scene.frame(time) for time in range(FRAMES)]
    grays = [np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8) for frame in frames]
    engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    pairs = list(itertools.pairwise(grays))
    forward = np.stack([engine.calc(one, two, None) for one, two in pairs])  # type: ignore[call-overload]
    backward = np.stack([engine.calc(two, one, None) for one, two in pairs])  # type: ignore[call-overload]
    points = np.array(TrackOptions(grid=(12, 8)).places(height, width))
    cells = np.rint(points).astype(int)
    truth, shown = [], []
    for time in range(FRAMES):
        way, seen = scene.path(0, time)
        truth.append(points + sample(way, points.astype(np.float32)[:, None])[:, 0])
        shown.append(seen[cells[:, 1], cells[:, 0]])
    results = {}
    for name, pictures in (("anchored", grays), ("composed", None)):
        places, visible = follow(points, (height, width), moves(ArrayFlows(forward, backward), pictures))
        results[name] = Tracked(np.stack(truth), np.stack(shown), np.stack(places), np.stack(visible))
    ours, plain = results["anchored"], results["composed"]
    both = ours.shown & ours.visible
    assert ours.error_px[both].mean() < 1.5
    assert np.median(ours.error_px[ours.shown]) < 0.75
    # which side of the object's outline a point belongs to, nobody can tell within a pixel of it
    way, _ = scene.path(0, 8)
    around = np.ones((7, 7), np.uint8)
    clear = (cv2.dilate(way, around) - cv2.erode(way, around)).max(axis=-1)[cells[:, 1], cells[:, 0]] < 3
    assert clear.mean() > 0.8
    assert ours.error_px[:, clear][ours.shown[:, clear]].mean() < 1.0
    assert ours.error_px[ours.shown].mean() < 2.5
    assert (ours.visible == ours.shown).mean() > 0.9
    assert ours.error_px[ours.shown].mean() < plain.error_px[plain.shown].mean()

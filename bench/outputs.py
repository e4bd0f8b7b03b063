"""Outputs for generators against the truth: tracks on drawn scenes, warped noise on the reference clip's own motion.

"Original" is the same output along composed flows, where there is one: what anchored paths gain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.clips import QUALITY, Frame, StructureGrays, flows_of
from bench.harness import Context, Row
from structureflow.flow.fields import FlowSource, sample
from structureflow.guide.feed import FrameFeed
from structureflow.guide.images import fit
from structureflow.guide.plan import PathPlan
from structureflow.guide.planned import PlannedFlows
from structureflow.guide.ports import Gray
from structureflow.guide.refine import MATCHING, Matching, fits_matcher
from structureflow.guide.travel import Move, segment_moves
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.models.outputs import TrackOptions
from structureflow.targets.noise import FINENESS, NoiseWarper
from structureflow.targets.output import Placing
from structureflow.targets.points import PointTracker
from structureflow.testing.photo_scenes import VARIANTS, PhotoScene

FRAMES: Final = 49
SIZE: Final = (360, 640)
#: So near to an outline of the scene a point may be taken for the other side's.
OUTLINE_PX: Final = 3
LATENTS: Final = (60, 90, 16)


def rows(context: Context) -> list[Row]:
    """Measure tracks and noise; a minute or two."""
    with VideoReader(context.clip, DecodeLimits()) as reader:
        frames = [fit(frame.image, *SIZE) for frame in reader]
    found: list[Row] = []
    for name, speed, light, noise in VARIANTS[:1] if context.quick else VARIANTS:
        context.log(f"outputs: tracks, {name} …")
        scene = PhotoScene((frames[20], frames[110]), speed=speed, light=light, noise=noise, seed=1)
        found += _tracks(name, scene)
    context.log("outputs: noise …")
    found += _noise(frames[:FRAMES])
    return found


@dataclass(frozen=True)
class TrackScore:
    """How good tracks are: errors in pixels of the frames, shares of all points in all frames.

    Attributes:
        error_px: mean, where the truth says that the point is seen.
        median_px, off: their median, and the share that is more than 3 px off.
        trusted_px: mean where the tracks themselves say so too.
        right: share of visibilities that are right.
    """

    error_px: float
    median_px: float
    off: float
    trusted_px: float
    right: float


def score_tracks(
    truth: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]],
    tracks: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]],
) -> TrackScore:
    """Compare tracks with the truth: for each frame ``(N, 2)`` places and ``(N,)`` whether they are seen."""
    error = np.stack([np.hypot(*(at - true).T) for (at, _), (true, _) in zip(tracks, truth, strict=True)])
    seen, said = (np.stack([visible for _, visible in which]) for which in (truth, tracks))
    return TrackScore(
        float(error[seen].mean()),
        float(np.median(error[seen])),
        float((error[seen] > 3).mean()),
        float(error[seen & said].mean()),
        float((seen == said).mean()),
    )


def _tracks(name: str, scene: PhotoScene) -> Iterator[Row]:
    frames = [scene.frame(time) for time in range(FRAMES)]
    flows, grays = flows_of(frames)
    points = np.array(TrackOptions(grid=(20, 12)).places(*SIZE))
    truth = [_truth(scene, points, time) for time in range(FRAMES)]
    found = [track(flows, pictures, points, SIZE) for pictures in (None, grays)]
    plain, ours = (score_tracks(truth, tracks) for tracks in found)
    # which side of an outline a point belongs to, nobody can tell within a pixel or two of it
    clear = clear_of_outlines(scene, points)
    sure = [score_tracks(_of(truth, clear), _of(tracks, clear)) for tracks in found]
    what = f"tracks, {name}, {FRAMES} frames of {SIZE[1]}x{SIZE[0]}"
    yield Row(
        "outputs",
        f"{what}: mean error where seen, {OUTLINE_PX} px or more off an outline",
        "px",
        sure[0].error_px,
        sure[1].error_px,
    )
    yield Row(
        "outputs",
        f"{what}: mean error where seen",
        "px",
        plain.error_px,
        ours.error_px,
        note="1.5 is asked for",
    )
    yield Row("outputs", f"{what}: median error where seen", "px", plain.median_px, ours.median_px)
    yield Row("outputs", f"{what}: mean error where said to be seen", "px", plain.trusted_px, ours.trusted_px)
    yield Row("outputs", f"{what}: off by more than 3 px", "share", plain.off, ours.off)
    yield Row(
        "outputs",
        f"{what}: visibility wrong",
        "share",
        1 - plain.right,
        1 - ours.right,
        note="0.1 is asked for",
    )


def clear_of_outlines(scene: PhotoScene, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which points of a scene's first frame lie off its object's outline, by how the motion around them goes."""
    way, _ = scene.path(0, 8)
    around = np.ones((2 * OUTLINE_PX + 1, 2 * OUTLINE_PX + 1), np.uint8)
    spread = (cv2.dilate(way, around) - cv2.erode(way, around)).max(axis=-1)
    cells = np.rint(points).astype(int)
    clear: NDArray[np.bool_] = spread[cells[:, 1], cells[:, 0]] < 3
    return clear


def _of(
    tracks: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]], which: NDArray[np.bool_]
) -> list[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    return [(places[which], seen[which]) for places, seen in tracks]


def _truth(scene: PhotoScene, points: NDArray[np.float64], time: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    way, shown = scene.path(0, time)
    moved = points + sample(way, points.astype(np.float32)[:, None])[:, 0]
    cells = np.rint(points).astype(int)
    return moved, shown[cells[:, 1], cells[:, 0]]


def track(
    flows: FlowSource, grays: Sequence[Gray] | None, points: NDArray[np.float64], size: tuple[int, int]
) -> list[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Follow points through a video; anchored in its frames `grays`, if given. For each frame places and visibility."""
    placing = Placing.of(flows.meta, *size)
    tracker = PointTracker(placing.to_grid(points), (flows.meta.height, flows.meta.width))
    found = [(points, tracker.visible)]
    for move in moves(flows, grays):
        tracker.move(move)
        found.append((placing.to_output(tracker.places), tracker.visible))
    return found


def moves(flows: FlowSource, grays: Sequence[Gray] | None) -> Iterator[Move]:
    """Yield the motion from frame to frame and back to the first."""
    count = flows.meta.total_flows
    shape = flows.meta.height, flows.meta.width
    plan = PathPlan(start=0, stop=count, total_flows=count, led=range(1, count + 1), treatment="clip")
    with ThreadPoolExecutor(2) as io, ThreadPoolExecutor(1) as pool:
        feed = None
        matching: Matching | None = None
        if grays is not None and fits_matcher(shape):
            feed, matching = FrameFeed(StructureGrays(grays), plan.frames_looked_at(), shape, io), MATCHING[QUALITY]
        planned = PlannedFlows(flows, plan, io)
        with closing(segment_moves(planned, plan, pool, ways=True, feed=feed, matching=matching)) as found:
            yield from found


def _noise(frames: Sequence[Frame]) -> Iterator[Row]:
    """Measure the noise of CogVideoX's latents along real motion, before mean and deviation are made exact too."""
    flows, grays = flows_of(frames)
    height, width, channels = LATENTS
    warper = NoiseWarper(height, width, channels, np.random.default_rng(1))
    placing = Placing.of(flows.meta, height * 8, width * 8)
    fine = np.stack(np.meshgrid(np.arange(width * FINENESS), np.arange(height * FINENESS)), axis=-1).reshape(-1, 2)
    cell = 8 / FINENESS
    places = (
        placing.to_grid(((fine + 0.5) * cell - 0.5).astype(np.float64)).reshape(*warper.shape, 2).astype(np.float32)
    )
    scale = np.array(placing.scale, np.float32) / np.float32(cell)
    found = [warper.latents()]
    for move in moves(flows, grays):
        step = move.step if move.steady is None else move.steady
        if step is None:
            warper.renew()
        else:
            warper.move(sample(step, places) * scale)
        found.append(warper.latents())
    what = f"warped noise, {len(frames)} frames of {channels}x{height}x{width}, worst frame"
    yield Row("outputs", f"{what}: mean", "", None, max(abs(float(one.mean())) for one in found))
    yield Row("outputs", f"{what}: deviation from 1", "", None, max(abs(float(one.std()) - 1) for one in found))
    for axis, name in ((1, "beside"), (0, "below")):
        worst = max(abs(_correlation(*_pairs(one, axis))) for one in found)
        yield Row("outputs", f"{what}: correlation with the sample {name}", "", None, worst, note="below 0.02 is white")
    first, last = found[0], found[-1]
    yield Row("outputs", "warped noise, first and last frame at one place", "", None, abs(_correlation(first, last)))


def _pairs(noise: NDArray[np.float32], axis: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    count = noise.shape[axis]
    return noise.take(range(1, count), axis), noise.take(range(count - 1), axis)


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])

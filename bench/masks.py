"""Masks of motion-filled frames: do they keep what an anchor shows, and leave what it does not?

* Drawn scenes of photographs at 720p, whose occlusion is known exactly: of hidden pixels the share that is white, of
  visible ones the share that is black, before masks grow to their grid; and what is kept after that.
* The reference clip, its own frames as anchors: likeness of what is kept against that of frames filled as a whole.
* What masks and seams cost: 43 frames at 720p with and without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.clips import QUALITY, WORKERS, Frame, FrameGuides, StructureGrays, flows_of
from bench.harness import Context, Row
from bench.tracking import BEFORE, GAP, JUDGED, STARTS
from structureflow.flow.fields import FlowSource
from structureflow.guide.feed import FrameFeed
from structureflow.guide.gap import GapMotion
from structureflow.guide.masks import FILLED, Blocks, Masking
from structureflow.guide.pictures import PLANES
from structureflow.guide.plan import PathPlan
from structureflow.guide.planned import PlannedFlows
from structureflow.guide.ports import Mask, Picture
from structureflow.guide.refine import MATCHING, Matching
from structureflow.guide.render import RenderSettings, render_segment
from structureflow.guide.warp import Geometry, expand_mask
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.media.planes import frozen, rgb_to_planes
from structureflow.models.job import Anchors, Segment
from structureflow.testing.photo_scenes import VARIANTS, PhotoScene

HEIGHT: Final = 720
WIDTH: Final = 1280
GRID: Final = 16
_VISIBLE: Final = Masking("visibility", "warp", GRID)


def rows(context: Context) -> list[Row]:
    """Measure masks against the truth, the likeness of what they keep, and their price; some minutes."""
    with VideoReader(context.clip, DecodeLimits()) as reader:
        frames = [frame.image for frame in reader]
    variants = VARIANTS[:1] if context.quick else VARIANTS
    starts = STARTS[:1] if context.quick else STARTS
    found: list[Row] = []
    for name, speed, light, noise in variants:
        context.log(f"masks: {name} …")
        scene = PhotoScene(
            (frames[20], frames[110]), height=HEIGHT, width=WIDTH, speed=speed, light=light, noise=noise, seed=1
        )
        found += _scene(name, scene)
    context.log("masks: self-transfer …")
    flows, structure = flows_of(frames)
    for first in starts:
        found += _self_transfer(flows, StructureGrays(structure), frames, first)
    context.log("masks: what they cost …")
    found += _cost(context, flows, StructureGrays(structure), frames)
    return found


# --- drawn scenes ------------------------------------------------------------------------------------


def _scene(name: str, scene: PhotoScene) -> Iterator[Row]:
    frames = [scene.frame(time) for time in range(GAP + 1)]
    for tracking, matching in (("anchored", MATCHING[QUALITY]), ("composed", None)):
        score = score_scene(scene, frames, matching)
        what = f"scene of photographs, {name}, over {GAP} frames, {tracking}"
        asked = tracking == "anchored"
        yield Row("masks", f"{what}: hidden pixels that are white", "share", None, score.hidden_white,
                  note="at least 0.9" if asked else "")  # fmt: skip
        yield Row("masks", f"{what}: visible pixels that are black", "share", None, score.visible_black,
                  note="at least 0.85" if asked else "")  # fmt: skip
        yield Row(
            "masks", f"{what}: visible pixels that are black in blocks of {GRID}", "share", None, score.grid_black
        )


@dataclass(frozen=True)
class SceneScore:
    """How masks compare with the truth.

    Attributes:
        hidden_white: of the pixels that the anchor does not show, the share that is white, before the grid.
        visible_black: of those that it shows, the share that is black, before the grid.
        grid_black: the same in blocks.
    """

    hidden_white: float
    visible_black: float
    grid_black: float


def score_scene(scene: PhotoScene, frames: Sequence[Frame], matching: Matching | None) -> SceneScore:
    """Compare the masks of a scene's frames, carried from the first one, with what that one really shows."""
    hidden = visible = hidden_white = visible_black = grid_black = 0
    for time, fine, coarse in _masks(frames, matching):
        if time not in JUDGED:
            continue
        _, shown = scene.path(time, 0)
        hidden += int((~shown).sum())
        visible += int(shown.sum())
        hidden_white += int((fine[~shown] == 255).sum())
        visible_black += int((fine[shown] == 0).sum())
        grid_black += int((coarse[shown] == 0).sum())
    return SceneScore(hidden_white / hidden, visible_black / visible, grid_black / visible)


def _masks(
    frames: Sequence[Frame], matching: Matching | None
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield frame numbers with their masks to the pixel, and in blocks."""
    flows, grays = flows_of(frames)
    count = len(frames) - 1
    height, width = frames[0].shape[:2]
    geometry = Geometry.of(flows.meta, height, width)
    fine, coarse = Blocks(height, width, 1), Blocks(height, width, GRID)
    plan = PathPlan(start=0, stop=count, total_flows=count, led=range(1, count + 1), treatment="clip")
    with ThreadPoolExecutor(2) as io:
        shape = flows.meta.height, flows.meta.width
        feed = FrameFeed(StructureGrays(grays), plan.frames_looked_at(), shape, io) if matching else None
        planned = PlannedFlows(flows, plan, io)
        gap = GapMotion(
            planned, plan, 0, count, from_start=True, from_end=False, wants_unseen=True, feed=feed, matching=matching
        )
        for time, motion in enumerate(gap.frames(), 1):
            if motion is None or motion.unseen is None:
                raise SystemExit("expected a mask of every frame")
            hidden = expand_mask(motion.unseen, geometry)
            yield time, fine.of(hidden), coarse.of(hidden)


# --- the reference clip ------------------------------------------------------------------------------


def _self_transfer(flows: FlowSource, structure: StructureGrays, frames: Sequence[Frame], first: int) -> Iterator[Row]:
    truth = frames[first + 1 : first + 1 + GAP]
    before, _ = flows_of(frames, BEFORE)
    for anchors in ("start", "both"):
        settings = _settings(first, anchors)
        filled = carried(flows, structure, frames, first, settings)
        masked = carried(flows, structure, frames, first, replace(settings, masking=_VISIBLE))
        whole = _mean_likeness(filled, truth)
        kept = float(np.mean([(mask == 0).mean() for _, mask in masked]))
        likeness = float(
            np.mean([_likeness(picture, real, mask == 0) for (picture, mask), real in zip(masked, truth, strict=True)])
        )
        name = f"gap of {GAP} from frame {first} at 720p, {anchors}"
        asked = anchors == "start"
        composed = carried(before, structure, frames, first, replace(settings, matching=None))
        asked_against = _mean_likeness(composed, truth)
        yield Row("masks", f"{name}: likeness of what is kept, against whole filled frames", "dB", whole, likeness)
        yield Row("masks", f"{name}: likeness of what is kept, against whole filled frames of composed paths", "dB",
                  asked_against, likeness, 4 if asked else None)  # fmt: skip
        yield Row("masks", f"{name}: kept", "share", None, kept, note="at least 0.7" if asked else "")
        if anchors == "both":
            chosen = carried(flows, structure, frames, first, replace(settings, seams="choose"))
            choice = _mean_likeness(chosen, truth)
            yield Row("masks", f"{name}: chosen seams, against averaged", "dB", whole, choice)


def _settings(first: int, anchors: Anchors) -> RenderSettings:
    stop = first + GAP
    return RenderSettings(
        HEIGHT, WIDTH, "clip", anchors, 1.0, first, stop, workers=WORKERS, matching=MATCHING[QUALITY], masking=FILLED
    )


def carried(
    flows: FlowSource, structure: StructureGrays, frames: Sequence[Frame], first: int, settings: RenderSettings
) -> list[tuple[Frame, NDArray[np.uint8]]]:
    """Return the filled frames between two frames of the clip, with their masks ``(height, width)`` uint8."""
    sink = _Keep(*frames[0].shape[:2])
    render_segment(_segment(first), flows, FrameGuides(frames), settings, sink, structure)
    return sink.frames[1:-1]


def _segment(first: int) -> Segment:
    guides = [{"at": 0, "image": f"images/{first}"}, {"at": GAP + 1, "image": f"images/{first + GAP + 1}"}]
    return Segment.model_validate({"frames": GAP + 2, "guides": guides})


def _mean_likeness(frames: Sequence[tuple[Frame, NDArray[np.uint8]]], truth: Sequence[Frame]) -> float:
    return float(np.mean([_likeness(picture, real, None) for (picture, _), real in zip(frames, truth, strict=True)]))


def _likeness(picture: Frame, real: Frame, where: NDArray[np.bool_] | None) -> float:
    miss = (picture.astype(np.float64) - real) ** 2
    error = miss.mean() if where is None else miss[where].mean()
    return float(10 * np.log10(255**2 / error))


class _Keep:
    def __init__(self, height: int, width: int) -> None:
        self.frames: list[tuple[Frame, NDArray[np.uint8]]] = []
        self._shape = (height, width)

    def write(self, index: int, guide: Picture, mask: Mask) -> None:
        if index != len(self.frames):
            raise SystemExit(f"frame {index} came out of order")
        self.frames.append((guide.copy(), np.full(self._shape, mask, np.uint8)))


# --- what it costs -----------------------------------------------------------------------------------


class _Discard:
    def write(self, index: int, guide: Picture, mask: Mask) -> None:
        """Take a frame and forget it."""


class _Planes(FrameGuides):
    def image(self, reference: object) -> Picture:
        return self._planes[int(str(reference).rpartition("/")[2])]

    def __init__(self, frames: Sequence[Frame]) -> None:
        super().__init__(frames)
        self._planes = {index: frozen(rgb_to_planes(frames[index])) for index in (0, GAP + 1)}


def _cost(context: Context, flows: FlowSource, structure: StructureGrays, frames: Sequence[Frame]) -> Iterator[Row]:
    guides = _Planes(frames)

    def rendered(settings: RenderSettings) -> None:
        render_segment(_segment(0), flows, guides, settings, _Discard(), structure)

    for anchors in ("start", "both"):
        for tracking in ("anchored", "composed"):
            plain = replace(_settings(0, anchors), form=PLANES)
            if tracking == "composed":
                plain = replace(plain, matching=None)
            masked = replace(plain, masking=Masking("visibility", "grey", GRID, 4), seams="choose")
            times = context.compare(
                {"plain": partial(rendered, plain), "masked": partial(rendered, masked)},
                rounds=7,
            )
            extra_ms = (times["masked"] - times["plain"]) * 1000 / GAP
            yield Row(
                "masks",
                f"{GAP} frames at 720p, {anchors}, {tracking}: masked and chosen, against plain",
                "s",
                times["plain"],
                times["masked"],
                note=f"{extra_ms:.1f} ms a frame",
            )

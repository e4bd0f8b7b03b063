"""Anchored paths against composed ones, on data that cannot flatter them.

* Drawn scenes of photographs whose paths are known exactly (`testing.photo_scenes`): error of the path where the
  anchor shows the pixel, the share that is off by more than 3 px, and re-texturing: the motion is found on one pair
  of photographs, the pixels that are carried are of another, so nothing is won by matching colours.
* Self-transfer on the reference clip: its own frames as anchors, its real frames as truth.
* Risk against coverage: the error of what is kept, as the kept share goes from half to all.

"Composed" is what the product before anchored paths did: `BEFORE`, flows of the engine that was its default.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.clips import (
    ANCHORING,
    PRESET,
    Frame,
    StructureGrays,
    carried,
    flows_of,
    mean_db,
    sharpness,
)
from bench.harness import Context, Row
from structureflow.flow.engines import DisEngine, EnginePreset
from structureflow.flow.fields import Field32, resize_flow
from structureflow.guide.feed import FrameFeed
from structureflow.guide.gap import GapMotion
from structureflow.guide.images import fit
from structureflow.guide.plan import PathPlan
from structureflow.guide.planned import PlannedFlows
from structureflow.guide.refine import Matching
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.models.job import Anchors, Seams
from structureflow.testing.photo_scenes import VARIANTS, PhotoScene

GAP: Final = 43
SIZE: Final = (360, 640)
STARTS: Final = (0, 60)
#: Engine and size that were the default before paths were anchored.
BEFORE: Final = EnginePreset("dis", DisEngine().params(), 448 * 252)
#: Frames of a scene that are judged: every sixth.
JUDGED: Final = range(1, GAP + 1, 6)

_NO_MAP = cast("NDArray[np.float32]", None)


def rows(context: Context) -> list[Row]:
    """Measure paths, carried pixels and evidence; some minutes."""
    with VideoReader(context.clip, DecodeLimits()) as reader:
        frames = [frame.image for frame in reader]
    small = [fit(frame, *SIZE) for frame in frames]
    variants = VARIANTS[:1] if context.quick else VARIANTS
    starts = STARTS[:1] if context.quick else STARTS
    found: list[Row] = []
    for name, speed, light, noise in variants:
        context.log(f"tracking: {name} …")
        scene = PhotoScene((small[20], small[110]), speed=speed, light=light, noise=noise, seed=1)
        found += _scene(name, scene, (small[60], small[0]))
    context.log("tracking: self-transfer …")
    found += _self_transfer(frames, small, starts)
    return found


# --- drawn scenes ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Path:
    """A path at the scene's size, and how sure of it its maker is (higher is surer)."""

    displacement: Field32
    surety: NDArray[np.float32]


@dataclass(frozen=True)
class _Score:
    error_px: float
    off: float
    textured_db: float
    risk_px: tuple[float, ...]


_COVERAGES: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def _scene(name: str, scene: PhotoScene, others: tuple[Frame, Frame]) -> Iterator[Row]:
    frames = [scene.frame(time) for time in range(GAP + 1)]
    before = _score(scene, others, _paths(frames, BEFORE, None))
    after = _score(scene, others, _paths(frames, PRESET, ANCHORING))
    what = f"scene of photographs, {name}, over {GAP} frames"
    yield Row("tracking", f"{what}: mean path error", "px", before.error_px, after.error_px, target=2)
    yield Row("tracking", f"{what}: off by more than 3 px", "share", before.off, after.off, target=round(1 / 0.6, 3))
    yield Row("tracking", f"{what}: re-textured likeness", "dB", before.textured_db, after.textured_db, target=2)
    for coverage, old, new in zip(_COVERAGES, before.risk_px, after.risk_px, strict=True):
        yield Row(
            "tracking", f"{what}: path error where {coverage:.0%} is kept", "px", old, new, note="hidden ones too"
        )


def _score(scene: PhotoScene, others: tuple[Frame, Frame], paths: Sequence[_Path]) -> _Score:
    errors, off, likeness, risks = [], [], [], []
    anchor = scene.frame(0, others)
    for time in JUDGED:
        truth, shown = scene.path(time, 0)
        path = paths[time - 1]
        error = np.sqrt(((path.displacement - truth) ** 2).sum(axis=-1))
        errors.append(float(error[shown].mean()))
        off.append(float((error[shown] > 3).mean()))
        carried = _pulled(anchor, path.displacement).astype(np.float64)
        miss = ((carried - scene.frame(time, others)) ** 2)[shown].mean()
        likeness.append(10 * np.log10(255**2 / miss))
        # what the anchor does not show has no right path: it counts with the error of its surface's
        order = np.argsort(-path.surety, axis=None, kind="stable")
        sorted_error = error.ravel()[order]
        risks.append([float(sorted_error[: int(share * error.size)].mean()) for share in _COVERAGES])
    risk = tuple(float(value) for value in np.mean(risks, axis=0))
    return _Score(float(np.mean(errors)), float(np.mean(off)), float(np.mean(likeness)), risk)


def _paths(frames: Sequence[Frame], preset: EnginePreset, matching: Matching | None) -> list[_Path]:
    """Return the path of each frame to the first one, at the frames' size."""
    flows, grays = flows_of(frames, preset)
    count = len(frames) - 1
    shape = flows.meta.height, flows.meta.width
    plan = PathPlan(start=0, stop=count, total_flows=count, led=range(1, count + 1), treatment="clip")
    found = []
    with ThreadPoolExecutor(2) as io:
        feed = FrameFeed(StructureGrays(grays), plan.frames_looked_at(), shape, io) if matching else None
        gap = GapMotion(
            PlannedFlows(flows, plan, io),
            plan,
            0,
            count,
            from_start=True,
            from_end=False,
            wants_visibility=True,
            feed=feed,
            matching=matching,
        )
        for motion in gap.frames():
            if motion is None or motion.start is None or motion.visibility is None:
                raise SystemExit("expected a path at every frame")
            height, width = frames[0].shape[:2]
            seen = cv2.resize(motion.visibility, (width, height), interpolation=cv2.INTER_LINEAR)
            found.append(_Path(resize_flow(motion.start, height, width), seen.astype(np.float32)))
    return found


# --- the reference clip ------------------------------------------------------------------------------


def _self_transfer(frames: Sequence[Frame], small: Sequence[Frame], starts: Sequence[int]) -> Iterator[Row]:
    before, _ = flows_of(frames, BEFORE)
    after, grays = flows_of(frames)
    for first in starts:
        truth = small[first + 1 : first + 1 + GAP]
        for anchors, seams in cast(
            "tuple[tuple[Anchors, Seams], ...]", (("start", "choose"), ("both", "choose"), ("both", "average"))
        ):
            old = carried(before, small, first, GAP, anchors)
            new = carried(after, small, first, GAP, anchors, StructureGrays(grays), ANCHORING, seams)
            least = 3.0 if anchors == "both" and first == 60 else 1.5
            name = f"gap of {GAP} from frame {first}, {anchors}{', averaged' if seams == 'average' else ''}"
            yield Row("tracking", f"{name}: likeness", "dB", mean_db(old, truth), mean_db(new, truth), least)
            middle = GAP // 2
            sharp = sharpness(new[middle]) / sharpness(truth[middle])
            yield Row(
                "tracking",
                f"{name}: sharpness in the middle",
                "of the real frame",
                None,
                sharp,
                note="variance of the Laplacian; 0.8 to 1.3 is asked for",
            )


# --- small things ------------------------------------------------------------------------------------


def _pulled(image: Frame, vectors: Field32) -> Frame:
    along = partial(cv2.remap, image, vectors, _NO_MAP)
    return np.asarray(along(cv2.INTER_CUBIC | cv2.WARP_RELATIVE_MAP, borderMode=cv2.BORDER_REPLICATE), np.uint8)

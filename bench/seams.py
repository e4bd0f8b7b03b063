"""How two anchors share a gap over time: does the share flicker, and what of the other anchor is left beside each?

On the reference clip, its own frames as anchors: every frame of the video a frame of the gap, and every second one,
so that half of the gap lies between frames of the video. Shares are compared along the motion: a share that only
rises changes by 1 at most, and never goes back.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.clips import ANCHORING, Frame, StructureGrays, flows_of
from bench.harness import Context, Row
from structureflow.flow.fields import Field32, Treatment, pull
from structureflow.guide.evidence import STRIDE
from structureflow.guide.feed import FrameFeed
from structureflow.guide.gap import GapMotion
from structureflow.guide.images import fit
from structureflow.guide.pictures import RGB
from structureflow.guide.plan import PathPlan
from structureflow.guide.planned import PlannedFlows
from structureflow.guide.refine import Plane
from structureflow.guide.seams import Comparison
from structureflow.guide.warp import Geometry
from structureflow.media.decode import DecodeLimits, VideoReader

GAP: Final = 43
SIZE: Final = (360, 640)
STARTS: Final = (0, 60)
#: Longer steps are no motion: another surface came into view.
_LONGEST_PX: Final = 25


def rows(context: Context) -> list[Row]:
    """Measure shares over time; about a minute."""
    with VideoReader(context.clip, DecodeLimits()) as reader:
        frames = [frame.image for frame in reader]
    found: list[Row] = []
    for first in STARTS[:1] if context.quick else STARTS:
        stretch = frames[first : first + GAP + 2]
        treatments: tuple[Treatment, ...] = ("clip", "retime")
        for treatment in treatments:
            name = "retime at half steps" if treatment == "retime" else treatment
            context.log(f"seams: {name} from frame {first} …")
            shares = _shares(stretch[::2] if treatment == "retime" else stretch, stretch, treatment)
            found += _described(f"gap of {GAP} from frame {first}, {name}", shares)
    return found


@dataclass(frozen=True)
class _Shared:
    """The end anchor's share of one frame, 0 to 1, and the way to the start anchor, on the evidence's grid."""

    end: Plane
    way: Field32


def _described(name: str, shares: Sequence[_Shared]) -> Iterator[Row]:
    back = whole = 0.0
    for before, now in itertools.pairwise(shares):
        # both ways end at the same place of the anchor: now(x) = step(x) + before(x + step(x))
        step = now.way - before.way
        for _ in range(4):
            step = now.way - pull(before.way, step)
        change = (now.end - pull(before.end, step))[np.abs(step).max(axis=-1) < _LONGEST_PX]
        back += float(np.maximum(-change, 0).mean())
        whole += float(np.abs(change).mean())
    yield Row("seams", f"{name}: end anchor's share, all changes", "share", None, whole, note="1 would do")
    yield Row("seams", f"{name}: end anchor's share, changes back", "share", None, back)
    left = max(float(shares[0].end.mean()), 1 - float(shares[-1].end.mean()))
    yield Row("seams", f"{name}: other anchor's share next to an anchor", "share", None, left)


def _shares(structure: Sequence[Frame], stretch: Sequence[Frame], treatment: Treatment) -> list[_Shared]:
    flows, grays = flows_of(structure)
    count = len(structure) - 1
    shape = flows.meta.height, flows.meta.width
    plan = PathPlan(start=0, stop=count, total_flows=count, led=range(1, GAP + 2), treatment=treatment)
    comparison = Comparison(RGB, Geometry.of(flows.meta, *SIZE))
    comparison.hold(fit(stretch[0], *SIZE), fit(stretch[-1], *SIZE))
    found = []
    with ThreadPoolExecutor(2) as io:
        gap = GapMotion(
            PlannedFlows(flows, plan, io),
            plan,
            0,
            GAP,
            from_start=True,
            from_end=True,
            comparison=comparison,
            seams="choose",
            feed=FrameFeed(StructureGrays(grays), plan.frames_looked_at(), shape, io),
            matching=ANCHORING,
        )
        for motion in gap.frames():
            if motion is None or motion.start is None or motion.end_weight is None:
                raise SystemExit("expected both anchors at every frame")
            thin = np.ascontiguousarray(motion.start[::STRIDE, ::STRIDE]) * np.float32(1 / STRIDE)
            found.append(_Shared(motion.end_weight.astype(np.float32) * np.float32(1 / 255), thin))
    return found

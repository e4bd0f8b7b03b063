"""Motion against earlier systems, by self-transfer: the clip's own frames as anchors, its real frames as truth.

The original: warp frame after frame by pulling along the forward flow. Ours: what a request gets that says nothing,
anchored paths and chosen seams. Decibels are peak signal-to-noise against the real frames, at 640x360, averaged over
a gap of 43 frames; flows are those of the default quality.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.clips import (
    ANCHORING,
    WORKERS,
    Frame,
    FrameGuides,
    KeptFrames,
    StructureGrays,
    carried,
    mean_db,
    sharpness,
)
from bench.harness import Context, Row
from structureflow.flow.archive import open_flow_file
from structureflow.flow.engines import build_engine
from structureflow.flow.extract import extract_to_archive, plan_extraction, prepare_frame
from structureflow.flow.fields import Field32, FlowSource, compose_flows, invert_flow, resize_flow
from structureflow.guide.images import fit
from structureflow.guide.ports import Mask
from structureflow.guide.render import RenderSettings, render_segment
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.models.job import Anchors, Segment
from structureflow.testing.scenes import ArrayFlows, psnr_db

GAP = 43
STARTS = (0, 60)
SIZE = (360, 640)


def rows(context: Context) -> list[Row]:
    """Measure quality and speed of the carried frames; under a minute."""
    frames = _decode(context.clip)
    path = context.folder / "flows.npz"
    with VideoReader(context.clip, DecodeLimits()) as reader:
        plan = plan_extraction(reader.info, "dis", "balanced")
    extract_to_archive(
        context.clip, path, plan, source_video="clip", source_identity="bench", limits=DecodeLimits(), workers=WORKERS
    )
    small = [fit(frame, *SIZE) for frame in frames]
    grays = StructureGrays([prepare_frame(frame, plan.height, plan.width, "gray") for frame in frames])
    starts = STARTS[:1] if context.quick else STARTS
    return [
        *itertools.chain.from_iterable(_one_step(open_flow_file(path), small, start) for start in starts),
        *itertools.chain.from_iterable(_self_transfer(open_flow_file(path), grays, small, start) for start in starts),
        *_cut(small),
        *_speed(context, path, frames),
    ]


# --- quality -----------------------------------------------------------------------------------------


def _one_step(flows: FlowSource, frames: Sequence[Frame], first: int) -> Iterator[Row]:
    """One step of one flow: which vector moves a pixel to where it belongs."""
    count = 10
    ways: dict[str, list[float]] = {}
    for index in range(first, first + count):
        forward = resize_flow(flows.read("forward", index, index + 1)[0], *SIZE)
        backward = resize_flow(flows.read("backward", index, index + 1)[0], *SIZE)
        still = np.zeros_like(forward)
        for name, vectors in {
            "no motion": still,
            "forward flow": forward,
            "minus forward flow": -forward,
            "forward flow inverted": invert_flow(forward),
            "backward flow": backward,
        }.items():
            ways.setdefault(name, []).append(psnr_db(_pulled(frames[index], vectors), frames[index + 1]))
    mean = {name: float(np.mean(values)) for name, values in ways.items()}
    along = mean.pop("forward flow")
    for name, value in mean.items():
        yield Row("motion", f"one step from frame {first}: {name}, against forward flow", "dB", along, value)


def _self_transfer(flows: FlowSource, structure: StructureGrays, frames: Sequence[Frame], first: int) -> Iterator[Row]:
    truth = frames[first + 1 : first + 1 + GAP]
    still = mean_db([frames[first]] * GAP, truth)
    along = mean_db(_original(flows, frames[first], first), truth)
    start, both = (
        carried(flows, frames, first, GAP, anchors, structure, ANCHORING, "choose")
        for anchors in cast("tuple[Anchors, ...]", ("start", "both"))
    )
    name = f"gap of {GAP} from frame {first}"
    yield Row("motion", f"{name}: start anchor, against forward flow", "dB", along, mean_db(start, truth), 4)
    yield Row("motion", f"{name}: start anchor, against no motion", "dB", still, mean_db(start, truth), 3.5)
    yield Row("motion", f"{name}: both anchors, against forward flow", "dB", along, mean_db(both, truth), 7)
    middle = GAP // 2
    yield Row(
        "motion",
        f"{name}: sharpness in the middle, start anchor",
        "of the real frame",
        1.0,
        sharpness(start[middle]) / sharpness(truth[middle]),
        1 / 0.6,
        target_is_limit=True,
        note="variance of the Laplacian; at least 0.6",
    )
    chained = _chained(flows, frames[first], first)
    yield Row(
        "motion",
        f"{name}: sharpness in the middle, chained warps against one",
        "of the real frame",
        sharpness(chained[middle]) / sharpness(truth[middle]),
        sharpness(start[middle]) / sharpness(truth[middle]),
    )


def _cut(frames: Sequence[Frame]) -> Iterator[Row]:
    """A gap that holds a cut, made of two parts of the clip; flows as the engine gives them, across the cut too."""
    # upside down, the later part of the same shot is another scene
    joined = [*frames[:20], *(np.ascontiguousarray(frame[::-1]) for frame in frames[80:106])]
    cut = 19
    height, width = 216, 384
    engine = build_engine("dis", {})
    grays = [prepare_frame(frame, height, width, "gray") for frame in joined]
    pairs = list(engine.run(grays, lambda _a, _b, forward, backward: (forward, backward), workers=WORKERS))
    forward, backward = (np.stack([pair[side] for pair in pairs]) for side in (0, 1))
    known = ArrayFlows(forward, backward, scene_cuts=(cut,), original=SIZE)
    unknown = ArrayFlows(forward, backward, original=SIZE)
    count = len(joined) - 2
    truth = joined[1:-1]

    def filled(flows: FlowSource, *guides: int) -> list[Frame]:
        asked = [{"at": index, "image": str(index)} for index in guides]
        segment = Segment.model_validate({"frames": len(joined), "guides": asked})
        anchors: Anchors = "both" if guides[-1] else "start"
        settings = RenderSettings(*SIZE, "clip", anchors, 1.0, 0, count, workers=WORKERS)
        return _render(segment, flows, joined, settings)[1:-1]

    single = max(mean_db(filled(unknown, 0), truth), mean_db(filled(unknown, len(joined) - 1), truth))
    both = filled(known, 0, len(joined) - 1)
    yield Row(
        "motion",
        f"gap of {count} with a cut: both anchors, against the better one",
        "dB",
        single,
        mean_db(both, truth),
        0,
    )
    blind = filled(unknown, 0, len(joined) - 1)
    yield Row(
        "motion",
        f"gap of {count} with a cut: cut known, against not known",
        "dB",
        mean_db(blind, truth),
        mean_db(both, truth),
    )


def _original(flows: FlowSource, anchor: Frame, first: int) -> list[Frame]:
    """Frame after frame, each pulled from the one before along the forward flow."""
    warped = [anchor]
    for flow in flows.read("forward", first, first + GAP):
        warped.append(_pulled(warped[-1], resize_flow(flow, *SIZE)))
    return warped[1:]


def _chained(flows: FlowSource, anchor: Frame, first: int) -> list[Frame]:
    """The right way, but each frame is sampled from the one before."""
    warped = [anchor]
    for flow in flows.read("backward", first, first + GAP):
        warped.append(_pulled(warped[-1], resize_flow(flow, *SIZE)))
    return warped[1:]


# --- speed -------------------------------------------------------------------------------------------


def _speed(context: Context, path: Path, frames: Sequence[Frame]) -> Iterator[Row]:
    """43 frames at 720p, flows read from the archive and brought to size, against the bare `remap` calls."""
    height, width = frames[0].shape[:2]
    segment = Segment.model_validate(
        {"frames": GAP + 2, "guides": [{"at": 0, "image": "0"}, {"at": GAP + 1, "image": str(GAP + 1)}]}
    )
    with_flow = resize_flow(_joined(open_flow_file(path), GAP // 2), height, width)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    places = with_flow + np.stack([x, y], axis=-1)
    out = np.empty_like(frames[0])

    def bare() -> None:
        for _ in range(GAP):
            cv2.remap(frames[0], places, _NO_MAP, cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_REPLICATE)

    def rendered(anchors: Anchors) -> None:
        settings = RenderSettings(height, width, "clip", anchors, 1.0, 0, GAP, workers=WORKERS)
        render_segment(segment, open_flow_file(path), FrameGuides(frames), settings, _Discard())

    def with_threads(count: int, work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            cv2.setNumThreads(count)
            work()

        return run

    before = cv2.getNumThreads()
    # the bare calls get all cores from OpenCV's own threads, the renderer from its workers
    times = context.compare(
        {
            "bare": with_threads(WORKERS, bare),
            "start": with_threads(1, lambda: rendered("start")),
            "both": with_threads(1, lambda: rendered("both")),
        },
        rounds=7,
    )
    cv2.setNumThreads(before)
    for name, most in (("start", 3), ("both", 6)):
        yield Row(
            "motion",
            f"{GAP} frames at 720p, {name} anchor{'s' * (name == 'both')}, against bare remap calls",
            "s",
            times["bare"],
            times[name],
            1 / most,
            note=f"at most {most} times the bare calls; {times[name] / times['bare']:.1f} times",
        )


def _joined(flows: FlowSource, count: int) -> Field32:
    joined: Field32 | None = None
    for flow in flows.read("backward", 0, count):
        wide = flow.astype(np.float32)
        joined = wide if joined is None else compose_flows(wide, joined)
    if joined is None:
        raise SystemExit("no flows to join")
    return joined


# --- small things ------------------------------------------------------------------------------------

_NO_MAP = cast("NDArray[np.float32]", None)


class _Discard:
    def write(self, index: int, guide: Frame, mask: Mask) -> None:
        """Take a frame and forget it."""


def _render(segment: Segment, flows: FlowSource, frames: Sequence[Frame], settings: RenderSettings) -> list[Frame]:
    sink = KeptFrames()
    render_segment(segment, flows, FrameGuides(frames), settings, sink)
    return sink.frames


def _decode(clip: Path) -> list[Frame]:
    with VideoReader(clip, DecodeLimits()) as reader:
        return [frame.image for frame in reader]


def _pulled(image: Frame, vectors: Field32) -> Frame:
    pulled: Any = cv2.remap(
        image, vectors, _NO_MAP, cv2.INTER_LINEAR | cv2.WARP_RELATIVE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return cast("Frame", pulled)

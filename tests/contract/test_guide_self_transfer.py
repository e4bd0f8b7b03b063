"""Self-transfer on the reference clip: its own frames as anchors, its real frames as truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.flow.extract import extract_from_frames, plan_extraction, prepare_frame
from structureflow.flow.fields import FlowSource, resize_flow
from structureflow.guide.images import fit
from structureflow.guide.ports import Gray, Mask
from structureflow.guide.refine import MATCHING
from structureflow.guide.render import RenderSettings, render_segment
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.models.job import Seams, Segment
from structureflow.references import Reference
from structureflow.testing.scenes import ArrayFlows, psnr_db

GAP = 43
SIZE = (360, 640)

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Stretch:
    """GAP + 2 frames of the clip at SIZE, and the flows between them at the default quality.

    `grays` are what paths are anchored in, at the flows' size; without them paths are composed. `first` is the number
    of the first frame in the clip.
    """

    frames: list[Frame]
    flows: FlowSource
    grays: list[Gray] | None = None
    first: int = 0

    def gray(self, indices: Sequence[int]) -> list[Gray]:
        """Return structure frames, as `guide.ports.StructureFrames` does."""
        assert self.grays is not None
        return [self.grays[index] for index in indices]


class _Guides:
    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = frames

    def image(self, reference: Reference) -> Frame:
        return self._frames[int(str(reference))]

    def video(self, reference: Reference, first: int, count: int) -> Iterator[Frame]:
        raise AssertionError(f"{reference} {first} {count}")


class _Kept:
    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.masks: list[Mask] = []

    def write(self, index: int, guide: Frame, mask: Mask) -> None:
        assert index == len(self.frames)
        self.frames.append(guide.copy())
        self.masks.append(mask)


@pytest.fixture(scope="module", params=[0, 60])
def stretch(request: pytest.FixtureRequest, bigbuckbunny: Path) -> Stretch:
    first = request.param
    with VideoReader(bigbuckbunny, DecodeLimits()) as reader:
        plan = plan_extraction(reader.info, "dis", "balanced")
        images = [frame.image for frame in reader if first <= frame.index <= first + GAP + 1]
    flows = extract_from_frames(images, plan, original_fps=25.0, workers=2)
    grays = [prepare_frame(image, plan.height, plan.width, "gray") for image in images]
    return Stretch([fit(image, *SIZE) for image in images], flows, grays, first)


def carried(
    stretch: Stretch,
    anchors: str,
    flows: FlowSource | None = None,
    *guides: int,
    treatment: str = "clip",
    seams: Seams = "average",
) -> list[Frame]:
    asked = guides or (0, GAP + 1)
    segment = Segment.model_validate(
        {"frames": GAP + 2, "guides": [{"at": index, "image": str(index)} for index in asked]}
    )
    settings: Any = {"treatment": treatment, "anchors": anchors, "motion_strength": 1.0, "seams": seams}
    # under `retime` the step into the guide behind the gap is one of those that play the window
    stop = GAP + 1 if treatment == "retime" else GAP
    chosen = RenderSettings(*SIZE, **settings, flow_start=0, flow_stop=stop, matching=MATCHING["balanced"])
    sink = _Kept()
    structure = stretch if stretch.grays is not None else None
    render_segment(segment, flows or stretch.flows, _Guides(stretch.frames), chosen, sink, structure)
    assert sink.masks == [0] * (GAP + 2) or len(asked) == 1
    return sink.frames[1:-1]


def mean_db(images: Sequence[Frame], truth: Sequence[Frame]) -> float:
    return float(np.mean([psnr_db(image, real) for image, real in zip(images, truth, strict=True)]))


def sharpness(image: Frame) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())


def pulled_along_forward_flow(stretch: Stretch) -> list[Frame]:
    """What earlier systems do: each frame from the one before, along the flow that leads away from it."""
    images = [stretch.frames[0]]
    for flow in stretch.flows.read("forward", 0, GAP):
        warped: Any = cv2.remap(
            images[-1],
            resize_flow(flow, *SIZE),
            np.empty(0, np.float32),
            cv2.INTER_LINEAR | cv2.WARP_RELATIVE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        images.append(warped)
    return images[1:]


def test_carried_frames_are_near_the_real_ones_and_sharp(stretch: Stretch) -> None:
    truth = stretch.frames[1:-1]
    wrong = mean_db(pulled_along_forward_flow(stretch), truth)
    still = mean_db([stretch.frames[0]] * GAP, truth)
    start = carried(stretch, "start")
    assert mean_db(start, truth) >= wrong + 4
    assert mean_db(start, truth) >= still + 5
    assert mean_db(carried(stretch, "both"), truth) >= wrong + 7
    assert 0.8 <= sharpness(start[GAP // 2]) / sharpness(truth[GAP // 2]) <= 1.3


@pytest.mark.parametrize("guides", [(0, GAP + 1), (GAP + 1,), (0, 20, GAP + 1)])
def test_retime_keeps_a_video_in_step_with_guides_of_its_own(stretch: Stretch, guides: tuple[int, ...]) -> None:
    """Each frame is nearer to the real one of its number than to those beside it, up to the guide behind the gap."""
    found = carried(stretch, "both", None, *guides, treatment="retime")
    for number in (GAP, GAP - 1, GAP - 4, 21, 19):
        own, before, after = (psnr_db(found[number - 1], stretch.frames[number + beside]) for beside in (0, -1, 1))
        # the clip holds a frame now and then
        twins = max(psnr_db(stretch.frames[number], stretch.frames[number + beside]) for beside in (-1, 1)) > 40
        assert own > max(before, after) or twins, number


def test_choosing_costs_little_likeness_and_leaves_the_middle_sharp(stretch: Stretch) -> None:
    """Where the rabbit is quick (from frame 0) the anchors show different things, and a mean is nearer to any truth."""
    truth = stretch.frames[1:-1]
    averaged, chosen = carried(stretch, "both", seams="average"), carried(stretch, "both", seams="choose")
    least = mean_db(averaged, truth) - {0: 0.7, 60: 0.15}[stretch.first]
    assert mean_db(chosen, truth) >= least
    assert 0.8 <= sharpness(chosen[GAP // 2]) / sharpness(truth[GAP // 2]) <= 1.3


def test_forward_flows_alone_serve_too(stretch: Stretch) -> None:
    truth = stretch.frames[1:-1]
    forward_only = ArrayFlows(stretch.flows.read("forward", 0, GAP + 1), None, original=(720, 1280))
    wrong = mean_db(pulled_along_forward_flow(stretch), truth)
    assert mean_db(carried(stretch, "start", forward_only), truth) >= wrong + 4
    assert mean_db(carried(stretch, "both", forward_only), truth) >= wrong + 7


def test_a_gap_with_a_cut_is_no_worse_than_its_better_anchor(bigbuckbunny: Path) -> None:
    with VideoReader(bigbuckbunny, DecodeLimits()) as reader:
        plan = plan_extraction(reader.info, "dis", "fast")
        images = [frame.image for frame in reader if frame.index < 20 or 80 <= frame.index < 80 + GAP + 2 - 20]
    # upside down, the later part of the same shot is another scene
    images[20:] = [np.ascontiguousarray(image[::-1]) for image in images[20:]]
    flows = extract_from_frames(images, plan, original_fps=25.0, workers=2)
    scenes = Stretch([fit(image, *SIZE) for image in images], flows)
    truth = scenes.frames[1:-1]
    assert flows.meta.scene_cuts == (19,)
    # with the cut not known, each single anchor is carried through the whole gap
    blind = ArrayFlows(flows.read("forward", 0, GAP + 1), flows.read("backward", 0, GAP + 1), original=(720, 1280))
    from_start = mean_db(carried(scenes, "start", blind, 0), truth)
    from_end = mean_db(carried(scenes, "both", blind, GAP + 1), truth)
    assert mean_db(carried(scenes, "both"), truth) >= max(from_start, from_end)

"""What measurements on the reference clip share: its flows, its frames as guides and as structure, what is carried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.flow.engines import DEFAULT_ENGINES, EnginePreset, build_engine, working_size
from structureflow.flow.extract import ExtractionPlan, extract_from_frames, prepare_frame
from structureflow.flow.fields import FlowSource
from structureflow.guide.ports import Gray, Mask, Picture
from structureflow.guide.refine import MATCHING, Matching
from structureflow.guide.render import RenderSettings, render_segment
from structureflow.models.job import Anchors, Seams, Segment
from structureflow.references import Reference
from structureflow.testing.scenes import psnr_db

WORKERS: Final = 2
QUALITY: Final = "balanced"
#: The engine of that quality.
PRESET: Final = DEFAULT_ENGINES.preset("dis", QUALITY)

#: How paths of that quality are anchored.
ANCHORING: Final = MATCHING[QUALITY]

Frame = NDArray[np.uint8]


def flows_of(frames: Sequence[Frame], preset: EnginePreset = PRESET) -> tuple[FlowSource, list[Gray]]:
    """Return the flows of the frames by an engine, and the frames on the flows' grid."""
    height, width = working_size(frames[0].shape[0], frames[0].shape[1], preset.area_px)
    plan = ExtractionPlan(preset.name, preset.params, height, width)
    engine = build_engine(preset.name, preset.params)
    flows = extract_from_frames(iter(frames), plan, original_fps=25.0, workers=WORKERS, engine=engine)
    return flows, [prepare_frame(frame, height, width, "gray") for frame in frames]


class StructureGrays:
    """A `StructureFrames` of frames in memory."""

    def __init__(self, grays: Sequence[Gray]) -> None:
        """Give `grays` by number."""
        self._grays = grays

    def gray(self, indices: Sequence[int]) -> list[Gray]:
        """See `StructureFrames.gray`."""
        return [self._grays[index] for index in indices]


class FrameGuides:
    """A `GuideSource` of frames in memory: an image's name ends in the number of its frame."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        """Give `frames` by number."""
        self._frames = frames

    def image(self, reference: Reference) -> Picture:
        """Return the frame that an image is called after."""
        return self._frames[int(str(reference).rpartition("/")[2])]

    def video(self, reference: Reference, first: int, count: int) -> Iterator[Picture]:
        """Give no video."""
        raise SystemExit(f"no video guides here: {reference} {first} {count}")


class KeptFrames:
    """A sink that keeps guide frames; masks must be whole."""

    def __init__(self) -> None:
        """Begin with none."""
        self.frames: list[Frame] = []

    def write(self, index: int, guide: Picture, mask: Mask) -> None:
        """Keep a frame."""
        if index != len(self.frames) or not isinstance(mask, int):
            raise SystemExit(f"frame {index} with mask {mask} came out of order")
        self.frames.append(guide.copy())


def carried(
    flows: FlowSource,
    frames: Sequence[Frame],
    first: int,
    gap: int,
    anchors: Anchors,
    structure: StructureGrays | None = None,
    matching: Matching | None = None,
    seams: Seams = "average",
) -> list[Frame]:
    """Return `gap` frames after frame `first`, carried from it and, for both anchors, from the frame after the gap."""
    height, width = frames[0].shape[:2]
    guides = [{"at": 0, "image": f"images/{first}"}, {"at": gap + 1, "image": f"images/{first + gap + 1}"}]
    segment = Segment.model_validate({"frames": gap + 2, "guides": guides})
    settings = RenderSettings(
        height, width, "clip", anchors, 1.0, first, first + gap, workers=WORKERS, matching=matching, seams=seams
    )
    sink = KeptFrames()
    render_segment(segment, flows, FrameGuides(frames), settings, sink, structure)
    return sink.frames[1:-1]


def mean_db(images: Sequence[Frame], truth: Sequence[Frame]) -> float:
    """Return the mean of the frames' peak signal-to-noise."""
    return float(np.mean([psnr_db(image, real) for image, real in zip(images, truth, strict=True)]))


def sharpness(image: Frame) -> float:
    """Return the variance of the Laplacian."""
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())

"""What measurements on the reference clip share: its flows, and its frames as guides and as structure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from structureflow.flow.engines import DEFAULT_ENGINES, EnginePreset, build_engine, working_size
from structureflow.flow.extract import ExtractionPlan, extract_from_frames, prepare_frame
from structureflow.flow.fields import FlowSource
from structureflow.guide.ports import Gray, Picture
from structureflow.references import Reference

WORKERS: Final = 2
QUALITY: Final = "balanced"
#: The engine of that quality.
PRESET: Final = DEFAULT_ENGINES.preset("dis", QUALITY)

Frame = NDArray[np.uint8]


def flows_of(frames: Sequence[Frame], preset: EnginePreset = PRESET) -> tuple[FlowSource, list[Gray]]:
    """Return the flows of the frames by an engine, and the frames on the flows' grid."""
    height, width = working_size(*frames[0].shape[:2], preset.area_px)
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

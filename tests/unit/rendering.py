"""A segment rendered from a scene whose motion is known, and what came out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import FlowSource
from structureflow.guide.ports import Mask
from structureflow.guide.render import RenderOutcome, RenderSettings, render_segment
from structureflow.models.job import Segment
from structureflow.references import Reference

Frame = NDArray[np.uint8]


class SceneGuides:
    """Guides named by number: frame n of a scene; a video is the scene itself."""

    def __init__(self, frames: Frame) -> None:
        self._frames = frames
        self.asked: list[Reference] = []

    def image(self, reference: Reference) -> Frame:
        self.asked.append(reference)
        frame: Frame = self._frames[int(str(reference))].copy()
        frame.setflags(write=False)
        return frame

    def video(self, reference: Reference, first: int, count: int) -> Iterator[Frame]:
        self.asked.append(reference)
        shared = np.empty_like(self._frames[0])
        for frame in self._frames[first : first + count]:
            np.copyto(shared, frame)
            yield shared


class Kept:
    """A sink that keeps copies, and checks that frames come once and in order."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.masks: list[Mask] = []

    def write(self, index: int, guide: Frame, mask: Mask) -> None:
        assert index == len(self.frames)
        self.frames.append(guide.copy())
        self.masks.append(mask)


class KeptMotion(Kept):
    """A sink that wants everything."""

    wants_flow = True
    wants_visibility = True

    def __init__(self) -> None:
        super().__init__()
        self.flows: list[NDArray[np.float32]] = []
        self.visibilities: list[Frame] = []

    def flow(self, index: int, flow: NDArray[np.float32]) -> None:
        assert index == len(self.flows) == len(self.frames)
        self.flows.append(flow.copy())

    def visibility(self, index: int, visibility: Frame) -> None:
        assert index == len(self.visibilities) == len(self.frames)
        self.visibilities.append(visibility.copy())


def segment(frames: int, *guides: dict[str, Any]) -> Segment:
    return Segment.model_validate({"frames": frames, "guides": list(guides)})


def gap(count: int, start: int = 0, end: int | None = None) -> Segment:
    """One gap of `count` frames between scene frames `start` and `end`."""
    last = count + 1 if end is None else end
    return segment(count + 2, {"at": 0, "image": str(start)}, {"at": count + 1, "image": str(last)})


def render(
    wanted: Segment, flows: FlowSource | None, frames: Frame, sink: Kept | None = None, **options: Any
) -> tuple[Kept, RenderOutcome]:
    sink = sink or Kept()
    height, width = frames.shape[1:3]
    chosen: dict[str, Any] = {
        "height": height,
        "width": width,
        "treatment": "clip",
        "anchors": "start",
        "motion_strength": 1.0,
        "flow_start": 0,
        "flow_stop": flows.meta.total_flows if flows else 0,
    }
    outcome = render_segment(wanted, flows, SceneGuides(frames), RenderSettings(**chosen | options), sink)
    assert len(sink.frames) == wanted.frames
    return sink, outcome

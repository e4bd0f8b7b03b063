"""The report's pictures of a segment: guide, motion, and the structure video's frames that drive them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import FrameCacheError, StorageError, TimelineNotFoundError
from structureflow.flow.fields import Direction, Field32, FlowMeta, FlowSource
from structureflow.frames.cache import FrameCache
from structureflow.guide.spans import unguided_ranges
from structureflow.jobs.services import Services
from structureflow.models.job import Segment, Treatment
from structureflow.models.results import Fallback, JobRecord
from structureflow.report.previews import PreviewCollector

Image = NDArray[np.uint8]


def played_flows(segment: Segment, start: int, stop: int, treatment: Treatment) -> dict[int, int]:
    """Return for each unguided frame the flow that mostly leads to it: frame number to flow number.

    Args:
        start, stop: the segment's window of flows, start inclusive, stop exclusive.
    """
    frames = [index for first, last in unguided_ranges(segment) for index in range(first, last + 1)]
    count = stop - start
    if treatment == "clip":
        return {frame: start + step for step, frame in enumerate(frames) if step < count}
    spread = max(1, len(frames) - 1)
    return {frame: start + round(step * (count - 1) / spread) for step, frame in enumerate(frames) if count}


class TappedFlows:
    """Hands flows through to the renderer and shows those that the report wants, so that nothing is read twice."""

    def __init__(self, flows: FlowSource, previews: PreviewCollector, frames_of_flow: dict[int, list[int]]) -> None:
        self._flows = flows
        self._previews = previews
        self._wanted = frames_of_flow

    @property
    def meta(self) -> FlowMeta:
        """As of the flows behind."""
        return self._flows.meta

    def read(self, direction: Direction, start: int, stop: int) -> Field32:
        """Read flows `start` (inclusive) to `stop` (exclusive); see `FlowSource.read`."""
        chunk = self._flows.read(direction, start, stop)
        # What the next frame was pulled from is, reversed, where the pixels went.
        sign = -1 if direction == "backward" else 1
        for flow in range(start, stop):
            for frame in self._wanted.pop(flow, ()):
                self._previews.flow(frame, np.float32(sign) * chunk[flow - start])
        return chunk


def driving_flows(played: Mapping[int, int], previews: PreviewCollector) -> dict[int, int]:
    """Return for each frame that `previews` wants the flow of `played` that mostly leads to it."""
    return {frame: played[frame] for frame in previews.wanted if frame in played}


def tapped(flows: FlowSource, previews: PreviewCollector, driving: dict[int, int]) -> TappedFlows:
    """Return `flows` that show `previews` what is in `driving` as it is read."""
    frames_of_flow: dict[int, list[int]] = {}
    for frame, flow in driving.items():
        frames_of_flow.setdefault(flow, []).append(frame)
    return TappedFlows(flows, previews, frames_of_flow)


def show_structure(
    previews: PreviewCollector, driving: dict[int, int], record: JobRecord, services: Services
) -> tuple[Fallback, ...]:
    """Give the report the frames that drive the shown ones, where the frame cache has them.

    Returns:
        Why they could not be shown, if so: the segment is rendered, and must not fail for pictures of a page.
    """
    # A flow leads to the frame after it.
    wanted = {frame: flow + 1 for frame, flow in driving.items()}
    try:
        found = _load_any(sorted({*wanted.values()}), record, services)
    except TimelineNotFoundError:
        return ()
    except (FrameCacheError, StorageError) as error:
        return (Fallback(stage="report", wanted="frames", used="none", reason=str(error)),)
    for frame, sequence in wanted.items():
        previews.structure(frame, found[sequence])
    return ()


def _load_any(sequences: list[int], record: JobRecord, services: Services) -> dict[int, Image]:
    if not record.sources:
        return _load(sequences, record, services)
    found: dict[int, Image] = {}
    for number, part in enumerate(record.sources):
        offset = part.source_start_frame - part.first_frame
        own = [sequence + offset for sequence in sequences if 0 <= sequence - part.first_frame < part.part_frames]
        loaded = _load(own, record.of_source(number), services)
        found |= {sequence - offset: image for sequence, image in loaded.items()}
    return found


def _load(sequences: list[int], record: JobRecord, services: Services) -> dict[int, Image]:
    cache, timeline_id = FrameCache(services.storage), record.timeline_id
    if not sequences:
        return {}
    manifest = cache.manifest(timeline_id, source_identity=record.source.identity)
    loaded = cache.iter_cached_frames(timeline_id, sequences, manifest=manifest)
    return {frame.sequence: frame.image for frame in loaded}

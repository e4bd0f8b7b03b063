"""The report's pictures of a segment: guide, motion, and the structure video's frames that drive them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import FrameCacheError, StorageError, TimelineNotFoundError
from structureflow.flow.fields import Direction, Field32, FlowMeta, FlowSource
from structureflow.frames.cache import FrameCache
from structureflow.guide.plan import Plan
from structureflow.jobs.services import Services
from structureflow.models.results import Fallback, JobRecord
from structureflow.report.previews import PreviewCollector

Image = NDArray[np.uint8]


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


def driving_flows(frames: Iterable[int], plan: Plan) -> dict[int, int]:
    """Return for each of these unguided frames the flow of the video that mostly leads to it, where one does."""
    return {frame: flow for frame in frames if (flow := plan.flow_into(frame)) is not None}


def standing_frames(frames: Iterable[int], plan: Plan) -> dict[int, int]:
    """Return for each of these unguided frames the frame of the video that stands there, where one does."""
    shown = ((frame, plan.frame_shown(plan.consumed(frame) + 1)) for frame in frames)
    return {frame: number for frame, number in shown if number is not None}


def tapped(flows: FlowSource, previews: PreviewCollector, driving: dict[int, int]) -> TappedFlows:
    """Return `flows` that show `previews` what is in `driving` as it is read."""
    frames_of_flow: dict[int, list[int]] = {}
    for frame, flow in driving.items():
        frames_of_flow.setdefault(flow, []).append(frame)
    return TappedFlows(flows, previews, frames_of_flow)


def show_structure(
    previews: PreviewCollector, standing: Mapping[int, int], record: JobRecord, services: Services
) -> tuple[Fallback, ...]:
    """Give the report the frames of the video that stand at the shown ones, where the frame cache has them.

    Args:
        previews: takes them.
        standing: from `standing_frames`.
        record, services: of the job.

    Returns:
        Why they could not be shown, if so: the segment is rendered, and must not fail for pictures of a page.
    """
    try:
        found = _load_any(sorted({*standing.values()}), record, services)
    except TimelineNotFoundError:
        return ()
    except (FrameCacheError, StorageError) as error:
        return (Fallback(stage="report", wanted="frames", used="none", reason=str(error)),)
    for frame, sequence in standing.items():
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

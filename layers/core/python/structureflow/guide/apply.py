"""Motion for frames that are in memory already: the renderer, over a list of frames and its tracker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structureflow import arguments
from structureflow.arguments import checked, instance, number, optional, whole
from structureflow.errors import GuidanceError
from structureflow.flow.fields import FlowMeta, FlowSource, Treatment, check_flows
from structureflow.flow.sources import ArrayFlows, flow_source
from structureflow.guide.masks import KEEP
from structureflow.guide.ports import Mask
from structureflow.guide.render import RenderSettings, render_segment
from structureflow.guide.tracker import GuidanceTracker
from structureflow.models.job import Anchors, Guide, Segment
from structureflow.references import Reference

Frame = NDArray[np.uint8]


def _motion(value: Any, name: str) -> None:
    if not isinstance(value, (Sequence, np.ndarray)):
        flow_source(value, name)


@checked(
    frames=arguments.iterable("one picture for each frame, or None"),
    tracker=instance(GuidanceTracker, "GuidanceTracker"),
    flows=optional(_motion),
    motion_strength=number(least=0),
    flow_start=whole(0),
    flow_stop=optional(whole(0)),
    workers=whole(1),
)
def apply_structure_motion(
    frames: Sequence[Frame],
    tracker: GuidanceTracker,
    flows: FlowSource | Sequence[NDArray[Any]] | NDArray[Any] | None,
    *,
    treatment: Treatment = "adjust",
    motion_strength: float = 1.0,
    anchors: Anchors = "start",
    flow_start: int = 0,
    flow_stop: int | None = None,
    workers: int = 2,
) -> list[Frame]:
    """Fill all unguided ranges of a segment with the structure video's motion, in one pass.

    Flows are consumed in order across the ranges, and each range starts from its own anchor: what `render_segment`
    does, to the bit. Frames that motion does not reach (before the first guide, behind a cut, past the last flow
    under ``clip``) become mid-grey (128) and stay unguided in the tracker.

    Args:
        frames: one per frame of the segment; the guided ones ``(H, W, 3)`` uint8 RGB of one size, the others are
            not looked at. Nothing of it is changed.
        tracker: says which frames are guided; every frame that is filled is marked at the moment it is written.
        flows: a source; or S forward flows ``(h, w, 2)`` of any float type over the area of the frames, a list or
            ``(S, h, w, 2)``; None where there is no motion.
        treatment: how the flows become one step per unguided frame, see `adjust_flow_field_count`.
        motion_strength: every step is this many times as long, 0 (anchors stand still) to 10.
        anchors: `start`, or `both` to carry the next guided frame back as well.
        flow_start, flow_stop: flows to play, start inclusive, stop exclusive; None means to the end.
        workers: threads; the result does not depend on it.

    Returns:
        A new list: guided frames are those given, all others fresh memory of the same size.

    Raises:
        GuidanceError: frames and tracker differ in number, nothing is guided and no frame tells the size, a guided
            frame has another size, or a setting is out of its range.
        FlowError: a flow is unusable.
        FlowCacheError: the source is unreadable or corrupt where it was read.

    >>> import numpy as np
    >>> picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    >>> to_the_right = np.full((2, 48, 64, 2), (3, 0), np.float32)
    >>> tracker = GuidanceTracker(3)
    >>> tracker.mark_single_frame(0)
    >>> frames = apply_structure_motion([picture, None, None], tracker, to_the_right)
    >>> bool((frames[2][:, 6:] == picture[:, :-6]).all()), tracker.get_unguidanced_ranges()
    (True, [])
    """
    if len(frames) != tracker.total_frames:
        raise GuidanceError(f"frames: expected {tracker.total_frames}, as the tracker has, got {len(frames)}")
    guided = tracker.get_guided_ranges()
    for first, last in guided:
        for index in range(first, last + 1):
            arguments.picture(frames[index], f"frames: number {index}")
    start = frames[guided[0][0] if guided else 0]
    arguments.picture(start, "frames")
    height, width = start.shape[:2]
    source = _source(flows, height, width) if isinstance(flows, (Sequence, np.ndarray)) else flows
    total = 0 if source is None else source.meta.total_flows
    settings = RenderSettings(
        height=height,
        width=width,
        treatment=treatment,
        anchors=anchors,
        motion_strength=motion_strength,
        flow_start=flow_start,
        flow_stop=total if flow_stop is None else flow_stop,
        workers=workers,
    )
    # every guided range is a piece of one video, the frames themselves; limits of requests do not hold here
    guides = tuple(Guide(at=(first, last), video="frames", from_frame=first) for first, last in guided)
    segment = Segment.model_construct(frames=len(frames), guides=guides)
    sink = _List(frames, tracker)
    render_segment(segment, source, _Given(frames), settings, sink)
    return sink.frames


class _Given:
    """Guides that are there already."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = frames

    def image(self, reference: Reference) -> Frame:
        raise GuidanceError(f"image {reference}: expected frames only")

    def video(self, reference: Reference, first: int, count: int) -> Iterator[Frame]:  # noqa: ARG002 - there is one
        return iter(self._frames[first : first + count])


class _List:
    """Keeps what is new and marks it."""

    def __init__(self, given: Sequence[Frame], tracker: GuidanceTracker) -> None:
        self.frames: list[Frame] = []
        self._given = given
        self._tracker = tracker

    def write(self, index: int, guide: Frame, mask: Mask) -> None:
        if self._tracker.is_guided(index):
            self.frames.append(self._given[index])
            return
        self.frames.append(guide.copy())
        if np.ndim(mask) == 0 and mask == KEEP:
            self._tracker.mark_single_frame(index)


def _source(flows: Sequence[NDArray[Any]] | NDArray[Any], height: int, width: int) -> FlowSource | None:
    """Serve forward flows that are arrays, as float32 like those of an archive."""
    fields = check_flows(flows)
    if not fields:
        return None
    stored = np.stack(fields)
    meta = FlowMeta(
        total_flows=len(stored),
        height=stored.shape[1],
        width=stored.shape[2],
        original_height=height,
        original_width=width,
        original_fps=1.0,
        has_backward=False,
        engine="given",
        quantization_px=0.0,
    )
    return ArrayFlows(meta, stored)

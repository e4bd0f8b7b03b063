"""Thumbnails of a few telling frames of a segment, taken while it is rendered."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.errors import GuidanceError, MediaError
from structureflow.flow.colors import flow_to_rgb
from structureflow.report.pictures import FramePictures, SegmentPictures

Range = tuple[int, int]

MAX_WIDTH_PX: Final = 160
MAX_HEIGHT_PX: Final = 160
_QUALITY: Final = 78


def preview_frames(frames: int, unguided: Iterable[Range], max_thumbs: int) -> tuple[int, ...]:
    """Choose the frames of a segment that tell most: where guidance starts and ends, and the gaps between.

    First and last frame of each guided run, and the gaps evenly, in proportion to their length and both ends
    included; evenly thinned if that is more than `max_thumbs`.

    Args:
        frames: length of the segment.
        unguided: ranges ``(first, last)``, both inclusive, in order.
        max_thumbs: how many frames at most, at least 1.

    Returns:
        Rising frame numbers.
    """
    gaps = list(unguided)
    edges = [-1, *(edge for first, last in gaps for edge in (first, last + 1)), frames]
    guided = [(edges[at] if at else 0, edges[at + 1] - 1) for at in range(0, len(edges), 2)]
    chosen = {edge for first, last in guided if first <= last for edge in (first, last)}
    total = sum(last - first + 1 for first, last in gaps)
    room = max(max_thumbs - len(chosen), 2 * len(gaps))
    for first, last in gaps:
        length = last - first + 1
        chosen.update(_evenly(range(first, last + 1), max(2, room * length // total)))
    return tuple(_evenly(sorted(chosen), max_thumbs))


def _evenly(values: Sequence[int], count: int) -> list[int]:
    """Pick up to `count` of `values`, both ends included."""
    if count >= len(values):
        return list(values)
    if count == 1:
        return [values[0]]
    return [values[round(at * (len(values) - 1) / (count - 1))] for at in range(count)]


class PreviewCollector:
    """Keeps thumbnails of chosen frames of one segment; other frames cost nothing.

    Args:
        frames: length of the segment.
        unguided: its unguided ranges ``(first, last)``, both inclusive, in order.
        max_thumbs: how many frames to keep at most.
        flow_max_px: length of a vector of full colour, in pixels of the flow's own grid; one for the whole job
            (`structureflow.flow.colors.flow_normaliser`). Needed only where `flow` is called.

    Attributes:
        wanted: the rising numbers of the frames that are kept.

    Raises:
        GuidanceError: the ranges are not in order or not inside the segment.
    """

    def __init__(
        self, frames: int, unguided: Iterable[Range], *, max_thumbs: int = 12, flow_max_px: float | None = None
    ) -> None:
        ranges = list(unguided)
        ordered = all(before[1] < after[0] for before, after in pairwise(ranges))
        if frames < 1 or max_thumbs < 1 or not ordered or any(not 0 <= a <= b < frames for a, b in ranges):
            raise GuidanceError(f"expected ordered ranges inside {frames} frames, got {ranges}")
        self.wanted = preview_frames(frames, ranges, max_thumbs)
        self._frames = frames
        self._flow_max_px = flow_max_px
        self._flow_max_share: float | None = None
        self._size: tuple[int, int] | None = None
        self._kept: dict[int, dict[str, Any]] = {index: {} for index in self.wanted}

    def guide(self, index: int, rgb: NDArray[np.uint8], mask: int) -> None:
        """Take frame `index` of the guide, ``(H, W, 3)`` uint8 RGB at any size, and the mean of its mask, 0 to 255."""
        if index in self._kept:
            self._kept[index].update(guide=self._thumbnail(rgb), mask=int(mask))

    def structure(self, index: int, rgb: NDArray[np.uint8]) -> None:
        """Take the frame of the structure video, ``(H, W, 3)`` uint8 RGB, that drives frame `index`."""
        if index in self._kept:
            self._kept[index]["structure"] = self._thumbnail(rgb)

    def flow(self, index: int, flow: NDArray[Any]) -> None:
        """Take the flow, ``(h, w, 2)`` floating (dx, dy) in pixels of its own grid, that leads to frame `index`.

        Raises:
            GuidanceError: no `flow_max_px` was given.
            FlowError: the field has another shape or is not finite.
        """
        if index not in self._kept:
            return
        if self._flow_max_px is None:
            raise GuidanceError("expected flow_max_px to paint flows with, got None")
        self._flow_max_share = self._flow_max_px / flow.shape[1]
        height, width = thumbnail_size(flow.shape[0], flow.shape[1])
        small = cv2.resize(np.asarray(flow, np.float32), (width, height), interpolation=cv2.INTER_AREA)
        self._kept[index]["flow"] = _jpeg(flow_to_rgb(small, self._flow_max_px))

    def to_json(self) -> bytes:
        """Return the thumbnails as `SegmentPictures` JSON; frames that got none are left out."""
        height, width = self._size or (9, 16)
        return SegmentPictures(
            frames=self._frames,
            width_px=width,
            height_px=height,
            flow_max_share=self._flow_max_share,
            pictures=tuple(FramePictures(index=index, **kept) for index, kept in self._kept.items() if kept),
        ).to_json()

    def _thumbnail(self, rgb: NDArray[np.uint8]) -> str:
        height, width = thumbnail_size(rgb.shape[0], rgb.shape[1])
        if self._size is None:
            self._size = height, width
        return _jpeg(np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8))


def thumbnail_size(height: int, width: int) -> tuple[int, int]:
    """Return the largest (height, width) of the same shape inside the thumbnail's bounds; never enlarged."""
    scale = min(MAX_WIDTH_PX / width, MAX_HEIGHT_PX / height, 1.0)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _jpeg(rgb: NDArray[np.uint8]) -> str:
    parameters = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), parameters)
    if not done:
        raise MediaError(f"a thumbnail of {rgb.shape} cannot be encoded")
    return base64.b64encode(data.tobytes()).decode("ascii")

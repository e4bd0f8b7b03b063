"""What the routes that need pixels answer with: archives of flows, and previews."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from structureflow.api.replies import Span
from structureflow.models.results import Model


class ArchiveRow(Model):
    """An archive of flows in the list."""

    key: str
    size_bytes: int
    updated_at: datetime | None


class ArchivePage(Model):
    """A page of archives, in the order of their keys; `next_page` is None on the last one."""

    archives: tuple[ArchiveRow, ...]
    next_page: str | None


class ArchiveView(Model):
    """What an archive of flows says of itself; see `structureflow.flow.fields.FlowMeta`. Times may be cut."""

    key: str
    flows: int
    width_px: int
    height_px: int
    video_width_px: int
    video_height_px: int
    fps: float
    engine: str
    params: dict[str, Any]
    kind: Literal["structureflow", "plain"]
    has_backward: bool
    scene_cuts: tuple[int, ...]
    timestamps_s: tuple[float, ...]
    display_max_px: float


class ForecastReply(Model):
    """What a job will take, about: seconds until it is done, and US dollars, also by item.

    `frames` are those of its structure videos; `flows_found` says whether their flows are there already.
    """

    seconds: float
    cost_usd: float
    items_usd: dict[str, float]
    frames: int
    flows_found: bool


class PreviewFrame(Model):
    """A frame of a preview: base64 JPEGs of guide and mask, and the share of its pixels that an anchor shows."""

    frame: int
    jpeg_base64: str
    mask_jpeg_base64: str
    kept: float | None


class PreviewReply(Model):
    """A gap of a segment, small: `gap` and the ranges are of the segment's frames, both ends inclusive.

    `notices` say what the job itself may make otherwise.
    """

    segment: int
    gap: Span
    width_px: int
    height_px: int
    frames: tuple[PreviewFrame, ...]
    filled: tuple[Span, ...]
    generated: tuple[Span, ...]
    tracking: str
    flow_source: str
    notices: tuple[str, ...]
    took_s: float

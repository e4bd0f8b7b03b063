"""What screens get: pages of frames as base64, or as URLs. Timestamps are in seconds, always the real ones."""

from __future__ import annotations

from structureflow.models.results import Model


class FrameB64(Model):
    """A frame for screens: a JPEG as base64, with its real timestamp (seconds)."""

    sequence: int
    chunk_id: str
    timestamp: float
    perceptual_hash: str
    width_px: int
    height_px: int
    jpeg_base64: str


class DamagedFrame(Model):
    """A frame that cannot be shown, and why."""

    sequence: int
    code: str
    message: str


class FramePage(Model):
    """A page of frames for screens; `next_page` is None on the last one.

    `damaged` names the frames of the page that are left out, where that was asked for.
    """

    timeline_id: str
    total: int
    frames: tuple[FrameB64, ...]
    next_page: str | None
    damaged: tuple[DamagedFrame, ...] = ()


class FrameUrl(Model):
    """A frame for screens that load it themselves."""

    sequence: int
    chunk_id: str
    timestamp: float
    perceptual_hash: str
    size_bytes: int
    url: str


class FrameUrlPage(Model):
    """A page of URLs; `next_page` is None on the last one."""

    timeline_id: str
    total: int
    frames: tuple[FrameUrl, ...]
    next_page: str | None

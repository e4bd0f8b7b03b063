"""The original frame cache module: its functions over the process's store (`use_store`)."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from structureflow import arguments, keys
from structureflow.arguments import checked, whole
from structureflow.compat import places
from structureflow.errors import InvalidKeyError, NotAnImageError, TimelineNotFoundError
from structureflow.frames.cache import Frame as CachedFrame
from structureflow.frames.cache import FrameCache
from structureflow.frames.jpeg import check_image, encode_jpeg

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Frame:
    """A frame of a timeline.

    Attributes:
        sequence: its number, zero-based.
        chunk_id: the chunk it comes from; a number stays one.
        timestamp: presentation time in seconds.
        image: ``(H, W, 3)`` uint8 RGB.
        perceptual_hash: 16 hex digits; empty in a frame that is yet to be written.
    """

    sequence: int
    chunk_id: int | str
    timestamp: float
    image: NDArray[np.uint8]
    perceptual_hash: str = ""


class FrameB64(TypedDict):
    """A frame for screens."""

    seq: int
    timestamp: float
    jpeg_b64: str


def _frames(value: Any, name: str) -> None:
    """Expect `Frame` objects, or what a program has in their place."""
    arguments.iterable("frames")(value, name)
    for frame in value:
        for attribute in ("sequence", "chunk_id", "timestamp", "image"):
            if not hasattr(frame, attribute):
                arguments.refuse(frame, name, f"frames with the attribute {attribute}")
        whole(0)(frame.sequence, f"{name}: sequence")
        check_image(arguments.array(frame.image, f"{name}: image of {frame.sequence}"))


def _overlays_given(value: Any, name: str) -> None:
    arguments.mapping(value, name)
    for overlay, text in value.items():
        arguments.text(text, f"{name}: {arguments.shown(overlay)}")


def cache_exists(timeline_id: str) -> bool:
    """Tell whether a timeline's frames are cached, to the last one."""
    return _cache().cache_exists(timeline_id)


@checked(frames=_frames)
def cache_frames(timeline_id: str, frames: list[Frame], quality: int = 85) -> int:
    """Write all frames of a timeline as JPEGs, in place of what was cached before; return how many.

    They may be in any order. Of an empty list nothing is written, and what was cached stays.

    Raises:
        FrameCacheError: two frames have one number.
        NotAnImageError: an image is no ``(H, W, 3)`` uint8.
        StorageError: a frame cannot be stored; the timeline then counts as not cached.
    """
    if not frames:
        return 0
    ordered = sorted(frames, key=lambda frame: frame.sequence)
    cached = [CachedFrame(frame.sequence, str(frame.chunk_id), frame.timestamp, frame.image) for frame in ordered]
    _cache().cache_frames(timeline_id, cached, quality=quality)
    _log.info("cached %d frames of timeline %s", len(frames), timeline_id)
    return len(frames)


def load_cached_frames(timeline_id: str) -> list[Frame]:
    """Load all cached frames of a timeline, in order; an empty list where there are none.

    Raises:
        FrameCorruptError, FrameNotFoundError: a frame is damaged or gone; it is named.
    """
    try:
        return [_frame(frame) for frame in _cache().iter_cached_frames(timeline_id)]
    except TimelineNotFoundError:
        return []


def load_cached_frames_b64(timeline_id: str) -> list[FrameB64]:
    """Load all cached frames of a timeline as base64 of their JPEGs, in order; an empty list where there are none.

    Raises:
        FrameCorruptError, FrameNotFoundError: as `load_cached_frames`.
    """
    try:
        jpegs = list(_cache().iter_cached_jpegs(timeline_id))
    except TimelineNotFoundError:
        return []
    return [_b64(record.sequence, record.timestamp, data) for record, data in jpegs]


def clear_cache(timeline_id: str) -> None:
    """Delete a timeline's cached frames; overlays stay, as in the original."""
    _cache().clear_cache(timeline_id)
    _log.info("cleared the frames of timeline %s", timeline_id)


@checked(frames=_frames, quality=whole(1, 100))
def frames_to_b64(frames: list[Frame], quality: int = 75) -> list[FrameB64]:
    """Encode frames in memory as base64 JPEGs, in order of their numbers.

    Raises:
        NotAnImageError: an image is no ``(H, W, 3)`` uint8.
    """
    ordered = sorted(frames, key=lambda frame: frame.sequence)
    return [_b64(frame.sequence, frame.timestamp, encode_jpeg(frame.image, quality)) for frame in ordered]


@checked(overlays=_overlays_given)
def save_overlays(timeline_id: str, job_id: str, stage: str, seq: int, overlays: dict[str, str]) -> None:
    """Save pictures of what a job's stage did at a frame.

    Args:
        timeline_id, job_id, stage: ids; any stage.
        seq: the frame's number.
        overlays: base64 of a PNG by name, as in ``{"edge_overlay_b64": "iVBOR…"}``.

    Raises:
        InvalidIdError: a bad id or name.
        NotAnImageError: a value is no base64; nothing is saved then.
        StorageError: an overlay cannot be stored; those before it stay.
    """
    keys.check_id(stage, "stage")
    decoded = {}
    for name, text in overlays.items():
        try:
            decoded[keys.timeline_overlay(timeline_id, job_id, stage, seq, name)] = base64.b64decode(
                text, validate=True
            )
        except ValueError as error:
            raise NotAnImageError(
                f"overlay {name} of frame {seq}: expected base64, got {text[:20]!r}: {error}"
            ) from error
    store = places.store()
    for key, data in decoded.items():
        store.put(key, data, content_type="image/png")
    _log.info("saved %d overlays of timeline %s, job %s, %s, frame %d", len(overlays), timeline_id, job_id, stage, seq)


@checked(seq=whole(0))
def load_overlays(timeline_id: str, job_id: str, stage: str, seq: int) -> dict[str, str] | None:
    """Load a frame's overlays as base64 of their PNGs, by name; None where there are none."""
    store = places.store()
    found = {
        name: base64.b64encode(store.get(key).data).decode()
        for key, sequence, name in _overlays(timeline_id, job_id, stage)
        if sequence == seq
    }
    return found or None


def list_overlay_frames(timeline_id: str, job_id: str, stage: str) -> list[int]:
    """List the frames that have overlays of a job's stage, in order."""
    return sorted({sequence for _, sequence, _ in _overlays(timeline_id, job_id, stage)})


def _cache() -> FrameCache:
    return FrameCache(places.store())


def _frame(frame: CachedFrame) -> Frame:
    text = frame.chunk_id
    chunk_id = int(text) if text.isascii() and text.isdigit() and str(int(text)) == text else text
    return Frame(frame.sequence, chunk_id, frame.timestamp, frame.image, frame.perceptual_hash)


def _b64(sequence: int, timestamp: float, jpeg: bytes) -> FrameB64:
    return {"seq": sequence, "timestamp": timestamp, "jpeg_b64": base64.b64encode(jpeg).decode()}


def _overlays(timeline_id: str, job_id: str, stage: str) -> Iterator[tuple[str, int, str]]:
    """Iterate over key, frame and name of the overlays of a stage, also of those that the original wrote."""
    prefix = keys.timeline_overlays_prefix(timeline_id, keys.check_id(job_id, "job_id"), keys.check_id(stage, "stage"))
    for info in places.store().list(prefix):
        try:
            sequence, name = keys.parse_timeline_overlay(info.key.removeprefix(prefix))
        except InvalidKeyError:
            continue
        yield info.key, sequence, name

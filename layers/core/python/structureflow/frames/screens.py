"""Pages of a timeline's frames for screens: as base64 JPEGs, small enough for one reply, or as URLs.

Stored frames go as they are; only a thumbnail is decoded, by Pillow. So a function that serves screens is small.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from structureflow import arguments
from structureflow.arguments import checked, optional, whole
from structureflow.errors import FrameCacheError, FrameCorruptError, FrameNotFoundError, MediaError, StructureFlowError
from structureflow.frames.fetch import (
    DEFAULT_CONCURRENCY,
    DEFAULT_PIXEL_BYTES,
    pixel_window,
    read_frame,
    transfer,
)
from structureflow.frames.jpeg_header import jpeg_size
from structureflow.frames.manifest import FrameManifest, FrameRecord, read_manifest
from structureflow.frames.pages import DamagedFrame, FrameB64, FramePage, FrameUrl, FrameUrlPage
from structureflow.frames.thumbnail import thumbnail_jpeg
from structureflow.limits import MAX_DIGITS
from structureflow.processors import usable_cpus
from structureflow.storage.base import Storage

THUMBNAIL_QUALITY: Final = 75
#: Base64 and its JSON in one page. A synchronous Lambda reply may have 6 MB; the rest is for the caller.
DEFAULT_PAGE_BYTES: Final = 4_500_000
_JSON_BYTES_PER_FRAME: Final = 320
#: What may be amiss with one frame alone.
_DAMAGE: Final = (FrameNotFoundError, FrameCorruptError)
_PAGE: Final = {
    "sequences": optional(arguments.whole_numbers(0)),
    "page": optional(arguments.text),
    "limit": whole(1),
}


@checked(**_PAGE, width_px=optional(whole(1)), quality=whole(1, 100), max_bytes=whole(1))
def frame_page(
    storage: Storage,
    timeline_id: str,
    sequences: Iterable[int] | None = None,
    *,
    page: str | None = None,
    limit: int = 200,
    width_px: int | None = None,
    quality: int = THUMBNAIL_QUALITY,
    max_bytes: int = DEFAULT_PAGE_BYTES,
    concurrency: int = DEFAULT_CONCURRENCY,
    workers: int | None = None,
    pixel_bytes: int = DEFAULT_PIXEL_BYTES,
    manifest: FrameManifest | None = None,
    leave_out_damaged: bool = False,
) -> FramePage:
    """Load a page of frames as base64 JPEGs.

    Args:
        storage: where they are.
        timeline_id: the timeline.
        sequences: which frames, in which order; the same for every page.
        page: `next_page` of the page before; None for the first.
        limit: most frames of a page.
        width_px: scale wider frames down to this and encode them anew with `quality`; None gives the
            stored JPEGs as they are.
        quality: of thumbnails, 1 to 100.
        max_bytes: most bytes of a page as JSON.
        concurrency, workers, pixel_bytes: as of `FrameCache`.
        manifest: of the timeline, where it was read already.
        leave_out_damaged: name frames that are gone or damaged in the page, instead of raising.

    Raises:
        TimelineNotFoundError: no cached frames.
        FrameNotFoundError: a sequence is not in the timeline, or its object is gone; it is named.
        FrameCorruptError: a frame's bytes are not those of the manifest, or no JPEG; it is named.
        FrameCacheError: a single frame exceeds `max_bytes`, or `page` is no page.
    """
    manifest = manifest or read_manifest(storage, timeline_id)
    records = manifest.select(sequences)
    start = _page_start(page, len(records))
    wanted = records[start : start + max(1, limit)]
    if width_px is None:
        show: Callable[[FrameRecord, bytes], FrameB64] = _stored
        window = concurrency
    else:
        show = partial(_thumbnail, width_px, quality)
        window = pixel_window(manifest, concurrency=concurrency, pixel_bytes=pixel_bytes)
    left_out = _DAMAGE if leave_out_damaged else ()

    def fetch(record: FrameRecord) -> bytes | DamagedFrame:
        try:
            return read_frame(storage, record)
        except left_out as error:
            return _damaged(record, error)

    def work(record: FrameRecord, data: bytes | DamagedFrame) -> FrameB64 | DamagedFrame:
        try:
            return data if isinstance(data, DamagedFrame) else show(record, data)
        except left_out as error:
            return _damaged(record, error)

    loaded = transfer(
        wanted,
        fetch,
        work,
        window=window,
        concurrency=concurrency,
        workers=workers or usable_cpus(),
    )
    taken: list[FrameB64] = []
    damaged: list[DamagedFrame] = []
    used = 0
    with contextlib.closing(loaded):
        for frame in loaded:
            if isinstance(frame, DamagedFrame):
                damaged.append(frame)
                continue
            used += len(frame.jpeg_base64) + _JSON_BYTES_PER_FRAME
            if used > max_bytes:
                break
            taken.append(frame)
    if wanted and not taken and not damaged:
        raise FrameCacheError(
            f"frame {wanted[0].sequence} alone exceeds a page of {max_bytes} bytes; ask for a smaller width_px, "
            f"or for URLs",
            sequence=wanted[0].sequence,
        )
    return FramePage(
        timeline_id=timeline_id,
        total=len(records),
        frames=tuple(taken),
        next_page=_next_page(start + len(taken) + len(damaged), len(records)),
        damaged=tuple(damaged),
    )


def frame_jpeg(
    storage: Storage, record: FrameRecord, *, width_px: int | None = None, quality: int = THUMBNAIL_QUALITY
) -> bytes:
    """Return one stored frame as a JPEG, scaled down to `width_px` if it is wider; errors as `frame_page`."""
    data = read_frame(storage, record)
    return data if width_px is None else _scaled(record, data, width_px, quality)[0]


@checked(**_PAGE)
def frame_url_page(
    storage: Storage,
    timeline_id: str,
    sequences: Iterable[int] | None = None,
    *,
    page: str | None = None,
    limit: int = 1000,
    expires_s: int = 3600,
    manifest: FrameManifest | None = None,
) -> FrameUrlPage:
    """Return a page of URLs that read the stored JPEGs without credentials; one request in all.

    `manifest` is the timeline's, where it was read already.

    Raises:
        TimelineNotFoundError: no cached frames.
        FrameNotFoundError: a sequence is not in the timeline; it is named.
        FrameCacheError: `page` is no page.
    """
    records = (manifest or read_manifest(storage, timeline_id)).select(sequences)
    start = _page_start(page, len(records))
    wanted = records[start : start + max(1, limit)]
    return FrameUrlPage(
        timeline_id=timeline_id,
        total=len(records),
        frames=tuple(
            FrameUrl(
                sequence=record.sequence,
                chunk_id=record.chunk_id,
                timestamp=record.timestamp,
                perceptual_hash=record.perceptual_hash,
                size_bytes=record.size_bytes,
                url=storage.presigned_url(record.key, expires_s=expires_s),
            )
            for record in wanted
        ),
        next_page=_next_page(start + len(wanted), len(records)),
    )


def _stored(record: FrameRecord, data: bytes) -> FrameB64:
    height, width = jpeg_size(data)
    return _shown(record, data, width, height)


def _thumbnail(width_px: int, quality: int, record: FrameRecord, data: bytes) -> FrameB64:
    return _shown(record, *_scaled(record, data, width_px, quality))


def _scaled(record: FrameRecord, data: bytes, width_px: int, quality: int) -> tuple[bytes, int, int]:
    try:
        return thumbnail_jpeg(data, width_px, quality)
    except MediaError as error:
        raise FrameCorruptError(
            f"frame {record.sequence}: {error}", sequence=record.sequence, key=record.key
        ) from error


def _damaged(record: FrameRecord, error: StructureFlowError) -> DamagedFrame:
    return DamagedFrame(sequence=record.sequence, code=error.code, message=error.message)


def _shown(record: FrameRecord, data: bytes, width: int, height: int) -> FrameB64:
    return FrameB64(
        sequence=record.sequence,
        chunk_id=record.chunk_id,
        timestamp=record.timestamp,
        perceptual_hash=record.perceptual_hash,
        width_px=width,
        height_px=height,
        jpeg_base64=base64.b64encode(data).decode(),
    )


def _page_start(page: str | None, total: int) -> int:
    if page is None:
        return 0
    if len(page) > MAX_DIGITS or not page.isascii() or not page.isdigit() or not 0 < int(page) < total:
        raise FrameCacheError(f"page: expected the next_page of an earlier page, got {page!r:.60}")
    return int(page)


def _next_page(stop: int, total: int) -> str | None:
    return str(stop) if stop < total else None

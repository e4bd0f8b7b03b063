"""Archives of flows for screens: which there are, what one holds, and any of its flows as a picture."""

from __future__ import annotations

import math
import re
from itertools import islice
from typing import Final

from structureflow import keys
from structureflow.api.media_replies import ArchivePage, ArchiveRow, ArchiveView
from structureflow.api.queries import ArchivesQuery, FlowQuery, KeyQuery
from structureflow.errors import InputNotAllowedError, InvalidRequestError
from structureflow.jobs.services import Services

_PREFIX: Final = "cache/flows/"
_ALLOWED: Final = re.compile(
    rf"cache/flows/[0-9a-f]{{16,64}}\.npz"
    rf"|jobs/{keys.ID_PATTERN}/(?:structure_flows_{keys.ID_PATTERN}|inputs/[A-Za-z0-9][A-Za-z0-9._-]{{0,195}})\.npz"
)
#: Of the wheel's colours: what is flat stays flat, and a frame of 480 pixels takes 20 kB.
_QUALITY: Final = 90
#: That a listing shows; the times of a video's frames, if they vary, may be 20,000.
_TIMES: Final = 2_000


def archive_page(query: ArchivesQuery, services: Services) -> ArchivePage:
    """Return a page of the archives that all jobs find, in the order of their keys."""
    after = None if query.page is None else f"{_PREFIX}{query.page}.npz"
    found = list(islice(services.storage.list(_PREFIX, start_after=after), query.limit + 1))
    shown = found[: query.limit]
    return ArchivePage(
        archives=tuple(
            ArchiveRow(key=info.key, size_bytes=info.size_bytes, updated_at=info.last_modified) for info in shown
        ),
        next_page=shown[-1].key.removeprefix(_PREFIX).removesuffix(".npz") if len(found) > query.limit else None,
    )


def archive_meta(query: KeyQuery, services: Services) -> ArchiveView:
    """Return what an archive says of itself, in one request or two.

    Raises:
        ObjectNotFoundError: there is none.
        InputNotAllowedError: the key is none of an archive of flows.
        FlowCacheError: it is no archive of flows, or damaged.
    """
    from structureflow.flow.archive import open_flow_archive
    from structureflow.flow.colors import display_range

    meta = open_flow_archive(services.storage, _allowed(query.key)).meta
    times_s = meta.timestamps_s.tolist()
    return ArchiveView(
        key=query.key,
        flows=meta.total_flows,
        width_px=meta.width,
        height_px=meta.height,
        video_width_px=meta.original_width,
        video_height_px=meta.original_height,
        fps=meta.original_fps,
        engine=meta.engine,
        params=dict(meta.engine_params),
        kind="structureflow" if meta.format_version else "plain",
        has_backward=meta.has_backward,
        scene_cuts=meta.scene_cuts,
        timestamps_s=tuple(times_s[:_TIMES]),
        display_max_px=display_range(meta),
    )


def archive_flow(query: FlowQuery, services: Services) -> tuple[bytes, float]:
    """Return one flow of an archive as a JPEG of the Middlebury colours, and the length that is fully saturated.

    Raises:
        InvalidRequestError: the archive has no such flow.
        ObjectNotFoundError, InputNotAllowedError, FlowCacheError: as `archive_meta`.
    """
    import cv2
    import numpy as np

    from structureflow.flow.archive import open_flow_archive
    from structureflow.flow.colors import display_range, flow_to_rgb
    from structureflow.frames.jpeg import encode_jpeg

    archive = open_flow_archive(services.storage, _allowed(query.key), workers=services.workers)
    meta = archive.meta
    if query.flow >= meta.total_flows:
        raise InvalidRequestError(f"flow: expected 0 to {meta.total_flows - 1}, got {query.flow}")
    if query.direction == "backward" and not meta.has_backward:
        raise InvalidRequestError("direction: expected forward, for the archive has no backward flows")
    max_px = query.max_px or display_range(meta)
    picture = flow_to_rgb(archive.read(query.direction, query.flow, query.flow + 1)[0], max_px)
    if meta.width != query.width_px:
        height = max(1, math.floor(meta.height * query.width_px / meta.width + 0.5))
        way = cv2.INTER_AREA if query.width_px < meta.width else cv2.INTER_NEAREST
        picture = np.asarray(cv2.resize(picture, (query.width_px, height), interpolation=way), np.uint8)
    return encode_jpeg(picture, _QUALITY), max_px


def _allowed(key: str) -> str:
    if not _ALLOWED.fullmatch(key) or ".." in key:
        raise InputNotAllowedError(
            f"key: expected cache/flows/….npz, jobs/…/structure_flows_….npz or jobs/…/inputs/….npz, got {key!r:.200}"
        )
    return key

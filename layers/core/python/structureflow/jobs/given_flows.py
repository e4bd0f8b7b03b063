"""Flows that a request brings along: an archive in place of an extraction, verified before anything starts.

Every block of it is read, so what is damaged, foreign or too large ends the job at once. What segments read is a
copy in the present format, of which any range is read alone; like extracted flows it is kept for all jobs.
"""

from __future__ import annotations

import json
import math
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from structureflow.errors import FlowCacheError, InvalidRequestError
from structureflow.flow.archive import FileReader, FlowArchive, FlowArchiveWriter, open_flow_archive, open_flow_file
from structureflow.flow.colors import clip_normaliser, typical_length
from structureflow.flow.fields import FlowMeta
from structureflow.jobs.extract_job import commit_archive, commit_cached
from structureflow.jobs.extraction_order import ExtractionOrder, look_up
from structureflow.jobs.inputs import Source
from structureflow.jobs.services import Services
from structureflow.jobs.timeline import see_frames
from structureflow.limits import MAX_WORKING_GRID_PX
from structureflow.models.problems import counted
from structureflow.models.results import JobRecord
from structureflow.references import without_queries
from structureflow.storage.base import ByteRange, StoredObject, Suffix

__all__ = ["check_fits"]

#: Bytes of fields that are read at a time.
_READ_BYTES: Final = 64 * 2**20
#: Pictures whose ratios of sides differ by more (as logarithms) are not of the same video.
_SAME_SHAPE: Final = 0.05
#: Of what an archive says of the parameters of its engine, the most that is passed on.
_PARAMS_CHARACTERS: Final = 8_000


class _Fetched:
    """A `RangeReader` of one local file, which errors call by the name of the input that it is a copy of."""

    def __init__(self, name: str, path: Path) -> None:
        self._paths = {name: str(path)}

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """See `FileReader.get`."""
        return FileReader().get(self._paths[key], byte_range=byte_range, if_match=if_match)


def open_given(source: Source, services: Services, folder: Path) -> FlowArchive:
    """Fetch an archive that a request gives into `folder`, and open it as segments read it.

    Raises:
        FlowCacheError: it is no flow archive, is damaged, of another version or beyond the limits.
        InputNotFoundError, InputChangedError, InputNotAllowedError: as `Source.fetch`.
    """
    path = folder / "flow_cache.npz"
    source.fetch(path)
    name = str(source.reference)
    archive = open_flow_archive(_Fetched(name, path), name, workers=services.workers)
    return archive.within(MAX_WORKING_GRID_PX)


def start_given(order: ExtractionOrder, given: Source, video: Source | None, services: Services) -> JobRecord:
    """Start the segments of a job on the flows of an archive.

    Args:
        order: of the job; its `flow_cache` is `given`.
        given: the archive.
        video: the structure video, whose frames paths are looked at in; None: there is none.
        services: adapters and limits.

    Raises:
        FlowCacheError: the archive cannot be used; the message names the field.
        InvalidRequestError: it is not of `video`.
        MediaError: the video cannot be decoded.
        SupersededRunError, TransientError: as `extract_and_commit`.
    """
    order, meta = look_up(order, services)
    services.count("FlowCacheMisses" if meta is None else "FlowCacheHits", 1)
    if meta is not None:
        return commit_cached(*_seen(order, meta, video, services), services)
    with services.scratch() as folder:
        copy = folder / "flows.npz"
        try:
            archive = open_given(given, services, folder)
            meta = copy_archive(archive, copy, given, services)
        except FlowCacheError as error:
            raise error.within("flow_cache") from error
        order, meta = _seen(order, meta, video, services)
        return commit_archive(order, copy, meta, services)


def _seen(
    order: ExtractionOrder, meta: FlowMeta, video: Source | None, services: Services
) -> tuple[ExtractionOrder, FlowMeta]:
    """Look at the structure video, of which the flows must be, and keep its frames; its size is that of the job.

    Raises:
        InvalidRequestError: it has another number of frames than there is motion between, or another shape.
    """
    if video is None:
        return order, meta
    stock = see_frames(order.timeline_id, video, services)
    check_fits(meta, stock.total, stock.width, stock.height)
    if stock.problem is not None:
        order = order.falling_back("frames", "frame cache", "none", stock.problem)
        services.count("Fallbacks", 1)
    return order, replace(meta, original_height=stock.height, original_width=stock.width)


def check_fits(meta: FlowMeta, frames: int, width: int, height: int) -> None:
    """Check that flows are of a structure video of so many `frames` of `width` x `height` pixels.

    Raises:
        InvalidRequestError: there are more of them, or fewer, than motion in it; or its shape is another one.
    """
    if frames != meta.total_flows + 1:
        raise InvalidRequestError(
            f"flow_cache: expected the {counted(frames - 1, 'flow')} of the structure video's "
            f"{counted(frames, 'frame')}, got {meta.total_flows}; without structure_video, flows are taken as they are"
        )
    shapes = width / height, meta.original_width / meta.original_height
    if abs(math.log(shapes[0] / shapes[1])) > _SAME_SHAPE:
        raise InvalidRequestError(
            f"flow_cache: expected flows of {width}x{height}, as the structure video has, got those of "
            f"{meta.original_width}x{meta.original_height}"
        )


def copy_archive(archive: FlowArchive, target: Path, given: Source, services: Services) -> FlowMeta:
    """Write the flows of an archive anew, in the present format, and so read and check all of it.

    Args:
        archive: opened, from `given`.
        target: where the copy shall be.
        given: what the copy says it is of.
        services: their deadline is looked at, and workers used.

    Raises:
        FlowCacheError: the archive is damaged.
        DeadlineError: it takes too long.
    """
    meta = archive.meta
    step = max(1, _READ_BYTES // (meta.height * meta.width * 16))
    lengths = array("d")
    with FlowArchiveWriter(target, height=meta.height, width=meta.width, backward=meta.has_backward) as writer:
        for start in range(0, meta.total_flows, step):
            services.deadline.check("copying flow_cache")
            stop = min(start + step, meta.total_flows)
            forward = archive.read("forward", start, stop)
            backward = archive.read("backward", start, stop) if meta.has_backward else None
            for index in range(stop - start):
                writer.feed(forward[index], None if backward is None else backward[index])
                lengths.append(typical_length(forward[index]))
        writer.finish(
            original_height=meta.original_height,
            original_width=meta.original_width,
            original_fps=meta.original_fps,
            engine=meta.engine,
            engine_params=_params(meta),
            timestamps_s=meta.timestamps_s,
            scene_cuts=meta.scene_cuts,
            display_max_px=meta.display_max_px or clip_normaliser(lengths),
            source_video=without_queries(meta.source_video or str(given.reference)),
            source_identity=given.identity,
        )
    return open_flow_file(target).meta


def _params(meta: FlowMeta) -> dict[str, Any]:
    """Return the parameters of the engine as the archive tells them, with whose flows they are."""
    told = dict(meta.engine_params)
    if len(json.dumps(told)) > _PARAMS_CHARACTERS:
        told = {}
    return told | {"given": {"format_version": meta.format_version, "source_identity": meta.source_identity}}

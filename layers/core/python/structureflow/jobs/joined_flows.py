"""Flows of several structure videos: each extracted once, whatever jobs use it, and joined for this job.

Every source has its flows in the shared cache under its own address, as if it were the only one, and its frames in a
timeline of its own. What segments read is one archive of the parts that are played, made of copied blocks. It lies
in the shared cache, too, under the address of what it is made of: the same job again joins nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from structureflow.errors import DeadlineError, EngineUnavailableError, FlowCacheError, StructureFlowError
from structureflow.flow.archive import FlowArchive, open_flow_archive, open_flow_file
from structureflow.flow.engines import DEFAULT_ENGINES, working_size
from structureflow.flow.fields import FlowMeta
from structureflow.flow.joined import Part, Size, write_joined
from structureflow.jobs.estimate import extraction_s
from structureflow.jobs.extract_job import commit_archive, commit_cached, extract_source
from structureflow.jobs.extraction_order import ExtractionOrder, look_up
from structureflow.jobs.flow_sources import runs_here
from structureflow.jobs.inputs import Source
from structureflow.jobs.joined_sources import origin_of, part_of
from structureflow.jobs.services import Services
from structureflow.jobs.timeline import default_timeline_id, keep_frames
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.models.results import JobRecord
from structureflow.models.targets import output_size

#: Archives that turn out rotten while they are joined are extracted anew, so often.
_TRIES: Final = 3


def start_joined(
    order: ExtractionOrder, sources: Sequence[Source], engines: Sequence[str], services: Services
) -> JobRecord:
    """Start the segments of a job of several sources.

    Args:
        order: of the job; its `sources` are pinned.
        sources: the structure videos, in order of the request.
        engines: whose flows would do, the best first.
        services: adapters and limits.

    Raises:
        EngineUnavailableError: the flows are RAFT's, and not all of them are there.
        InvalidRequestError: a part has no motion.
        MediaError, InputNotFoundError, InputChangedError, DeadlineError, FlowError: as `extract_and_commit`.
        SupersededRunError, TransientError: as `extract_and_commit`.
    """
    for engine in engines:
        order = order.model_copy(update={"engine": engine})
        order, meta = look_up(order, services)
        if meta is not None:
            services.count("FlowCacheHits", 1)
            return _with_frames(commit_cached(order, meta, services), sources, services)
    services.count("FlowCacheMisses", 1)
    with services.scratch() as folder:
        order, archive, meta, here = _joined(order, sources, engines, services, folder)
        record = commit_archive(order, archive, meta, services)
    found_before = [source for source in sources if source.identity not in here]
    return _with_frames(record, found_before, services)


def _with_frames(record: JobRecord, sources: Sequence[Source], services: Services) -> JobRecord:
    """The segments are on their way; now see to it that the timelines have the frames too."""
    for source in {source.identity: source for source in sources}.values():
        keep_frames(default_timeline_id(source.identity), source, services)
    return record


def _joined(
    order: ExtractionOrder, sources: Sequence[Source], engines: Sequence[str], services: Services, folder: Path
) -> tuple[ExtractionOrder, Path, FlowMeta, set[str]]:
    """Find or extract the flows of all sources and join them; return also the sources that were extracted here."""
    here: set[str] = set()
    for left in reversed(range(_TRIES)):
        archives, order = _found(order, sources, engines, services)
        for number, source in enumerate(sources):
            if source.identity not in archives:
                order, archives[source.identity] = _extracted(order, number, source, services, folder)
                here.add(source.identity)
        target = folder / "joined.npz"
        try:
            return order, target, _write(order, sources, archives, target), here
        except FlowCacheError as error:
            rotten = [archive.info.key for archive in archives.values() if archive.info.key == error.detail.get("key")]
            if not left or not rotten:
                raise
            services.count("SharedDamaged", 1)
            services.storage.delete(rotten)
            order = order.falling_back("join", "cache", "video", str(error))
            services.count("Fallbacks", 1)
    raise AssertionError("the last try returns or raises")


def _found(
    order: ExtractionOrder, sources: Sequence[Source], engines: Sequence[str], services: Services
) -> tuple[dict[str, FlowArchive], ExtractionOrder]:
    """Look for the flows of each source; of the engine that has all of them, else of the last one.

    Raises:
        EngineUnavailableError: that cannot run here, and flows are missing.
    """
    archives: dict[str, FlowArchive] = {}
    wanted = {source.identity: source for source in sources}
    for engine in engines:
        order = order.model_copy(update={"engine": engine})
        archives = {}
        for identity, source in wanted.items():
            one, meta = look_up(_order_of(order, source), services)
            order = order.model_copy(update={"fallbacks": one.fallbacks})
            if meta is not None:
                archives[identity] = open_flow_archive(services.storage, one.shared_key, workers=services.workers)
        if len(archives) == len(wanted):
            return archives, order
    if not runs_here(order.engine):
        missing = ", ".join(str(source.reference) for name, source in wanted.items() if name not in archives)
        raise EngineUnavailableError(
            f"engine: {order.engine} extracts one structure video a job, and its flows are missing of {missing}; run a "
            "job on each with that engine and quality first, or let dis extract them here"
        )
    return archives, order


def _order_of(order: ExtractionOrder, source: Source) -> ExtractionOrder:
    """Return the order as it would be if that source were the job's only one."""
    return order.model_copy(
        update={"source": source.pin(), "sources": (), "timeline_id": default_timeline_id(source.identity)}
    )


def _extracted(
    order: ExtractionOrder, number: int, source: Source, services: Services, folder: Path
) -> tuple[ExtractionOrder, FlowArchive]:
    """Extract source `number` into a local file, and keep it for all jobs."""
    archive, video = folder / f"{number}.npz", folder / f"{number}.video"
    try:
        source = source.fetch(video)
        _check_time(order, video, services)
        one = extract_source(_order_of(order, source), video, archive, services)
    except StructureFlowError as error:
        where = f"structure_videos[{number}].path: {source.reference!s:.300}"
        raise error.within(where, instead_of=video.name) from error
    video.unlink()
    return order.model_copy(update={"fallbacks": one.fallbacks}), open_flow_file(archive)


def _check_time(order: ExtractionOrder, video: Path, services: Services) -> None:
    with VideoReader(video, DecodeLimits(max_frames=services.max_video_frames)) as reader:
        info = reader.info
    needs_s = extraction_s(info, order.engine, order.request.quality, processors=services.processors)
    if not services.deadline.fits(needs_s):
        raise DeadlineError(
            f"{order.engine} at quality {order.request.quality} needs about {needs_s:.0f} s for {info.frames} frames "
            f"of {info.width_px}x{info.height_px}, and {services.deadline.left_s or 0:.0f} s are left; what was "
            "extracted so far is kept",
            frames=info.frames,
        )


def _write(
    order: ExtractionOrder, sources: Sequence[Source], archives: dict[str, FlowArchive], target: Path
) -> FlowMeta:
    parts = []
    for number, (pin, source) in enumerate(zip(order.sources, sources, strict=True)):
        archive = archives[source.identity]
        start, frames = part_of(order.request, number, archive.meta)
        parts.append(Part(archive, start, frames, origin_of(pin, archive.meta, start, frames)))
    return write_joined(
        parts,
        target,
        _size(order, [archive.meta for archive in archives.values()]),
        source_video=order.found.reference,
        source_identity=order.identity,
    )


def _size(order: ExtractionOrder, metas: Sequence[FlowMeta]) -> Size:
    """Return the size of the joined video: that which all have, else that of the output."""
    sizes = {Size.of(meta) for meta in metas}
    if len(sizes) == 1:
        return sizes.pop()
    request = order.request
    width, height = request.resolution or output_size(request.target, metas[0].original_width, metas[0].original_height)
    area_px = DEFAULT_ENGINES.preset(order.engine, request.quality).area_px
    return Size(height, width, *working_size(height, width, area_px))

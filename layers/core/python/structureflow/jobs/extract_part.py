"""Extract one part of a video: its frames into the frame cache, the blocks of its flows for the join."""

from __future__ import annotations

import logging
import time

from pydantic import BaseModel, ConfigDict

from structureflow import keys
from structureflow.errors import JobStateError, StructureFlowError, SupersededRunError
from structureflow.flow.extract import plan_extraction
from structureflow.flow.parts import extract_part as extract_flows
from structureflow.jobs.documents import get_document, put_document
from structureflow.jobs.estimate import extraction_mb
from structureflow.jobs.extract_job import extract_and_commit
from structureflow.jobs.extraction_order import order_source
from structureflow.jobs.extraction_parts import RESULT, PartResult, PartsPlan, load_plan, note_part_failure
from structureflow.jobs.pointer import check_open
from structureflow.jobs.services import Services
from structureflow.jobs.timeline import FrameKeeper
from structureflow.media.decode import DecodedFrame
from structureflow.media.limits import DecodeLimits
from structureflow.media.parts import PartReader

_BLOCKS = "application/octet-stream"

_log = logging.getLogger(__name__)


class ExtractPartInput(BaseModel):
    """Which part of which run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_id: str
    run_id: str
    part: int


class ExtractPartResult(BaseModel):
    """What was made, in numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    part: int
    flows: int


def extract_part(event: ExtractPartInput, services: Services) -> ExtractPartResult:
    """Extract a part of a run; the one part of a video that has no parts after all is all of it.

    A permanent error is left for the join, and raised. A part that is done already is left as it is.

    Raises:
        VideoPartsError: the video cannot be decoded in parts after all.
        MediaError, InputNotFoundError, InputChangedError, EngineUnavailableError, FlowError: it can't be done.
        MemoryLimitError, DeadlineError: it can't be done by this function.
        SupersededRunError: the job was started again meanwhile, or deleted, or the run ended.
        TransientError: a later try may succeed.
    """
    check_open(services.storage, event.task_id, event.run_id)
    plan = load_plan(services.storage, event.run_id)
    try:
        if plan.whole is not None:
            record = extract_and_commit(plan.order, order_source(plan.order, services), services, step="ExtractPart")
            return ExtractPartResult(part=event.part, flows=record.source.frames - 1)
        if not 0 <= event.part < len(plan.video.parts):
            raise JobStateError(f"part: expected one below {len(plan.video.parts)}, got {event.part}")
        done = done_part(services, event.run_id, event.part)
        result = done or _extract(plan, event.part, services)
        return ExtractPartResult(part=event.part, flows=result.flows.flows)
    except SupersededRunError:
        raise
    except StructureFlowError as error:
        if not error.transient:
            note_part_failure(services.storage, event.run_id, event.part, error)
        raise


def done_part(services: Services, run_id: str, number: int) -> PartResult | None:
    """Return what a part has made, if its blocks lie where it says, whole."""
    storage = services.storage
    key = keys.parts_file(run_id, RESULT, number)
    if not storage.exists(key):
        return None
    try:
        result = get_document(storage, key, PartResult, made_by="a worker of a part")
    except JobStateError as error:
        _log.warning("part %d is done again: %s", number, error.message)
        return None
    return result if is_whole(services, result, number) else None


def is_whole(services: Services, result: PartResult, number: int) -> bool:
    """Tell whether the blocks of a part are those that its worker wrote."""
    storage, flows = services.storage, result.flows
    if not storage.exists(result.blocks_key):
        _log.warning("part %d is done again: its blocks are gone", number)
        return False
    info = storage.head(result.blocks_key)
    sums = {sum_.value for sum_ in storage.checksums(info) if sum_.algorithm == "md5" and not sum_.from_etag}
    if (info.size_bytes, info.etag) != (flows.size_bytes, result.blocks_etag) or sums - {flows.md5}:
        _log.warning("part %d is done again: its blocks are others than it wrote", number)
        return False
    return True


def _extract(plan: PartsPlan, number: int, services: Services) -> PartResult:
    started = time.perf_counter()
    order, video = plan.order, plan.video
    storage, info = services.storage, video.info
    services.check_memory(extraction_mb(info), f"extracting from {info.width_px}x{info.height_px} pixels")
    source = order_source(order, services)

    def keep(frame: DecodedFrame) -> None:
        services.deadline.check("extraction")
        keeper.add(frame)

    with services.scratch() as folder:
        blocks = folder / "blocks"
        limits = DecodeLimits(max_frames=services.max_video_frames)
        with (
            FrameKeeper.open(storage, order.timeline_id, order.identity) as keeper,
            source.opened() as file,
            PartReader(file, video, number, limits, threads=services.workers) as reader,
        ):
            flows, timings_s = extract_flows(
                reader,
                blocks,
                plan_extraction(info, order.engine, order.request.quality),
                workers=services.workers,
                on_frame=keep,
            )
            frames = keeper.hand_over()
        key = keys.parts_file(order.run_id, f"blocks-{flows.md5}.bin", number)
        stored = storage.put_file(key, blocks, content_type=_BLOCKS)
    timings_s["total"] = time.perf_counter() - started
    result = PartResult(
        flows=flows,
        blocks_key=key,
        blocks_etag=stored.etag,
        frames=frames,
        timings_s={name: round(seconds, 3) for name, seconds in timings_s.items()},
        usage=services.usage("ExtractPart"),
    )
    put_document(storage, keys.parts_file(order.run_id, RESULT, number), result)
    return result

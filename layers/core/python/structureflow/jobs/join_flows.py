"""Join the parts of a video to its archive, or say which of them must be done again.

Nothing is believed of the Map over the parts: each part is looked at, its blocks by size and ETag. The archive is put
together by the store; no block comes here, but for what is too short to be copied.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Final

from pydantic import BaseModel, ConfigDict

from structureflow import errors, keys
from structureflow.errors import (
    IncompleteJobError,
    ObjectChangedError,
    ObjectNotFoundError,
    StructureFlowError,
    VideoPartsError,
)
from structureflow.flow.extract import plan_extraction
from structureflow.flow.parts import joined
from structureflow.jobs.documents import load_record, put_document
from structureflow.jobs.extract_job import commit_joined, finish_commit
from structureflow.jobs.extract_part import done_part
from structureflow.jobs.extraction_order import ExtractionOrder
from structureflow.jobs.extraction_parts import (
    PLAN,
    PartResult,
    PartsPlan,
    PartsState,
    load_plan,
    part_failures,
    remove_parts,
)
from structureflow.jobs.pointer import check_open
from structureflow.jobs.services import Services
from structureflow.jobs.timeline import commit_frames, discard_frames
from structureflow.limits import MAX_PART_ROUNDS
from structureflow.models.results import ErrorInfo
from structureflow.storage.pieces import ObjectPart, Piece

_NPZ: Final = "application/zip"

_log = logging.getLogger(__name__)


class JoinFlowsInput(BaseModel):
    """Which run, and how often its parts were done again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bucket: str
    task_id: str
    run_id: str
    round: int = 0


def join_flows(event: JoinFlowsInput, services: Services) -> PartsState:
    """Join the parts of a run and start its segments; or return the parts that must be done again.

    Parts that did not come, or are not whole, are done again, `MAX_PART_ROUNDS` times. A part that found out that the
    video has no parts after all makes one function extract all of it.

    Raises:
        IncompleteJobError: parts did not come.
        StructureFlowError: what a part says of its failure, of the part's own class.
        SupersededRunError: the job was started again meanwhile, or deleted, or the run ended.
        TransientError: a later try may succeed.
    """
    if services.storage.exists(keys.run_record(event.task_id, event.run_id)):
        return _finish(event, services)
    check_open(services.storage, event.task_id, event.run_id)
    plan = load_plan(services.storage, event.run_id)
    results = {} if plan.whole is not None else _look(plan, services)
    missing = [number for number in plan.parts if number not in results]
    if missing:
        return _again(event, plan, missing, list(results.values()), services)
    try:
        _join(plan, [results[number] for number in plan.parts], services)
    except (ObjectChangedError, ObjectNotFoundError) as error:
        changed = [number for number in plan.parts if number not in _look(plan, services)]
        _log.warning("parts %s are done again: %s", changed, error)
        return _again(event, plan, changed or list(plan.parts), list(results.values()), services)
    return _end(event, services)


def _look(plan: PartsPlan, services: Services) -> dict[int, PartResult]:
    """Return the results of all parts that are whole."""
    with ThreadPoolExecutor(services.requests_at_once, thread_name_prefix="parts") as pool:
        found = pool.map(lambda number: done_part(services, plan.order.run_id, number), plan.parts)
        return {number: result for number, result in zip(plan.parts, found, strict=True) if result is not None}


def _again(
    event: JoinFlowsInput, plan: PartsPlan, missing: Sequence[int], done: Sequence[PartResult], services: Services
) -> PartsState:
    run_id = event.run_id
    failures = part_failures(services.storage, run_id, missing)
    unfit = next((error for error in failures.values() if error.code == VideoPartsError.__name__), None)
    if unfit is not None and plan.whole is None:
        _take_whole(plan, unfit, services)
        missing = [0]
    elif failures:
        discard_frames(services.storage, plan.order.timeline_id, [part.frames for part in done])
        raise _error_of(*failures.popitem())
    elif event.round >= MAX_PART_ROUNDS:
        discard_frames(services.storage, plan.order.timeline_id, [part.frames for part in done])
        named = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        raise IncompleteJobError(
            f"parts: {len(missing)} of {len(plan.parts)} did not come in {event.round + 1} rounds: {named}",
            missing=list(missing[:100]),
        )
    services.count("PartsRepeated", len(missing))
    return PartsState(task_id=event.task_id, run_id=run_id, parts=tuple(missing), round=event.round + 1)


def _take_whole(plan: PartsPlan, why: ErrorInfo, services: Services) -> None:
    """Let one function extract the whole video; what the parts made goes, once nobody looks for it any more."""
    services.count("Fallbacks", 1)
    order = plan.order.falling_back("extract", "parts", "one function", why.message)
    changed = plan.model_copy(update={"order": order, "whole": why.message})
    key = keys.parts_file(order.run_id, PLAN)
    put_document(services.storage, key, changed)
    prefix = keys.parts_prefix(order.run_id)
    services.storage.delete([info.key for info in services.storage.list(prefix) if info.key != key])


def _error_of(number: int, said: ErrorInfo) -> StructureFlowError:
    """Return the error that a part left, of its own class."""
    kind = getattr(errors, said.code, None)
    if isinstance(kind, type) and issubclass(kind, StructureFlowError):
        return kind(said.message, **{"part": number, **said.detail})
    return IncompleteJobError(f"part {number}: {said.code}: {said.message}", part=number)


def _join(plan: PartsPlan, results: Sequence[PartResult], services: Services) -> None:
    started = time.perf_counter()
    order, info = plan.order, plan.video.info
    storage = services.storage
    archive = joined(
        [result.flows for result in results],
        info,
        plan_extraction(info, order.engine, order.request.quality),
        source_video=order.found.reference,
        source_identity=order.identity,
    )
    forward: list[Piece] = []
    backward: list[Piece] = []
    for result in results:
        if result.flows.flows:
            key, etag, middle = result.blocks_key, result.blocks_etag, result.flows.forward.size_bytes
            forward.append(ObjectPart(key, etag, 0, middle))
            backward.append(ObjectPart(key, etag, middle, result.flows.size_bytes))
    around = archive.around
    pieces = [around.head, *forward, around.between, *backward, around.tail]
    problem = commit_frames(storage, order.timeline_id, order.identity, [result.frames for result in results])
    if problem is not None:
        services.count("Fallbacks", 1)
        order = order.falling_back("frames", "frame cache", "none", problem)
    spent = {**order.timings_s, **_timings(results), "join": round(time.perf_counter() - started, 3)}
    order = order.model_copy(
        update={
            "timings_s": spent,
            "usage": (*order.usage, *chain.from_iterable(result.usage for result in results)),
        }
    )
    commit_joined(
        order,
        archive.meta,
        lambda: storage.assemble(order.shared_key, pieces, content_type=_NPZ, if_absent=True),
        services,
    )


def _timings(results: Sequence[PartResult]) -> dict[str, float]:
    """Return the seconds of the slowest part, and the sums over all parts by kind of work."""
    names = sorted({name for result in results for name in result.timings_s})
    sums = {f"extract.{name}": sum(result.timings_s.get(name, 0.0) for result in results) for name in names}
    slowest = max(result.timings_s.get("total", 0.0) for result in results)
    return {"extract": slowest, **{name: round(seconds, 3) for name, seconds in sums.items()}}


def _finish(event: JoinFlowsInput, services: Services) -> PartsState:
    """Start the segments of a run that has its record: who wrote it may have died before that."""
    record = load_record(services.storage, event.task_id, event.run_id)
    if not services.storage.exists(keys.run_claim(event.task_id, event.run_id)):
        check_open(services.storage, event.task_id, event.run_id)
        order = ExtractionOrder(
            bucket=event.bucket,
            task_id=record.task_id,
            run_id=record.run_id,
            request=record.request,
            timeline_id=record.timeline_id,
            engine=record.engine,
            created_at=record.created_at,
        )
        finish_commit(order, record, services)
    return _end(event, services)


def _end(event: JoinFlowsInput, services: Services) -> PartsState:
    remove_parts(services.storage, event.run_id)
    return PartsState(task_id=event.task_id, run_id=event.run_id, parts=(), round=event.round, joined=True)

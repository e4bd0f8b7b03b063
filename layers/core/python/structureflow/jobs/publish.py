"""Put the results of a finished run where users find them: by copies inside the store, the manifest last.

A run's results lie whole and checked in its folder before this begins. The beginning is one swap of the status: it is
this run's turn, until a moment. From then on the results will be published, by whom ever: a publisher that dies is
followed by another one (a further try, or FailJob) that copies everything once more. Nobody else publishes before that
moment has passed, and no publisher goes on after it, so two never write at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final

from structureflow import keys
from structureflow.errors import (
    IncompleteJobError,
    JobBusyError,
    JobStateError,
    ObjectChangedError,
    ObjectNotFoundError,
)
from structureflow.jobs.documents import describe_error, get_document, parse_document, put_document, read_status
from structureflow.jobs.pointer import change_status, is_open, is_publishing, superseded
from structureflow.jobs.services import Services
from structureflow.limits import MAX_DOCUMENT_BYTES
from structureflow.models.results import JobRecord, JobStatus, Manifest, OutputObject, Publication, SegmentResult
from structureflow.storage.base import Storage
from structureflow.storage.bounded import read_bounded

#: Longer than any function that publishes may run (template.yaml), so that a dead one's turn ends after it.
TURN: Final = timedelta(seconds=150)
#: Nothing is begun so shortly before the end of the turn.
_MARGIN: Final = timedelta(seconds=20)


def publish(task_id: str, run_id: str, services: Services) -> tuple[Manifest, bool]:
    """Publish the results that a run's own manifest lists, and close the run as done if it is still open.

    Returns:
        The manifest as published, and whether it was this call that published it.

    Raises:
        SupersededRunError: the run is not open, and its turn had not begun before; or the job was deleted.
        JobBusyError: somebody else is publishing; try again.
        IncompleteJobError: what the run made was removed or changed since it was checked. Then nothing is published
            any more, for earlier results were overwritten in part, and the run has failed.
    """
    storage = services.storage
    turn = _take_turn(task_id, run_id, services)
    if turn is None:
        return get_document(storage, keys.job_manifest(task_id), Manifest, made_by="AssembleJob"), False
    try:
        planned, record = _planned(storage, task_id, run_id)
        manifest = _copy(planned, record, turn, services)
    except IncompleteJobError as error:
        _withdraw(task_id, turn, error, services)
        raise
    _check_turn(turn, task_id, services)
    put_document(storage, keys.job_manifest(task_id), manifest)
    storage.delete(_strays(storage, manifest))
    if _end_turn(manifest, turn, services) is None:
        _take_back(storage, manifest)
        raise superseded(storage, task_id, run_id)
    remove_dead_runs(storage, task_id, run_id)
    return manifest, True


def as_published(manifest: Manifest) -> Manifest:
    """Return a run's manifest with the keys that its objects will have when they are published."""
    task_id, run_id = manifest.task_id, manifest.run_id

    def moved(output: OutputObject) -> OutputObject:
        return output.model_copy(update={"key": _target(task_id, run_id, output.key)})

    return manifest.model_copy(
        update={
            "report": manifest.report and moved(manifest.report),
            "segments": tuple(
                result.model_copy(update={"outputs": {name: moved(one) for name, one in result.outputs.items()}})
                for result in manifest.segments
            ),
        }
    )


def _planned(storage: Storage, task_id: str, run_id: str) -> tuple[Manifest, OutputObject]:
    """Return a run's own manifest, and its record as an object to publish.

    Raises:
        IncompleteJobError: one is gone, or is none any more.
    """
    try:
        planned = get_document(storage, keys.run_manifest(task_id, run_id), Manifest, made_by="AssembleJob")
        record = read_bounded(storage, keys.run_record(task_id, run_id), MAX_DOCUMENT_BYTES)
        parse_document(record, JobRecord, made_by="the orchestrator")
    except (JobStateError, ObjectNotFoundError) as error:
        raise IncompleteJobError(error.message) from error
    return planned, OutputObject(key=record.info.key, size_bytes=record.info.size_bytes, etag=record.info.etag)


def _withdraw(task_id: str, turn: Publication, error: IncompleteJobError, services: Services) -> None:
    """Leave nothing at the documented keys but what says that the run failed."""
    storage = services.storage
    others = [keys.job_manifest(task_id), keys.job_report(task_id), keys.job_record(task_id)]
    storage.delete([*others, *(info.key for info in storage.list(keys.segments_prefix(task_id)))])

    def end(status: JobStatus) -> JobStatus | None:
        if status.publishing is None or status.publishing.token != turn.token:
            return None
        failed = {"state": "failed", "stage": "publish", "error": describe_error(error, "publish")}
        changed = failed if is_open(status, turn.run_id) else {}
        return status.model_copy(update={"published": None, "publishing": None, **changed})

    if change_status(storage, task_id, end) is not None:
        services.count("JobsFailed", 1)
    remove_run(storage, task_id, turn.run_id, claim=False)


def _take_turn(task_id: str, run_id: str, services: Services) -> Publication | None:
    """Begin to publish; None where this run's results are published already."""
    moment = services.clock()
    turn = Publication(run_id=run_id, token=secrets.token_hex(8), until=moment + TURN)
    published = False

    def take(status: JobStatus) -> JobStatus | None:
        nonlocal published
        published = status.published == run_id
        begun = is_publishing(status, run_id)
        if published or not (begun or is_open(status, run_id)):
            return None
        if status.publishing is not None and status.publishing.until > moment:
            raise JobBusyError(f"job {task_id}: run {status.publishing.run_id} is being published")
        return status.model_copy(update={"publishing": turn, "stage": "publish" if not begun else status.stage})

    if change_status(services.storage, task_id, take) is not None:
        return turn
    if published:
        return None
    raise superseded(services.storage, task_id, run_id)


def _end_turn(manifest: Manifest, turn: Publication, services: Services) -> JobStatus | None:
    cost_usd = round(sum(manifest.cost_usd.values()), 8) if manifest.cost_usd else None

    def end(status: JobStatus) -> JobStatus | None:
        if status.publishing is None or status.publishing.token != turn.token:
            return None
        done = {"state": "done", "stage": "done", "cost_usd": cost_usd} if is_open(status, turn.run_id) else {}
        return status.model_copy(update={"published": turn.run_id, "publishing": None, **done})

    return change_status(services.storage, manifest.task_id, end)


def _copy(planned: Manifest, record: OutputObject, turn: Publication, services: Services) -> Manifest:
    """Copy every object that a run's manifest lists, and its record; return the manifest of the copies."""
    storage, task_id = services.storage, planned.task_id

    def copy_one(planned_object: OutputObject) -> OutputObject:
        _check_turn(turn, task_id, services)
        target = _target(task_id, planned.run_id, planned_object.key)
        try:
            info = storage.copy(planned_object.key, target, if_match=planned_object.etag)
        except (ObjectNotFoundError, ObjectChangedError) as error:
            raise IncompleteJobError(f"{planned_object.key}: changed since it was checked: {error}") from error
        return planned_object.model_copy(update={"key": info.key, "size_bytes": info.size_bytes, "etag": info.etag})

    with ThreadPoolExecutor(services.requests_at_once, thread_name_prefix="publish") as pool:
        names = [(result, name) for result in planned.segments for name in result.outputs]
        copies = pool.map(lambda one: copy_one(one[0].outputs[one[1]]), names)
        outputs: dict[int, dict[str, OutputObject]] = {}
        for (result, name), copied in zip(names, copies, strict=True):
            outputs.setdefault(result.index, {})[name] = copied
        segments = tuple(result.model_copy(update={"outputs": outputs[result.index]}) for result in planned.segments)
        list(pool.map(lambda result: _put_result(storage, result), segments))
    report = None if planned.report is None else copy_one(planned.report)
    copy_one(record)
    return planned.model_copy(update={"segments": segments, "report": report, "flows": _flows(storage, planned)})


def _flows(storage: Storage, planned: Manifest) -> OutputObject | None:
    """Return the job's flow archive; made that of this run again, where a run that was superseded wrote it last."""
    if planned.flows is None or planned.flow_cache_key is None:
        return planned.flows
    try:
        shared, own = storage.head(planned.flow_cache_key), storage.head(planned.flows.key)
    except ObjectNotFoundError:
        return planned.flows
    # An ETag of parts says how a copy was made, not of what.
    same = shared.etag == own.etag or "-" in shared.etag + own.etag
    if shared.size_bytes != own.size_bytes or not same:
        own = storage.copy(planned.flow_cache_key, planned.flows.key)
    return OutputObject(key=own.key, size_bytes=own.size_bytes, etag=own.etag)


def _target(task_id: str, run_id: str, key: str) -> str:
    """Return where an object of a run's folder is published; other keys stay."""
    folder = keys.run_prefix(task_id, run_id)
    return keys.job_prefix(task_id) + key.removeprefix(folder) if key.startswith(folder) else key


def _check_turn(turn: Publication, task_id: str, services: Services) -> None:
    if services.clock() > turn.until - _MARGIN:
        raise JobBusyError(f"job {task_id}: publishing takes longer than {TURN}")


def _put_result(storage: Storage, result: SegmentResult) -> None:
    put_document(storage, keys.segment_file(result.task_id, result.index, "result.json"), result)


def _published(manifest: Manifest) -> set[str]:
    task_id = manifest.task_id
    found = {output.key for result in manifest.segments for output in result.outputs.values()}
    return found | {keys.segment_file(task_id, result.index, "result.json") for result in manifest.segments}


def _strays(storage: Storage, manifest: Manifest) -> Iterable[str]:
    """Yield the outputs of earlier runs that this one has no output in place of."""
    ours = _published(manifest)
    return [info.key for info in storage.list(keys.segments_prefix(manifest.task_id)) if info.key not in ours]


def _take_back(storage: Storage, manifest: Manifest) -> None:
    """Remove what was published into the folder of a job that was deleted meanwhile."""
    task_id = manifest.task_id
    if read_status(storage, task_id) is not None:
        return
    others = [keys.job_manifest(task_id), keys.job_report(task_id), keys.job_record(task_id)]
    storage.delete([*others, *_published(manifest)])
    remove_run(storage, task_id, manifest.run_id)


def remove_run(storage: Storage, task_id: str, run_id: str, *, claim: bool = True) -> None:
    """Delete everything that a run left in its folder; its claim only if `claim`, for late events are known by it."""
    kept = None if claim else keys.run_claim(task_id, run_id)
    storage.delete([info.key for info in storage.list(keys.run_prefix(task_id, run_id)) if info.key != kept])


def remove_unpublished(storage: Storage, task_id: str, run_id: str, status: JobStatus | None) -> None:
    """Delete what a run that ended left in its folder, unless `status`, the job's, says that its results are published.

    Its claim stays where the job is known: late events know the run by it.
    """
    if status is None or status.published != run_id:
        remove_run(storage, task_id, run_id, claim=status is None)


def remove_dead_runs(storage: Storage, task_id: str, published: str) -> None:
    """Delete the folders of all runs but the one that the job is at; of the published one, what was copied."""
    found = [info.key for info in storage.list(keys.runs_prefix(task_id))]
    # Read after the list: a run that has files in it had begun, so the status knows it, or a newer one.
    status = read_status(storage, task_id)
    kept = {keys.run_claim(task_id, published), keys.run_record(task_id, published)}
    current = None if status is None or status.run_id == published else keys.run_prefix(task_id, status.run_id)
    storage.delete(key for key in found if key not in kept and not (current and key.startswith(current)))

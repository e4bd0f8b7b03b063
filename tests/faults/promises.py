"""What must hold of jobs under faults, at every moment, at their end, and when their requests are put again."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

import numpy as np

from structureflow import errors, keys
from structureflow.errors import JobStateError, TimelineNotFoundError
from structureflow.flow.archive import open_flow_archive
from structureflow.frames.cache import FrameCache
from structureflow.jobs.documents import read_status
from structureflow.models.results import JobRecord, JobStatus, Manifest
from structureflow.storage.base import Storage
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.deployment import Deployment
from tests.faults.meddling import Meddler
from tests.faults.scenes import (
    DEFINITION,
    IMAGES,
    identities,
    outputs_of,
    reference,
    reference_of,
    results_of,
    way_of,
)

#: A job whose flows an engine makes.
ENGINES = {"clip": "dis", "composed": "farneback", "gpu": "raft"}

#: What Lambda and Step Functions call what a process could not say itself.
WIRE = {
    error
    for state in (DEFINITION["States"]["AssembleJob"],)
    for block in state["Retry"]
    for error in block["ErrorEquals"]
} | {"States.Timeout"}


def is_typed(code: str) -> bool:
    """Tell whether an error's name is one that users can look up."""
    found = getattr(errors, code, None)
    return code in WIRE or (isinstance(found, type) and issubclass(found, errors.StructureFlowError))


def status_of(storage: Storage, task_id: str) -> JobStatus | None:
    """A job's status; None where there is none, or nobody can read it."""
    try:
        return read_status(storage, task_id)
    except JobStateError:
        return None


@dataclass
class Promises:
    """Checks jobs.

    Attributes:
        meddler: knows what was touched.
        good: of each job, what was published last: run, and ETags by key.
        ways: how often segments were made on the way of plain runs, and on others.
    """

    meddler: Meddler
    good: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    ways: dict[str, int] = field(default_factory=lambda: {"plain": 0, "other": 0, "unknown": 0})

    def at_any_moment(self, deployment: Deployment) -> None:
        """While nobody publishes, the documented keys hold one run's results whole, or none."""
        for task_id in self.meddler.tasks:
            if task_id in self.meddler.spoiled | self.meddler.headless | self.meddler.deleted:
                continue
            status = status_of(deployment.bucket, task_id)
            if status is not None and status.publishing is None:
                self.good[task_id] = (status.published or "", published(deployment.bucket, task_id, status))

    def at_the_end(self, deployment: Deployment) -> None:
        """Every job ended as it would have in peace, or as failed with a typed error; what was good stays."""
        for task_id in self.meddler.tasks:
            self._ended(deployment, task_id)
        self._caches(deployment)

    def _ended(self, deployment: Deployment, task_id: str) -> None:
        bucket, meddler = deployment.bucket, self.meddler
        status = status_of(bucket, task_id)
        if task_id in meddler.headless:
            return
        if task_id in meddler.deleted and status is None:
            return
        assert status is not None, f"{task_id} has no status"
        assert status.publishing is None, f"{task_id}: {status}"
        if task_id in meddler.deleted and status.state == "running":
            # Whoever deletes a request takes it back: nobody may finish it, and nobody waits for it.
            assert status.published is None or task_id in meddler.spoiled or published(bucket, task_id, status)
            return
        if status.state == "running" and keys.run_record(task_id, status.run_id) in meddler.unrecorded:
            # An archive of a run without a record is one of an earlier run to whoever sees it come (docs/faults.md).
            assert not bucket.exists(keys.run_claim(task_id, status.run_id))
            return
        assert status.state in ("done", "failed"), f"{task_id} is stuck: {status}"
        if status.state == "failed":
            self._failed(deployment, task_id, status)
        else:
            assert status.published == status.run_id
        if task_id in meddler.spoiled:
            return
        found = published(bucket, task_id, status)
        if status.published is not None:
            self.same_as_in_peace(bucket, task_id)
        if status.state == "failed" and task_id in self.good:
            assert self.good[task_id] == (status.published or "", found)

    def _failed(self, deployment: Deployment, task_id: str, status: JobStatus) -> None:
        assert status.error is not None
        assert is_typed(status.error.code), status.error
        segments = re.search(r"RenderSegment", "\n".join(deployment.history)) and status.error.detail.get("segment")
        if status.error.stage == "segments" and isinstance(segments, int):
            assert status.error.message.startswith(f"segment {segments}: "), status.error
        left = {info.key for info in deployment.bucket.list(keys.run_prefix(task_id, status.run_id))}
        if task_id not in self.meddler.forged:
            assert left <= {keys.run_claim(task_id, status.run_id)}, left

    def same_as_in_peace(self, bucket: Storage, task_id: str) -> None:
        """What is published is, byte by byte, what the request makes of these inputs when nothing disturbs it."""
        record = JobRecord.model_validate_json(bucket.get(keys.job_record(task_id)).data)
        _, wanted = reference_of(record, identities())
        for result in results_of(bucket, task_id):
            assert result.index < len(wanted.plain), f"{task_id}: segment {result.index} is of another request"
            way = way_of(result)
            if (result.index, way) not in wanted.outputs:
                self.ways["unknown"] += 1
                continue
            self.ways["plain" if way == wanted.plain[result.index] else "other"] += 1
            assert outputs_of(result) == wanted.outputs[result.index, way], (task_id, result.index, way)

    def _caches(self, deployment: Deployment) -> None:
        """What is shared is right: nothing that was cut, flipped or exchanged on its way was kept."""
        if self.meddler.spoiled_caches:
            return
        bucket, names = deployment.bucket, identities()
        for info in bucket.list("cache/flows/"):
            found = open_flow_archive(bucket, info.key)
            job = next(job for job, engine in ENGINES.items() if engine == found.meta.engine)
            wanted = reference(job, found.meta.engine, names[found.meta.source_identity], IMAGES)
            good = open_flow_archive(stored(wanted.archive), "archive")
            for direction in ("forward", "backward"):
                assert np.array_equal(found.read(direction, 0, 4), good.read(direction, 0, 4)), info.key
        for info in bucket.list(keys.TIMELINES_PREFIX):
            if not info.key.endswith("/manifest.json"):
                continue
            timeline_id = info.key.split("/")[2]
            try:
                manifest = FrameCache(bucket).manifest(timeline_id)
            except TimelineNotFoundError:
                # Whoever was to remove it died meanwhile; to all others it is not there.
                continue
            wanted = reference("clip", "dis", names[manifest.source_identity], IMAGES)
            frames = bucket.list(keys.timeline_frames_prefix(timeline_id))
            assert [bucket.get(frame.key).data for frame in frames] == list(wanted.frames.values()), timeline_id


def stored(data: bytes) -> MemoryStorage:
    """Return a store that holds `data` as ``archive``."""
    store = MemoryStorage()
    store.put("archive", data)
    return store


def published(bucket: Storage, task_id: str, status: JobStatus) -> dict[str, str]:
    """ETags of the documented outputs, after all documents were found to be of the run that the status names."""
    found = {info.key: info.etag for info in bucket.list(keys.segments_prefix(task_id))}
    if status.published is None:
        assert found == {}, found
        assert not bucket.exists(keys.job_manifest(task_id))
        return {}
    manifest = Manifest.model_validate_json(bucket.get(keys.job_manifest(task_id)).data)
    assert manifest.run_id == status.published
    listed = {one.key: one.etag for result in manifest.segments for one in result.outputs.values()}
    results = {key for key in found if key.endswith("/result.json")}
    assert {key: etag for key, etag in found.items() if key not in results} == listed
    for key in [*results, keys.job_record(task_id)]:
        assert json.loads(bucket.get(key).data)["run_id"] == status.published, key
    assert manifest.report is not None
    assert bucket.head(manifest.report.key).etag == manifest.report.etag
    return found

"""Small jobs, their inputs, and what each job makes when nothing disturbs it: the measure of jobs under faults."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structureflow import keys
from structureflow.errors import StorageError
from structureflow.jobs.documents import load_record
from structureflow.models.job import JobRequest
from structureflow.models.results import JobRecord, SegmentResult
from structureflow.storage.base import Storage
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.gpu import carry_out
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.storage import Fault, FaultStorage
from structureflow.testing.videos import texture
from structureflow_local.cloud.template import load_template

REPO = Path(__file__).resolve().parents[2]
DEFINITION: dict[str, Any] = json.loads((REPO / "statemachines" / "segments.asl.json").read_text())
GPU = {"EnableGpu": "true", "GpuImageUri": "image", "GpuVpcId": "vpc", "GpuSubnetIds": "subnet"}
#: The task is no function; its time is that of the launcher.
TIMEOUTS_S: dict[str, float] = {"GpuTask": 1800.0} | {
    name.removesuffix("Function"): float(spec.timeout_s)
    for name, spec in load_template(REPO / "template.yaml", GPU).functions.items()
}
HEIGHT, WIDTH = 32, 48
VIDEO, OTHER_VIDEO = "inputs/pan.mp4", "inputs/other.mp4"
IMAGES = ("inputs/a.png", "inputs/b.png")


def _segments(*frames: int, image: str) -> list[dict[str, Any]]:
    return [{"frames": count, "guides": [{"at": 0, "image": image}]} for count in frames]


def _between(frames: int, first: str, last: str) -> dict[str, Any]:
    return {"frames": frames, "guides": [{"at": 0, "image": first}, {"at": frames - 1, "image": last}]}


#: Requests by name, without their task.
JOBS: dict[str, dict[str, Any]] = {
    "clip": {"treatment": "clip", "segments": _segments(3, 2, image=IMAGES[0])},
    "short": {"treatment": "clip", "segments": _segments(4, image=IMAGES[1])},
    "composed": {
        "treatment": "adjust",
        "engine": "farneback",
        "outputs": ["flow_vis"],
        "segments": [_between(4, *IMAGES), _between(3, *reversed(IMAGES)), _between(3, *IMAGES)],
    },
    "anchored": {
        "treatment": "retime",
        "anchors": "both",
        "timeline_id": "reel",
        "overlays": ["guidance"],
        "segments": [_between(4, *IMAGES), _between(4, *reversed(IMAGES))],
    },
    "gpu": {"treatment": "clip", "engine": "raft", "segments": _segments(3, 3, image=IMAGES[0])},
}


def document(job: str, task_id: str) -> dict[str, Any]:
    """The request of a job."""
    return {"task_id": task_id, "structure_video": VIDEO, **JOBS[job]}


@functools.cache
def inputs() -> Mapping[str, bytes]:
    """What lies in the bucket before any job; the other video has the same size and length, and another motion."""
    store = MemoryStorage()
    with tempfile.TemporaryDirectory() as folder:
        for name, dx in ((VIDEO, 2), (OTHER_VIDEO, 4)):
            put_pan_clip(store, name, Path(folder), frames=5, height=HEIGHT, width=WIDTH, dx=dx)
    for seed, name in enumerate(IMAGES, 1):
        store.put(name, png(texture(HEIGHT, WIDTH, seed=seed)))
    return {info.key: store.get(info.key).data for info in store.list("")}


#: How a segment came by its flows and frames: what it says of itself, but for the report's pictures.
Way = tuple[str, str, str, tuple[tuple[str, str, str], ...]]
Outputs = dict[str, str]
"""ETag by name of the output."""


def way_of(result: SegmentResult) -> Way:
    """How a segment was made."""
    steps = tuple((step.stage, step.wanted, step.used) for step in result.fallbacks if step.stage != "report")
    return result.flow_source, result.engine, result.tracking, steps


def outputs_of(result: SegmentResult) -> Outputs:
    """What a segment says that it made."""
    return {name: output.etag for name, output in result.outputs.items()}


@dataclass(frozen=True)
class Reference:
    """What a request makes of certain inputs, by segment and by the way on which the segment gets its flows."""

    plain: tuple[Way, ...]
    outputs: Mapping[tuple[int, Way], Outputs]
    archive: bytes
    frames: Mapping[str, bytes]


@functools.cache
def reference(job: str, engine: str, video: str, images: tuple[str, ...]) -> Reference:
    """Make a job in peace, from inputs that are named by whose bytes they are, and by every fallback that there is."""
    store = MemoryStorage()
    store.put(VIDEO, inputs()[video])
    for key, content in zip(IMAGES, images, strict=True):
        store.put(key, inputs()[content])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        runner = _runner(store, folder)
        order = _Order()
        if engine == "raft":
            runner.services = dataclasses.replace(runner.services, gpu=order)
        # Jobs that leave the engine open take RAFT's flows where another job had them made.
        for task_id, name in [("s", "gpu")] * (engine == "raft" and job != "gpu") + [("t", job)]:
            runner.put_request(task_id, document(name, task_id))
            runner.orchestrate(task_id)
            for key in order.keys:
                carry_out(key, runner.services)
            order.keys.clear()
        record = load_record(store, "t")
        assert record.engine == engine
        outputs: dict[tuple[int, Way], Outputs] = {}
        plain: dict[int, Way] = {}
        for faults in _denials(record):
            forked = _runner(FaultStorage(fork(store), *faults), folder)
            assert forked.segments("t").state == "done", forked.status("t")
            for result in results_of(forked.storage, "t"):
                outputs[result.index, way_of(result)] = outputs_of(result)
                plain.setdefault(result.index, way_of(result))
        assert record.flow_cache_key is not None
        prefix = keys.timeline_frames_prefix(record.timeline_id)
        frames = {info.key: store.get(info.key).data for info in store.list(prefix)}
        archive = store.get(record.flow_cache_key).data
    return Reference(tuple(plain[index] for index in sorted(plain)), outputs, archive, frames)


class _Order:
    """A GPU part that writes its orders down."""

    timeout_s = 600.0
    auto_pixel_frames = 10**12

    def __init__(self) -> None:
        self.keys: list[str] = []

    def start(self, order_key: str, run_id: str) -> str:
        self.keys.append(order_key)
        return run_id

    def stop(self, run_id: str, reason: str) -> None:
        raise AssertionError(f"nobody stops the task of {run_id}: {reason}")


def _runner(store: Storage, folder: Path) -> JobRunner:
    runner = JobRunner(store, folder)
    runner.services = dataclasses.replace(runner.services, workers=1, requests_at_once=1)
    return runner


def _denials(record: JobRecord) -> list[list[Fault]]:
    """Faults that lead segments down every way; first none."""

    def deny(*patterns: str) -> list[Fault]:
        reads = [(operation, pattern) for operation in ("get", "get_to_file") for pattern in patterns]
        return [Fault(operation, pattern, error=StorageError("denied"), times=None) for operation, pattern in reads]

    archives = (record.flows_key or "", record.flow_cache_key or "")
    manifest, video = keys.timeline_manifest(record.timeline_id), VIDEO
    frames = keys.timeline_frames_prefix(record.timeline_id) + "*"
    return [
        [],
        deny(*archives),
        deny(*archives, manifest),
        deny(*archives, frames),
        deny(manifest),
        deny(frames),
        deny(manifest, video),
        deny(frames, video),
    ]


def fork(storage: Storage, *, into: Storage | None = None) -> Storage:
    """Copy a store."""
    copied = MemoryStorage() if into is None else into
    for info in storage.list(""):
        copied.put(info.key, storage.get(info.key).data)
    return copied


def results_of(storage: Storage, task_id: str) -> list[SegmentResult]:
    """The published results of a job, in order."""
    found = [info.key for info in storage.list(keys.segments_prefix(task_id)) if info.key.endswith("/result.json")]
    return [SegmentResult.model_validate_json(storage.get(key).data) for key in sorted(found)]


def reference_of(record: JobRecord, storage_bytes: Mapping[str, str]) -> tuple[str, Reference]:
    """Return the name and the reference of the job that a record speaks of.

    Args:
        record: of a run.
        storage_bytes: names of known contents by their identity.
    """
    request = record.request
    (job,) = [name for name in JOBS if JobRequest.parse(document(name, request.task_id)) == request]
    named = dict(
        zip(map(str, request.references()), (storage_bytes[pin.identity] for pin in record.guides), strict=True)
    )
    images = tuple(named.get(key, key) for key in IMAGES)
    return job, reference(job, record.engine, storage_bytes[record.source.identity], images)


@functools.cache
def identities() -> Mapping[str, str]:
    """Names of the known contents by the identity that they have in a bucket."""
    store = MemoryStorage()
    return {
        f"s3:{info.etag}:{info.size_bytes}": key
        for key, info in ((key, store.put(key, data)) for key, data in inputs().items())
    }

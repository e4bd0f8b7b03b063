"""The Batch route on the local cloud: a small limit sends a small clip to a real process, which may be killed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samtranslator.yaml_helper import yaml_parse

from structureflow import keys
from structureflow.jobs.documents import load_record, put_document
from structureflow.jobs.extraction_order import load_order
from structureflow.models.results import JobStatus, now
from structureflow.storage.base import Storage
from structureflow.testing.iam import allows, function_statements, requests_of
from structureflow.testing.jobs import png
from structureflow.testing.videos import texture, write_clip
from structureflow_local.batch import JOB_DEFINITION, TASK, batch_part
from structureflow_local.client import JobClient, prepare_job
from structureflow_local.cloud import LocalCloud
from structureflow_local.run import bucket_of

REPO = Path(__file__).resolve().parents[2]
TEMPLATE: dict[str, Any] = yaml_parse((REPO / "template.yaml").read_text())
BUCKET = "DataBucket"
#: Functions take a megabyte, which the clip has more of.
SMALL = {"MaxVideoMegabytes": "1", "BatchMaxVideoMegabytes": "100"}
#: Says where it is, and waits, where the file that it is told of exists; then does the job's own work.
WRAPPED = """
import os, pathlib, runpy, sys, time
hold, task = pathlib.Path(sys.argv[1]), sys.argv[2]
(hold.parent / f"pid-{os.environ['AWS_BATCH_JOB_ATTEMPT']}").write_text(str(os.getpid()))
while hold.exists():
    time.sleep(0.02)
sys.argv = [task]
runpy.run_path(task, run_name="__main__")
"""

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-batch")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of noise, which no encoder makes small, a damaged one, and an image."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(7)
    frames = [rng.integers(0, 256, (160, 256, 3), dtype=np.uint8) for _ in range(24)]
    write_clip(folder / "noise.mp4", frames, crf=1)
    data = (folder / "noise.mp4").read_bytes()
    assert len(data) > 1_000_000
    (folder / "other.mp4").write_bytes(write_clip(folder / "o.mp4", frames[::-1], crf=1).read_bytes())
    (folder / "bad.mp4").write_bytes(b"no video" * 200_000)
    (folder / "a.png").write_bytes(png(texture(160, 256, seed=1)))
    return folder


def document(task_id: str, **changes: Any) -> str:
    segments = [{"frames": 5, "guides": [{"at": [0, 1], "image": "a.png"}]}]
    base = {
        "task_id": task_id,
        "structure_video": "noise.mp4",
        "timeline_id": "reel",
        "quality": "fast",
        "resolution": [160, 96],
        "segments": segments,
    }
    return json.dumps(base | changes)


def submit(cloud: LocalCloud, folder: Path, task_id: str, **changes: Any) -> JobClient:
    client = JobClient(bucket_of(cloud))
    client.submit(prepare_job(document(task_id, **changes), name=task_id, folder=folder))
    return client


def run(cloud: LocalCloud, folder: Path, task_id: str, **changes: Any) -> JobStatus:
    status = submit(cloud, folder, task_id, **changes).wait(task_id, timeout_s=120)
    cloud.wait_idle(60)
    assert list(bucket_of(cloud).list(keys.GPU_ORDERS_PREFIX)) == []
    return status


def read_soon(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path.name}: no job began"
        time.sleep(0.02)
    return path.read_text()


@pytest.fixture(scope="module")
def hold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hold") / "hold"


@pytest.fixture(scope="module")
def cloud(hold: Path) -> Iterator[LocalCloud]:
    part = batch_part()
    command = [sys.executable, "-c", WRAPPED, str(hold), str(TASK)]
    with LocalCloud(
        REPO / "template.yaml", parameters={**part["parameters"], **SMALL}, task_commands={JOB_DEFINITION: command}
    ) as running:
        yield running


def test_a_video_that_has_no_room_in_a_function_is_extracted_by_a_job(cloud: LocalCloud, folder: Path) -> None:
    status = run(cloud, folder, "large")
    assert status.state == "done", status
    record = load_record(bucket_of(cloud), "large")
    assert (record.engine, record.fallbacks, record.source.frames) == ("dis", (), 24)
    assert record.notices[0].startswith("extracted by a Batch job: ")
    assert [step.step for step in record.usage] == ["Orchestrator"]
    video = record.source.reference
    read = {call.function for call in cloud.calls if call.operation == "GetObject" and call.key == video}
    assert read == {JOB_DEFINITION}, "no function downloads it"
    assert len(list(bucket_of(cloud).list(keys.timeline_frames_prefix("reel")))) == 24
    again = run(cloud, folder, "again")
    assert again.state == "done"
    assert load_record(bucket_of(cloud), "again").flow_cache_hit


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "interrupted"])
def test_an_attempt_that_is_killed_is_followed_by_another(
    cloud: LocalCloud, folder: Path, hold: Path, number: signal.Signals
) -> None:
    hold.touch()
    for left in hold.parent.glob("pid-*"):
        left.unlink()
    task_id = number.name.lower()
    # flows that no test before has made
    video = {signal.SIGKILL: "other.mp4", signal.SIGTERM: "noise.mp4"}[number]
    client = submit(cloud, folder, task_id, timeline_id=task_id, structure_video=video, engine="farneback")
    first = int(read_soon(hold.parent / "pid-1"))
    os.kill(first, number)
    second = int(read_soon(hold.parent / "pid-2"))
    assert second != first
    hold.unlink()
    assert client.wait(task_id, timeout_s=120).state == "done"
    cloud.wait_idle(60)
    assert load_record(bucket_of(cloud), task_id).engine == "farneback"
    assert list(bucket_of(cloud).list(keys.GPU_ORDERS_PREFIX)) == []


def test_a_video_that_cannot_be_decoded_fails_by_its_own_error(cloud: LocalCloud, folder: Path) -> None:
    status = run(cloud, folder, "bad", structure_video="bad.mp4")
    assert status.state == "failed"
    assert status.error is not None
    assert (status.error.code, status.error.stage) == ("NotAVideoError", "extract")
    assert "exit code 1" in status.error.detail["batch_job"]


def test_the_role_of_the_job_allows_what_it_does_and_nothing_that_it_never_does(
    cloud: LocalCloud, folder: Path
) -> None:
    storage = bucket_of(cloud)
    storage.put(keys.timeline_frame("reel", 999_999), b"left over")
    record = load_record(storage, "large")
    assert record.flow_cache_key is not None
    storage.put(record.flow_cache_key, b"no archive")
    storage.delete([keys.timeline_manifest("reel")])
    assert run(cloud, folder, "rotten").state == "done"
    # Another video in the same timeline: the manifest of the first goes before its frames are overwritten.
    assert run(cloud, folder, "replaced", structure_video="other.mp4").state == "done"
    asked = asked_by(cloud, JOB_DEFINITION)
    statements = function_statements(TEMPLATE, "BatchJobRole")
    assert sorted({f"{one.action} {one.resource}" for one in asked if not allows(statements, one)}) == []
    for statement in statements:
        if statement.effect == "Deny" or not any(BUCKET in resource for resource in statement.resources):
            continue
        for action in statement.actions:
            for resource in statement.resources:
                one = dataclasses.replace(statement, actions=(action,), resources=(resource,))
                used = any(one.covers(r.action, r.resource, r.context) for r in asked)
                assert used or spare(action, resource), f"{statement.sid}: {action} on {resource} is never used"


def spare(action: str, resource: str) -> bool:
    """Tell whether a right is for what did not come about here: an archive that rotted while the job waited."""
    return (action, resource.partition("/")[2]) == ("s3:DeleteObject", "cache/flows/*.npz")


def asked_by(cloud: LocalCloud, function: str) -> list[Any]:
    name = cloud.bucket(BUCKET)
    return [
        request
        for call in cloud.calls
        if call.service == "s3" and call.bucket == name and call.function == function
        if not re.match(r"work/\.probe/", call.key or "")
        for request in requests_of(call.operation, BUCKET, call.key, call.status)
    ]


@pytest.mark.parametrize("function", ["OrchestratorFunction", "SettleGpuFunction"])
def test_the_functions_of_the_route_ask_for_what_they_may(cloud: LocalCloud, function: str) -> None:
    statements = function_statements(TEMPLATE, function)
    asked = asked_by(cloud, function)
    assert asked
    assert sorted({f"{one.action} {one.resource}" for one in asked if not allows(statements, one)}) == []
    operations = {call.operation for call in cloud.calls if call.service == "batch" and call.function == function}
    wanted = {"OrchestratorFunction": {"ListJobs", "SubmitJob"}, "SettleGpuFunction": set()}
    assert operations == wanted[function]


def test_a_job_that_waits_for_ever_is_ended_when_it_is_overdue(folder: Path) -> None:
    look = json.loads((REPO / "events" / "settle_gpu" / "look_for_overdue.json").read_text())
    parameters = {**batch_part()["parameters"], **SMALL}
    with LocalCloud(REPO / "template.yaml", parameters=parameters) as cloud:
        storage = bucket_of(cloud)
        client = submit(cloud, folder, "waits")
        batch, queue = cloud.client("batch"), cloud.physical_id("BatchJobQueue")
        deadline = time.monotonic() + 60
        while not (waiting := batch.list_jobs(jobQueue=queue, jobStatus="RUNNABLE")["jobSummaryList"]):
            assert time.monotonic() < deadline, client.status("waits")
            time.sleep(0.05)
        status = client.status("waits")
        assert status is not None
        assert status.stage == "batch"
        assert cloud.invoke("SettleGpuFunction", look).payload == {"settled": []}, "it has time yet"
        make_late(storage)
        (settled,) = cloud.invoke("SettleGpuFunction", look).payload["settled"]
        assert settled["engine"] is None
        status = client.wait("waits", timeout_s=60)
        assert (status.state, status.error.code if status.error else None) == ("failed", "BatchJobError")
        (ended,) = batch.describe_jobs(jobs=[waiting[0]["jobId"]])["jobs"]
        assert (ended["status"], ended["statusReason"]) == ("FAILED", "structureflow: not done in time")
        cloud.wait_idle(60)
        assert list(storage.list(keys.GPU_ORDERS_PREFIX)) == []


def make_late(storage: Storage) -> None:
    (info,) = storage.list(keys.GPU_ORDERS_PREFIX)
    order = load_order(storage, info.key)
    put_document(storage, info.key, order.model_copy(update={"deadline": now() - timedelta(seconds=1)}))


def test_a_job_whose_every_attempt_dies_fails_with_the_reason(folder: Path) -> None:
    parameters = {**batch_part()["parameters"], **SMALL}
    command = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    with LocalCloud(REPO / "template.yaml", parameters=parameters, task_commands={JOB_DEFINITION: command}) as cloud:
        status = run(cloud, folder, "dies")
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "BatchJobError"
    assert "exit code 137" in status.error.message
    assert "attempt 3" in status.error.message


def test_without_the_batch_part_the_refusal_names_its_parameter(folder: Path) -> None:
    with LocalCloud(REPO / "template.yaml", parameters={"MaxVideoMegabytes": "1"}) as cloud:
        status = run(cloud, folder, "refused")
    assert status.error is not None
    assert status.error.code == "MediaLimitError"
    assert "EnableBatch" in status.error.message

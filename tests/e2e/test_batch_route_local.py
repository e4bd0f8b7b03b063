"""The Batch route on the local cloud: a small limit sends a small clip to a real process, which may be killed."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from structureflow import keys
from structureflow.jobs.documents import load_record
from structureflow.testing.iam import allows, function_statements, requests_of, unused
from structureflow_local.batch import JOB_DEFINITION, TASK, batch_part
from structureflow_local.cloud import LocalCloud
from structureflow_local.run import bucket_of
from tests.e2e.large_clips import SMALL, run, submit, write_inputs

REPO = Path(__file__).resolve().parents[2]
TEMPLATE: dict[str, Any] = yaml_parse((REPO / "template.yaml").read_text())
BUCKET = "DataBucket"
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
    """Files for jobs."""
    return write_inputs(tmp_path_factory.mktemp("inputs"))


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
    for statement, action, resource in unused(statements, asked, BUCKET):
        assert spare(action, resource), f"{statement.sid}: {action} on {resource} is never used"


def spare(action: str, resource: str) -> bool:
    """Tell whether a right may go unused here: for an archive that rots while the job waits, for a long extraction."""
    place = resource.partition("/")[2]
    return place == "jobs/*/runs/*/progress/live/*" or (action, place) == ("s3:DeleteObject", "cache/flows/*.npz")


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

"""The GPU route on the local cloud: tasks are processes, their ends are events, the way back is the template's."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from structureflow import keys
from structureflow.jobs.documents import load_record
from structureflow.models.results import JobRecord
from structureflow_local.client import JobClient, PreparedJob, prepare_job
from structureflow_local.cloud import LocalCloud
from structureflow_local.demo import write_demo_job
from structureflow_local.run import bucket_of

REPO = Path(__file__).resolve().parents[2]
SAMPLE = REPO / "local" / "sample" / "structure.mp4"
GPU = {"EnableGpu": "true", "GpuImageUri": "raft:test", "GpuVpcId": "vpc-1", "GpuSubnetIds": "subnet-1"}

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-gpu")]


@pytest.fixture
def raft_job(tmp_path: Path) -> PreparedJob:
    """One short segment on the sample clip, by RAFT."""
    document = json.loads(write_demo_job(SAMPLE, tmp_path).read_text())
    start, end, *_ = document.pop("images")
    segment = {"frames": 12, "guides": [{"image": start, "at": [0, 2]}, {"image": end, "at": [10, 11]}]}
    document |= {"resolution": [160, 96], "target": None, "segments": [segment], "engine": "raft"}
    return prepare_job(json.dumps(document), name="demo", folder=tmp_path)


@contextmanager
def cloud_with_task(command: Sequence[str]) -> Iterator[LocalCloud]:
    with LocalCloud(
        REPO / "template.yaml", parameters=GPU, task_commands={"RaftTaskDefinition": list(command)}
    ) as cloud:
        yield cloud


def finished_record(cloud: LocalCloud) -> JobRecord:
    storage = bucket_of(cloud)
    status = JobClient(storage).wait("demo", timeout_s=120)
    assert status.state == "done", status
    cloud.wait_idle(60)
    assert list(storage.list(keys.GPU_ORDERS_PREFIX)) == []
    return load_record(storage, "demo")


def test_a_killed_task_leads_to_a_finished_job_by_dis_that_says_so(tmp_path: Path, raft_job: PreparedJob) -> None:
    said = tmp_path / "pid"
    script = f"import os, pathlib, time; pathlib.Path({str(said)!r}).write_text(str(os.getpid())); time.sleep(600)"
    with cloud_with_task([sys.executable, "-c", script]) as cloud:
        JobClient(bucket_of(cloud)).submit(raft_job)
        deadline = time.monotonic() + 60
        while not (said.exists() and said.read_text()):
            assert time.monotonic() < deadline, "the task never started"
            time.sleep(0.05)
        os.kill(int(said.read_text()), signal.SIGKILL)
        record = finished_record(cloud)
    assert (record.engine_requested, record.engine) == ("raft", "dis")
    (fallback,) = record.fallbacks
    assert (fallback.wanted, fallback.used) == ("raft", "dis")
    assert "the GPU task stopped" in fallback.reason


def test_a_cluster_without_capacity_leads_to_a_finished_job_by_dis(raft_job: PreparedJob) -> None:
    with LocalCloud(REPO / "template.yaml", parameters=GPU) as cloud:
        JobClient(bucket_of(cloud)).submit(raft_job)
        record = finished_record(cloud)
    assert record.engine == "dis"
    assert "RESOURCE:GPU" in record.fallbacks[0].reason


def test_the_order_reaches_the_task_as_a_key(tmp_path: Path, raft_job: PreparedJob) -> None:
    seen = tmp_path / "environment.json"
    script = (
        "import json, os, pathlib, sys; "
        f"pathlib.Path({str(seen)!r}).write_text(json.dumps(dict(os.environ))); sys.exit(3)"
    )
    with cloud_with_task([sys.executable, "-c", script]) as cloud:
        JobClient(bucket_of(cloud)).submit(raft_job)
        record = finished_record(cloud)
        bucket = cloud.bucket("DataBucket")
    environment = json.loads(seen.read_text())
    assert environment["EXTRACTION_KEY"] == keys.gpu_order(record.run_id)
    assert environment["DATA_BUCKET"] == bucket
    assert "exit code 3" in record.fallbacks[0].reason

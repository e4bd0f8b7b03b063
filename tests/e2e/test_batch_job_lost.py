"""Batch jobs that never come to anything: they wait for ever, die each time, or there is no Batch part at all."""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from structureflow import keys
from structureflow.jobs.documents import put_document
from structureflow.jobs.extraction_order import load_order
from structureflow.models.results import now
from structureflow.storage.base import Storage
from structureflow_local.batch import JOB_DEFINITION, batch_part
from structureflow_local.cloud import LocalCloud
from structureflow_local.run import bucket_of
from tests.e2e.large_clips import SMALL, run, submit, write_inputs

REPO = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-batch")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files for jobs."""
    return write_inputs(tmp_path_factory.mktemp("inputs"))


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

"""Batch jobs of the local cloud: processes with their own environment, states, attempts, events, and a full queue."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from structureflow_local.cloud import LocalCloud, UnknownResourceError

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "local"
WORK = """
import os, sys, time
import boto3
attempt = os.environ["AWS_BATCH_JOB_ATTEMPT"]
boto3.client("s3").put_object(Bucket=os.environ["DATA_BUCKET"], Key=f"worked/{os.environ['JOB']}/{attempt}", Body=b"")
time.sleep(float(os.environ.get("SLEEP_S", "0")))
sys.exit(int(os.environ.get("CODES", "0").split(",")[int(attempt) - 1]))
"""


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(
        FIXTURE / "template.yaml",
        parameters={"EnableTasks": "true"},
        task_commands={"WorkJob": [sys.executable, "-c", WORK]},
    ) as running:
        yield running


def submit(cloud: LocalCloud, name: str, timeout_s: int | None = None, **environment: str) -> str:
    """Submit a job, and return its id."""
    variables = [{"name": key, "value": value} for key, value in {"JOB": name, **environment}.items()]
    reply = cloud.client("batch").submit_job(
        jobName=name,
        jobQueue=cloud.physical_id("JobQueue"),
        jobDefinition=cloud.physical_id("WorkJob"),
        containerOverrides={"environment": variables},
        **({"timeout": {"attemptDurationSeconds": timeout_s}} if timeout_s else {}),
    )
    assert reply["jobName"] == name
    return str(reply["jobId"])


def describe(cloud: LocalCloud, identity: str) -> dict[str, Any]:
    (found,) = cloud.client("batch").describe_jobs(jobs=[identity])["jobs"]
    job: dict[str, Any] = found
    return job


def attempts(cloud: LocalCloud, name: str) -> list[str]:
    prefix = f"worked/{name}/"
    found = cloud.client("s3").list_objects_v2(Bucket=cloud.bucket("DataBucket"), Prefix=prefix)
    return [one["Key"].removeprefix(prefix) for one in found.get("Contents", ())]


def wait_for_attempt(cloud: LocalCloud, name: str) -> None:
    deadline = time.monotonic() + 30
    while not attempts(cloud, name):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_job_runs_with_its_environment_and_its_end_is_an_event(cloud: LocalCloud) -> None:
    identity = submit(cloud, "one")
    cloud.wait_idle(30)
    job = describe(cloud, identity)
    assert (job["status"], job["container"]["exitCode"], len(job["attempts"])) == ("SUCCEEDED", 0, 1)
    assert attempts(cloud, "one") == ["1"]
    assert "WorkJob" in {call.function for call in cloud.calls if call.key == "worked/one/1"}
    s3, bucket = cloud.client("s3"), cloud.bucket("DataBucket")
    event = json.load(s3.get_object(Bucket=bucket, Key="cleaned.json")["Body"])
    assert (event["source"], event["detail-type"]) == ("aws.batch", "Batch Job State Change")
    assert (event["detail"]["jobName"], event["detail"]["status"]) == ("one", "SUCCEEDED")
    assert event["detail"]["jobQueue"] == cloud.physical_id("JobQueue")


@pytest.mark.parametrize(
    ("codes", "status", "count"),
    [
        ("3,0", "SUCCEEDED", 2),
        ("3,3", "FAILED", 2),
        ("7,0", "FAILED", 1),
        ("75,0", "FAILED", 1),
        ("143,0", "SUCCEEDED", 2),
    ],
)
def test_an_attempt_that_failed_is_followed_by_another_where_no_rule_ends_it(
    cloud: LocalCloud, codes: str, status: str, count: int
) -> None:
    identity = submit(cloud, f"codes-{codes.replace(',', '-')}", CODES=codes)
    cloud.wait_idle(30)
    job = describe(cloud, identity)
    assert (job["status"], len(job["attempts"])) == (status, count)


def test_ending_a_job_ends_its_process_and_begins_no_other(cloud: LocalCloud) -> None:
    identity = submit(cloud, "long", SLEEP_S="600")
    wait_for_attempt(cloud, "long")
    cloud.client("batch").terminate_job(jobId=identity, reason="late")
    cloud.wait_idle(40)
    job = describe(cloud, identity)
    assert (job["status"], job["statusReason"], len(job["attempts"])) == ("FAILED", "late", 1)
    assert job["container"]["exitCode"] == 143


def test_an_attempt_that_takes_too_long_is_ended(cloud: LocalCloud) -> None:
    identity = submit(cloud, "slow", timeout_s=1, SLEEP_S="600")
    cloud.wait_idle(40)
    job = describe(cloud, identity)
    assert (job["status"], job["statusReason"]) == ("FAILED", "Job attempt duration exceeded timeout")


def test_jobs_are_found_by_name_whatever_became_of_them(cloud: LocalCloud) -> None:
    identity = submit(cloud, "named")
    cloud.wait_idle(30)
    client, queue = cloud.client("batch"), cloud.physical_id("JobQueue")
    by_name = client.list_jobs(jobQueue=queue, filters=[{"name": "JOB_NAME", "values": ["named"]}])["jobSummaryList"]
    assert [(job["jobId"], job["status"]) for job in by_name] == [(identity, "SUCCEEDED")]
    assert client.list_jobs(jobQueue=queue, jobStatus="RUNNING")["jobSummaryList"] == []
    with pytest.raises(ClientError, match="JOB_NAME only"):
        client.list_jobs(jobQueue=queue, filters=[{"name": "JOB_DEFINITION", "values": ["x"]}])


def test_unknown_queues_definitions_and_operations_are_batch_errors(cloud: LocalCloud) -> None:
    client = cloud.client("batch")
    for wrong in ({"jobQueue": "none"}, {"jobDefinition": "none"}):
        names = {"jobQueue": cloud.physical_id("JobQueue"), "jobDefinition": cloud.physical_id("WorkJob"), **wrong}
        with pytest.raises(ClientError, match="not found"):
            client.submit_job(jobName="x", **names)
    with pytest.raises(ClientError, match="does not know"):
        client.describe_job_queues()


def test_commands_are_for_definitions_that_there_are() -> None:
    with pytest.raises(UnknownResourceError, match="Missing"):
        LocalCloud(FIXTURE / "template.yaml", task_commands={"Missing": ["true"]})

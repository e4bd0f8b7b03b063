"""ECS tasks of the local cloud: processes with the task's own environment, states, events, and no capacity."""

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
print("working", flush=True)
boto3.client("s3").put_object(Bucket=os.environ["DATA_BUCKET"], Key="worked/" + os.environ["JOB"], Body=b"")
time.sleep(float(os.environ.get("SLEEP_S", "0")))
sys.exit(int(os.environ.get("CODE", "0")))
"""


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(
        FIXTURE / "template.yaml",
        parameters={"EnableTasks": "true"},
        task_commands={"WorkTask": [sys.executable, "-c", WORK]},
    ) as running:
        yield running


def run(cloud: LocalCloud, job: str, token: str | None = None, **environment: str) -> dict[str, Any]:
    """Run a task."""
    variables = [{"name": name, "value": value} for name, value in {"JOB": job, **environment}.items()]
    reply = cloud.client("ecs").run_task(
        cluster=cloud.template.clusters["Cluster"].name,
        taskDefinition=cloud.physical_id("WorkTask"),
        startedBy=job,
        capacityProviderStrategy=[{"capacityProvider": "gpu", "weight": 1}],
        overrides={"containerOverrides": [{"name": "work", "environment": variables}]},
        **({"clientToken": token} if token else {}),
    )
    assert reply["failures"] == []
    (task,) = reply["tasks"]
    found: dict[str, Any] = task
    return found


def describe(cloud: LocalCloud, task: dict[str, Any]) -> dict[str, Any]:
    """Return a task as ECS describes it now."""
    reply = cloud.client("ecs").describe_tasks(cluster=task["clusterArn"], tasks=[task["taskArn"]])
    (found,) = reply["tasks"]
    described: dict[str, Any] = found
    return described


def test_a_task_runs_with_its_environment_and_its_end_is_an_event(cloud: LocalCloud) -> None:
    task = run(cloud, "one")
    assert task["lastStatus"] in {"RUNNING", "STOPPED"}
    cloud.wait_idle(30)
    ended = describe(cloud, task)
    assert (ended["lastStatus"], ended["stopCode"]) == ("STOPPED", "EssentialContainerExited")
    assert ended["containers"][0]["exitCode"] == 0
    s3, bucket = cloud.client("s3"), cloud.bucket("DataBucket")
    s3.head_object(Bucket=bucket, Key="worked/one")
    assert [call.function for call in cloud.calls if call.key == "worked/one"] == ["WorkTask", None]
    event = json.load(s3.get_object(Bucket=bucket, Key="cleaned.json")["Body"])
    assert (event["source"], event["detail-type"]) == ("aws.ecs", "ECS Task State Change")
    assert event["detail"]["taskArn"] == task["taskArn"]
    assert (event["detail"]["lastStatus"], event["detail"]["startedBy"]) == ("STOPPED", "one")
    assert event["detail"]["containers"][0]["exitCode"] == 0


def test_an_exit_code_is_reported(cloud: LocalCloud) -> None:
    task = run(cloud, "bad", CODE="7")
    cloud.wait_idle(30)
    assert describe(cloud, task)["containers"][0]["exitCode"] == 7


def test_stopping_a_task_ends_its_process(cloud: LocalCloud) -> None:
    task = run(cloud, "long", SLEEP_S="600")
    client = cloud.client("ecs")
    deadline = time.monotonic() + 20
    while not [call for call in cloud.calls if call.key == "worked/long"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert client.list_tasks(cluster=task["clusterArn"])["taskArns"] == [task["taskArn"]]
    client.stop_task(cluster=task["clusterArn"], task=task["taskArn"], reason="spot interruption")
    cloud.wait_idle(30)
    ended = describe(cloud, task)
    assert (ended["stopCode"], ended["stoppedReason"]) == ("UserInitiated", "spot interruption")
    assert ended["containers"][0]["exitCode"] == 143
    assert client.list_tasks(cluster=task["clusterArn"])["taskArns"] == []


def test_tasks_are_listed_by_who_started_them(cloud: LocalCloud) -> None:
    mine, other = run(cloud, "mine", SLEEP_S="600"), run(cloud, "other", SLEEP_S="600")
    client, cluster = cloud.client("ecs"), mine["clusterArn"]
    assert client.list_tasks(cluster=cluster, startedBy="mine")["taskArns"] == [mine["taskArn"]]
    assert client.list_tasks(cluster=cluster, startedBy="nobody")["taskArns"] == []
    for task in (mine, other):
        client.stop_task(cluster=cluster, task=task["taskArn"])
    cloud.wait_idle(30)


def test_a_client_token_runs_a_task_once(cloud: LocalCloud) -> None:
    first, second = (run(cloud, "token", token="job-1") for _ in range(2))
    assert first["taskArn"] == second["taskArn"]
    cloud.wait_idle(30)
    assert len([call for call in cloud.calls if call.key == "worked/token"]) == 1


def test_unknown_clusters_tasks_and_definitions_are_ecs_errors(cloud: LocalCloud) -> None:
    client, cluster = cloud.client("ecs"), cloud.template.clusters["Cluster"].name
    with pytest.raises(ClientError, match="ClusterNotFoundException"):
        client.run_task(cluster="nowhere", taskDefinition="work")
    with pytest.raises(ClientError, match="TaskDefinition not found"):
        client.run_task(cluster=cluster, taskDefinition="play")
    with pytest.raises(ClientError, match="task was not found"):
        client.stop_task(cluster=cluster, task="nothing")
    reply = client.describe_tasks(cluster=cluster, tasks=["nothing"])
    assert reply["failures"] == [{"arn": "nothing", "reason": "MISSING"}]


def test_a_command_for_a_task_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(UnknownResourceError, match="WorkTask"):
        LocalCloud(FIXTURE / "template.yaml", task_commands={"WorkTask": ["true"]})

"""The launcher's calls to ECS, against botocore's own model of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from structureflow.errors import GpuUnavailableError
from structureflow.runtime.ecs import EcsLauncher

RUN = "0123456789abcdef"
EXPECTED = {
    "cluster": "gpu",
    "taskDefinition": "raft:3",
    "capacityProviderStrategy": [{"capacityProvider": "provider", "weight": 1}],
    "count": 1,
    "clientToken": RUN,
    "startedBy": RUN,
    "overrides": {
        "containerOverrides": [
            {"name": "raft", "environment": [{"name": "EXTRACTION_KEY", "value": f"work/.gpu/{RUN}.json"}]}
        ]
    },
}


@pytest.fixture
def stubbed() -> Iterator[tuple[EcsLauncher, Stubber]]:
    client = boto3.client("ecs", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    launcher = EcsLauncher(
        cluster="gpu",
        task_definition="raft:3",
        capacity_provider="provider",
        timeout_s=60,
        auto_pixel_frames=1,
        client=client,
    )
    with Stubber(client) as stubber:
        yield launcher, stubber
        stubber.assert_no_pending_responses()


def start(launcher: EcsLauncher) -> str:
    return launcher.start(f"work/.gpu/{RUN}.json", RUN)


def test_a_task_is_started_through_the_capacity_provider(stubbed: tuple[EcsLauncher, Stubber]) -> None:
    launcher, stubber = stubbed
    stubber.add_response("run_task", {"tasks": [{"taskArn": "arn:task/1"}], "failures": []}, EXPECTED)
    assert start(launcher) == "arn:task/1"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ({"tasks": [], "failures": [{"arn": "x", "reason": "RESOURCE:GPU"}]}, "RESOURCE:GPU"),
        ({"tasks": [], "failures": [{"reason": "CAPACITY", "detail": "none left"}]}, "CAPACITY none left"),
        ({"tasks": [], "failures": []}, "no task in the reply"),
    ],
)
def test_failures_in_a_good_reply_are_failures(
    stubbed: tuple[EcsLauncher, Stubber], reply: dict[str, Any], said: str
) -> None:
    launcher, stubber = stubbed
    stubber.add_response("run_task", reply, EXPECTED)
    with pytest.raises(GpuUnavailableError, match=said):
        start(launcher)


@pytest.mark.parametrize("code", ["ClusterNotFoundException", "AccessDeniedException", "ThrottlingException"])
def test_a_refused_call_is_no_gpu(stubbed: tuple[EcsLauncher, Stubber], code: str) -> None:
    launcher, stubber = stubbed
    stubber.add_client_error("run_task", code)
    with pytest.raises(GpuUnavailableError, match=code):
        start(launcher)


def test_stopping_finds_the_tasks_of_the_run(stubbed: tuple[EcsLauncher, Stubber]) -> None:
    launcher, stubber = stubbed
    stubber.add_response("list_tasks", {"taskArns": ["arn:task/1"]}, {"cluster": "gpu", "startedBy": RUN})
    stubber.add_response("stop_task", {}, {"cluster": "gpu", "task": "arn:task/1", "reason": "late"})
    launcher.stop(RUN, "late")


def test_limits_of_ecs_are_kept() -> None:
    """Client tokens have at most 64 characters, overrides 8,192 (ECS API Reference, RunTask)."""
    assert len(str(EXPECTED["clientToken"])) <= 64
    assert len(str(EXPECTED["overrides"])) < 8192

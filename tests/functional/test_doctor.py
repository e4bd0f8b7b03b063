"""``structureflow doctor``: what it finds of this machine, and of a stack; each finding can turn bad."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.stub import Stubber

from structureflow_local import doctor
from structureflow_local.cli import main
from structureflow_local.doctor import Finding, examine_machine, examine_stack

OUTPUTS = {
    "DataBucketName": "data",
    "StateMachineArn": "arn:aws:states:us-east-1:123456789012:stateMachine:Segments",
    "EventsDeadLetterQueueUrl": "https://sqs.us-east-1.amazonaws.com/123456789012/events",
}


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {found.what: found for found in findings}


def test_this_machine_can_do_what_its_tests_do(tmp_path: Path) -> None:
    found = by_name(examine_machine(tmp_path / "store"))
    for what in ("Python", "packages", "H.264", "local cloud"):
        assert found[what].state == "works", found[what]
    assert "h264, hevc, av1, vp9, prores" in found["H.264"].said
    assert not (tmp_path / "store").exists(), "nothing is made"


def test_what_is_not_there_is_said_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "moto" else there(name))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    found = by_name(examine_machine(tmp_path))
    assert found["local cloud"].state == "missing"
    assert found["local cloud"].said == "not installed: moto"
    assert found["local cloud"].remedy == "make setup in a checkout of structureflow, on Linux"
    assert found["Docker"] == Finding("Docker", "missing", "not installed", "only deploying, and sam local, need it")
    assert found["disk"].state == "missing"


def test_a_package_that_cannot_be_imported_is_no_surprise_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def import_module(name: str) -> Any:
        raise ImportError(f"{name}: libGL.so.1 is missing")

    monkeypatch.setattr(importlib, "import_module", import_module)
    assert main(["doctor", "--store", str(tmp_path)]) == 2
    printed = capsys.readouterr().out
    assert "broken   packages" in printed
    assert "libGL.so.1 is missing" in printed
    assert main(["doctor", "--store", str(tmp_path), "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert {"what", "state", "said", "remedy"} == set(document["findings"][0])


def test_a_store_that_cannot_be_written_to_is_broken() -> None:
    assert by_name(examine_machine(Path("/proc/store")))["disk"].state == "broken"


def test_no_engine_behind_docker_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/docker")

    def run(*words: Any, **_: Any) -> Any:
        raise subprocess.TimeoutExpired(words[0], 10)

    monkeypatch.setattr(subprocess, "run", run)
    assert "no engine answers" in by_name(examine_machine(tmp_path))["Docker"].said


def test_a_bucket_is_looked_at_where_one_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--folder", str(tmp_path)]) in {0, 2}
    assert "works    bucket" in capsys.readouterr().out


# --- stacks ------------------------------------------------------------------------------------------


class Account:
    """Clients whose answers are said beforehand; checked against the services' own models by botocore."""

    def __init__(self) -> None:
        self.stubs: dict[str, Stubber] = {}

    def client(self, service: str) -> Any:
        return self.stub(service).client

    def stub(self, service: str) -> Stubber:
        if service not in self.stubs:
            client = boto3.client(service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y")  # type: ignore[call-overload]
            self.stubs[service] = Stubber(client)
            self.stubs[service].activate()
        return self.stubs[service]

    def has(self, *, state: str = "UPDATE_COMPLETE", messages: int = 0, machine: str = "ACTIVE") -> None:
        outputs = [{"OutputKey": name, "OutputValue": value} for name, value in OUTPUTS.items()]
        stack = {"StackName": "s", "CreationTime": "2026-01-01", "StackStatus": state, "Outputs": outputs}
        self.stub("cloudformation").add_response("describe_stacks", {"Stacks": [stack]}, {"StackName": "s"})
        self.stub("s3").add_response("list_objects_v2", {}, {"Bucket": "data", "Prefix": "jobs/", "MaxKeys": 1})
        self.stub("stepfunctions").add_response(
            "describe_state_machine",
            {
                "stateMachineArn": OUTPUTS["StateMachineArn"],
                "name": "Segments",
                "status": machine,
                "definition": "{}",
                "roleArn": "arn:aws:iam::123456789012:role/x",
                "type": "STANDARD",
                "creationDate": "2026-01-01",
            },
        )
        self.stub("sqs").add_response(
            "get_queue_attributes", {"Attributes": {"ApproximateNumberOfMessages": str(messages)}}
        )


@pytest.fixture
def account() -> Account:
    return Account()


def test_a_whole_stack_works(account: Account) -> None:
    account.has()
    findings = examine_stack("s", clients=account.client)
    assert [(found.what, found.state) for found in findings] == [
        ("stack", "works"),
        ("bucket", "works"),
        ("state machine", "works"),
        ("undelivered events", "works"),
    ]
    assert "--bucket data" in findings[1].said


@pytest.mark.parametrize(
    ("has", "what", "said"),
    [
        ({"state": "ROLLBACK_COMPLETE"}, "stack", "s is in the state ROLLBACK_COMPLETE"),
        ({"state": "UPDATE_IN_PROGRESS"}, "stack", "UPDATE_IN_PROGRESS"),
        ({"messages": 3}, "undelivered events", "3 events could not be delivered"),
        ({"machine": "DELETING"}, "state machine", "Segments is DELETING"),
    ],
)
def test_what_is_amiss_in_a_stack_is_said(account: Account, has: dict[str, Any], what: str, said: str) -> None:
    account.has(**has)
    (broken,) = [found for found in examine_stack("s", clients=account.client) if found.state == "broken"]
    assert broken.what == what
    assert said in broken.said
    assert broken.remedy


@pytest.mark.parametrize(("status", "state"), [("VALID", "works"), ("INVALID", "broken")])
def test_the_queue_of_a_batch_part_is_looked_at(
    account: Account, monkeypatch: pytest.MonkeyPatch, status: str, state: str
) -> None:
    arn = "arn:aws:batch:us-east-1:123456789012:job-queue/Extraction"
    monkeypatch.setitem(OUTPUTS, "BatchJobQueueArn", arn)
    account.has()
    queue = {
        "jobQueueName": "Extraction",
        "jobQueueArn": arn,
        "state": "ENABLED",
        "status": status,
        "statusReason": "no subnet",
        "priority": 1,
        "computeEnvironmentOrder": [{"order": 1, "computeEnvironment": "fargate"}],
    }
    account.stub("batch").add_response("describe_job_queues", {"jobQueues": [queue]}, {"jobQueues": [arn]})
    found = examine_stack("s", clients=account.client)[-1]
    assert (found.what, found.state) == ("Batch queue", state)
    assert ("no subnet" in found.said) is (state == "broken")


def test_a_stack_of_something_else_is_told_apart(account: Account) -> None:
    stack = {"StackName": "s", "CreationTime": "2026-01-01", "StackStatus": "CREATE_COMPLETE"}
    account.stub("cloudformation").add_response("describe_stacks", {"Stacks": [stack]})
    findings = examine_stack("s", clients=account.client)
    assert [found.state for found in findings] == ["works", "broken", "broken", "broken"]
    assert "no output DataBucketName" in findings[1].said


def refused(account: Account) -> None:
    account.stub("cloudformation").add_client_error(
        "describe_stacks", "ValidationError", "Stack with id s does not exist"
    )


def unreachable(account: Account) -> None:
    def fail(**_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="https://cloudformation.us-east-1.amazonaws.com")

    account.client("cloudformation").describe_stacks = fail


@pytest.mark.parametrize("happens", [refused, unreachable])
def test_a_stack_that_cannot_be_reached_ends_with_4(
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    happens: Callable[[Account], None],
) -> None:
    happens(account)
    monkeypatch.setattr(doctor, "_clients", lambda _: account.client)
    assert main(["doctor", "--stack", "s"]) == 4
    assert "broken   stack" in capsys.readouterr().out

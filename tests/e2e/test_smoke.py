"""``make smoke``: on the local cloud, whose bucket stands in for the stack's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from structureflow.errors import SettingsError
from structureflow.storage.local import LocalStorage
from structureflow.storage.s3 import S3Storage
from structureflow_local import smoke as command
from structureflow_local.cloud import LocalCloud
from structureflow_local.run import TEMPLATE, bucket_of

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e")]


def test_two_jobs_are_measured_and_cleared_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with LocalCloud(TEMPLATE) as cloud:
        storage = bucket_of(cloud)
        storage.put("library/mine.txt", b"stays")
        monkeypatch.setattr(command, "storage_of_stack", lambda *_: storage)
        code = command.main(["--stack", "mine", "--timeout", "120"])
        cloud.wait_idle(60)
        left = [info.key for info in storage.list("")]
    document = json.loads(capsys.readouterr().out)
    first, again = document["jobs"]["first"], document["jobs"]["again"]
    assert (code, document["stack"], first["state"], again["state"]) == (0, "mine", "done", "done")
    assert (first["flow_cache_hit"], again["flow_cache_hit"]) == (False, True)
    assert (first["fallbacks"], again["fallbacks"]) == ([], [])
    steps = ["Orchestrator", "PlanSegments", "AssembleJob", "RenderSegment", "RenderSegment"]
    assert [one["step"] for one in first["steps"]] == steps
    assert first["cold_starts"] >= 3
    assert again["cold_starts"] == 0, "every function had a warm process"
    for job in (first, again):
        assert 0 < job["seconds"]["job"] < document["seconds"]
        assert job["cost_usd"]["sum"] == pytest.approx(sum(job["cost_usd"].values()) - job["cost_usd"]["sum"])
    assert left == ["library/mine.txt"]
    assert document["objects_deleted"] > 30


def test_a_stack_where_nothing_happens_is_told_and_cleared(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "bucket")
    document = command.smoke(storage, timeout_s=0.2)
    ((name, job),) = document["jobs"].items()
    assert (name, job["state"]) == ("first", "not finished")
    assert "not started" in job["error"]["message"]
    assert list(storage.list("")) == []


def stack(outputs: list[dict[str, str]]) -> Any:
    client = boto3.client(
        "cloudformation", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    stubber = Stubber(client)
    found = {"StackName": "mine", "CreationTime": "2026-11-26", "StackStatus": "CREATE_COMPLETE", "Outputs": outputs}
    stubber.add_response("describe_stacks", {"Stacks": [found]}, {"StackName": "mine"})
    stubber.activate()
    return client


def test_the_bucket_is_the_stacks_output_in_the_stacks_region() -> None:
    outputs = [{"OutputKey": "DataBucketName", "OutputValue": "the-bucket"}]
    storage = command.storage_of_stack("mine", client=stack(outputs))
    assert isinstance(storage, S3Storage)
    assert (storage.bucket, storage.client.meta.region_name) == ("the-bucket", "eu-central-1")


def test_another_stack_is_refused() -> None:
    with pytest.raises(SettingsError, match="DataBucketName"):
        command.storage_of_stack("mine", client=stack([]))


def test_a_stack_that_is_not_there_is_refused() -> None:
    client = boto3.client(
        "cloudformation", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    stubber = Stubber(client)
    stubber.add_client_error("describe_stacks", "ValidationError", "Stack with id mine does not exist")
    stubber.activate()
    with pytest.raises(SettingsError, match="does not exist"):
        command.storage_of_stack("mine", client=client)

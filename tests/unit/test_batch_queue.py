"""The calls to Batch, against botocore's own model of them, and what its events say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from structureflow.errors import BatchJobError, InvalidRequestError, SettingsError, TransientError
from structureflow.runtime.batch import BatchQueue
from structureflow.runtime.events import parse_ended_batch_job
from structureflow.runtime.settings import BatchSettings, _batch

RUN = "0123456789abcdef"
FIND = {"jobQueue": "queue", "filters": [{"name": "JOB_NAME", "values": [RUN]}]}
SUBMIT = {
    "jobName": RUN,
    "jobQueue": "queue",
    "jobDefinition": "extract:3",
    "timeout": {"attemptDurationSeconds": 3600},
    "containerOverrides": {"environment": [{"name": "EXTRACTION_KEY", "value": f"work/.gpu/{RUN}.json"}]},
}
EVENT = json.loads(
    (Path(__file__).resolve().parents[2] / "events" / "settle_gpu" / "batch_job_failed.json").read_text()
)


@pytest.fixture
def stubbed() -> Iterator[tuple[BatchQueue, Stubber]]:
    client = boto3.client("batch", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    queue = BatchQueue(queue="queue", job_definition="extract:3", timeout_s=3600.0, max_video_bytes=1, client=client)
    with Stubber(client) as stubber:
        yield queue, stubber
        stubber.assert_no_pending_responses()


def summary(identity: str, status: str) -> dict[str, Any]:
    return {"jobId": identity, "jobName": RUN, "status": status}


def start(queue: BatchQueue) -> str:
    return queue.start(f"work/.gpu/{RUN}.json", RUN)


def test_a_job_is_submitted_under_the_name_of_its_run(stubbed: tuple[BatchQueue, Stubber]) -> None:
    queue, stubber = stubbed
    stubber.add_response("list_jobs", {"jobSummaryList": []}, FIND)
    stubber.add_response("submit_job", {"jobName": RUN, "jobId": "one"}, SUBMIT)
    assert start(queue) == "one"


@pytest.mark.parametrize("status", ["SUBMITTED", "RUNNABLE", "RUNNING", "SUCCEEDED", "FAILED"])
def test_a_run_that_has_a_job_gets_no_second_one(stubbed: tuple[BatchQueue, Stubber], status: str) -> None:
    queue, stubber = stubbed
    stubber.add_response("list_jobs", {"jobSummaryList": [summary("one", status)]}, FIND)
    assert start(queue) == "one"


@pytest.mark.parametrize("operation", ["list_jobs", "submit_job"])
@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("ClientException", 400, BatchJobError),
        ("AccessDeniedException", 403, BatchJobError),
        ("TooManyRequestsException", 429, TransientError),
        ("ThrottlingException", 400, TransientError),
        ("ServerException", 500, TransientError),
        ("Unheard", 503, TransientError),
    ],
)
def test_refusals_are_told_from_what_passes(
    stubbed: tuple[BatchQueue, Stubber], operation: str, code: str, status: int, expected: type[Exception]
) -> None:
    queue, stubber = stubbed
    if operation == "submit_job":
        stubber.add_response("list_jobs", {"jobSummaryList": []}, FIND)
    stubber.add_client_error(operation, code, "said", http_status_code=status)
    with pytest.raises(expected, match=code):
        start(queue)


def test_no_connection_passes() -> None:
    client = boto3.client(
        "batch",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        endpoint_url="http://127.0.0.1:9",
    )
    client.meta.config.retries = {"max_attempts": 0}
    queue = BatchQueue(queue="q", job_definition="d", timeout_s=60, max_video_bytes=1, client=client)
    with pytest.raises(TransientError, match="not submitted"):
        start(queue)
    with pytest.raises(BatchJobError, match="cannot be ended"):
        queue.stop(RUN, "late")


def test_stopping_ends_what_is_open_on_every_page(stubbed: tuple[BatchQueue, Stubber]) -> None:
    queue, stubber = stubbed
    first = [summary("done", "FAILED"), summary("waits", "RUNNABLE")]
    stubber.add_response("list_jobs", {"jobSummaryList": first, "nextToken": "more"}, FIND)
    stubber.add_response("terminate_job", {}, {"jobId": "waits", "reason": "late"})
    stubber.add_response("list_jobs", {"jobSummaryList": [summary("runs", "RUNNING")]}, {**FIND, "nextToken": "more"})
    stubber.add_response("terminate_job", {}, {"jobId": "runs", "reason": "late"})
    queue.stop(RUN, "late")


def test_limits_of_batch_are_kept() -> None:
    """Names have at most 128 characters, and an attempt at least a minute (AWS Batch API Reference, SubmitJob)."""
    assert len(RUN) <= 128
    assert int(SUBMIT["timeout"]["attemptDurationSeconds"]) >= 60  # type: ignore[index]


def test_an_event_says_which_run_and_why() -> None:
    ended = parse_ended_batch_job(EVENT)
    assert (ended.run_id, ended.status) == (RUN, "FAILED")
    assert ended.reason == (
        "the Batch job ended as FAILED: Essential container in task exited; "
        "OutOfMemoryError: Container killed due to memory usage; exit code 137"
    )


def test_an_event_of_a_job_that_never_ran_says_that_much() -> None:
    """A job that was ended in the queue has no container that exited, and fields that nobody thought of are let be."""
    detail = {"jobName": RUN, "status": "FAILED", "statusReason": "structureflow: not done in time", "more": {"x": 1}}
    ended = parse_ended_batch_job({"detail": detail})
    assert ended.reason == "the Batch job ended as FAILED: structureflow: not done in time"
    attempts = [{"container": {"exitCode": 143}}, {"container": {"exitCode": 75}, "statusReason": "x"}]
    again = parse_ended_batch_job({"detail": {**detail, "statusReason": "", "attempts": attempts}})
    assert again.reason.endswith("attempt 2")


@pytest.mark.parametrize("event", [{}, {"detail": {}}, {"detail": {"jobName": 5}}])
def test_what_is_no_such_event_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="Batch job"):
        parse_ended_batch_job(event)


def test_settings_are_whole_or_not_there() -> None:
    whole = {
        "BATCH_QUEUE": "queue",
        "BATCH_JOB_DEFINITION": "extract:3",
        "BATCH_TIMEOUT_MINUTES": "60",
        "BATCH_MAX_VIDEO_MEGABYTES": "2000",
    }
    assert _batch(whole) == BatchSettings("queue", "extract:3", 3600.0, 2_000_000_000)
    assert _batch({**whole, "BATCH_QUEUE": ""}) is None
    for name in set(whole) - {"BATCH_QUEUE"}:
        with pytest.raises(SettingsError, match=name):
            _batch({**whole, name: ""})

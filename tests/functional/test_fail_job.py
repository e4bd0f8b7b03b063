"""FailJob, from golden events: what ended the job, told once, and never over a newer run."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from structureflow.models.results import JobStatus
from structureflow.runtime import wiring
from structureflow.testing.jobs import JobRunner

REPO = Path(__file__).resolve().parents[2]
EXECUTION = "arn:aws:states:us-east-1:123456789012:execution:segments:sample"
Fail = Callable[[dict[str, Any]], Any]


def golden(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((REPO / "events" / "fail_job" / f"{name}.json").read_text())
    return event


@pytest.fixture
def fail(runner: JobRunner, monkeypatch: pytest.MonkeyPatch, request_document: dict[str, Any]) -> Fail:
    """Gives the handler's answer to an event, while the golden events' execution renders the job "sample"."""
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "test")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "test")
    for cached in (wiring.logger, wiring.metrics):
        cached.cache_clear()
    runner.put_request("sample", request_document | {"task_id": "sample"})
    runner.orchestrate("sample")
    assert runner.plan("sample", EXECUTION).claimed
    spec = importlib.util.spec_from_file_location("fail_job_app", REPO / "functions" / "fail_job" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    monkeypatch.setattr(app, "services", lambda: runner.services)
    context = SimpleNamespace(
        function_name="fail_job", memory_limit_in_mb=512, invoked_function_arn="arn:aws:lambda:x", aws_request_id="1"
    )
    return lambda event: app.handler(event, context)


def test_a_stopped_execution_ends_its_job(fail: Fail, runner: JobRunner) -> None:
    answer = fail(golden("execution_aborted"))
    status = runner.status("sample")
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "ExecutionAborted"
    assert JobStatus.model_validate(answer) == status


@pytest.mark.parametrize(
    ("detail", "code"),
    [
        ({"status": "TIMED_OUT"}, "States.Timeout"),
        ({"status": "FAILED", "error": "NotAnImageError", "cause": "no image"}, "NotAnImageError"),
        ({"status": "FAILED"}, "ExecutionFailed"),
    ],
)
def test_the_error_is_named_by_how_it_ended(fail: Fail, runner: JobRunner, detail: dict[str, str], code: str) -> None:
    event = golden("execution_aborted")
    event["detail"] |= detail
    fail(event)
    error = runner.status("sample").error
    assert error is not None
    assert error.code == code


def test_what_the_state_said_is_not_said_again(fail: Fail, runner: JobRunner) -> None:
    fail(golden("segment_failed"))
    told = runner.status("sample")
    assert told.error is not None
    assert told.error.code == "NotAnImageError"
    assert fail(golden("execution_aborted")) is None
    assert runner.status("sample") == told
    assert runner.counts["JobsFailed"] == 1


def test_a_finished_job_stays_finished(fail: Fail, runner: JobRunner) -> None:
    runner.segments("sample", EXECUTION)
    assert fail(golden("execution_aborted")) is None
    assert runner.status("sample").state == "done"


def test_another_executions_run_is_left_alone(fail: Fail, runner: JobRunner) -> None:
    event = golden("execution_aborted")
    event["detail"]["executionArn"] += "-older"
    assert fail(event) is None
    assert runner.status("sample").state == "running"


def died(etag: str) -> dict[str, Any]:
    event = golden("orchestrator_died")
    (record,) = event["Records"]
    body = json.loads(record["body"])
    body["detail"]["object"]["etag"] = etag
    record["body"] = json.dumps(body)
    return event


def test_an_orchestrator_that_died_ends_its_job(
    fail: Fail, runner: JobRunner, request_document: dict[str, Any]
) -> None:
    runner.put_request("sample", request_document | {"task_id": "sample", "fps": 20})
    fail(died(runner.storage.head("jobs/sample/request.json").etag))
    error = runner.status("sample").error
    assert error is not None
    assert (error.code, error.stage) == ("OrchestratorDied", "orchestrate")


def test_an_orchestrator_that_died_is_no_newer_requests_end(
    fail: Fail, runner: JobRunner, request_document: dict[str, Any]
) -> None:
    older = runner.storage.head("jobs/sample/request.json").etag
    runner.put_request("sample", request_document | {"task_id": "sample", "fps": 20})
    assert fail(died(older)) is None
    runner.orchestrate("sample")
    assert fail(died(older)) is None
    assert runner.segments("sample").state == "done"


def test_what_comes_late_changes_no_end(fail: Fail, runner: JobRunner) -> None:
    """An orchestrator that was given up, after its segments started: they are under way, or done."""
    etag = runner.storage.head("jobs/sample/request.json").etag
    assert fail(died(etag)) is None
    runner.segments("sample", EXECUTION)
    assert fail(died(etag)) is None
    assert runner.status("sample").state == "done"
    runner.storage.delete(runner.keys("jobs/sample/"))
    assert fail(died(etag)) is None
    assert fail(golden("segment_failed")) is None
    assert runner.keys("jobs/") == []

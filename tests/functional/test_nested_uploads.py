"""Files deeper in a job's folder: the star of a rule stands for slashes too, so their events come, and are let go."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.jobs.plan_segments import PlanSegmentsInput, plan_segments
from structureflow.runtime import wiring
from structureflow.testing.jobs import JobRunner

REPO = Path(__file__).resolve().parents[2]
NESTED = [
    "jobs/t1/inputs/request.json",
    "jobs/t1/runs/0/request.json",
    "jobs/a/b/c/request.json",
    "jobs/../request.json",
]


@pytest.mark.parametrize("key", NESTED)
def test_the_orchestrator_lets_them_go(runner: JobRunner, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Raised, they would be tried five times, and FailJob asked to end a job that there is not."""
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "test")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "test")
    for cached in (wiring.logger, wiring.metrics):
        cached.cache_clear()
    spec = importlib.util.spec_from_file_location("orchestrator_app", REPO / "functions" / "orchestrator" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    monkeypatch.setattr(app, "services", lambda: runner.services)
    event: dict[str, Any] = json.loads((REPO / "events" / "orchestrator" / "request_queued.json").read_text())
    body = json.loads(event["Records"][0]["body"])
    body["detail"]["object"]["key"] = key
    before = runner.keys("")
    assert app.take_up(body) == {"ignored": key}
    assert runner.keys("") == before


@pytest.mark.parametrize(
    "key", ["jobs/t1/inputs/structure_flows_t1.npz", "jobs/a/b/structure_flows_b.npz", "jobs/t1/structure_flows_t2.npz"]
)
def test_an_execution_of_one_ends_as_a_second_delivery_does(runner: JobRunner, key: str) -> None:
    before = runner.keys("")
    plan = plan_segments(PlanSegmentsInput(execution_id="e", bucket="data", key=key), runner.services)
    assert (plan.claimed, plan.segments) == (False, ())
    assert runner.keys("") == before


def test_what_is_a_request() -> None:
    assert keys.is_job_request("jobs/t1/request.json")
    assert not [key for key in (*NESTED, "jobs/request.json", "t1/request.json") if keys.is_job_request(key)]

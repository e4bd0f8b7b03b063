"""What surrounds a handler: whom log lines name, when traces are made, that metrics leave without a word."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from structureflow import keys
from structureflow.errors import JobStateError
from structureflow.runtime import wiring
from structureflow.runtime.events import event_subject

EVENTS = Path(__file__).resolve().parents[2] / "events"
CONTEXT = SimpleNamespace(
    function_name="render", memory_limit_in_mb=1024, invoked_function_arn="arn:aws:lambda:x", aws_request_id="1"
)


@pytest.mark.parametrize(
    ("event", "subject"),
    [
        ("orchestrator/request_queued", {"task_id": "sample"}),
        ("plan_segments/flows_arrived", {"task_id": "sample"}),
        ("render_segment/first", {"task_id": "sample", "segment": 0}),
        ("fail_job/segment_failed", {"task_id": "sample"}),
        ("fail_job/orchestrator_died", {"task_id": "sample"}),
        ("rebuild_timeline/sample", {"timeline_id": "sample"}),
        ("api/job_status", {}),
    ],
)
def test_events_name_their_job(event: str, subject: dict[str, Any]) -> None:
    assert event_subject(json.loads((EVENTS / f"{event}.json").read_text())) == subject


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"task_id": ["x"]},
        {"detail": 3},
        {"detail": {"object": "x"}},
        {"key": None},
        {"Records": []},
        {"Records": [{"body": "["}]},
    ],
)
def test_strange_events_have_no_subject(event: dict[str, Any]) -> None:
    assert event_subject(event) == {}


@pytest.mark.parametrize(
    ("key", "task_id"), [("jobs/a/request.json", "a"), ("jobs/a", None), ("work/a/000/x", None), ("jobs/../x", None)]
)
def test_a_key_in_a_job_names_it(key: str, task_id: str | None) -> None:
    assert keys.job_of(key) == task_id


@pytest.fixture
def fresh_wiring(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process's logger and metrics as new, and the library's logger put back afterwards."""
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "stack")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "structureflow")
    library = logging.getLogger("structureflow")
    before = library.handlers, library.level, library.propagate
    for cached in (wiring.logger, wiring.metrics):
        cached.cache_clear()
    yield
    library.handlers, library.level, library.propagate = before
    for cached in (wiring.logger, wiring.metrics):
        cached.cache_clear()


@pytest.mark.usefixtures("fresh_wiring")
def test_every_line_carries_the_ids_of_its_own_event(capsys: pytest.CaptureFixture[str]) -> None:
    @wiring.instrumented
    def handler(event: dict[str, Any], context: Any) -> None:
        logging.getLogger("structureflow.frames.cache").warning("from the library")
        wiring._count("Fallbacks", 2)
        if event["index"] == 1:
            raise JobStateError("no record", key="jobs/a/job.json")

    handler({"task_id": "a", "run_id": "r", "index": 0}, CONTEXT)
    with pytest.raises(JobStateError):
        handler({"task_id": "b", "index": 1}, CONTEXT)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    logged = [line for line in lines if "message" in line]
    assert [(line["task_id"], line["segment"], line.get("run_id")) for line in logged] == [
        ("a", 0, "r"),
        ("b", 1, None),
        ("b", 1, None),
    ]
    assert logged[2]["error"]["code"] == "JobStateError"
    counted = [line for line in lines if "_aws" in line]
    assert [line["Fallbacks"] for line in counted] == [[2.0], [2.0]]
    assert counted[0]["service"] == "stack"

"""The function that answers what needs pixels: its own routes and no others, within its time, memory and disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from structureflow.api.app import light_api, media_api, whole_api
from structureflow.jobs import preview
from structureflow.jobs.deadline import Deadline
from structureflow.limits import STOP_BEFORE_END_S
from structureflow.testing.jobs import JobRunner
from structureflow_local.cloud.template import load_template
from tests.functional.test_api_screens import event

REPO = Path(__file__).resolve().parents[2]
CONTEXT = SimpleNamespace(function_name="api", memory_limit_in_mb=3008, invoked_function_arn="x", aws_request_id="1")
Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def ask(runner: JobRunner, request_document: dict[str, Any]) -> Ask:
    """Asks for a preview of the request, changed, of a function with some changed services."""

    def call(changes: dict[str, Any] | None = None, **services: Any) -> tuple[int, Any]:
        api = media_api(lambda: dataclasses.replace(runner.services, **services))
        body = json.dumps({"request": request_document | (changes or {}), "segment": 0, "frames": 2})
        reply = api.answer(event("POST", "/previews", {}, body), CONTEXT)
        return reply["statusCode"], json.loads(reply["body"])

    return call


def test_two_functions_share_the_routes_and_describe_all(runner: JobRunner) -> None:
    whole, light, media = (make(lambda: runner.services) for make in (whole_api, light_api, media_api))
    described = [api.answer(event("GET", "/openapi.json", {}), CONTEXT)["body"] for api in (whole, light, media)]
    assert {"/previews", "/archives", "/jobs/{task_id}", "/"} <= set(json.loads(described[0])["paths"])
    assert described == [described[0]] * 3
    for method, path in (
        ("GET", "/archives"),
        ("GET", "/archives/meta"),
        ("GET", "/archives/flow"),
        ("POST", "/previews"),
    ):
        reply = light.answer(event(method, path, {}, "{}"), CONTEXT)
        assert json.loads(reply["body"])["code"] == "RouteNotFoundError", path
        reply = media.answer(event(method, path, {}, "{}"), CONTEXT)
        assert reply["statusCode"] in {200, 400}, path
    for method, path in (("GET", "/jobs"), ("DELETE", "/timelines/reel"), ("PUT", "/jobs/t1")):
        reply = media.answer(event(method, path, {}, "{}"), CONTEXT)
        assert json.loads(reply["body"])["code"] == "RouteNotFoundError", path


def test_api_gateway_sends_each_route_to_the_function_that_has_it() -> None:
    functions = load_template(REPO / "template.yaml").functions
    routes = {(route.method, route.path) for route in functions["PreviewFunction"].routes}
    assert routes == {
        ("POST", "/previews"),
        ("POST", "/forecasts"),
        ("GET", "/archives"),
        ("GET", "/archives/{proxy+}"),
    }
    assert functions["PreviewFunction"].timeout_s < functions["ApiFunction"].timeout_s, "for its cold start is longer"


def test_a_short_call_keeps_three_quarters_of_its_time_for_work() -> None:
    deadline = Deadline()
    deadline.restart(lambda: 24.0)
    assert deadline.left_s == 18.0
    deadline.restart(lambda: 900.0)
    assert deadline.left_s == 900.0 - STOP_BEFORE_END_S
    deadline.restart(None)
    assert deadline.left_s is None


def test_a_preview_that_takes_too_long_says_so_in_time(ask: Ask) -> None:
    """While there is time to answer: a killed function leaves the gateway's own words."""
    assert ask()[0] == 200
    left_s = iter([24.0, 20.0, 15.0, 10.0] + [1.0] * 100)
    deadline = Deadline()
    deadline.restart(lambda: next(left_s))
    status, said = ask(deadline=deadline)
    assert (status, said["code"]) == (503, "DeadlineError")


def test_a_preview_is_refused_that_needs_more_memory_than_there_is(ask: Ask) -> None:
    status, said = ask(memory_mb=512)
    assert (status, said["code"]) == (409, "MemoryLimitError")
    assert ask(memory_mb=1769)[0] == 200


def test_files_that_take_too_long_to_fetch_are_refused(
    ask: Ask, runner: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    guides = sum(runner.storage.head(f"images/{name}.png").size_bytes for name in ("a", "b"))
    monkeypatch.setattr(preview, "MAX_PREVIEW_BYTES", guides)
    assert ask()[0] == 200
    padded = runner.storage.get("videos/pan.mp4").data + bytes(guides)
    runner.storage.put("videos/large.mp4", padded)
    status, said = ask({"structure_video": "videos/large.mp4"})
    assert (status, said["code"]) == (400, "InvalidRequestError")
    assert said["message"].startswith("structure_video")
    monkeypatch.setattr(preview, "MAX_PREVIEW_BYTES", guides - 1)
    status, said = ask()
    assert (status, said["code"]) == (400, "InvalidRequestError")
    assert said["message"].startswith("segments.0.guides")

"""The API, from API Gateway's golden events to answers: state, outputs, pages, and each error's status."""

from __future__ import annotations

import base64
import dataclasses
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from structureflow import errors, keys
from structureflow.api.queries import parse_sequences
from structureflow.api.serving import status_code
from structureflow.jobs.rebuild_timeline import RebuildTimelineInput, rebuild_timeline
from structureflow.runtime import wiring
from structureflow.testing.jobs import JobRunner
from structureflow.testing.videos import pan_frames, write_clip

REPO = Path(__file__).resolve().parents[2]
Ask = Callable[..., tuple[int, Any]]


def golden(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((REPO / "events" / "api" / f"{name}.json").read_text())
    return event


@pytest.fixture
def ask(runner: JobRunner, monkeypatch: pytest.MonkeyPatch, request_document: dict[str, Any]) -> Ask:
    """Gives status and answer of a golden event, changed as asked, on a finished job "sample" of timeline "sample"."""
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "test")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "test")
    overlays = {"overlays": ["guidance"]}
    names = {"task_id": "sample", "timeline_id": "sample"}
    assert runner.run("sample", request_document | names | overlays).state == "done"
    for cached in (wiring.logger, wiring.metrics):
        cached.cache_clear()
    spec = importlib.util.spec_from_file_location("api_app", REPO / "functions" / "api" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    monkeypatch.setattr(app, "services", lambda: runner.services)
    context = SimpleNamespace(
        function_name="api", memory_limit_in_mb=1024, invoked_function_arn="arn:aws:lambda:x", aws_request_id="1"
    )

    def call(
        name: str, *, path: str | None = None, query: dict[str, str] | None = None, origin: str | None = None
    ) -> tuple[int, Any]:
        event = golden(name)
        if origin is not None:
            event["headers"]["origin"] = origin
        if path is not None:
            event["rawPath"] = event["requestContext"]["http"]["path"] = path
        if query is not None:
            event["queryStringParameters"] = query
        reply = app.handler(event, context)
        assert reply["headers"]["Content-Type"] == "application/json"
        assert reply["headers"]["X-Content-Type-Options"] == "nosniff"
        assert reply["headers"]["Content-Security-Policy"].startswith("default-src 'none'")
        assert reply["headers"]["Cache-Control"] == "no-store"
        return reply["statusCode"], json.loads(reply["body"])

    return call


def test_a_job_shows_its_state_manifest_and_outputs(ask: Ask, runner: JobRunner) -> None:
    status, job = ask("job_status")
    assert (status, job["state"], job["segments"]) == (200, "done", 2)
    status, manifest = ask("job_manifest")
    assert (status, [one["index"] for one in manifest["segments"]]) == (200, [0, 1])
    status, outputs = ask("job_outputs")
    assert (status, outputs["expires_s"]) == (200, 600)
    made = {key.removeprefix("jobs/sample/") for key in runner.keys("jobs/sample/")}
    videos = {name for name in made if name.endswith(".mp4")}
    assert set(outputs["urls"]) == videos | {"report.html", "structure_flows_sample.npz"}


def test_a_page_of_frames_holds_thumbnails_of_the_asked_width(ask: Ask) -> None:
    status, page = ask("timeline_frames")
    assert (status, page["total"], page["next_page"]) == (200, 4, None)
    assert [frame["sequence"] for frame in page["frames"]] == [0, 1, 2, 3]
    assert {(frame["width_px"], frame["height_px"]) for frame in page["frames"]} == {(64, 38)}
    assert all(base64.b64decode(frame["jpeg_base64"])[:2] == b"\xff\xd8" for frame in page["frames"])


def test_pages_of_frames_and_urls_lead_to_the_end(ask: Ask) -> None:
    seen: list[int] = []
    page = None
    for _ in range(9):
        query = {"limit": "4"} | ({"page": page} if page else {})
        status, found = ask("timeline_frame_urls", query=query)
        assert status == 200
        seen += [frame["sequence"] for frame in found["frames"]]
        page = found["next_page"]
        if page is None:
            break
    assert seen == list(range(9))


def test_overlays_are_paged(ask: Ask) -> None:
    status, first = ask("timeline_overlays", query={"job_id": "sample", "stage": "guidance", "limit": "20"})
    assert (status, len(first["overlays"]), first["next_page"]) == (200, 20, "20")
    _, second = ask("timeline_overlays", query={"job_id": "sample", "limit": "20", "page": "20"})
    assert (len(second["overlays"]), second["next_page"]) == (4, None)
    both = [(one["sequence"], one["name"]) for page in (first, second) for one in page["overlays"]]
    assert len(set(both)) == 24


def test_clearing_removes_frames_and_overlays(ask: Ask, runner: JobRunner) -> None:
    assert ask("clear_timeline", query={})[1]["removed"] == 10
    assert ask("timeline_frames")[0] == 404
    assert len(runner.keys("cache/timelines/")) == 24
    assert ask("clear_timeline")[1]["removed"] == 24
    assert runner.keys("cache/timelines/") == []


@pytest.mark.parametrize(
    ("name", "changes", "status", "code"),
    [
        ("job_status", {"path": "/jobs/nobody"}, 404, "ObjectNotFoundError"),
        ("job_status", {"path": "/jobs/a..b"}, 400, "InvalidIdError"),
        ("job_manifest", {"path": "/jobs/nobody/manifest"}, 404, "ObjectNotFoundError"),
        ("job_outputs", {"query": {"expires_s": "0"}}, 400, "InvalidRequestError"),
        ("job_outputs", {"query": {"colour": "red"}}, 400, "InvalidRequestError"),
        ("timeline_frames", {"path": "/timelines/none/frames"}, 404, "TimelineNotFoundError"),
        ("timeline_frames", {"query": {"sequences": "3-1"}}, 400, "InvalidRequestError"),
        ("timeline_frames", {"query": {"sequences": "0-999999999"}}, 400, "InvalidRequestError"),
        ("timeline_frames", {"query": {"sequences": "77"}}, 404, "FrameNotFoundError"),
        ("timeline_frames", {"query": {"page": "x"}}, 400, "FrameCacheError"),
        ("timeline_frames", {"query": {"page": "1" * 5000}}, 400, "FrameCacheError"),
        ("timeline_frame_urls", {"query": {"page": "1" * 5000}}, 400, "FrameCacheError"),
        ("timeline_frames", {"query": {"sequences": "1" * 5000}}, 400, "InvalidRequestError"),
        ("timeline_frames", {"query": {"limit": "1" * 5000}}, 400, "InvalidRequestError"),
        ("timeline_frames", {"query": {"width_px": "1" * 5000}}, 400, "InvalidRequestError"),
        ("timeline_frames", {"query": {"n" * 5000: "1"}}, 400, "InvalidRequestError"),
        ("timeline_frames", {"query": {str(n): "1" for n in range(4000)}}, 400, "InvalidRequestError"),
        ("timeline_overlays", {"query": {"page": "1" * 5000}}, 400, "InvalidRequestError"),
        ("timeline_overlays", {"query": {"page": "9" * 30}}, 400, "InvalidRequestError"),
        ("timeline_overlays", {"query": {"job_id": "j" * 5000}}, 400, "InvalidIdError"),
        ("timeline_overlays", {"query": {"stage": "flow"}}, 400, "InvalidKeyError"),
        ("timeline_overlays", {"query": {"stage": "colours"}}, 400, "InvalidRequestError"),
        ("clear_timeline", {"query": {"overlays": "perhaps"}}, 400, "InvalidRequestError"),
    ],
)
def test_errors_have_their_status_and_name(ask: Ask, name: str, changes: Any, status: int, code: str) -> None:
    found, body = ask(name, **changes)
    assert (found, body["code"]) == (status, code)
    assert body["message"]
    assert len(json.dumps(body)) < 2_000


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://abcdefghij.execute-api.us-east-1.evil"])
def test_pages_of_other_sites_are_refused(ask: Ask, origin: str) -> None:
    for name in ("job_status", "job_outputs", "clear_timeline"):
        status, body = ask(name, origin=origin)
        assert (status, body["code"]) == (403, "ForeignOriginError")
    assert ask("timeline_frames")[0] == 200


def test_pages_of_the_own_host_may_ask(ask: Ask) -> None:
    host = golden("job_status")["requestContext"]["domainName"]
    assert ask("job_status", origin=f"https://{host}")[0] == 200


def test_an_unknown_path_is_not_found(ask: Ask) -> None:
    assert ask("job_status", path="/secrets")[0] == 404


def test_a_damaged_document_is_no_missing_one(ask: Ask, runner: JobRunner) -> None:
    runner.storage.put(keys.job_status("sample"), b"{}")
    assert ask("job_status")[0] == 409


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.TransientStorageError("x"), 503),
        (errors.FrameCacheConflictError("x"), 503),
        (errors.FrameCorruptError("x"), 500),
        (errors.StorageError("x"), 500),
        (errors.SettingsError("x"), 500),
        (errors.InputNotAllowedError("x"), 403),
        (RuntimeError("x"), 500),
    ],
)
def test_status_codes_say_whose_fault_it_is(error: Exception, status: int) -> None:
    assert status_code(error) == status


def test_sequences_are_inclusive_ranges() -> None:
    assert parse_sequences("0-2, 7,5") == [0, 1, 2, 7, 5]


def test_a_timeline_is_rebuilt_from_its_chunks(runner: JobRunner, tmp_path: Path) -> None:
    for number, frames in ((2, 3), (10, 2)):
        write_clip(tmp_path / "chunk.mp4", pan_frames(frames, 96, 160, dx=1, dy=0), fps=25)
        runner.storage.put_file(f"{keys.timeline_chunks_prefix('reel')}{number}.mp4", tmp_path / "chunk.mp4")
    rebuilt = rebuild_timeline(RebuildTimelineInput(timeline_id="reel"), runner.services)
    assert (rebuilt.frames, rebuilt.chunks) == (5, ("2.mp4", "10.mp4"))
    assert len(runner.keys(keys.timeline_frames_prefix("reel"))) == 5
    assert runner.counts["TimelinesRebuilt"] == 1
    with pytest.raises(errors.TimelineNotFoundError):
        rebuild_timeline(RebuildTimelineInput(timeline_id="none"), runner.services)


def test_pages_of_allowed_origins_may_ask(ask: Ask, runner: JobRunner) -> None:
    foreign = "https://screens.example.org"
    assert ask("job_status", origin=foreign)[0] == 403
    runner.services = dataclasses.replace(runner.services, allowed_origins=(foreign,))
    assert ask("job_status", origin=foreign)[0] == 200
    assert ask("job_status", origin="https://Screens.Example.Org")[0] == 200
    for other in ("https://screens.example.org.evil.net", "http://screens.example.org", "null", ""):
        assert ask("job_status", origin=other)[0] == 403, other


def test_the_api_describes_itself_by_what_validates_it(ask: Ask) -> None:
    status, document = ask("job_status", path="/openapi.json")
    assert (status, document["openapi"][:2]) == (200, "3.")
    assert {f"{method} {path}" for path, one in document["paths"].items() for method in one} == {
        "get /",
        "get /page/{name}",
        "get /docs",
        "get /docs/{name}",
        "get /archives",
        "get /archives/meta",
        "get /archives/flow",
        "post /previews",
        "post /forecasts",
        "get /about",
        "get /inputs",
        "get /jobs",
        "put /jobs/{task_id}",
        "get /jobs/{task_id}",
        "post /jobs/{task_id}/check",
        "post /jobs/{task_id}/uploads",
        "get /jobs/{task_id}/request",
        "get /jobs/{task_id}/downloads",
        "get /jobs/{task_id}/segments",
        "get /jobs/{task_id}/segments/{index}/frames",
        "get /jobs/{task_id}/manifest",
        "get /jobs/{task_id}/outputs",
        "get /timelines",
        "get /timelines/{timeline_id}",
        "get /timelines/{timeline_id}/frames",
        "get /timelines/{timeline_id}/frames/{sequence}",
        "get /timelines/{timeline_id}/frames/urls",
        "get /timelines/{timeline_id}/damaged",
        "get /timelines/{timeline_id}/overlays",
        "get /timelines/{timeline_id}/overlays/jobs",
        "post /timelines/{timeline_id}/rebuild",
        "delete /timelines/{timeline_id}",
    }
    said = {one["summary"] for path in document["paths"].values() for one in path.values()}
    assert "A page of frames as base64 JPEGs." in said
    assert all(len(text) > 10 and "{" not in text for text in said), said
    frames = document["paths"]["/timelines/{timeline_id}/frames"]["get"]
    named = {one["name"] for one in frames["parameters"]}
    assert named == {"timeline_id", "sequences", "page", "limit", "width_px", "quality", "damaged"}
    assert frames["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/FramePage")
    bodies = {
        f"{method} {path}": one[method]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[
            2
        ]
        for path, one in document["paths"].items()
        for method in one
        if method in {"post", "put"}
    }
    assert bodies == {
        "put /jobs/{task_id}": "JobRequest",
        "post /jobs/{task_id}/check": "JobRequest",
        "post /jobs/{task_id}/uploads": "UploadWish",
        "post /timelines/{timeline_id}/rebuild": "RebuildWish",
        "post /previews": "PreviewWish",
        "post /forecasts": "ForecastWish",
    }
    for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in document["components"]["schemas"], name


def test_unknown_parameters_are_named_and_known_ones_told(ask: Ask) -> None:
    status, body = ask("timeline_frames", query={"widht_px": "64"})
    assert (status, body["code"]) == (400, "InvalidRequestError")
    assert body["message"].startswith("widht_px: unknown; expected ")
    assert {"sequences", "page", "limit", "width_px", "quality"} <= set(
        body["message"].partition("expected ")[2].split(", ")
    )
    status, body = ask("timeline_frames", query={"limit": "0"})
    assert (status, body["message"]) == (400, "limit: expected at least 1, got '0'")

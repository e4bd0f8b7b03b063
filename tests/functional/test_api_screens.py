"""What the web page asks the API for: lists of jobs and timelines, a job's segments and frames, what is damaged."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from structureflow import keys
from structureflow.api import serving
from structureflow.api.app import whole_api
from structureflow.jobs import live_keys
from structureflow.limits import MAX_SEGMENTS
from structureflow.models.results import JobStatus, PartProgress, now
from structureflow.testing.jobs import JobRunner
from structureflow.testing.storage import CountingStorage

Ask = Callable[..., Any]
CONTEXT = SimpleNamespace(function_name="api", memory_limit_in_mb=1024, invoked_function_arn="x", aws_request_id="1")


def event(method: str, path: str, query: dict[str, str], body: str | None = None) -> dict[str, Any]:
    found = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "api.example", "content-type": "application/json"},
        "queryStringParameters": query,
        "requestContext": {
            "domainName": "api.example",
            "http": {"method": method, "path": path},
            "stage": "$default",
            "requestId": "1",
        },
        "isBase64Encoded": False,
    }
    return found if body is None else found | {"body": body}


@pytest.fixture
def ask(runner: JobRunner) -> Ask:
    """Gives the answer to a request, which is to have a status."""
    api = whole_api(lambda: runner.services)

    def call(path: str, status: int = 200, method: str = "GET", **query: Any) -> Any:
        reply = api.answer(event(method, path, {name: str(value) for name, value in query.items()}), CONTEXT)
        assert reply["statusCode"] == status, reply["body"]
        return json.loads(reply["body"]) if reply["headers"]["Content-Type"] == "application/json" else reply

    return call


@pytest.fixture
def done(runner: JobRunner, request_document: dict[str, Any]) -> JobRunner:
    """A store with one finished job of two segments, on the timeline "reel"."""
    names: dict[str, Any] = {
        "timeline_id": "reel",
        "segment_overlap": 3,
        "anchors": "both",
        "outputs": ["visibility"],
        "overlays": ["guidance", "flow"],
    }
    assert runner.run("t1", request_document | names).state == "done"
    return runner


def test_about_says_what_a_request_may_name(ask: Ask) -> None:
    found = ask("/about")
    assert {one["name"] for one in found["targets"]} >= {"vace", "ltx", "ttm"}
    assert (found["limits"]["max_segments"], found["store"]) == (MAX_SEGMENTS, "memory://memory")
    assert "visibility" in found["masks"]
    assert ask("/about", 400, colour="red")["code"] == "InvalidRequestError"


def test_jobs_are_listed_in_pages_with_state_time_and_error(
    ask: Ask, done: JobRunner, request_document: dict[str, Any]
) -> None:
    done.run("wrong", {**request_document, "task_id": "wrong", "treatment": "none"})
    done.put_request("asked", request_document)
    done.storage.put("jobs/inputs-only/inputs/a.mp4", b"x")
    first = ask("/jobs", limit=2)
    assert [row["task_id"] for row in first["jobs"]] == ["asked"]
    second = ask("/jobs", limit=2, page=first["next_page"])
    assert second["next_page"] is None
    rows = {row["task_id"]: row for row in (*first["jobs"], *second["jobs"])}
    assert {name: row["state"] for name, row in rows.items()} == {"asked": "requested", "t1": "done", "wrong": "failed"}
    assert (rows["t1"]["segments"], rows["t1"]["segments_done"]) == (2, 2)
    assert rows["t1"]["elapsed_s"] >= 0
    assert rows["wrong"]["error"]["code"] == "InvalidRequestError"
    assert ask("/jobs", 400, page="a/b")["code"] == "InvalidRequestError"


def test_a_running_job_tells_its_parts(ask: Ask, done: JobRunner) -> None:
    status = done.status("t1")
    running = status.model_copy(update={"state": "running", "stage": "segments", "run_id": "r2", "segments": 3})
    done.storage.put(keys.job_status("t1"), running.to_json())

    def write(index: int, count: int, *, ended: bool) -> None:
        part = PartProgress(step="segment", index=index, done=count, total=12, updated_at=now())
        done.storage.put(live_keys.run_progress("t1", "r2", "segment", index, ended=ended), part.to_json())

    write(0, 12, ended=True)
    # left by a try that died
    write(0, 3, ended=False)
    write(2, 5, ended=False)
    done.storage.put("jobs/t1/runs/r2/progress/live/segment-001.json", b"nonsense")
    found = ask("/jobs/t1")
    assert found["progress"]["segments_done"] == 1
    assert [(one["step"], one["index"], one["done"], one["total"]) for one in found["progress"]["parts"]] == [
        ("segment", 2, 5, 12)
    ]
    assert found["elapsed_s"] > 0
    (row,) = ask("/jobs")["jobs"]
    assert (row["state"], row["segments"], row["segments_done"]) == ("running", 3, 1)


@pytest.mark.parametrize("jobs", [3, 90])
def test_the_list_says_what_running_jobs_have_cost_by_few_reads(ask: Ask, runner: JobRunner, jobs: int) -> None:
    store = runner.storage
    for number in range(jobs):
        task_id = f"live-{number:03d}"
        status = JobStatus(task_id=task_id, run_id="r1", state="running", stage="segments", updated_at=now())
        status = status.model_copy(update={"segments": 40, "cost_usd": 0.25})
        store.put(keys.job_status(task_id), status.to_json())
        for index in range(12):
            ended = index < 8
            part = PartProgress(
                step="segment", index=index, done=1, total=2, updated_at=now(), cost_usd=0.5 if ended else 0.125
            )
            store.put(live_keys.run_progress(task_id, "r1", "segment", index, ended=ended), part.to_json())
    counting = CountingStorage(store)
    runner.services = dataclasses.replace(runner.services, storage=counting)
    rows = ask("/jobs", limit=200)["jobs"]
    costs = [row["cost_usd"] for row in rows]
    assert {row["segments_done"] for row in rows} == {8}
    if jobs == 3:
        assert costs == [0.25 + 8 * 0.5 + 4 * 0.125] * jobs
        assert counting.requests["get"] == jobs + 3 * 4, "a status each, and four parts each"
    else:
        assert sorted(costs) == [0.25] * 26 + [0.25 + 8 * 0.5] * 64
        assert counting.requests["get"] == jobs + 64, "a status each, and 64 parts of all"


def test_an_older_status_is_read(ask: Ask, done: JobRunner) -> None:
    """One without the fields of 2026-11-26."""
    status = done.status("t1").model_dump(mode="json", exclude={"started_at", "cost_usd"}, exclude_none=True)
    done.storage.put(keys.job_status("t1"), json.dumps(status).encode())
    assert JobStatus.model_validate(status).started_at is None
    assert ask("/jobs/t1")["elapsed_s"] is None


def test_a_job_tells_what_it_was_asked_for(ask: Ask, done: JobRunner) -> None:
    found = ask("/jobs/t1/request")
    assert (found["timeline_id"], found["resolution"], found["request"]["fps"]) == ("reel", [160, 96], 16)
    assert [(one["timeline_id"], one["frames"]) for one in found["sources"]] == [("reel", 9)]
    assert ask("/jobs/none/request", 404)["code"] == "ObjectNotFoundError"


def test_segments_name_each_frame_once_and_link_their_files(ask: Ask, done: JobRunner) -> None:
    page = ask("/jobs/t1/segments", limit=1)
    assert (page["total"], page["next_page"], page["timeline_id"]) == (2, "1", "reel")
    (segment,) = page["segments"]
    frames = sorted(
        frame
        for kind in ("guided", "filled", "generated")
        for first, last in segment[kind]
        for frame in range(first, last + 1)
    )
    assert frames == list(range(segment["frames"]))
    assert set(segment["videos"]) == {"guide", "mask", "visibility"}
    assert segment["videos"]["guide"]["path"] == "segments/000/guide.mp4"
    assert {file["path"] for file in segment["files"]} >= {"segments/000/guide.mp4", "segments/000/mask.mp4"}
    (second,) = ask("/jobs/t1/segments", page=1, limit=1)["segments"]
    assert (second["index"], second["first_on_timeline"]) == (1, segment["frames"] - 3)
    assert page["flows"]["key"] == "jobs/t1/structure_flows_t1.npz"


def test_frames_of_a_segment_are_columns(ask: Ask, done: JobRunner) -> None:
    found = ask("/jobs/t1/segments/1/frames")
    count = found["frames"]
    columns = ("state", "kept", "path_error", "structure_frame", "structure_timeline")
    assert {len(found[name]) for name in columns} == {count}
    assert found["state"][:3] == ["guided"] * 3
    played = [frame for frame, state in zip(found["structure_frame"], found["state"], strict=True) if state != "guided"]
    assert played == sorted(played)
    assert set(played) <= set(range(9))
    assert {one for one in found["structure_timeline"] if one} == {"reel"}
    assert ask("/jobs/t1/segments/7/frames", 404)["code"] == "ObjectNotFoundError"
    assert ask("/jobs/t1/segments/x/frames", 400)["code"] == "InvalidRequestError"


def test_downloads_are_grouped_by_who_takes_them(ask: Ask, done: JobRunner) -> None:
    groups = {group["consumer"]: group["files"] for group in ask("/jobs/t1/downloads")["groups"]}
    assert list(groups)[-2:] == ["report", "flows"]
    every = {file["path"] for files in groups.values() for file in files}
    assert every == set(ask("/jobs/t1/outputs")["urls"])


def test_a_timeline_is_described(ask: Ask, done: JobRunner) -> None:
    (row,) = ask("/timelines")["timelines"]
    assert (row["timeline_id"], row["frames"], row["width_px"], row["height_px"]) == ("reel", 9, 160, 96)
    found = ask("/timelines/reel")
    assert (found["frames"], found["first_sequence"], found["last_sequence"], found["contiguous"]) == (9, 0, 8, True)
    assert found["duration_s"] == pytest.approx(9 / 25, abs=0.01)
    assert [chunk["frames"] for chunk in found["chunks"]] == [9]
    assert found["can_rebuild"] is False
    done.storage.put("timelines/reel/chunks/1.mp4", b"x")
    assert ask("/timelines/reel")["can_rebuild"] is True
    jobs = ask("/timelines/reel/overlays/jobs")["jobs"]
    assert jobs == [{"job_id": "t1", "stages": ["flow", "guidance"]}]


def test_a_frame_may_be_kept_while_its_timeline_is_the_same(ask: Ask, done: JobRunner) -> None:
    etag = ask("/timelines/reel")["etag"]
    for query, kept in (({}, False), ({"etag": etag}, True), ({"etag": "other"}, False)):
        reply = ask("/timelines/reel/frames/3", width_px=64, **query)
        assert (reply["headers"]["Content-Type"], reply["isBase64Encoded"]) == ("image/jpeg", True)
        assert ("immutable" in reply["headers"]["Cache-Control"]) is kept


def test_damaged_frames_are_named_beside_the_whole_ones(ask: Ask, done: JobRunner) -> None:
    done.storage.delete([keys.timeline_frame("reel", 2)])
    done.storage.put(keys.timeline_frame("reel", 5), b"no jpeg")
    found = ask("/timelines/reel/damaged")
    assert (found["whole"], found["missing"], found["changed"], found["total"]) == (False, [2], [5], 9)
    assert ask("/timelines/reel/frames", 404, width_px=64)["code"] == "FrameNotFoundError"
    page = ask("/timelines/reel/frames", width_px=64, damaged="list", limit=6)
    assert [frame["sequence"] for frame in page["frames"]] == [0, 1, 3, 4]
    assert [(one["sequence"], one["code"]) for one in page["damaged"]] == [
        (2, "FrameNotFoundError"),
        (5, "FrameCorruptError"),
    ]
    rest = ask("/timelines/reel/frames", width_px=64, damaged="list", limit=6, page=page["next_page"])
    assert [frame["sequence"] for frame in rest["frames"]] == [6, 7, 8]
    only = ask("/timelines/reel/frames", sequences="2", damaged="list")
    assert (only["frames"], len(only["damaged"])) == ([], 1)


def test_a_manifest_is_read_once_while_it_stays(done: JobRunner, ask: Ask) -> None:
    counting = CountingStorage(done.storage)
    done.services = dataclasses.replace(done.services, storage=counting)
    for _ in range(3):
        ask("/timelines/reel/frames", sequences="0", width_px=64)
    # a manifest and a frame at first, a frame each after that
    assert counting.requests["get"] == 4
    assert ask("/timelines/reel", method="DELETE")["removed"] == 10
    assert ask("/timelines/reel/frames", 404)["code"] == "TimelineNotFoundError"


def test_a_reply_that_is_too_large_says_so(ask: Ask, done: JobRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_REPLY_BYTES", 1000)
    assert ask("/jobs/t1/manifest", 413)["code"] == "ReplyTooLargeError"
    assert ask("/timelines/reel/frames/3", 413)["code"] == "ReplyTooLargeError"

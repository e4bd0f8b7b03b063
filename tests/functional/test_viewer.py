"""The viewer's pages over an in-memory store."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import Client

from structureflow.models.results import JobRecord
from structureflow.testing.jobs import JobRunner
from structureflow_local.viewer import Viewer


@pytest.fixture
def client(runner: JobRunner, request_document: dict[str, Any]) -> Client:
    runner.run("t1", {**request_document, "overlays": ["guidance"]})
    runner.run("broken", {**request_document, "task_id": "broken", "treatment": "none"})
    return Client(Viewer(runner.storage))


def timeline(runner: JobRunner) -> str:
    return JobRecord.model_validate_json(runner.storage.get("jobs/t1/job.json").data).timeline_id


def test_home_lists_jobs_and_timelines(client: Client, runner: JobRunner) -> None:
    page = client.get("/").text
    assert "<a href='/jobs/t1/'>t1</a></td><td class='done'>done" in page
    assert "failed: InvalidRequestError" in page
    assert f"/timelines/{timeline(runner)}/'" in page
    assert "<td>9</td><td>1</td>" in page


def test_a_timeline_shows_its_frames_and_overlays(client: Client, runner: JobRunner) -> None:
    page = client.get(f"/timelines/{timeline(runner)}/").text
    assert page.count("alt='frame ") == 9
    assert "8 · 0.320 s · source" in page
    assert page.count("alt='guidance ") == 24


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("frames/3.jpg?width=64", "image/jpeg"),
        ("overlays/t1/guidance/000003_segment000.png", "image/png"),
    ],
)
def test_pictures_are_served(client: Client, runner: JobRunner, path: str, kind: str) -> None:
    answer = client.get(f"/timelines/{timeline(runner)}/{path}")
    assert (answer.status_code, answer.mimetype) == (200, kind)
    assert len(answer.data) > 300


def test_videos_are_served_by_range(client: Client, runner: JobRunner) -> None:
    whole = client.get("/jobs/t1/segments/000/guide.mp4")
    part = client.get("/jobs/t1/segments/000/guide.mp4", headers={"Range": "bytes=10-19"})
    assert whole.status_code == 200
    assert (part.status_code, part.data) == (206, whole.data[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(whole.data)}"


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/none/",
        "/jobs/a..b/",
        "/timelines/none/",
        "/jobs/t1/none.json",
        "/elsewhere",
        "/timelines/none/frames/1.jpg",
    ],
)
def test_what_is_not_there_is_a_404(client: Client, path: str) -> None:
    assert client.get(path).status_code == 404


def test_names_are_escaped(runner: JobRunner) -> None:
    runner.storage.put("jobs/<b>/status.json", b"{}")
    assert "<b>" not in Client(Viewer(runner.storage)).get("/").text

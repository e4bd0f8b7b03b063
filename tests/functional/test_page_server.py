"""The server of the web page over an in-memory store: the API's routes, objects by ranges, uploads to nowhere else."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from structureflow.api import page_files
from structureflow.errors import PageFileNotFoundError
from structureflow.testing.jobs import JobRunner
from structureflow_local.page_server import PageServer


@pytest.fixture
def client(runner: JobRunner, request_document: dict[str, Any]) -> Client:
    names = {"timeline_id": "reel"}
    assert runner.run("t1", {**request_document, **names, "overlays": ["guidance"]}).state == "done"
    assert runner.run("broken", {**request_document, "task_id": "broken", "treatment": "none"}).state == "failed"
    return Client(PageServer(runner.storage))


def document(answer: TestResponse, status: int = 200) -> Any:
    assert (answer.status_code, answer.mimetype) == (status, "application/json"), answer.text
    return json.loads(answer.data)


def test_the_routes_are_those_of_the_api(client: Client) -> None:
    rows = document(client.get("/jobs"))["jobs"]
    assert [(row["task_id"], row["state"]) for row in rows] == [("broken", "failed"), ("t1", "done")]
    assert "/jobs/{task_id}/segments" in document(client.get("/openapi.json"))["paths"]
    assert document(client.get("/nowhere"), 404)["code"] == "RouteNotFoundError"
    assert document(client.get("/jobs/none"), 404)["code"] == "ObjectNotFoundError"


def test_links_lead_to_this_server_whole_and_by_ranges(client: Client, runner: JobRunner) -> None:
    url = document(client.get("/jobs/t1/segments"))["segments"][0]["videos"]["guide"]["url"]
    stored = runner.storage.get("jobs/t1/segments/000/guide.mp4").data
    whole = client.get(url)
    assert (whole.status_code, whole.mimetype, whole.data) == (200, "video/mp4", stored)
    part = client.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.data) == (206, stored[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(stored)}"
    assert client.get(url, headers={"Range": f"bytes={len(stored)}-"}).status_code == 416
    assert client.get(url, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304


def test_overlays_and_frames_are_pictures(client: Client) -> None:
    overlays = document(client.get("/timelines/reel/overlays?stage=guidance&job_id=t1&sequences=3"))["overlays"]
    assert [one["sequence"] for one in overlays] == [3, 3]
    assert client.get(overlays[0]["url"]).data[:4] == b"\x89PNG"
    frame = client.get("/timelines/reel/frames/3?width_px=64")
    assert (frame.status_code, frame.mimetype, frame.data[:2]) == (200, "image/jpeg", b"\xff\xd8")
    assert client.get("/timelines/reel/frames/99").status_code == 404


@pytest.mark.parametrize("key", ["images/a.png", "work/.gpu/x.json", "jobs/../images/a.png", "jobs/t1/none.mp4", ""])
def test_only_what_the_api_links_is_served(client: Client, key: str) -> None:
    assert client.get(f"/objects/{key}").status_code in {400, 404}


INPUT = "/objects/jobs/t1/inputs/0000_a.mp4"


def test_only_files_for_jobs_are_taken_and_only_once(client: Client, runner: JobRunner) -> None:
    before = runner.keys()
    refused = ("jobs/t1/report.html", "jobs/t1/inputs/", "jobs/t1/inputs/a/b.mp4", "jobs/a..b/inputs/a.mp4", "cache/x")
    for key in refused:
        assert client.put(f"/objects/{key}", data=b"x").status_code == 403, key
    for method in ("POST", "DELETE", "PATCH"):
        assert client.open(INPUT, method=method, data=b"x").status_code == 404, method
    assert client.put(INPUT, data=b"").status_code == 400
    # more is said to come than comes
    assert client.put(INPUT, data=b"x", environ_overrides={"CONTENT_LENGTH": "5"}).status_code == 400
    assert runner.keys() == before
    assert client.put(INPUT, data=b"first").status_code == 200
    assert document(client.put(INPUT, data=b"other"), 409)["code"] == "JobExistsError"
    assert client.get(INPUT).data == b"first"


def test_a_body_that_is_too_long_is_not_read(client: Client) -> None:
    answer = client.post("/jobs", environ_overrides={"CONTENT_LENGTH": str(10**9)})
    assert answer.status_code == 413


def test_hostile_names_do_no_harm(client: Client, runner: JobRunner) -> None:
    for name in ("<b>", "a b", "..x", "'\"", "ü"):
        runner.storage.put(f"jobs/{name}/status.json", b"{}")
        runner.storage.put(f"cache/timelines/{name}/manifest.json", b"{}")
    rows = {row["task_id"]: row for row in document(client.get("/jobs"))["jobs"]}
    assert {rows[name]["state"] for name in ("<b>", "a b", "..x", "'\"", "ü")} == {"unreadable"}
    assert rows["t1"]["state"] == "done"
    timelines = {row["timeline_id"]: row for row in document(client.get("/timelines"))["timelines"]}
    assert timelines["<b>"]["error"]["code"] == "InvalidIdError"
    assert timelines["reel"]["frames"] == 9


def test_requests_are_answered_side_by_side(client: Client, runner: JobRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow one holds nobody up: it waits inside its work until the other one has been answered."""
    entered, released = threading.Event(), threading.Event()
    inner = type(runner.storage).list

    def slow(self: Any, prefix: str, *, start_after: str | None = None) -> Any:
        if "/reel/frames/" in prefix:
            entered.set()
            assert released.wait(20)
        return inner(self, prefix, start_after=start_after)

    monkeypatch.setattr(type(runner.storage), "list", slow)
    answers: list[TestResponse] = []
    thread = threading.Thread(target=lambda: answers.append(client.get("/timelines/reel/damaged")))
    thread.start()
    assert entered.wait(20)
    assert document(client.get("/jobs/t1"))["state"] == "done"
    released.set()
    thread.join()
    assert document(answers[0])["whole"] is True


def test_files_of_the_page_are_kept_until_they_change(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<!doctype html><p>é")
    (tmp_path / "page" / "app.js").write_text("1")
    (tmp_path / "page" / "secret.py").write_text("1")
    (tmp_path / "other.js").write_text("1")
    monkeypatch.setattr("structureflow.api.page_files.resources.files", lambda _: tmp_path)
    page_files.page_file.cache_clear()
    try:
        page = client.get("/")
        assert (page.status_code, page.text) == (200, "<!doctype html><p>é")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        policy = dict(rule.strip().split(" ", 1) for rule in page.headers["Content-Security-Policy"].split(";"))
        assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
        assert client.get("/", headers={"If-None-Match": page.headers["ETag"]}).status_code == 304
        assert client.get("/page/app.js").headers["Content-Type"].startswith("text/javascript")
        for name in ("secret.py", "..", "../other.js", "%2e%2e%2fother.js", "none.js", "APP.JS", ".js"):
            assert client.get(f"/page/{name}").status_code == 404, name
        with pytest.raises(PageFileNotFoundError):
            page_files.page_file("../other.js")
    finally:
        page_files.page_file.cache_clear()

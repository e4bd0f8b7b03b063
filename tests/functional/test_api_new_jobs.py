"""New jobs over the API, by its typed client and real HTTP: upload, check, preview, send, watch; what is refused."""

from __future__ import annotations

import base64
import doctest
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from structureflow import errors
from structureflow.api.client import ApiClient
from structureflow.jobs import live_keys
from structureflow.models.results import RebuildState
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import JobRunner, png
from structureflow.testing.videos import pan_frames, texture, write_clip
from structureflow_local.page_server import page_server


class Sent:
    """Carries jobs out at once, in the thread of the request."""

    def __init__(self, runner: JobRunner) -> None:
        self.runner = runner
        self.ids: list[str] = []

    def __call__(self, task_id: str) -> None:
        self.ids.append(task_id)
        if self.runner.orchestrate(task_id).state == "running":
            self.runner.segments(task_id)


@pytest.fixture
def sent(runner: JobRunner) -> Sent:
    return Sent(runner)


@pytest.fixture
def client(runner: JobRunner, sent: Sent) -> Iterator[ApiClient]:
    server = page_server(runner.storage, 0, sent=sent)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield ApiClient(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def document(request_document: dict[str, Any]) -> dict[str, Any]:
    changes = {"anchors": "both", "flow_span": "timeline", "timeline_id": "reel", "resolution": [320, 192]}
    return request_document | changes


def test_a_job_from_upload_to_downloads(
    client: ApiClient, sent: Sent, document: dict[str, Any], tmp_path: Path
) -> None:
    write_clip(tmp_path / "mon film.mp4", pan_frames(9, 96, 160, dx=2, dy=0), fps=25)
    (tmp_path / "a.png").write_bytes(png(texture(96, 160, seed=1)))
    video = client.upload("t1", tmp_path / "mon film.mp4")
    image = client.upload("t1", str(tmp_path / "a.png"))
    assert video.startswith("jobs/t1/inputs/")
    assert video.endswith("_mon_film.mp4")
    assert sent.runner.storage.get(video).data == (tmp_path / "mon film.mp4").read_bytes()
    request = document | {"structure_video": video, "images": [image, "images/b.png", image]}
    checked = client.check("t1", request)
    assert (checked.valid, checked.problems) == (True, ())
    assert [segment.unguided for segment in checked.segments] == [((3, 9),), ((3, 9),)]
    assert client.send("t1", request).state == "requested"
    assert sent.ids == ["t1"]
    seen: list[str] = []
    job = client.wait("t1", timeout_s=20, watch=lambda one: seen.append(one.state))
    assert (job.state, job.segments, seen) == ("done", 2, ["done"])
    assert [row.task_id for row in client.jobs()] == ["t1"]
    (first, _) = client.segments("t1")
    assert client.fetch(first.videos["guide"].url)[4:8] == b"ftyp"
    assert {file.name for group in client.downloads("t1").groups for file in group.files} >= {"guide.mp4", "mask.mp4"}
    assert client.segment_frames("t1", 0).frames == 12
    assert {one.kind for one in client.inputs()} == {"video", "image"}


def test_a_name_is_taken_once_unless_it_is_to_be_put_again(
    client: ApiClient, sent: Sent, document: dict[str, Any]
) -> None:
    client.send("t1", document)
    with pytest.raises(errors.JobExistsError, match="again=true"):
        client.send("t1", document | {"fps": 8})
    client.send("t1", document | {"fps": 8}, again=True)
    assert sent.ids == ["t1", "t1"]
    assert client.request("t1").request["fps"] == 8


def test_a_wrong_request_is_told_everything_and_put_nowhere(
    client: ApiClient, runner: JobRunner, document: dict[str, Any]
) -> None:
    wrong = document | {"fps": -1, "colour": "red"}
    checked = client.check("t1", wrong)
    assert not checked.valid
    assert len(checked.problems) == 2
    assert "colour" in " ".join(checked.problems)
    with pytest.raises(errors.InvalidRequestError, match="colour"):
        client.send("t1", wrong)
    with pytest.raises(errors.InvalidRequestError, match="task_id"):
        client.send("t2", document)
    assert runner.keys("jobs/") == []


@pytest.mark.parametrize(
    ("name", "size", "error"),
    [
        ("a.exe", 5, errors.InvalidRequestError),
        ("a", 5, errors.InvalidRequestError),
        ("a.png", 10**9, errors.InvalidRequestError),
        ("a.mp4", 0, errors.InvalidRequestError),
        ("", 5, errors.InvalidRequestError),
    ],
)
def test_uploads_that_no_job_could_use_are_refused(
    client: ApiClient, name: str, size: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        client._send(type(client.about()), "POST", "jobs/t1/uploads", {"name": name, "size_bytes": size})


def test_nested_nonsense_is_refused_and_harms_nobody(client: ApiClient) -> None:
    deep = b"[" * 100_000
    for method, path in (
        ("POST", "jobs/t1/uploads"),
        ("POST", "jobs/t1/check"),
        ("PUT", "jobs/t1"),
        ("POST", "previews"),
        ("POST", "timelines/reel/rebuild"),
    ):
        if path.endswith("check"):
            assert b'"valid":false' in client._ask(method, path, deep)
            continue
        with pytest.raises(errors.InvalidRequestError):
            client._ask(method, path, deep)
    assert client.about().sends


def test_a_store_that_is_only_shown_takes_no_jobs(runner: JobRunner, document: dict[str, Any]) -> None:
    server = page_server(runner.storage, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        client = ApiClient(f"http://127.0.0.1:{server.server_port}")
        assert not client.about().sends
        with pytest.raises(errors.NothingRunsError):
            client.send("t1", document)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert runner.keys("jobs/") == []
    with pytest.raises(errors.ApiUnreachableError):
        client.about()


def test_a_timeline_is_rebuilt_and_says_how_that_went(client: ApiClient, runner: JobRunner, tmp_path: Path) -> None:
    with pytest.raises(errors.TimelineNotFoundError):
        client.rebuild("reel")
    write_clip(tmp_path / "clip.mp4", pan_frames(5, 96, 160, dx=1, dy=0), fps=25)
    runner.storage.put_file("timelines/reel/chunks/1.mp4", tmp_path / "clip.mp4")
    client.rebuild("reel", quality=70)
    assert wait_for_rebuild(runner).state == "done"
    view = client.timeline("reel")
    assert (view.frames, view.quality) == (5, 70)
    assert view.rebuild is not None
    assert client.frame("reel", 2, width_px=64)[:2] == b"\xff\xd8"
    assert [frame.sequence for frame in client.thumbnails("reel", [1, 3]).frames] == [1, 3]
    assert client.damaged("reel").whole
    runner.storage.put("timelines/reel/chunks/2.mp4", b"no video")
    client.rebuild("reel")
    failed = wait_for_rebuild(runner)
    with pytest.raises(errors.TimelineNotFoundError, match="NotAVideoError") as lost:
        client.timeline("reel")
    assert lost.value.detail["rebuild"]["state"] == "failed"
    assert (failed.state, failed.error and failed.error.code) == ("failed", "NotAVideoError")
    assert client.clear("reel") >= 0


def wait_for_rebuild(runner: JobRunner) -> RebuildState:
    """Return the state of the rebuilding that is under way when it has ended."""
    for _ in range(200):
        try:
            found = RebuildState.model_validate_json(runner.storage.get(live_keys.timeline_rebuild("reel")).data)
        except errors.ObjectNotFoundError:
            found = None
        if found is not None and found.state != "running":
            runner.storage.delete([live_keys.timeline_rebuild("reel")])
            runner.storage.put(live_keys.timeline_rebuild("reel"), found.to_json())
            return found
        time.sleep(0.05)
    raise AssertionError("the rebuilding did not end")


def test_flows_are_shown_in_colours(client: ApiClient, runner: JobRunner, document: dict[str, Any]) -> None:
    client.send("t1", document)
    key = "jobs/t1/structure_flows_t1.npz"
    view = client.archive(key)
    assert (view.flows, view.kind, view.video_width_px) == (8, "structureflow", 160)
    picture = cv2.imdecode(np.frombuffer(client.flow_picture(key, 3, width_px=80), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape[1] == 80
    # a pan: one colour, and no white
    assert picture.std(axis=(0, 1)).max() < 40
    with pytest.raises(errors.InvalidRequestError, match="0 to 7"):
        client.flow_picture(key, 8)
    for foreign in ("images/a.png", "work/.gpu/x.npz", "jobs/t1/request.json"):
        with pytest.raises(errors.InputNotAllowedError):
            client.archive(foreign)
    with pytest.raises(errors.InputNotAllowedError):
        client._bytes("archives/meta", {"key": "jobs/../x.npz"})


@pytest.mark.parametrize("way", ["cache", "frames", "video"])
def test_a_gap_is_shown_small_before_anything_is_sent(
    client: ApiClient, runner: JobRunner, document: dict[str, Any], way: str
) -> None:
    """From the flows of an earlier job, from its frames, or from the video: the same motion, nothing written."""
    if way != "video":
        client.send("earlier", document | {"task_id": "earlier"})
        if way == "frames":
            runner.storage.delete(runner.keys("cache/flows/"))
    before = {key: runner.storage.head(key).etag for key in runner.keys("")}
    shown = client.preview(document, segment=0, frames=4)
    assert {key: runner.storage.head(key).etag for key in runner.keys("")} == before
    assert (shown.flow_source, shown.gap) == (way, (3, 9))
    assert [one.frame for one in shown.frames] == [3, 5, 7, 9]
    assert (shown.width_px, shown.height_px) == (106, 64)
    pictures = [cv2.imdecode(np.frombuffer(base64.b64decode(one.jpeg_base64), np.uint8), 1) for one in shown.frames]
    assert all(picture is not None and picture.shape == (64, 106, 3) for picture in pictures)
    assert any(np.abs(pictures[0].astype(int) - other).mean() > 1 for other in pictures[1:])  # type: ignore[union-attr]
    assert (way == "cache") == (not shown.notices)


def test_what_a_job_will_take_is_told_before_it_is_sent(
    client: ApiClient, runner: JobRunner, document: dict[str, Any]
) -> None:
    first = client.forecast(document)
    assert (first.frames, first.flows_found) == (9, False)
    assert 0 < first.seconds < 60
    assert first.cost_usd == pytest.approx(sum(first.items_usd.values()), abs=1e-6)
    larger = client.forecast(document | {"resolution": [1280, 768], "outputs": ["visibility"]})
    assert larger.cost_usd > first.cost_usd
    client.send("earlier", document | {"task_id": "earlier"})
    again = client.forecast(document)
    assert again.flows_found
    assert again.cost_usd < first.cost_usd
    several = [
        {"path": "videos/pan.mp4", "start_frame": 0, "end_frame": 9},
        {"path": "videos/pan.mp4", "start_frame": 9},
    ]
    without = {name: value for name, value in document.items() if name not in {"structure_video", "timeline_id"}}
    assert client.forecast(without | {"structure_videos": several}).frames == 9, (
        "it is looked at once, as it is extracted"
    )
    with pytest.raises(errors.InputNotFoundError):
        client.forecast(document | {"structure_video": "videos/none.mp4"})
    with pytest.raises(errors.InvalidRequestError, match="fps"):
        client.forecast(document | {"fps": -1})
    with pytest.raises(errors.NotAVideoError):
        client.forecast(document | {"structure_video": "images/a.png"})


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_a_forecast_counts_the_frames_of_any_container(
    client: ApiClient, runner: JobRunner, document: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    """Of some the index tells, and of others only the whole file."""
    write_clip(tmp_path / f"clip.{kind}", pan_frames(14, 96, 160, dx=2, dy=0), fps=25)
    runner.storage.put_file(f"videos/clip.{kind}", tmp_path / f"clip.{kind}")
    assert client.forecast(document | {"structure_video": f"videos/clip.{kind}"}).frames == 14


def test_previews_that_cannot_be_are_refused(client: ApiClient, document: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"expected one of \[3, 9\]"):
        client.preview(document, gap=(0, 5))
    with pytest.raises(errors.InvalidRequestError, match="segment: expected 0 to 1"):
        client.preview(document, segment=5)
    with pytest.raises(errors.InputNotFoundError):
        client.preview(document | {"structure_video": "videos/none.mp4"})
    long = document | {"frames": 300}
    with pytest.raises(errors.InvalidRequestError, match="at most 241"):
        client.preview(long)


def test_errors_of_another_version_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from structureflow.api.client import _typed

    assert isinstance(_typed(404, b'{"code":"ObjectNotFoundError","message":"m","detail":{"key":"k"}}'), OSError)
    for body in (b"<html>", b'{"message":"Forbidden"}', b'{"code":"NewError","message":"m","detail":{}}'):
        assert isinstance(_typed(403, body), errors.ApiReplyError)
    with pytest.raises(errors.InvalidRequestError, match="http"):
        ApiClient("file:///etc/passwd")


def test_the_examples_of_the_client_run(client: ApiClient, document: dict[str, Any]) -> None:
    """Those of its docstring and of docs/python.md, on the very job that they speak of."""
    guides = [{"at": 0, "image": "images/a.png"}, {"at": 16, "image": "images/b.png"}]
    plain = {name: value for name, value in document.items() if name not in {"images", "frames", "overlap", "fade"}}
    named = {"task_id": "walk-1", "timeline_id": "walk", "segments": [{"frames": 17, "guides": guides}]}
    client.send("walk-1", plain | named)
    page = (Path(__file__).resolve().parents[2] / "docs" / "python.md").read_text()
    (section,) = re.findall(r"```pycon\n(.*?)```", page, flags=re.DOTALL)
    for text in (ApiClient.__doc__ or "", section):
        here = {"ApiClient": lambda _: client}
        example = doctest.DocTestParser().get_doctest(text, here, "ApiClient", None, None)
        assert example.examples
        runner = doctest.DocTestRunner()
        runner.run(example)
        assert runner.summarize(verbose=False).failed == 0


def test_a_store_that_cannot_sign_says_so() -> None:
    with pytest.raises(errors.StorageError, match="cannot sign"):
        MemoryStorage().upload_url("k", size_bytes=1, content_type="video/mp4")

"""A whole job in one process: what it makes, what it keeps, and how it ends when something goes wrong."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from structureflow import keys
from structureflow.errors import InvalidRequestError, JobStateError, NotAVideoError
from structureflow.jobs.documents import load_record
from structureflow.models.results import JobStatus, Manifest, SegmentResult
from structureflow.runtime.machine import call_step
from structureflow.storage.local import LocalStorage
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import JobRunner
from structureflow.testing.videos import pan_frames, write_clip
from structureflow_local import one_process
from structureflow_local.client import JobClient, PreparedJob, prepare_job
from structureflow_local.one_process import FOLDER, OneProcess, definition
from tests.readers.videos import is_same_video

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    frames = list(pan_frames(20, 96, 160, dx=2, dy=0))
    write_clip(tmp_path / "clip.mp4", frames)
    for name, frame in (("a", frames[0]), ("b", frames[10]), ("c", frames[19])):
        Image.fromarray(frame).save(tmp_path / f"{name}.png")
    return tmp_path


def job(folder: Path, **changes: Any) -> PreparedJob:
    document: dict[str, Any] = {
        "structure_video": "clip.mp4",
        "images": ["a.png", "b.png", "c.png"],
        "frames": 17,
        "overlap": 3,
    }
    if "segments" in changes:
        document = {"structure_video": "clip.mp4"}
    document |= changes
    return prepare_job(json.dumps(document), name="walk", folder=folder)


def run(prepared: PreparedJob, store: Path | None, out: Path | None = None, **options: Any) -> JobStatus:
    with OneProcess(prepared, store=store, **options) as steps:
        steps.start()
        status = steps.wait(timeout_s=120)
        if out is not None:
            out.mkdir(exist_ok=True)
            JobClient(steps.storage).fetch(prepared.task_id, out)
    return status


def test_it_runs_the_definition_that_is_deployed() -> None:
    assert definition() == json.loads((REPO / "statemachines" / "segments.asl.json").read_text())


def test_it_makes_what_the_steps_make_one_after_the_other(folder: Path, tmp_path: Path) -> None:
    prepared = job(folder, task_id="walk-1")
    status = run(prepared, None, tmp_path / "out", workers=2)
    assert status.state == "done"
    manifest = Manifest.model_validate_json((tmp_path / "out" / "manifest.json").read_bytes())
    assert [segment.frames for segment in manifest.segments] == [17, 17]
    assert not manifest.fallbacks
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    # the same steps over a bucket in memory
    storage = MemoryStorage()
    request = json.loads(prepared.request)
    for key, path in prepared.uploads.items():
        storage.put_file(key, path)
    (tmp_path / "work").mkdir()
    assert JobRunner(storage, tmp_path / "work").run("walk-1", request).state == "done"
    made = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*.*")}
    assert {key.removeprefix("jobs/walk-1/") for key in made} >= {
        "segments/000/guide.mp4",
        "segments/001/mask.mp4",
        "structure_flows_walk-1.npz",
    }
    for name, path in made.items():
        if name.endswith((".mp4", ".npz")):
            ours, theirs = path.read_bytes(), storage.get(f"jobs/walk-1/{name}").data
            assert ours == theirs or (name.endswith(".mp4") and is_same_video(ours, theirs)), name
    for index in range(2):
        one, other = (
            SegmentResult.model_validate_json(data).model_dump(exclude={"run_id", "timings_s", "outputs", "usage"})
            for data in (
                made[f"segments/{index:03d}/result.json"].read_bytes(),
                storage.get(keys.segment_file("walk-1", index, "result.json")).data,
            )
        )
        assert one == other


def test_the_next_job_finds_the_flows(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    records = []
    for number in range(2):
        # elsewhere, and younger: the same bytes
        video = folder / f"{number}.mp4"
        video.write_bytes((folder / "clip.mp4").read_bytes())
        prepared = job(folder, task_id=f"walk-{number}", structure_video=str(video))
        with OneProcess(prepared, store=store) as steps:
            steps.start()
            status = steps.wait(timeout_s=120)
            records.append(load_record(steps.storage, prepared.task_id, status.run_id))
    assert [record.flow_cache_hit for record in records] == [False, True]
    assert records[0].flow_cache_key == records[1].flow_cache_key
    kept = [info.key for info in LocalStorage(store / FOLDER).list("")]
    assert kept
    assert {key.partition("/")[0] for key in kept} == {"cache"}


def test_without_a_store_nothing_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    assert run(job(folder), None).state == "done"
    assert not list(scratch.iterdir())
    assert sorted(path.name for path in folder.glob("*.*")) == ["a.png", "b.png", "c.png", "clip.mp4"]


def test_the_users_files_are_read_where_they_lie(folder: Path, tmp_path: Path) -> None:
    prepared = job(folder)
    with OneProcess(prepared, store=tmp_path / "store") as steps:
        steps.start()
        assert steps.wait(timeout_s=120).state == "done"
        stored = [info.key for info in LocalStorage(tmp_path / "store" / FOLDER).list("")]
        # a saved request runs again from its folder, so what it names can be fetched too
        assert {info.key for info in steps.storage.list(keys.job_prefix(prepared.task_id))} >= set(prepared.uploads)
    assert not set(stored) & set(prepared.uploads)
    assert all(path.is_file() for path in prepared.uploads.values())


# --- ends --------------------------------------------------------------------------------------------


def test_a_request_that_cannot_be_done_is_refused(folder: Path, tmp_path: Path) -> None:
    status = run(job(folder, frames=17, treatment="loop"), tmp_path / "store")
    assert status.state == "failed"
    assert status.error is not None
    assert (status.error.code, status.error.stage) == ("InvalidRequestError", "orchestrate")
    (folder / "clip.mp4").write_bytes(b"no video")
    status = run(job(folder), tmp_path / "store")
    assert status.error is not None
    assert status.error.code == NotAVideoError.__name__


def test_what_is_no_json_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="line 1, column 2: expected JSON"):
        prepare_job("{", name="walk", folder=folder)
    status = run(PreparedJob("walk", b"{", {}), tmp_path / "store")
    assert status.error is not None
    assert status.error.code == "InvalidRequestError"


def test_a_segment_that_fails_ends_the_job(folder: Path, tmp_path: Path) -> None:
    guides = [{"at": [0, 40], "video": "clip.mp4", "from": 0}]
    status = run(job(folder, segments=[{"frames": 50, "guides": guides}]), tmp_path / "store")
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "GuidanceError"
    assert status.error.detail == {"segment": 0}
    assert not list(LocalStorage(tmp_path / "store" / FOLDER).list("jobs/"))


def test_a_mistake_of_ours_ends_the_job_and_is_logged(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("in the renderer")

    monkeypatch.setattr("structureflow.runtime.machine.render_segment", broken)
    # the state machine tries what died once more, after seconds
    monkeypatch.setattr(OneProcess, "_sleep", lambda *_: None)
    with caplog.at_level(logging.ERROR):
        status = run(job(folder), tmp_path / "store")
    assert status.error is not None
    assert (status.error.code, status.error.message) == ("ZeroDivisionError", "segment 0: in the renderer")
    assert "RenderSegment failed" in caplog.text
    assert "Traceback" in caplog.text
    monkeypatch.setattr("structureflow_local.one_process.orchestrate", broken)
    status = run(job(folder, task_id="again"), tmp_path / "store")
    assert status.error is not None
    assert (status.error.code, status.error.stage) == ("ZeroDivisionError", "orchestrate")


def test_whoever_leaves_stops_the_steps(folder: Path, tmp_path: Path) -> None:
    begun = threading.Event()

    class LeftError(Exception):
        pass

    def watch(status: JobStatus | None) -> None:
        if status is not None and status.stage == "segments":
            begun.set()
            raise LeftError

    # long enough to be seen under way
    prepared = job(folder, frames=400)
    with OneProcess(prepared, store=tmp_path / "store") as steps:
        steps.start()
        with pytest.raises(LeftError):
            steps.wait(timeout_s=120, watch=watch)
    assert begun.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("job-", "segment"))]
    assert not list(LocalStorage(tmp_path / "store" / FOLDER).list("jobs/"))


def test_nobody_waits_longer_than_asked(folder: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    with OneProcess(job(folder, frames=400), store=tmp_path) as steps:
        steps.start()
        with pytest.raises(JobStateError, match="within 0 s"):
            steps.wait(timeout_s=0)
    assert time.monotonic() - begin < 60
    with OneProcess(job(folder), store=tmp_path) as steps, pytest.raises(JobStateError, match="not started"):
        steps.wait(timeout_s=1)


# --- beside each other --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory_mb", "workers", "most"), [(64_000, 3, 3), (64_000, 1, 1), (900, 3, 1), (64_000, 9, 4)]
)
def test_as_many_segments_at_once_as_there_is_room_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_mb: int, workers: int, most: int
) -> None:
    lock = threading.Lock()
    gate = threading.Barrier(most)
    now = seen = 0
    call = call_step

    def counted(step: str, payload: Any, services: Any) -> Any:
        nonlocal now, seen
        if step != "RenderSegment":
            return call(step, payload, services)
        with lock:
            now += 1
            seen = max(seen, now)
        gate.wait(30)
        try:
            return call(step, payload, services)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(one_process, "call_step", counted)
    segments = [{"frames": 5, "guides": [{"at": 0, "image": "a.png"}]}] * (4 if most == 4 else most * 2)
    prepared = job(folder, segments=segments)
    status = run(prepared, tmp_path / "store", memory_mb=memory_mb, workers=workers)
    assert (status.state, seen) == ("done", most)


def test_a_segment_that_does_not_fit_at_all_is_refused(folder: Path, tmp_path: Path) -> None:
    status = run(job(folder), tmp_path / "store", memory_mb=600)
    assert status.error is not None
    assert status.error.code == "MemoryLimitError"


def test_hosts_are_those_that_the_job_names() -> None:
    request = {"structure_video": "https://a.example/x.mp4", "images": ["https://u@b.example:8443/y", "http://c/", "k"]}
    assert one_process._hosts_named(json.dumps(request).encode()) == ["a.example", "b.example:8443"]
    assert one_process._hosts_named(b"{") == []


def test_pictures_of_segments_follow_their_order(folder: Path, tmp_path: Path) -> None:
    run(job(folder, task_id="walk-1"), None, tmp_path / "out")
    with Image.open(folder / "b.png") as image:
        expected = np.asarray(image)
    from structureflow.media.decode import VideoReader

    with VideoReader(tmp_path / "out" / "segments" / "001" / "guide.mp4") as video:
        first = next(iter(video)).image
    assert np.abs(first.astype(int) - expected).mean() < 8

"""Extracted once, across jobs: what a second job reads, what two at once leave, what happens without a cache."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.errors import ObjectExistsError, StorageError, TransientStorageError
from structureflow.frames.cache import FrameCache
from structureflow.jobs.documents import load_record
from structureflow.jobs.render_segment import RenderSegmentInput, render_segment
from structureflow.models.results import JobRecord, Manifest, SegmentResult
from structureflow.storage.base import ObjectInfo, Storage
from structureflow.testing.flows import put_noisy_flows
from structureflow.testing.jobs import JobRunner, put_pan_clip
from structureflow.testing.storage import CountingStorage, Fault, FaultStorage, WrapperStorage
from structureflow.testing.videos import pan_frames, write_clip

VIDEO = "videos/pan.mp4"


def record_of(runner: JobRunner, task_id: str) -> JobRecord:
    return load_record(runner.storage, task_id)


def result_of(runner: JobRunner, task_id: str, index: int = 0) -> SegmentResult:
    key = keys.segment_file(task_id, index, "result.json")
    return SegmentResult.model_validate_json(runner.storage.get(key).data)


# --- a second job ---------------------------------------------------------------------------------------


def test_a_second_job_reaches_its_segments_without_a_byte_of_the_video(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path
) -> None:
    """Without its bytes no frame can be decoded; of the archive only the tail is read, the copy is the store's."""
    assert runner.run("t1", request_document).state == "done"
    counting = CountingStorage(runner.storage)
    second = JobRunner(counting, tmp_path)
    second.put_request("t2", {**request_document, "task_id": "t2"})
    counting.reset()

    result = second.orchestrate("t2")

    assert (result.state, result.flow_cache_hit) == ("running", True)
    asked: dict[str, list[str]] = {}
    for operation, key in counting.keys:
        asked.setdefault(key, []).append(operation)
    assert asked[VIDEO] == ["head"]
    assert asked[keys.flow_cache(flow_key(runner))] == ["get", "copy"]
    assert not [key for key in asked if key.startswith("cache/timelines/") and not key.endswith("manifest.json")]
    assert counting.requests["put_file"] == 0
    assert counting.total <= 20


def flow_key(runner: JobRunner) -> str:
    (key,) = runner.keys("cache/flows/")
    return Path(key).stem


# --- two at once ----------------------------------------------------------------------------------------


class Meeting(WrapperStorage):
    """Lets the first look-ups of the shared archive pass only together: neither of two jobs finds it.

    Attributes:
        created: whether each attempt to store a file made the object, or found another's.
    """

    def __init__(self, inner: Storage, parties: int) -> None:
        super().__init__(inner)
        self.created: list[bool] = []
        self._barrier = threading.Barrier(parties, timeout=60)
        self._met = threading.local()

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        content_type: str | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """See `Storage.put_file`."""
        try:
            stored = super().put_file(key, path, content_type=content_type, if_absent=if_absent, if_match=if_match)
        except ObjectExistsError:
            self.created.append(False)
            raise
        self.created.append(True)
        return stored

    @contextmanager
    def _request(self, operation: str, key: str) -> Iterator[None]:
        if operation == "get" and key.startswith("cache/flows/") and not getattr(self._met, "done", False):
            self._met.done = True
            try:
                yield
            finally:
                self._barrier.wait()
        else:
            yield


def test_two_orchestrators_on_one_video_make_one_object_and_both_go_on(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path
) -> None:
    names = ("t1", "t2")
    racing = Meeting(runner.storage, len(names))
    racers = {name: JobRunner(racing, tmp_path) for name in names}
    # The same content under two names: the archives name their video, so the loser's differs from the winner's.
    for name, racer in racers.items():
        video = f"videos/{name}.mp4"
        runner.storage.put(video, runner.storage.get(VIDEO).data)
        racer.put_request(name, {**request_document, "task_id": name, "structure_video": video})

    with ThreadPoolExecutor(len(names)) as pool:
        results = list(pool.map(lambda name: racers[name].orchestrate(name), names))

    assert [(result.state, result.flow_cache_hit) for result in results] == [("running", False)] * 2
    (shared,) = runner.keys("cache/flows/")
    assert sorted(racing.created) == [False, True], "the second finds the first's and overwrites nothing"
    one = runner.storage.get(shared).data
    assert [runner.storage.get(keys.job_flows(name)).data for name in names] == [one] * 2
    timeline = record_of(runner, "t1").timeline_id
    assert record_of(runner, "t2").timeline_id == timeline
    assert [frame.sequence for frame in FrameCache(runner.storage).load_cached_frames(timeline)] == list(range(9))
    for name in names:
        assert runner.segments(name).state == "done"
        assert result_of(runner, name).flow_source == "cache"
        assert record_of(runner, name).fallbacks == ()


# --- requests of a segment ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "directions"),
    [
        ({"treatment": "adjust"}, 1),
        ({"treatment": "retime"}, 1),
        ({"treatment": "clip"}, 1),
        ({"treatment": "retime", "anchors": "both"}, 2),
        ({"treatment": "adjust", "frames": 60}, 1),
        ({"treatment": "adjust", "frames": 7}, 1),
        ({"flow_span": "timeline", "treatment": "clip", "anchors": "both"}, 2),
    ],
    ids=str,
)
def test_a_segment_asks_once_for_the_tail_and_once_per_direction(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path, change: dict[str, Any], directions: int
) -> None:
    put_pan_clip(runner.storage, VIDEO, tmp_path, frames=41)
    runner.put_request("t1", {**request_document, **change})
    assert runner.orchestrate("t1").state == "running"
    noisy = tmp_path / "noisy.npz"
    size_bytes = put_noisy_flows(
        runner.storage, keys.job_flows("t1"), noisy, count=40, height=96, width=160, longest_px=4
    )
    assert size_bytes > 2_000_000, "hardly any of it may lie in the last bytes that are read first"
    counting = CountingStorage(runner.storage)

    render_segment(RenderSegmentInput(task_id="t1", index=0), JobRunner(counting, tmp_path).services)

    asked = [operation for operation, key in counting.keys if key == keys.job_flows("t1")]
    assert asked == ["get"] * (1 + directions)
    render = keys.run_segment_file("t1", runner.status("t1").run_id, 0, "result.json")
    assert SegmentResult.model_validate_json(runner.storage.get(render).data).flow_source == "cache"


# --- no cache, and never silently ------------------------------------------------------------------------


DENIED = StorageError("denied")


@pytest.mark.parametrize(
    ("fault", "stage"),
    [
        (Fault("put_file", "cache/flows/*", StorageError("denied"), times=None), "store"),
        (Fault("put_file", "cache/flows/*", TransientStorageError("throttled"), times=None), "store"),
        (Fault("copy", "cache/flows/*", StorageError("denied"), times=None), "commit"),
    ],
    ids=["refused", "throttled", "not copied"],
)
def test_segments_start_without_a_cache_that_cannot_be_written(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path, fault: Fault, stage: str
) -> None:
    faulty = JobRunner(FaultStorage(runner.storage, fault), tmp_path)
    faulty.put_request("t1", request_document)

    assert faulty.orchestrate("t1").state == "running"

    ((execution, payload),) = faulty.started
    assert execution.startswith("t1-")
    assert payload["detail"]["object"]["key"] == keys.job_flows("t1")
    assert not runner.storage.exists(keys.job_flows("t1"))
    assert faulty.segments("t1").state == "done"
    assert_said(faulty, stage, "frames")


@pytest.mark.parametrize("refused", ["cache/timelines/*", "cache/timelines/*/manifest.json"])
def test_without_cache_and_frames_segments_read_the_video(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path, refused: str
) -> None:
    faults = [
        Fault("put_file", "cache/flows/*", DENIED, times=None),
        Fault("put", refused, DENIED, times=None),
    ]
    faulty = JobRunner(FaultStorage(runner.storage, *faults), tmp_path)
    faulty.put_request("t1", request_document)
    assert faulty.orchestrate("t1").state == "running"
    assert len(faulty.started) == 1
    assert faulty.segments("t1").state == "done"
    # Without a manifest frames are no cache; who cannot write its place must not remove them either.
    left = runner.keys("cache/")
    assert left == [] if refused == "cache/timelines/*" else all("/frames/" in key for key in left)
    assert_said(faulty, "store", "video")
    assert any(fallback.stage == "frames" for fallback in record_of(runner, "t1").fallbacks)


def assert_said(runner: JobRunner, stage: str, source: str) -> None:
    """The source really used stands in the result, every fallback in manifest and report, and all are counted."""
    assert {result_of(runner, "t1", index).flow_source for index in (0, 1)} == {source}
    manifest = Manifest.model_validate_json(runner.storage.get(keys.job_manifest("t1")).data)
    assert stage in {fallback.stage for fallback in manifest.fallbacks}
    assert {f"segment {index}: flows" for index in (0, 1)} <= {fallback.stage for fallback in manifest.fallbacks}
    assert runner.counts["Fallbacks"] == len(manifest.fallbacks)
    page = runner.storage.get(keys.job_report("t1")).data.decode()
    assert "cannot be written" in page
    said = {"frames": "the cached frames, extracted again", "video": "the structure video, extracted again"}
    assert f"flow from {said[source]}" in page


# --- nothing half-made -----------------------------------------------------------------------------------


def test_a_video_that_breaks_in_the_middle_leaves_no_cache(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path
) -> None:
    """Its first frames decode and are stored while flows are computed; all of that must be gone again."""
    whole = write_clip(tmp_path / "whole.mp4", pan_frames(80, 96, 160, dx=2, dy=0), gop=4).read_bytes()
    runner.storage.put("videos/cut.mp4", whole[: len(whole) * 3 // 4])
    counting = CountingStorage(runner.storage)
    failing = JobRunner(counting, tmp_path)
    before = set(runner.keys())

    status = failing.run("t1", {**request_document, "structure_video": "videos/cut.mp4"})

    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "CorruptMediaError"
    stored = [key for operation, key in counting.keys if operation == "put" and key.startswith("cache/timelines/")]
    assert len(stored) > 20, "frames were on their way before the end was known"
    assert set(runner.keys()) - before == {keys.job_request("t1"), keys.job_status("t1")}
    assert [path for path in tmp_path.iterdir() if path.name.startswith("structureflow-")] == []

"""A function does not begin what it cannot end, and stops itself in time; what a killed one left goes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.errors import DeadlineError
from structureflow.jobs.deadline import Deadline
from structureflow.jobs.estimate import extraction_s, frame_s, segment_s
from structureflow.jobs.rebuild_timeline import RebuildTimelineInput, rebuild_timeline
from structureflow.jobs.services import clear_leftovers
from structureflow.limits import STOP_BEFORE_END_S
from structureflow.media.decode import VideoInfo
from structureflow.models.job import JobRequest
from structureflow.testing.jobs import JobRunner


def info(frames: int = 1000, width: int = 1280, height: int = 720) -> VideoInfo:
    return VideoInfo(frames, 25.0, width, height, frames / 25)


def with_time(runner: JobRunner, *seconds: float) -> JobRunner:
    """Give a runner so many seconds at each look at the clock, the last one for good."""
    left = list(seconds)
    runner.services = dataclasses.replace(
        runner.services, deadline=Deadline(lambda: left.pop(0) if len(left) > 1 else left[0])
    )
    return runner


def test_estimates_grow_with_frames_pixels_and_quality_and_shrink_with_processors() -> None:
    base = extraction_s(info(), "dis", "balanced", processors=2)
    assert extraction_s(info(2000), "dis", "balanced", processors=2) == pytest.approx(2 * base)
    assert extraction_s(info(width=3840, height=2160), "dis", "balanced", processors=2) > base
    assert extraction_s(info(), "dis", "best", processors=2) > base > extraction_s(info(), "dis", "fast", processors=2)
    assert extraction_s(info(), "dis", "balanced", processors=4) < base
    # Decoding is one thread's, whatever there is beside it.
    many = frame_s(info(width=3840, height=2160), "dis", "fast", processors=64)
    assert many == frame_s(info(width=3840, height=2160), "dis", "balanced", processors=64)


def test_a_video_that_cannot_be_extracted_in_time_is_refused_before_any_work(
    runner: JobRunner, request_document: dict[str, Any]
) -> None:
    with_time(runner, STOP_BEFORE_END_S + 0.1)
    status = runner.run("t1", request_document)
    assert status.error is not None
    assert status.error.code == "DeadlineError"
    assert "9 frames of 160x96" in status.error.message
    assert "such frames can be extracted here" in status.error.message
    assert runner.keys("cache/") == []


def test_an_extraction_that_takes_longer_than_estimated_stops_itself(
    runner: JobRunner, request_document: dict[str, Any]
) -> None:
    with_time(runner, 900.0, 900.0, 900.0, STOP_BEFORE_END_S - 1)
    status = runner.run("t1", request_document)
    assert status.error is not None
    assert (status.error.code, status.error.detail["doing"]) == ("DeadlineError", "extraction")
    assert runner.keys("cache/") == []


def test_a_segment_that_cannot_end_in_time_is_refused_before_any_work(
    runner: JobRunner, request_document: dict[str, Any]
) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    status = with_time(runner, STOP_BEFORE_END_S + 0.001).segments("t1")
    assert status.error is not None
    assert status.error.code == "DeadlineError"
    assert "segment 0: rendering 12 frames of 160x96 at quality balanced needs about" in status.error.message
    assert "such frames can be rendered here" in status.error.message


def test_a_segment_stops_itself(runner: JobRunner, request_document: dict[str, Any]) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    status = with_time(runner, 900.0, 900.0, STOP_BEFORE_END_S - 1).segments("t1")
    assert status.error is not None
    assert status.error.code == "DeadlineError"
    assert status.error.message.startswith("segment 0: rendering: stopped 30 s before")


def test_a_segment_without_motion_stops_itself_too(runner: JobRunner, request_document: dict[str, Any]) -> None:
    """No flow is read for it; every frame that is written looks at the clock."""
    guided = [{"frames": 9, "guides": [{"at": [0, 8], "image": "images/a.png"}]}]
    document = {name: request_document[name] for name in ("task_id", "structure_video")} | {"segments": guided}
    runner.put_request("t1", document)
    runner.orchestrate("t1")
    status = with_time(runner, 900.0, STOP_BEFORE_END_S - 1).segments("t1")
    assert status.error is not None
    assert status.error.code == "DeadlineError"
    assert status.error.message.startswith("segment 0: rendering: stopped 30 s before")


@pytest.mark.parametrize(
    "dearer",
    [
        {"frames": 98},
        {"resolution": "2560x1440"},
        {"quality": "best"},
        {"anchors": "both"},
        {"outputs": ["flow_vis"]},
    ],
)
def test_estimates_of_segments_grow_with_what_is_asked_for(dearer: dict[str, Any]) -> None:
    def estimate(processors: float = 2, **changes: Any) -> float:
        base = {"frames": 49, "resolution": "1280x720", "quality": "balanced", "anchors": "start", **changes}
        frames = base.pop("frames")
        segments = [{"frames": frames, "guides": [{"at": 0, "image": "a"}]}]
        request = JobRequest.parse({"task_id": "t", "structure_video": "v", "segments": segments, **base})
        width, height = request.resolution or (0, 0)
        return segment_s(request, request.segments[0], width, height, processors=processors)

    assert estimate(**dearer) > 1.2 * estimate()
    assert estimate(tracking="composed") < estimate()
    assert estimate(processors=4) == pytest.approx(estimate() / 2)


def test_a_rebuild_stops_itself_and_leaves_no_manifest(runner: JobRunner) -> None:
    runner.storage.copy("videos/pan.mp4", f"{keys.timeline_chunks_prefix('reel')}000.mp4")
    with_time(runner, 900.0, 900.0, STOP_BEFORE_END_S - 1)
    with pytest.raises(DeadlineError, match="rebuilding the timeline"):
        rebuild_timeline(RebuildTimelineInput(timeline_id="reel"), runner.services)
    assert not runner.storage.exists(keys.timeline_manifest("reel"))


def test_a_deadline_is_permanent() -> None:
    assert not DeadlineError.transient
    assert Deadline().left_s is None
    Deadline().check("anything")
    assert Deadline(lambda: 100.0).left_s == 100.0 - STOP_BEFORE_END_S
    assert list(Deadline(lambda: 100.0).each(iter([1, 2]), "counting")) == [1, 2]
    with pytest.raises(DeadlineError, match="counting"):
        next(Deadline(lambda: 10.0).each(iter([1, 2]), "counting"))


def test_what_a_killed_process_left_goes_at_the_next_start(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, alive = int(ended.stdout), os.getppid()
    for name in (
        f"structureflow-{dead}-a",
        f"structureflow-{os.getpid()}-b",
        f"structureflow-{alive}-c",
        "structureflow-x",
        "other",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "structure_video").write_bytes(b"x")
    assert clear_leftovers(tmp_path) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"structureflow-{alive}-c", "structureflow-x", "other"]
    )


def test_scratch_folders_are_known_by_their_process(runner: JobRunner) -> None:
    with runner.services.scratch() as folder:
        assert folder.name.startswith(f"structureflow-{os.getpid()}-")
    assert not folder.exists()


def test_a_rebuild_needs_chunks_and_leaves_no_folder(runner: JobRunner) -> None:
    runner.storage.copy("videos/pan.mp4", f"{keys.timeline_chunks_prefix('reel')}000.mp4")
    assert rebuild_timeline(RebuildTimelineInput(timeline_id="reel"), runner.services).frames == 9

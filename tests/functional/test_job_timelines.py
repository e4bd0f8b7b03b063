"""Jobs and the frame cache of their timeline: damaged, shared by two videos, replaced while it is read."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structureflow import keys
from structureflow.errors import FrameCorruptError
from structureflow.frames.cache import FrameCache
from structureflow.jobs.documents import load_record
from structureflow.jobs.flow_sources import SegmentFlows
from structureflow.models.results import JobRecord, SegmentResult
from structureflow.testing.frames import make_frames, psnr
from structureflow.testing.jobs import JobRunner
from structureflow.testing.videos import decode_rgb, pan_frames, write_clip

HEIGHT, WIDTH = 96, 160
OTHER_FRAMES = 12


@pytest.fixture
def other(runner: JobRunner, tmp_path: Path) -> str:
    """Another video: it goes left, and is longer."""
    path = write_clip(tmp_path / "other.mp4", pan_frames(OTHER_FRAMES, HEIGHT, WIDTH, dx=-3, dy=0, seed=9))
    runner.storage.put("videos/other.mp4", path.read_bytes())
    return "videos/other.mp4"


def record_of(runner: JobRunner, task_id: str) -> JobRecord:
    return load_record(runner.storage, task_id)


def result_of(runner: JobRunner, task_id: str) -> SegmentResult:
    key = keys.segment_file(task_id, 0, "result.json")
    return SegmentResult.model_validate_json(runner.storage.get(key).data)


def gone(runner: JobRunner, key: str) -> None:
    runner.storage.delete([key])


def junk(runner: JobRunner, key: str) -> None:
    runner.storage.put(key, b"no JPEG")


@pytest.mark.parametrize("damage", [gone, junk])
def test_a_damaged_cached_frame_fails_no_job_that_has_its_flows(
    runner: JobRunner, request_document: dict[str, Any], damage: Callable[[JobRunner, str], None]
) -> None:
    """The frames are only shown on the page then: it goes without, and says so."""
    runner.run("t1", request_document)
    timeline_id = record_of(runner, "t1").timeline_id
    for sequence in range(9):
        damage(runner, keys.timeline_frame(timeline_id, sequence))

    assert runner.run("t2", {**request_document, "task_id": "t2"}).state == "done"

    result = result_of(runner, "t2")
    assert (result.flow_source, result.filled) == ("cache", ((3, 9),))
    (fallback,) = result.fallbacks
    assert (fallback.stage, fallback.wanted, fallback.used) == ("report", "frames", "none")
    assert "frame 1" in fallback.reason
    assert runner.counts["Fallbacks"] == 2
    page = runner.storage.get(keys.job_report("t2")).data.decode()
    assert "frame 1" in page


@pytest.mark.parametrize("damage", [gone, junk])
def test_flows_come_from_the_video_where_archive_and_frames_are_damaged(
    runner: JobRunner, request_document: dict[str, Any], damage: Callable[[JobRunner, str], None]
) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    runner.storage.delete([keys.job_flows("t1")])
    damage(runner, keys.timeline_frame(record_of(runner, "t1").timeline_id, 4))

    assert runner.segments("t1").state == "done"

    result = result_of(runner, "t1")
    assert result.flow_source == "video"
    steps = [(step.stage, step.wanted, step.used) for step in result.fallbacks]
    assert steps[:2] == [("flows", "cache", "frames"), ("flows", "frames", "video")]
    assert "frame 4" in result.fallbacks[1].reason


def test_a_timeline_holds_the_frames_of_the_last_video_whole_and_says_that_others_went(
    runner: JobRunner, request_document: dict[str, Any], other: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FrameCache(runner.storage)
    cache.cache_frames("mine", make_frames(40, height=HEIGHT, width=WIDTH))
    runner.run("t1", {**request_document, "timeline_id": "mine"})
    assert (cache.manifest("mine").total, cache.check_cache("mine").extra) == (9, 0)

    with caplog.at_level(logging.WARNING):
        runner.run("t2", {**request_document, "task_id": "t2", "timeline_id": "mine", "structure_video": other})

    assert cache.source_identity("mine") == record_of(runner, "t2").source.identity
    truth = list(pan_frames(OTHER_FRAMES, HEIGHT, WIDTH, dx=-3, dy=0, seed=9))
    loaded = cache.load_cached_frames("mine")
    assert len(loaded) == OTHER_FRAMES
    assert all(psnr(frame.image, real) > 25 for frame, real in zip(loaded, truth, strict=True))
    assert cache.check_cache("mine").whole
    assert "timeline mine: its 9 frames of s3:" in caplog.text


def test_a_segment_takes_no_frames_of_another_video(
    runner: JobRunner, request_document: dict[str, Any], other: str, tmp_path: Path
) -> None:
    runner.run("t0", {**request_document, "task_id": "t0", "treatment": "clip"})
    for task_id, video in (("t1", request_document["structure_video"]), ("t2", other)):
        document = {**request_document, "task_id": task_id, "timeline_id": "shared", "treatment": "clip"}
        runner.put_request(task_id, {**document, "structure_video": video})
        runner.orchestrate(task_id)
    runner.storage.delete([keys.job_flows("t1")])

    assert runner.segments("t1").state == "done"

    result = result_of(runner, "t1")
    assert result.flow_source == "video"
    assert any("another video" in step.reason for step in result.fallbacks)
    guides = []
    for task_id in ("t0", "t1"):
        path = tmp_path / f"{task_id}.mp4"
        runner.storage.get_to_file(keys.segment_file(task_id, 0, "guide.mp4"), path)
        guides.append(list(decode_rgb(path)))
    for one, same in zip(*guides, strict=True):
        assert np.abs(one.astype(int) - same).mean() < 2


def test_frames_replaced_while_a_segment_reads_them_are_not_mixed_in(
    runner: JobRunner, request_document: dict[str, Any], other: str, tmp_path: Path
) -> None:
    """The timeline changes between two readings of one segment: the second comes from the video."""
    document = {**request_document, "timeline_id": "shared"}
    runner.put_request("t1", document)
    runner.orchestrate("t1")
    runner.storage.delete([keys.job_flows("t1")])
    flows = SegmentFlows(record_of(runner, "t1"), runner.services, tmp_path)
    before = flows.read("forward", 0, 4)
    assert str(flows.source) == "frames"

    runner.put_request("t2", {**document, "task_id": "t2", "structure_video": other})
    runner.orchestrate("t2")

    after = flows.read("forward", 4, 8)
    assert str(flows.source) == "video"
    assert any("CRC-32" in step.reason for step in flows.fallbacks)
    for chunk in (before, after):
        assert np.median(chunk[..., 0].astype(float)) == pytest.approx(2, abs=0.3)


def test_a_manifest_held_reads_the_very_frames_or_none(runner: JobRunner) -> None:
    cache = FrameCache(runner.storage)
    held = cache.cache_frames("t", make_frames(4, seed=1))
    assert [frame.sequence for frame in cache.iter_cached_frames("t", [2, 1], manifest=held)] == [2, 1]
    cache.cache_frames("t", make_frames(4, seed=2))
    with pytest.raises(FrameCorruptError, match="frame 2"):
        list(cache.iter_cached_frames("t", [2, 1], manifest=held))

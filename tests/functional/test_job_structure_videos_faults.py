"""Jobs of several structure videos whose shared archives and frames break, or cannot be written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from structureflow import keys
from structureflow.errors import StorageError
from structureflow.flow.archive import open_flow_archive
from structureflow.testing.jobs import JobRunner, put_pan_clip
from structureflow.testing.storage import Fault, FaultStorage
from tests.functional.structure_videos import (
    A,
    done,
    moved_px,
    record_of,
    request,
    result_of,
    runner_with_two_clips,
    video,
)


@pytest.fixture
def runner(tmp_path: Path) -> JobRunner:
    return runner_with_two_clips(tmp_path)


@pytest.mark.parametrize("gone", ["joined", "flows", "frames"])
def test_a_rotten_archive_is_made_good_by_the_sources(runner: JobRunner, tmp_path: Path, gone: str) -> None:
    runner.put_request("t1", request())
    runner.orchestrate("t1")
    record = record_of(runner)
    runner.storage.delete([keys.job_flows("t1"), str(record.flow_cache_key)])
    if gone != "joined":
        runner.storage.delete([source.flow_cache_key for source in record.sources])
    if gone == "frames":
        runner.storage.delete(runner.keys("cache/timelines/"))
    assert runner.segments("t1").state == "done"
    result = result_of(runner, 0)
    assert result.flow_source == {"joined": "cache", "flows": "frames", "frames": "video"}[gone]
    assert (result.fallbacks[0].wanted, result.fallbacks[0].used) == ("cache", "sources")
    guide = video(runner, tmp_path, 0)
    assert [moved_px(guide[0], guide[frame]) for frame in (1, 4, 8)] == [2, 8, 16]
    assert result.left_unguided == ((9, 11),)
    guide = video(runner, tmp_path, 1)
    assert [moved_px(guide[2], guide[frame]) for frame in (3, 6, 10)] == [-3, -12, -24]


def test_a_cache_that_cannot_be_written_stops_nothing(runner: JobRunner, tmp_path: Path) -> None:
    """Each segment then extracts what it needs of each source, and says so."""
    refusing = FaultStorage(
        runner.storage, Fault("put_file", "cache/flows/*", error=StorageError("denied"), times=None)
    )
    runner.services = replace(runner.services, storage=refusing)
    runner.put_request("t1", request())
    assert runner.orchestrate("t1").state == "running"
    assert runner.started
    assert record_of(runner).flows_key is None
    assert runner.segments("t1").state == "done"
    assert result_of(runner, 0).flow_source == "frames"
    guide = video(runner, tmp_path, 0)
    assert [moved_px(guide[0], guide[frame]) for frame in (1, 4, 8)] == [2, 8, 16]


def test_what_is_computed_anew_is_cut_to_shape_as_well(runner: JobRunner, tmp_path: Path) -> None:
    put_pan_clip(runner.storage, "videos/c.mp4", tmp_path, height=96, width=96, dx=2)
    videos = [{"path": A, "end_frame": 9}, {"path": "videos/c.mp4", "start_frame": 14, "source_start_frame": 2}]
    runner.put_request("t1", request(structure_videos=videos))
    runner.orchestrate("t1")
    record = record_of(runner)
    shared = [source.flow_cache_key for source in record.sources]
    runner.storage.delete([keys.job_flows("t1"), str(record.flow_cache_key), *shared])
    assert runner.segments("t1").state == "done"
    assert (result_of(runner, 0).flow_source, result_of(runner, 1).flow_source) == ("frames", "frames")
    guide = video(runner, tmp_path, 0)
    assert moved_px(guide[0], guide[8]) == 16
    guide = video(runner, tmp_path, 1)
    # seven frames over ten; 160/96 of its pixels
    assert moved_px(guide[2], guide[11]) == pytest.approx(6 * 2 * 160 / 96, abs=1)


def test_a_shared_archive_that_is_rotten_is_extracted_anew(runner: JobRunner) -> None:
    done(runner, request())
    record = record_of(runner)
    key = record.sources[1].flow_cache_key
    data = bytearray(runner.storage.get(key).data)
    data[300] ^= 1
    runner.storage.put(key, bytes(data))
    runner.storage.delete([str(record.flow_cache_key)])
    done(runner, request())
    assert [(step.stage, step.wanted, step.used) for step in record_of(runner).fallbacks] == [
        ("join", "cache", "video")
    ]
    assert runner.counts["SharedDamaged"] == 1
    open_flow_archive(runner.storage, key).read("forward", 0, 8)

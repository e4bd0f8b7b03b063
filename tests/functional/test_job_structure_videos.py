"""Jobs of several structure videos on one timeline: what drives which frame, and what is shared."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from structureflow import keys
from structureflow.flow.address import flow_address
from structureflow.flow.archive import FlowArchiveWriter, open_flow_archive
from structureflow.models.results import Manifest
from structureflow.testing.jobs import JobRunner, put_pan_clip
from tests.functional.structure_videos import (
    HEIGHT,
    WIDTH,
    A,
    B,
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


def test_each_source_drives_its_frames_and_nothing_else(runner: JobRunner, tmp_path: Path) -> None:
    done(runner, request())
    first, second = result_of(runner, 0), result_of(runner, 1)
    assert (first.filled, first.left_unguided) == (((1, 8),), ((9, 11),))
    assert (second.filled, second.left_unguided) == (((3, 10),), ((0, 1), (11, 11)))
    assert (first.fallbacks, second.fallbacks) == ((), ())
    assert (first.tracking, second.tracking) == ("anchored", "anchored")
    assert (first.flows_used, second.flows_used) == (8, 8)
    guide = video(runner, tmp_path, 0)
    assert [moved_px(guide[0], guide[frame]) for frame in (1, 4, 8)] == [2, 8, 16]
    assert all(abs(guide[frame] - 128).max() <= 3 for frame in (9, 10, 11))
    guide = video(runner, tmp_path, 1)
    assert [moved_px(guide[2], guide[frame]) for frame in (3, 6, 10)] == [-3, -12, -24]
    for index, kept in ((0, range(9)), (1, range(2, 11))):
        masks = video(runner, tmp_path, index, "mask.mp4")
        assert [int(mask.max()) for mask in masks] == [0 if frame in kept else 255 for frame in range(12)]


def test_the_archive_says_where_its_flows_came_from(runner: JobRunner) -> None:
    done(runner, request())
    record = record_of(runner)
    with np.load(io.BytesIO(runner.storage.get(keys.job_flows("t1")).data), allow_pickle=False) as archive:
        assert archive["flows"].shape == archive["flows_backward"].shape
        assert archive["flows"].shape[0] == archive["total_flows"] == 17
        assert 8 in archive["scene_cuts"]
        sources = json.loads(str(archive["engine_params"]))["sources"]
        flows = archive["flows"]
    assert [(one["source_video"], one["source_start_frame"], one["part_frames"]) for one in sources] == [
        (A, 0, 9),
        (B, 0, 9),
    ]
    assert [one["source_identity"] for one in sources] == [source.identity for source in record.sources]
    scale = flows.shape[2] / WIDTH
    assert np.median(flows[:8, ..., 0]) == pytest.approx(2 * scale, abs=0.1)
    assert not flows[8].any()
    assert np.median(flows[9:, ..., 0]) == pytest.approx(-3 * scale, abs=0.1)
    for source, part in zip(record.sources, (slice(0, 8), slice(9, 17)), strict=True):
        shared = open_flow_archive(runner.storage, source.flow_cache_key)
        np.testing.assert_array_equal(shared.read("forward", 0, 8), flows[part])


def test_the_report_tells_what_drives_which_frames(runner: JobRunner) -> None:
    done(runner, request())
    page = runner.storage.get(keys.job_report("t1")).data.decode()
    assert "frames 0 to 8 of the timeline: <code>videos/a.mp4</code>, its frames 0 to 8" in page
    assert "frames 14 to 22 of the timeline: <code>videos/b.mp4</code>, its frames 0 to 8" in page


def test_a_source_is_extracted_once_whatever_jobs_use_it(runner: JobRunner) -> None:
    assert (
        runner.run("t0", {**request(), "task_id": "t0", "structure_videos": [], "structure_video": A}).state == "done"
    )
    before = set(runner.keys("cache/flows/"))
    done(runner, request())
    record = record_of(runner)
    assert {record.sources[0].flow_cache_key} == before
    shared = {source.flow_cache_key for source in record.sources}
    assert set(runner.keys("cache/flows/")) == shared | {record.flow_cache_key}
    written = {key: runner.storage.head(key).last_modified for key in shared}
    twice = [
        {"path": A, "start_frame": 0, "end_frame": 6, "source_start_frame": 1, "source_end_frame": 7},
        {"path": A, "start_frame": 6, "end_frame": 12},
        {"path": B, "start_frame": 12},
    ]
    assert runner.run("t2", request(task_id="t2", structure_videos=twice)).state == "done"
    assert {key: runner.storage.head(key).last_modified for key in shared} == written
    hits = runner.counts["FlowCacheHits"]
    assert runner.run("t3", request(task_id="t3")).state == "done"
    assert runner.counts["FlowCacheHits"] == hits + 1
    assert len(runner.keys("cache/flows/")) == 4


def test_every_source_has_its_frames_in_its_own_timeline(runner: JobRunner) -> None:
    done(runner, request())
    for source in record_of(runner).sources:
        assert len(runner.keys(keys.timeline_frames_prefix(source.timeline_id))) == 9


@pytest.mark.parametrize("start", [0, 3])
def test_a_part_of_a_source_and_two_ways_to_lay_it(runner: JobRunner, tmp_path: Path, start: int) -> None:
    """Six frames over eleven are half as fast; at its own speed (25 fps in 50) the part lasts as long."""
    part = {"path": A, "start_frame": 1, "end_frame": 12, "source_start_frame": start, "source_end_frame": start + 6}
    segments = [{"frames": 12, "guides": [{"at": 1, "image": "images/a.png"}]}]
    for treatment in ("adjust", "retime"):
        done(runner, request(segments=segments, structure_videos=[part | {"treatment": treatment}]))
        guide = video(runner, tmp_path)
        assert [moved_px(guide[1], guide[frame]) for frame in (3, 7, 11)] == [2, 6, 10]
        assert result_of(runner).left_unguided == ((0, 0),)
    done(runner, request(segments=segments, fps=50, structure_videos=[part | {"treatment": "clip"}]))
    guide = video(runner, tmp_path)
    assert [moved_px(guide[1], guide[frame]) for frame in (3, 7, 11)] == [2, 6, 10]
    done(runner, request(segments=segments, fps=25, structure_videos=[part | {"treatment": "clip"}]))
    guide = video(runner, tmp_path)
    assert [moved_px(guide[1], guide[frame]) for frame in (2, 4, 6)] == [2, 6, 10]
    assert result_of(runner).left_unguided == ((0, 0), (7, 11))


def test_no_more_is_joined_than_plays_at_its_own_speed(runner: JobRunner) -> None:
    """Three frames at 25 fps of a video of 25 fps: two steps, and a frame to look at behind them."""
    videos = [{"path": A, "end_frame": 3, "treatment": "clip"}, {"path": B, "start_frame": 14}]
    done(runner, request(structure_videos=videos, fps=25))
    assert [source.part_frames for source in record_of(runner).sources] == [4, 9]


def test_the_strength_of_a_source_is_its_own(runner: JobRunner, tmp_path: Path) -> None:
    videos = [{"path": A, "end_frame": 9, "motion_strength": 2}, {"path": B, "start_frame": 14, "end_frame": 23}]
    done(runner, request(structure_videos=videos, motion_strength=0.5))
    guide = video(runner, tmp_path, 0)
    assert [moved_px(guide[0], guide[frame]) for frame in (2, 4, 8)] == [8, 16, 32]
    guide = video(runner, tmp_path, 1)
    assert [moved_px(guide[2], guide[frame]) for frame in (4, 6, 10)] == [-3, -6, -12]


def test_no_motion_crosses_a_border_of_sources(runner: JobRunner, tmp_path: Path) -> None:
    """A drives 0 to 5, B goes on at 6: what stands behind the border has no anchor, and is left to the generator."""
    videos = [{"path": A, "end_frame": 6}, {"path": B, "start_frame": 6, "end_frame": 12}]
    guides = [{"at": 0, "image": "images/a.png"}]
    done(runner, request(structure_videos=videos, segments=[{"frames": 12, "guides": guides}]))
    assert result_of(runner).left_unguided == ((6, 11),)
    guides = [{"at": 0, "image": "images/a.png"}, {"at": 11, "image": "images/a.png"}]
    done(runner, request(structure_videos=videos, segments=[{"frames": 12, "guides": guides}], anchors="both"))
    assert result_of(runner).left_unguided == ()
    guide = video(runner, tmp_path)
    # the end image is carried back along B, against its motion
    assert moved_px(guide[11], guide[6]) > 10
    assert moved_px(guide[0], guide[5]) > 10


def test_guided_frames_take_their_time(runner: JobRunner, tmp_path: Path) -> None:
    """Behind a guide of three frames the source is three frames on: its motion is that of its frames there."""
    guides = [{"at": 0, "image": "images/a.png"}, {"at": [3, 5], "image": "images/a.png"}]
    videos = [{"path": A, "end_frame": 9}]
    done(
        runner,
        request(
            structure_videos=videos, segments=[{"frames": 9, "guides": guides}], outputs=["raw", "tracks", "vace_flow"]
        ),
    )
    raw = video(runner, tmp_path, 0, "raw.mp4")
    assert moved_px(raw[2], raw[6]) == 8
    path = tmp_path / "tracks.npy"
    runner.storage.get_to_file(result_of(runner).outputs["tracks/tracks.npy"].key, path)
    tracks = np.load(path)[0]
    inner = (tracks[0, :, 0] > 30) & (tracks[0, :, 0] < 120)
    np.testing.assert_allclose(np.median((tracks[8] - tracks[0])[inner], axis=0), [16, 0], atol=0.5)
    np.testing.assert_allclose(np.median((tracks[5] - tracks[3])[inner], axis=0), [4, 0], atol=0.5)


@pytest.mark.parametrize(("shape", "expected"), [((96, 96), 4), ((192, 160), 2), ((48, 80), 4)])
def test_sources_of_other_shapes_are_covered_and_cut(
    runner: JobRunner, tmp_path: Path, shape: tuple[int, int], expected: int
) -> None:
    """A video of half the size moves twice as far in pixels of the output; what hangs over is cut, as in pictures."""
    height, width = shape
    scale = max(WIDTH / width, HEIGHT / height)
    dx = round(expected / scale)
    put_pan_clip(runner.storage, "videos/c.mp4", tmp_path, height=height, width=width, dx=dx)
    videos = [{"path": A, "end_frame": 9}, {"path": "videos/c.mp4", "start_frame": 14, "end_frame": 23}]
    done(runner, request(structure_videos=videos, outputs=["raw"]))
    guide = video(runner, tmp_path, 0)
    assert moved_px(guide[0], guide[8]) == 16
    guide = video(runner, tmp_path, 1)
    assert moved_px(guide[2], guide[6]) == pytest.approx(4 * dx * scale, abs=1)
    raw = video(runner, tmp_path, 1, "raw.mp4")
    assert moved_px(raw[3], raw[6]) == pytest.approx(3 * dx * scale, abs=1)
    assert result_of(runner, 1).fallbacks == ()
    assert result_of(runner, 1).tracking == "anchored"


# --- the lineage's requests ----------------------------------------------------------------------------------


def test_the_stitched_timeline_of_the_original(runner: JobRunner, tmp_path: Path) -> None:
    """Segments share their overlaps: three of 12 with 3 in common end at 30, and the second begins at 9."""
    document = {
        "orchestrator_task_id": "t1",
        "structure_videos": [
            {"path": A, "start_frame": 0, "end_frame": 15, "treatment": "adjust"},
            {"path": B, "start_frame": 15, "end_frame": 30, "treatment": "adjust", "motion_strength": 1.0},
        ],
        "images": ["images/a.png"] * 4,
        "frames": 12,
        "overlap": 3,
        "fade": 0,
    }
    done(runner, document)
    record = record_of(runner)
    assert record.request.segment_starts == (0, 9, 18, 30)
    assert record.request.mask == "keyframes"
    # the second segment: A drives its frames 0 to 5 (timeline 9 to 14), B the others, which have no anchor of their own
    assert result_of(runner, 1).left_unguided == ((6, 11),)
    assert result_of(runner, 2).left_unguided == ()


def test_an_end_behind_the_video_is_its_end_and_said(runner: JobRunner) -> None:
    videos = [{"path": A, "end_frame": 12, "source_end_frame": 200}]
    done(runner, request(structure_videos=videos))
    manifest = Manifest.model_validate_json(runner.storage.get(keys.job_manifest("t1")).data)
    assert any(
        "structure_videos[0].source_end_frame: videos/a.mp4 has 9 frames, fewer than" in one for one in manifest.notices
    )
    assert (
        "videos/a.mp4 has 9 frames, fewer than 200; it is played to its end"
        in runner.storage.get(keys.job_report("t1")).data.decode()
    )


def test_one_source_over_all_is_as_good_as_the_video_alone(runner: JobRunner, tmp_path: Path) -> None:
    segments = [{"frames": 9, "guides": [{"at": 0, "image": "images/a.png"}]}]
    done(runner, request(structure_videos=[{"path": A}], segments=segments))
    several = video(runner, tmp_path)
    done(runner, request(structure_videos=[], structure_video=A, segments=segments, treatment="clip"))
    for one, other in zip(several, video(runner, tmp_path), strict=True):
        assert np.abs(one - other)[8:-8, 24:-8].mean() < 2


# --- refusals ------------------------------------------------------------------------------------------------


def test_a_part_without_motion_is_refused(runner: JobRunner) -> None:
    status = runner.run("t1", request(structure_videos=[{"path": A, "source_start_frame": 8}]))
    assert status.error is not None
    assert status.error.code == "InvalidRequestError"
    assert "structure_videos[0].source_start_frame: expected at most 7, for videos/a.mp4 has 9" in status.error.message
    assert runner.keys(keys.job_flows("t1")) == []


def test_raft_takes_what_is_there_and_says_what_is_not(runner: JobRunner) -> None:
    status = runner.run("t1", request(engine="raft"))
    assert status.error is not None
    assert status.error.code == "EngineUnavailableError"
    assert "videos/a.mp4, videos/b.mp4" in status.error.message
    assert runner.keys("cache/") == []


@pytest.mark.parametrize("engine", ["raft", "auto"])
def test_raft_flows_that_are_there_are_joined(runner: JobRunner, tmp_path: Path, engine: str) -> None:
    """Left by jobs on one video each; `auto` takes them where there is a GPU part."""

    # it has nothing to start a task with
    runner.services = replace(runner.services, gpu=cast("Any", SimpleNamespace(timeout_s=60.0, auto_pixel_frames=1)))
    done(runner, request(engine="dis"))
    for source in record_of(runner).sources:
        flows = open_flow_archive(runner.storage, source.flow_cache_key).read("forward", 0, 8)
        path = tmp_path / "raft.npz"
        with FlowArchiveWriter(path, height=flows.shape[1], width=flows.shape[2]) as writer:
            for flow in flows:
                writer.feed(flow, -flow)
            writer.finish(
                original_height=HEIGHT,
                original_width=WIDTH,
                original_fps=25.0,
                engine="raft",
                engine_params={},
                timestamps_s=np.arange(9) / 25,
                source_identity=source.identity,
            )
        runner.storage.put_file(keys.flow_cache(flow_address(source.identity, "raft", "balanced")), path)
    runner.storage.delete([str(record_of(runner).flow_cache_key)])
    done(runner, request(engine=engine))
    record = record_of(runner)
    assert (record.engine, [source.engine for source in record.sources]) == ("raft", ["raft", "raft"])
    assert result_of(runner).fallbacks == ()

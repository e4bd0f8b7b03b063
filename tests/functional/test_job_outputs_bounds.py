"""Further outputs of the smallest job, past the end of the motion, without cached frames; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structureflow import keys
from structureflow.limits import MIN_OUTPUT_SIDE_PX
from structureflow.models.results import Manifest
from structureflow.testing.jobs import JobRunner
from tests.functional.outputs import (
    FRAMES,
    GUIDED,
    OUTPUTS,
    STEP_PX,
    VIDEO,
    distance,
    job_runner,
    run,
    shown_at,
    structure_frames,
)
from tests.readers import go_with_the_flow, tracks, ttm, vace
from tests.readers.videos import read_video


def test_all_outputs_of_the_smallest_job(tmp_path: Path) -> None:
    """The smallest legal sides, the fewest frames, under `adjust`, where no frame of the video stands at a frame."""
    runner = job_runner(tmp_path)
    side = MIN_OUTPUT_SIDE_PX
    published = run(
        runner,
        tmp_path / "out",
        outputs=OUTPUTS,
        resolution=[side, side],
        treatment="adjust",
        tracks={"grid": [1, 1]},
        segments=[{"frames": 2, "guides": [{"at": 0, "image": "images/a.png"}]}],
    )
    folder = published.folder
    pictures, generate = vace.read_control(folder / "vace_flow.mp4", folder / "vace_flow_mask.mp4")
    assert pictures.shape == (2, side, side, 3)
    assert generate.all()
    places, _ = tracks.read_wan_move(folder / "tracks" / "tracks.npy", folder / "tracks" / "visibility.npy")
    assert places.shape == (2, 1, 2)
    assert tracks.read_ati(folder / "tracks" / "ati.pth", side, side).shape == (81, 1, 4)
    assert tracks.read_comfy(folder / "tracks" / "ati.json", side, side).shape == (81, 1, 4)
    noise, _ = go_with_the_flow.read_sample(folder / "warped_noise")
    assert noise.shape == (2, 16, -(-side // 8), -(-side // 8))
    assert ttm.read_folder(folder / "ttm", 2).image.shape == (side, side, 3)
    for name in ("raw", "canny"):
        shown, _ = read_video(folder / f"{name}.mp4")
        assert shown[0].max() <= 1
        assert shown[1].max() > 100


def test_outputs_past_the_end_of_the_motion_say_so(tmp_path: Path) -> None:
    """Under `clip` eight flows last for eight frames; ten more follow, of which nothing is known."""
    runner = job_runner(tmp_path)
    published = run(
        runner,
        tmp_path / "out",
        outputs=OUTPUTS,
        treatment="clip",
        tracks={"points": [[40, 48]]},
        segments=[{"frames": 19, "guides": [{"at": 0, "image": "images/a.png"}]}],
    )
    folder = published.folder
    pictures, _ = vace.read_control(folder / "vace_flow.mp4", folder / "vace_flow_mask.mp4")
    raw, _ = read_video(folder / "raw.mp4")
    places, seen = tracks.read_wan_move(folder / "tracks" / "tracks.npy", folder / "tracks" / "visibility.npy")
    noise, _ = go_with_the_flow.read_sample(folder / "warped_noise")
    sample = ttm.read_folder(folder / "ttm", 19)
    np.testing.assert_allclose(places[8, 0], [56, 48], atol=0.6)
    assert seen[:, 0].tolist() == [True] * 9 + [False] * 10
    for index in range(9, 19):
        np.testing.assert_allclose(pictures[index], 128, atol=3)
        assert raw[index].max() <= 3
        np.testing.assert_array_equal(noise[index], noise[8])
        np.testing.assert_array_equal(places[index], places[8])
        assert sample.mask[index].max() <= 2
        assert distance(sample.signal[index], sample.signal[8]) < 4


def test_outputs_from_the_video_where_no_frames_are_cached(tmp_path: Path) -> None:
    """Frames and flows are gone: the segment reads the video, once for each, and says so."""
    runner = job_runner(tmp_path)
    document = {
        "task_id": "t1",
        "structure_video": VIDEO,
        "treatment": "retime",
        "outputs": ["raw", "tracks"],
        "segments": [{"frames": FRAMES, "guides": [{"at": [0, GUIDED - 1], "image": "images/a.png"}]}],
    }
    runner.put_request("t1", document)
    runner.orchestrate("t1")
    runner.storage.delete(runner.keys("cache/timelines/"))
    assert runner.segments("t1").state == "done"
    key = keys.segment_file("t1", 0, "raw.mp4")
    runner.storage.get_to_file(key, tmp_path / "raw.mp4")
    shown, _ = read_video(tmp_path / "raw.mp4")
    for index in range(GUIDED, FRAMES):
        errors = [distance(shown[index], frame) for frame in structure_frames()]
        assert int(np.argmin(errors)) == shown_at(index)
    manifest = Manifest.model_validate_json(runner.storage.get(keys.job_manifest("t1")).data)
    (fallback,) = manifest.segments[0].fallbacks
    assert (fallback.stage, fallback.used) == ("tracking", "video")
    assert manifest.segments[0].tracking == "anchored"


def test_a_pan_is_the_cameras_and_nothing_is_the_subjects(tmp_path: Path) -> None:
    shown = {}
    for part in ("camera", "subject"):
        (tmp_path / part).mkdir()
        published = run(job_runner(tmp_path / part), tmp_path / part / "out", motion=part)
        shown[part] = read_video(published.folder / "guide.mp4")[0]
    last = STEP_PX * (FRAMES - GUIDED)
    shift = round(last)
    moved = shown["camera"][-1][8:-8, 40 + shift : -8]
    still = shown["subject"][-1][8:-8, 40:-8]
    assert distance(moved, shown["camera"][0][8:-8, 40 : -8 - shift]) < 6
    assert distance(still, shown["subject"][0][8:-8, 40:-8]) < 3


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"outputs": ["depth"]}, "outputs[0]: expected one of"),
        ({"outputs": ["ttm"], "segments": [{"frames": 9, "guides": [{"at": 1, "image": "images/a.png"}]}]}, "frame 0"),
        ({"outputs": ["tracks"], "tracks": {"points": [[160, 3]]}}, "frame of 160x96"),
        ({"outputs": ["tracks"], "tracks": {"points": [[3, -1]]}, "resolution": [64, 64]}, "frame of 64x64"),
        ({"outputs": ["tracks"], "tracks": {"box": [0, 0, 161, 50]}}, "161"),
        ({"tracks": {"box": [9, 0, 9, 50]}}, "box"),
        ({"tracks": {"grid": [64, 64]}}, "1024"),
        ({"tracks": {"grid": [4, 4], "points": [[1, 1]]}}, "tracks.grid: expected none beside points, got one"),
        ({"tracks": {"points": []}}, "tracks.points"),
        ({"noise": {"channels": 0}}, "noise.channels"),
        ({"noise": {"latent_size": [1, 60]}}, "latent_size"),
        ({"canny": {"low": 201}}, "canny.low: expected at most high, 200, got 201"),
        ({"motion": "object"}, "motion"),
        ({"prompt": "a" * 9000}, "prompt"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(runner: JobRunner, fields: dict[str, Any], said: str) -> None:
    segments = [{"frames": 9, "guides": [{"at": 0, "image": "images/a.png"}]}]
    document = {"task_id": "t1", "structure_video": VIDEO, "segments": segments, **fields}
    status = runner.run("t1", document)
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "InvalidRequestError"
    assert said in status.error.message
    assert not runner.keys("jobs/t1/segments/")

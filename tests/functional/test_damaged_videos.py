"""A video of a job that cannot be used: every door says which one of several it is, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.jobs.inputs import Inputs
from structureflow.testing.jobs import png
from structureflow.testing.videos import pan_frames, texture, write_clip, write_damaged_clip
from structureflow_local import cli
from tests.functional.structure_videos import HEIGHT, WIDTH, A, B, request, runner_with_two_clips

#: More than any clip of these tests has, but for the one that has too many.
MOST_FRAMES = 60


def clip(path: Path, frames: int) -> bytes:
    return write_clip(path, pan_frames(frames, HEIGHT, WIDTH, dx=2, dy=0), 20).read_bytes()


def broken_off(path: Path) -> bytes:
    whole = clip(path, 40)
    return whole[: len(whole) * 2 // 3]


#: By what is wrong: the bytes, the error's type, and what its message says behind the video's name.
BAD: dict[str, tuple[Callable[[Path], bytes], str, str]] = {
    "a text": (lambda _: b"no video\n" * 100, "NotAVideoError", "expected a video, got a file that no decoder opens"),
    "a picture": (lambda _: png(texture(HEIGHT, WIDTH)), "NotAVideoError", "expected a video"),
    "empty": (lambda _: b"", "MediaLimitError", "the file is empty"),
    "broken off": (broken_off, "CorruptMediaError", "damaged at frame "),
    "a hole": (lambda path: write_damaged_clip(path).read_bytes(), "CorruptMediaError", "damaged at frame "),
    "one frame": (lambda path: clip(path, 1), "VideoTooShortError", "expected at least 2 frames, got 1"),
    "too many": (lambda path: clip(path, MOST_FRAMES + 1), "MediaLimitError", f"expected at most {MOST_FRAMES} frames"),
    "large": (lambda path: clip(path, 3) + bytes(2_000_000), "MediaLimitError", "expected at most 1000000 bytes"),
}


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("wrong", BAD)
def test_a_job_says_which_of_its_videos_it_cannot_use(tmp_path: Path, wrong: str, number: int) -> None:
    data, code, message = BAD[wrong]
    runner = runner_with_two_clips(tmp_path)
    inputs = Inputs(runner.storage, "bucket", max_bytes=1_000_000)
    runner.services = replace(runner.services, max_video_frames=MOST_FRAMES, inputs=inputs)
    key = (A, B)[number]
    runner.storage.put(key, data(tmp_path / "bad.mp4"))
    status = runner.run("t1", request())
    assert status.error is not None
    assert (status.state, status.stage, status.error.code) == ("failed", "orchestrate", code)
    assert status.error.message.startswith(f"structure_videos[{number}].path: {key}: {message}"), status.error.message
    assert runner.keys(keys.job_flows("t1")) == []
    # the whole one may be there for the next job
    assert len(runner.keys("cache/flows/")) == (number if code != "MediaLimitError" or wrong == "too many" else 0)


def test_a_video_that_is_not_there_is_named(tmp_path: Path) -> None:
    runner = runner_with_two_clips(tmp_path)
    runner.storage.delete([B])
    status = runner.run("t1", request())
    assert status.error is not None
    assert (status.error.code, status.error.detail) == ("InputNotFoundError", {"reference": B})
    assert status.error.message == f"structure_videos[1].path: {B}: there is no such file"


@pytest.mark.parametrize("wrong", ["a text", "broken off"])
def test_a_guide_video_is_named_as_the_request_names_it(tmp_path: Path, wrong: str) -> None:
    data, code, message = BAD[wrong]
    runner = runner_with_two_clips(tmp_path)
    runner.storage.put("videos/guide.mp4", data(tmp_path / "bad.mp4"))
    guides = [{"at": [0, 5], "video": "videos/guide.mp4", "from": 19}]
    status = runner.run("t1", request(segments=[{"frames": 23, "guides": guides}]))
    assert status.error is not None
    assert status.error.code == code
    assert f"videos/guide.mp4: {message}" in status.error.message


# --- the command line ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("wrong", ["a text", "a picture", "empty", "broken off", "one frame"])
@pytest.mark.parametrize("command", ["validate", "run"])
def test_the_command_line_says_it_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, wrong: str, number: int
) -> None:
    job = job_file(tmp_path, number, BAD[wrong][0])
    more = ["--out", str(tmp_path / "out")] if command == "run" else []
    assert cli.main([command, str(job), *more]) == 2
    said = "".join(capsys.readouterr())
    assert f"structure_videos[{number}].path: {tmp_path / 'bad.mp4'}: expected a" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [0, 1])
def test_a_run_says_what_only_decoding_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int) -> None:
    job = job_file(tmp_path, number, BAD["a hole"][0])
    arguments = ["run", str(job), "--out", str(tmp_path / "out"), "--store", str(tmp_path / "store")]
    assert cli.main(arguments) == 3
    said = "".join(capsys.readouterr())
    assert f"CorruptMediaError: structure_videos[{number}].path: " in said
    assert "bad.mp4: damaged at frame " in said


def job_file(folder: Path, number: int, bad: Callable[[Path], bytes]) -> Path:
    good = folder / "good.mp4"
    clip(good, 9)
    path = folder / "bad.mp4"
    data = bad(path)
    path.write_bytes(data)
    (folder / "a.png").write_bytes(png(texture(HEIGHT, WIDTH)))
    places: list[dict[str, Any]] = [
        {"path": str(good), "start_frame": 0, "end_frame": 6},
        {"path": str(good), "start_frame": 6, "end_frame": 12},
    ]
    places[number]["path"] = str(path)
    job = folder / "job.json"
    segments = [{"frames": 12, "guides": [{"at": 0, "image": str(folder / "a.png")}]}]
    job.write_text(json.dumps({"task_id": "t1", "structure_videos": places, "segments": segments}))
    return job

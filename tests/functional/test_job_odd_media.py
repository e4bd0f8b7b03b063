"""Whole jobs on videos of every kind, each as the structure video and as a guide video of the same job."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from av.stream import Disposition

from structureflow import keys
from structureflow.guide.images import fit
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.models.results import JobRecord
from structureflow.testing import odd_videos
from structureflow.testing.jobs import JobRunner
from structureflow.testing.odd_videos import write_video
from structureflow.testing.videos import Image, decode_rgb, pan_frames, write_clip
from tests.conftest import real_clip

COUNT, HEIGHT, WIDTH = 12, 96, 160


def pan(count: int = COUNT, height: int = HEIGHT, width: int = WIDTH) -> list[Image]:
    return list(pan_frames(count, height, width, dx=2, dy=0))


def fields(path: Path) -> Path:
    return write_video(
        path, odd_videos.woven_fields(pan(2 * COUNT)), options={"crf": "8", "x264-params": "tff=1"}, field="tff"
    )


def mirrored(path: Path) -> Path:
    return odd_videos.set_display_matrix(write_clip(path, pan()), -1, 0, 0, 1)


def turned(path: Path) -> Path:
    return odd_videos.set_display_matrix(write_clip(path, pan()), 0, 1, -1, 0)


def previewed(path: Path) -> Path:
    small = pan(COUNT, 48, 80)
    return odd_videos.beside(path, [("libx264", small, 0), ("libx264", pan(), Disposition.default)])


def trimmed(path: Path) -> Path:
    return odd_videos.copy_from(write_clip(path.with_name("whole.mp4"), pan(COUNT + 5)), path, 5)


#: Of each kind: the file's name, its maker, the (width, height) at which it is displayed.
KINDS: list[tuple[str, Callable[[Path], Path], tuple[int, int]]] = [
    ("fields.mp4", fields, (160, 96)),
    ("mirror.mp4", mirrored, (160, 96)),
    ("turned.mp4", turned, (96, 160)),
    ("preview.mp4", previewed, (160, 96)),
    ("trim.mp4", trimmed, (160, 96)),
    ("wide.mp4", lambda path: write_video(path, pan(), sar=Fraction(2)), (320, 96)),
    ("sound.mkv", lambda path: write_video(path, pan(), sound_s=3), (160, 96)),
    ("late.ts", lambda path: write_video(path, pan(), sound_s=3, starts_at_s=2), (160, 96)),
    ("live.webm", lambda path: write_video(path, pan(), codec="libvpx", container={"live": "1"}), (160, 96)),
    ("av1.mp4", lambda path: write_video(path, pan(), codec="libsvtav1", options={"preset": "10"}), (160, 96)),
    ("anim.apng", lambda path: write_video(path, pan(), codec="apng", pix_fmt="rgb24"), (160, 96)),
    ("odd.mkv", lambda path: write_video(path, pan(COUNT, 97, 161), codec="ffv1"), (161, 97)),
]
ODD = [
    ("interlaced_mpeg2.mpg", 25, (320, 240)),
    ("interlaced_psf_h264.mp4", 24, (320, 240)),
    ("matrix_mirror_h.mp4", 24, (320, 240)),
    ("matrix_mirror_v.mp4", 24, (320, 240)),
    ("matrix_transpose.mp4", 24, (240, 320)),
    ("trim_copy.mp4", 7, (320, 240)),
    ("audio_longer_0.3s.mkv", 24, (320, 240)),
    ("audio_longer_0.3s.ts", 24, (320, 240)),
    ("audio_longer_2s.webm", 24, (320, 240)),
    ("video_starts_late.mkv", 24, (320, 240)),
    ("av1.webm", 24, (320, 240)),
    ("sar_2_1.mp4", 24, (640, 240)),
    ("vfr.mp4", 24, (320, 240)),
    ("preview_stream_first.mp4", 24, (320, 240)),
    ("cover_first.mkv", 24, (320, 240)),
    ("live.webm", 24, (320, 240)),
    ("alpha_guide.mov", 6, (320, 240)),
    ("anim.webp", 12, (160, 120)),
    ("wait...what.mp4", 24, (320, 240)),
]


@pytest.mark.parametrize(("name", "make", "size"), KINDS, ids=[kind[0] for kind in KINDS])
def test_made_videos_of_every_kind(
    runner: JobRunner, tmp_path: Path, name: str, make: Callable[[Path], Path], size: tuple[int, int]
) -> None:
    check_job(runner, make(tmp_path / name), COUNT, size, tmp_path)


@pytest.mark.parametrize(("name", "count", "size"), ODD, ids=[odd[0] for odd in ODD])
def test_real_files_of_every_kind(
    runner: JobRunner, tmp_path: Path, name: str, count: int, size: tuple[int, int]
) -> None:
    # FFmpeg's test picture has parts that jump, which no motion explains
    check_job(runner, real_clip(f"odd/{name}"), count, size, tmp_path, explained=False)


def check_job(
    runner: JobRunner, video: Path, count: int, size: tuple[int, int], folder: Path, *, explained: bool = True
) -> None:
    """Carry a video's own first frames along its own motion, to its own last frames.

    The guided frames must be those of the video; the others must come closer to it than if nothing had moved, or
    if they had been left grey.
    """
    key = f"videos/{video.name}"
    runner.storage.put(key, video.read_bytes())
    guides = [{"at": [0, 1], "video": key}, {"at": [count - 2, count - 1], "video": key, "from": count - 2}]
    request = {
        "task_id": "t1", "structure_video": key, "anchors": "both", "treatment": "clip", "mask": "filled",
        "segments": [{"frames": count, "guides": guides}],
    }  # fmt: skip
    status = runner.run("t1", request)
    assert status.state == "done", status.error

    record = JobRecord.model_validate_json(runner.storage.get(keys.job_record("t1")).data)
    assert (record.source.frames, record.source.width_px, record.source.height_px) == (count, *size)
    runner.storage.get_to_file(keys.segment_file("t1", 0, "guide.mp4"), folder / "guide.mp4")
    shown = list(decode_rgb(folder / "guide.mp4"))
    with VideoReader(video, DecodeLimits()) as reader:
        real = [fit(frame.image, *shown[0].shape[:2]) for frame in reader]
    assert len(shown) == len(real) == count
    guided = {0, 1, count - 2, count - 1}
    for index in guided:
        assert distance(shown[index], real[index]) < 7
    between = [index for index in range(count) if index not in guided]
    moved = np.mean([distance(shown[index], real[index]) for index in between])
    assert moved < 0.7 * np.mean([np.abs(real[index].astype(float) - 128).mean() for index in between])
    assert not explained or moved < 0.9 * np.mean([distance(real[1], real[index]) for index in between])


def distance(one: Image, other: Image) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())

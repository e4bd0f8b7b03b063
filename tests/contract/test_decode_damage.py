"""Damaged, cut, oversized and unknown videos: an error that says where, and never unwritten memory."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from structureflow.errors import (
    CorruptMediaError,
    MediaLimitError,
    NotAVideoError,
    UnsupportedCodecError,
    VideoTooShortError,
)
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.testing import odd_videos
from structureflow.testing.odd_videos import write_video
from structureflow.testing.videos import write_clip
from tests.contract.decoding import COUNT, decode, pan
from tests.contract.test_decode_colours import hdr_clip

# --- damage and limits -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "notices"),
    [
        ("a.mp4", "libx264", "lost frames"),
        ("a.ts", "libx264", "lost frames"),
        ("a.webm", "libsvtav1", "lost frames"),
        ("a.apng", "apng", "every bit"),
        ("a.mov", "png", "every bit"),
        ("a.mpg", "mpeg2video", "broken pictures"),
        ("a.flv", "flv", "broken pictures"),
        ("a.avi", "mjpeg", "broken pictures"),
    ],
)
def test_damage_is_an_error_that_says_where(tmp_path: Path, name: str, codec: str, notices: str) -> None:
    """Wherever it hits: an error, or what the container and the codec have no means to notice."""
    options = {
        "libx264": {"crf": "8", "g": "6"},
        "libsvtav1": {"crf": "15", "preset": "10"},
    }
    pix_fmt = {"mjpeg": "yuvj420p", "apng": "rgb24", "png": "rgb24"}.get(codec, "yuv420p")
    path = write_video(tmp_path / name, pan(24), codec=codec, pix_fmt=pix_fmt, options=options.get(codec))
    whole, clean = decode(path), path.read_bytes()
    messages = []
    shares = np.linspace(0.1, 0.95, 18)
    for share in shares:
        path.write_bytes(clean)
        odd_videos.damage(path, share, 300)
        try:
            frames = decode(path)
        except (CorruptMediaError, NotAVideoError) as found:
            messages.append(found.message)
            continue
        if notices != "broken pictures":
            assert len(frames) == 24
        if notices == "every bit":
            for frame, before in zip(frames, whole, strict=True):
                np.testing.assert_array_equal(frame.image, before.image)
    assert len(messages) >= 0.5 * len(shares)
    assert sum("damaged at frame " in message for message in messages) >= 0.5 * len(shares)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi", "a.gif", "a.apng", "a.webp", "live.mkv"])
def test_a_file_that_breaks_off_is_an_error(tmp_path: Path, name: str) -> None:
    codec, pix_fmt = {
        ".mp4": ("libx264", "yuv420p"),
        ".mkv": ("libx264", "yuv420p"),
        ".webm": ("libvpx", "yuv420p"),
        ".avi": ("mpeg4", "yuv420p"),
        ".gif": ("gif", "rgb8"),
        ".apng": ("apng", "rgb24"),
        ".webp": ("libwebp_anim", "bgra"),
    }[Path(name).suffix]
    container = {"live": "1"} if name.startswith("live") else {"movflags": "faststart"} if name == "a.mp4" else None
    path = write_video(tmp_path / name, pan(24), codec=codec, pix_fmt=pix_fmt, container=container)
    data = path.read_bytes()
    for share in (0.5, 0.8, 0.97):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises((CorruptMediaError, NotAVideoError)), VideoReader(path) as reader:
            list(reader)


def test_an_unknown_codec_is_named(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", pan(3))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"avc1", b"zzzz"))
    with pytest.raises(UnsupportedCodecError, match="no decoder for its video codec, 'zzzz'"):
        VideoReader(path)
    path.write_bytes(data.replace(b"avc1", b"avs3"))
    with pytest.raises(UnsupportedCodecError, match="no decoder for its video codec, avs3"):
        VideoReader(path)


def test_a_promise_beyond_the_limits_is_checked_not_believed(tmp_path: Path) -> None:
    """A header that counts wrongly, as AVI's and MP4's of broken recorders do, costs no good file."""
    path = write_video(tmp_path / "a.avi", pan(), codec="mpeg4")
    data = bytearray(path.read_bytes())
    for name, offset in ((b"avih", 24), (b"strh", 40)):
        at = data.index(name) + offset
        data[at : at + 4] = (1_000_000).to_bytes(4, "little")
    path.write_bytes(data)
    assert len(decode(path)) == COUNT
    with pytest.raises(MediaLimitError, match="at most 5 frames"):
        VideoReader(path, DecodeLimits(max_frames=5))


@pytest.mark.parametrize(("height", "width"), [(64, 8208), (8208, 64)])
def test_sides_are_bounded_before_a_picture_is_decoded(tmp_path: Path, height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    path = write_video(tmp_path / "a.mkv", [image, image], codec="ffv1")
    with pytest.raises(MediaLimitError, match="sides of 32 to 8192 pixels"):
        VideoReader(path)


def test_a_displayed_side_is_bounded_too(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", pan(2), sar=Fraction(80))
    with pytest.raises(MediaLimitError, match="got 10240x96 displayed"):
        VideoReader(path)


def test_a_stream_that_grows_beyond_the_limits_is_refused(tmp_path: Path) -> None:
    small = write_video(tmp_path / "s.ts", pan(4))
    large = write_video(tmp_path / "l.ts", pan(4, 256, 320))
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with (
        pytest.raises(CorruptMediaError, match=r"damaged at frame \d"),
        VideoReader(both, DecodeLimits(max_side_px=128)) as reader,
    ):
        list(reader)


# --- memory that was not written ---------------------------------------------------------------------

PRINT_DIGESTS = """
import hashlib, sys
from pathlib import Path
from structureflow.media.decode import DecodeLimits, VideoReader
for name in sys.argv[1:]:
    with VideoReader(Path(name), DecodeLimits(min_frames=1), threads=1) as reader:
        digest = hashlib.sha256()
        for frame in reader:
            digest.update(frame.image.tobytes())
        print(Path(name).name, digest.hexdigest())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc can be told to poison what it hands out")
def test_no_picture_shows_memory_that_was_not_written(tmp_path: Path) -> None:
    """The pictures of a file are the same whatever fresh memory holds, and whatever was decoded before it."""
    fields = {"crf": "8", "x264-params": "tff=1"}
    files = [
        write_video(tmp_path / "plain.mp4", pan()),
        write_video(tmp_path / "odd.mkv", pan(4, 97, 131), codec="ffv1"),
        write_video(tmp_path / "fields.mp4", pan(), options=fields, field="tff"),
        write_video(tmp_path / "fields422.mp4", pan(), pix_fmt="yuv422p", options=fields, field="tff"),
        write_video(tmp_path / "fields.mpg", pan(), codec="mpeg2video", field="tff"),
        write_video(tmp_path / "fields.dv", pan(3, 576, 720), codec="dvvideo"),
        write_video(tmp_path / "fields.mov", pan(), codec="prores_ks", pix_fmt="yuv422p10le", field="tff"),
        write_video(tmp_path / "wide.mp4", pan(), sar=Fraction(4, 3)),
        odd_videos.set_display_matrix(write_clip(tmp_path / "turned.mp4", pan()), 0, 1, -1, 0),
        hdr_clip(tmp_path / "hdr.mkv", 18),
        write_video(
            tmp_path / "hole.mov", odd_videos.with_hole(pan()), codec="qtrle", pix_fmt="argb", source_format="rgba"
        ),
        write_video(tmp_path / "a.apng", pan(), codec="apng", pix_fmt="rgb24"),
    ]
    digests = []
    for poison, order in (("85", files), ("170", files[::-1])):
        done = subprocess.run(
            [sys.executable, "-c", PRINT_DIGESTS, *map(str, order)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "MALLOC_PERTURB_": poison},
        )
        digests.append(dict(line.split() for line in done.stdout.splitlines()))
    assert len(digests[0]) == len(files)
    assert digests[0] == digests[1]


def test_a_still_picture_is_too_short(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", pan(1))
    with pytest.raises(VideoTooShortError), VideoReader(path) as reader:
        list(reader)
